"""How bits are chosen: one solver, one file per method."""
