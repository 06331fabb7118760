"""In what order: the flow, and the `mixbit` command."""
