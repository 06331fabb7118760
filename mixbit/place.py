"""Where things are: the checkout, and the folder that holds records, blobs and the local servers' data."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def state_dir() -> Path:
    """`$MIXBIT_HOME`, else `.mixbit` in the checkout."""
    return Path(os.environ.get("MIXBIT_HOME") or ROOT / ".mixbit").resolve()
