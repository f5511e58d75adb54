"""Users who do to a socket whatever they can think of, one module for each socket."""
