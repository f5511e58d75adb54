"""The commands: thin, they parse, call the packages below, and print."""
