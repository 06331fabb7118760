"""What a user may do between two runs, and which cells it touches: by hand, never asked from the code under test."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

# cell -> what it reads, as `cell: file`; the picture of a run, in the order of a run.
SUPERNET, FLOAT_MODEL = "indicators: supernet.safetensors", "float_model: float_model.safetensors"
DATASET, INFO, LAYERS = "dataset: dataset.safetensors", "dataset: dataset_info.json", "layers: layers.json"
TRAINED = (DATASET, INFO, LAYERS, "proxy: proxy.json", FLOAT_MODEL)


def _finetuned(policy, *start):
    return (*TRAINED, *start, f"{policy}: policy.json")


def _deployed(policy, name):
    return (DATASET, INFO, LAYERS, f"{policy}: policy.json", f"finetuned_model {name}: finetuned_model.safetensors")


READS = {
    "dataset": (),
    "layers": (INFO,),
    "proxy": (DATASET, INFO),
    "float_model": (DATASET, INFO),
    "indicators": TRAINED,
    "policy w4a4": (LAYERS, "indicators: indicators.json"),
    "baseline float": (LAYERS,),
    "finetuned_model float": _finetuned("baseline float"),
    "deployable float": _deployed("baseline float", "float"),
    "baseline w8a8": (LAYERS,),
    "finetuned_model w8a8": _finetuned("baseline w8a8"),
    "deployable w8a8": _deployed("baseline w8a8", "w8a8"),
    "finetuned_model w4a4": _finetuned("policy w4a4", SUPERNET),
    "deployable w4a4": _deployed("policy w4a4", "w4a4"),
    "profile w4a4 local": (INFO, *(f"deployable {name}: packed.onnx" for name in ("float", "w8a8", "w4a4"))),
    "baseline w4a4-uniform": (LAYERS, "policy w4a4: policy.json"),
    "finetuned_model w4a4-uniform": _finetuned("baseline w4a4-uniform", SUPERNET),
}
DEPLOYABLES = {cell for cell in READS if cell.startswith("deployable")}
FINETUNED = {cell for cell in READS if cell.startswith("finetuned_model")}
BASELINES = {cell for cell in READS if cell.startswith("baseline")}  # their file may ask the solver too
NETWORK = {"layers", "float_model", "indicators", *FINETUNED, *DEPLOYABLES}  # whoever builds the user's network


@dataclass(frozen=True)
class Edit:
    """A change of files, the cells whose identity it changes, and what their reason has to say."""

    make: Callable[[Path, Path, Path], None]  # the checkout, the experiment's folder, the state
    touches: frozenset[str] | set[str] = frozenset()
    says: str = ""


def text(place, file, old, new):
    """Replace in a file of the checkout (0), the experiment (1) or the state (2)."""

    def make(*folders):
        path = folders[place] / file
        content = path.read_text()
        assert old in content, f"{file} says {old!r} no more: change the table"
        path.write_text(content.replace(old, new, 1))

    return make


def version(package):
    """Another version of an installed package, as far as its metadata say."""

    def make(_code, folder, _state):
        info = folder / "site" / f"{package}-99.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 99\n")

    return make


def pixel(_code, folder, _state):
    arrays = dict(np.load(folder / "shapes.npz"))
    arrays["train_x"][0, 0, 0, 0] += 1
    np.savez(folder / "shapes.npz", **arrays)


def blob(damage):
    """Damage the indicators' output on this machine."""

    def make(_code, _folder, state):
        record = json.loads((state / "latest" / "tiny" / "indicators.json").read_bytes())
        digest = record["outputs"]["indicators.json"]["sha256"]
        path = state / "blobs" / digest[:2] / digest
        path.chmod(0o644)
        damage(path)

    return make


def new_file(name, content):
    return lambda code, _folder, _state: (code / name).write_text(content)


CODE, USER = 0, 1
COMMENT = "# why\n"
EDITS = {
    "a parameter": Edit(
        text(USER, "tiny.yaml", "alpha: 1.0", "alpha: 2.0"),
        {"policy w4a4"},
        "params.alpha 1.0 → 2.0",
    ),
    "a parameter of fine-tuning": Edit(
        text(USER, "tiny.yaml", "finetune: {epochs: 1", "finetune: {learning_rate: 0.02, epochs: 1"),
        {"finetuned_model w4a4", "finetuned_model w4a4-uniform"},
        "params.finetune.learning_rate 0.01 → 0.02",
    ),
    "the number of rounds": Edit(
        text(CODE, "tasks/profile.py", "default=12, ge=10", "default=11, ge=10"),
        {"profile w4a4 local"},
        "params.rounds 12 → 11",
    ),
    "a default value in code": Edit(
        text(
            CODE,
            "mixbit/experiment.py",
            "weight_decay: float = Field(default=5e-4",
            "weight_decay: float = Field(default=6e-4",
        ),
        {"float_model"},
        "params.train.weight_decay 0.0005 → 0.0006",
    ),
    "a comment in the network": Edit(text(USER, "tinynet.py", "def net", f"{COMMENT}def net")),
    "a comment in the training": Edit(text(CODE, "mixbit/training/fit.py", "import math", f"{COMMENT}import math")),
    "a docstring": Edit(text(CODE, "policies/ilp.py", '"""', '"""In other words. ')),
    "formatting": Edit(text(USER, "slopes.py", "return ", "return  ")),
    "a helper two imports away": Edit(text(USER, "slopes.py", "0.1", "0.2"), NETWORK, "slopes.py: momentum changed"),
    "the network": Edit(text(USER, "tinynet.py", "for _ in", "for number in"), NETWORK, "tinynet.py: net changed"),
    "the optimizer": Edit(
        text(CODE, "mixbit/training/optimizer.py", "0.9, 0.99, 1e-12", "0.9, 0.98, 1e-12"),
        {"float_model", "indicators", *FINETUNED},
        "mixbit/training/optimizer.py: <module> changed",
    ),
    "the solver": Edit(
        text(CODE, "policies/solver.py", "ROOM = 1000.0", "ROOM = 1e3 + 0"),
        {"policy w4a4", *BASELINES},
        "policies/solver.py: <module> changed",
    ),
    "the export": Edit(
        text(CODE, "mixbit/export/save.py", 'FORMAT_VERSION = "2"', "FORMAT_VERSION = str(2)"),
        DEPLOYABLES,
        "mixbit/export/save.py: <module> changed",
    ),
    "the measurement": Edit(
        text(CODE, "mixbit/devices/measure.py", "MAX_TIMED = 10, 3, 10, 5000", "MAX_TIMED = 10, 3, 10, 4999"),
        {"profile w4a4 local"},
        "mixbit/devices/measure.py: <module> changed",
    ),
    "another proxy": Edit(
        text(CODE, "mixbit/data/strata.py", "return max(1,", "return max(1 + 0,"),
        {"proxy"},
        "mixbit/data/strata.py: share changed",
    ),
    "one pixel": Edit(pixel, {"dataset"}, "input source "),
    "torch": Edit(version("torch"), NETWORK, "→ 99"),
    "the solver's version": Edit(version("highspy"), {"policy w4a4"}, "→ 99"),
    "the device's libraries": Edit(version("numpy"), {"profile w4a4 local"}, "device.numpy "),
    "the runtime": Edit(version("onnxruntime"), {*DEPLOYABLES, "profile w4a4 local"}, "onnxruntime "),
    "packages that no stage names": Edit(
        lambda *folders: [version(name)(*folders) for name in ("prefect", "mlflow", "dvc", "scikit-learn", "rich")]
    ),
    "plumbing": Edit(
        lambda *folders: [
            text(CODE, f"{name}.py", "\n\n\ndef ", "\n\n\nEDITED = 1\n\n\ndef ")(*folders)
            for name in (
                "tasks/stage",
                "tasks/tracking",
                "flows/cli",
                "tasks/report_page",
                "mixbit/load",
                "tasks/trace",
            )
        ]
    ),
    "a method that nobody names": Edit(new_file("policies/indicators/other.py", "Settings = None\n")),
    "an altered output": Edit(
        blob(lambda path: path.write_bytes(path.read_bytes()[::-1])), {"indicators"}, "output altered: indicators.json"
    ),
    "a lost output": Edit(blob(lambda path: path.unlink()), {"indicators"}, "output lost: indicators.json"),
}
DAMAGE = {"an altered output", "a lost output"}
