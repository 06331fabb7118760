"""Where things are, for stages and flows."""

from mixbit.place import ROOT, state_dir

__all__ = ["ROOT", "state_dir"]
