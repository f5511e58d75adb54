"""What launchers of an earlier version import, until `credspec setup` writes them again."""
