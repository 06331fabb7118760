"""Accuracy against mean weight bits on glyphs: `python -m benchmarks.accuracy FOLDER [FLOAT_MODEL] [--finetune]`.

One experiment, run by `mixbit run`: ResNet-20, 8-bit activations at 4, 3, 2.5 and 2 bits a weight (sizes count all
weights, the 8-bit first and last layers too; at 2 bits all others have 2), and the BitOps of W4A4. Without fine-tuning
(the super-net's weights, BatchNorm re-estimated), or with one epoch each. Run it again to go on: every stage is cached.
The rows of other toolkits were measured on glyphs of another seed and another float model: compare what is lost, not
what is left.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.machine import machine
from tasks.place import ROOT
from tasks.record import Record
from tasks.store import Store

BUDGETS = {
    "4-bit": {"size_bits": "8x"},
    "3-bit": {"size_bits": "10.66x"},
    "2.5-bit": {"size_bits": "12.8x"},
    "2-bit": {"size_bits": "w2a8"},
    "w4a4": {"bitops": "w4a4"},
}
FLOAT = 96.72
PEERS = {
    "MCT mixed": (96.58, 95.55, 90.35, None, None),
    "ModelOpt mixed": (96.42, 81.55, 18.38, None, 50.17),
    "AIMET uniform": (96.40, None, None, None, 91.45),
    "brevitas uniform": (96.22, 94.85, None, 41.98, 90.47),
    "brevitas uniform + GPTQ": (96.40, 96.45, None, 93.97, 90.53),
}


def experiment(checkpoint: str | None, *, finetune: bool) -> dict[str, Any]:
    """The experiment file (JSON is YAML)."""
    weights = {"checkpoint": checkpoint} if checkpoint else {"train": {"epochs": 10, "learning_rate": 0.1}}
    network = {"factory": "mixbit.models.resnet:resnet20", "arguments": {"num_classes": 47, "in_channels": 1}}
    return {
        "model": {**network, **weights},
        "data": "glyphs",
        "proxy": {"fraction": 0.25},
        "indicators": {"num_bits": [2, 3, 4, 5, 6, 8], "settings": {"epochs": 3}},
        "allocation": {"alpha": "balanced"},
        "budgets": BUDGETS,
        "baselines": [],
        "finetune": {"epochs": 1, "batch_size": 128, "learning_rate": 0.03} if finetune else "none",
        "devices": [],
    }


def table(rows: dict[str, dict[str, Record | None]]) -> str:
    """Ours by experiment, then the peers."""
    lines = ["| glyphs, test accuracy % (float) | 4-bit, A8 | 3 | 2.5 | 2 | W4A4 |", "|---|---|---|---|---|---|"]
    for name, cells in rows.items():
        words = [_accuracy(cells[budget]) for budget in BUDGETS]
        lines.append(f"| {name} ({_accuracy(cells['float'])}) | {' | '.join(words)} |")
    for name, values in PEERS.items():
        words = ["" if value is None else f"{value:.2f}" for value in values]
        lines.append(f"| {name} ({FLOAT:.2f}) | {' | '.join(words)} |")
    return "\n".join(lines)


def _accuracy(made: Record | None) -> str:
    """Of the deployed file, which has packed weights and integer kernels."""
    return "" if made is None else f"{100 * made.figures['test_metric_deployed']:.2f}"


def main(folder: Path, checkpoint: Path | None, *, finetune: bool) -> int:
    """Run what is asked for, and tell what there is."""
    folder.mkdir(parents=True, exist_ok=True)
    store = Store(folder.resolve() / "state")
    environment = {**os.environ, "MIXBIT_HOME": str(store.folder)}
    command = [sys.executable, "-m", "flows.cli"]
    if checkpoint is not None:
        shutil.copyfile(checkpoint, folder / "float_model.safetensors")
    given = "float_model.safetensors" if (folder / "float_model.safetensors").exists() else None
    name = "finetuned" if finetune else "untuned"
    file = folder.resolve() / f"{name}.yaml"
    file.write_text(json.dumps({"name": name, **experiment(given, finetune=finetune)}, indent=1))
    try:
        ended = subprocess.run([*command, "run", str(file)], cwd=ROOT, env=environment, check=False)
    finally:
        subprocess.run([*command, "down"], cwd=ROOT, env=environment, check=False)
    cells = {
        name: {cell: store.latest(name, f"deployable {cell}") for cell in ("float", *BUDGETS)}
        for name in ("untuned", "finetuned")
    }
    told = table({f"mixbit, {name}": mine for name, mine in cells.items() if any(mine.values())})
    (folder / "accuracy.md").write_text(f"{machine()}\n\n{told}\n")
    print(told)
    return ended.returncode


if __name__ == "__main__":
    words = [Path(word) for word in sys.argv[1:] if not word.startswith("--")]
    sys.exit(main(words[0], words[1] if len(words) > 1 else None, finetune="--finetune" in sys.argv))
