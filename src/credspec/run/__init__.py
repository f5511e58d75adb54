"""`credspec run`: a plain process with tickets."""
