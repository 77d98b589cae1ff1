"""Small things that any other package may use and that use none."""
