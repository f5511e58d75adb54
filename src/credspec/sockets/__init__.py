"""Unix sockets of services: who may connect, how many at a time, bytes handed on."""
