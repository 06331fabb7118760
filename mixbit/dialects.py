"""Names of the dialects that a deployable is written in. Its file, and the input of a stage, are called the same.

`packed` is smallest and needs a recent runtime; `bytes` holds every weight code in a byte, for all others.
"""

PACKED, BYTES = "packed", "bytes"
DIALECTS = (PACKED, BYTES)


def file_name(dialect: str) -> str:
    """What the file of a dialect is called."""
    return f"{dialect}.onnx"
