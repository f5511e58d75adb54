"""Kerberos: keys from managed passwords, tickets from keys, caches and krb5.conf."""
