"""`credspec setup`: units, engines and launchers, as root and once."""
