"""Network shapes, and the one place that walks a network."""
