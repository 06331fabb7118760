"""A tiny data set and network for the three stages that train: three shades of noise, ResNet-8 at width 2."""

import hashlib

import torch
from safetensors.torch import save_file

from mixbit.models.build import build_model
from mixbit.models.graph import describe_layers
from mixbit.policy import canonical_json
from tasks.stage import Work

MODEL = {"factory": "mixbit.models.resnet:resnet8", "arguments": {"num_classes": 3, "in_channels": 1, "width": 2}}
COUNTS = {"train": 48, "val": 24, "test": 0}


def write_inputs(folder):
    """Files by input name: dataset, info, layers, proxy. There is no test split: nobody may read it."""
    generator, tensors = torch.Generator().manual_seed(0), {}
    for split in ("train", "val"):
        y = torch.arange(COUNTS[split]) % 3
        noise = torch.randint(0, 60, (COUNTS[split], 1, 6, 6), generator=generator)
        tensors |= {f"{split}_x": (noise + 70 * y.view(-1, 1, 1, 1)).to(torch.uint8), f"{split}_y": y}
    save_file(tensors, folder / "dataset")
    info = {"input_shape": [1, 6, 6], "num_classes": 3, "mean": [100.0], "std": [64.0], "counts": COUNTS}
    model = build_model(MODEL["factory"], MODEL["arguments"], (), seed=0)
    (folder / "info").write_bytes(canonical_json(info))
    (folder / "layers").write_bytes(canonical_json(describe_layers(model, (1, 6, 6))))
    (folder / "proxy").write_bytes(canonical_json({"indices": list(range(24))}))
    return {name: folder / name for name in ("dataset", "info", "layers", "proxy")}


def make_work(inputs, folder, progress=lambda done, total, note: None, search_path=()):
    """A `Work` in folder; its checkpoint survives a second call."""
    out, checkpoint = folder / "out", folder / "checkpoint"
    out.mkdir(parents=True, exist_ok=True)
    checkpoint.mkdir(exist_ok=True)
    digests = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in inputs.items()}
    return Work(inputs, digests, out, checkpoint, progress, folder, search_path)


def run(stage, inputs, folder, params, **work):
    """(bytes of each output, figures)."""
    work = make_work(inputs, folder, **work)
    figures = stage.compute(work, stage.Params(**MODEL, **params))
    assert sorted(path.name for path in work.out.iterdir()) == sorted(stage.OUTPUTS)
    return {path.name: path.read_bytes() for path in work.out.iterdir()}, figures
