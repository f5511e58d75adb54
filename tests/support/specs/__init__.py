"""Generated credential specs, and other spellings of the names in what engines are given."""
