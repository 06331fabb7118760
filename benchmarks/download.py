"""Megabytes that the first `make demo` downloads on a plain machine: sizes of the files pip would take.

Example: env PIP_CONFIG_FILE=/dev/null .venv/bin/python benchmarks/download.py
"""

import json
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

from machine import machine

ROOT = Path(__file__).resolve().parent.parent


def megabytes(*arguments: str) -> float:
    """Summed sizes of what `pip install ARGUMENTS` would download."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        pip = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--dry-run",
            "--ignore-installed",
            "--report",
            str(report),
        ]
        subprocess.run([*pip, *arguments], cwd=ROOT, check=True)
        items = json.loads(report.read_text())["install"]
    sizes = []
    for item in items:
        request = urllib.request.Request(item["download_info"]["url"], method="HEAD")
        with urllib.request.urlopen(request, timeout=60) as answer:
            sizes.append(int(answer.headers["Content-Length"]))
    return round(sum(sizes) / 1e6, 1)


def main() -> None:
    """Print one JSON object."""
    torch = megabytes("-r", "requirements-torch.lock")
    rest = megabytes("--require-hashes", "-r", "requirements.lock")
    print(json.dumps({"torch_and_what_it_needs_mb": torch, "everything_else_mb": rest, "machine": machine()}, indent=2))


if __name__ == "__main__":
    main()
