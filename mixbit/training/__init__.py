"""Training loops that resume to the same bytes."""
