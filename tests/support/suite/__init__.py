"""How this suite itself runs: spread over workers, with how much input, as which user."""
