"""Milliseconds of a float, a fake-quantized and a joint indicator training step, interleaved, and their ratios.

ResNet-20, random grey pictures of 32 x 32, 47 classes: W4A4 with 8-bit first and last layers, and the LIMPQ super-net
over five num_bits. Steps are those of `fit_`: batching, gradients, clipping, optimizers and all. With one thread the
clock is the process's own, which other programs on the machine do not move; with more it is the wall's.

Example: .venv/bin/python benchmarks/training_speed.py --threads 1 2
"""

import argparse
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import torch
from machine import machine
from torch import Tensor, nn

from mixbit.models.graph import describe_layers
from mixbit.models.quantize import build_quantized
from mixbit.models.resnet import resnet20
from mixbit.models.supernet import build_supernet
from mixbit.quantizers.lsq import clamp_scales_
from mixbit.training.batches import Pictures
from mixbit.training.channels_last import channels_last
from mixbit.training.evaluate import evaluate
from mixbit.training.fit import Keeping, fit_
from mixbit.training.numerics import fixed_numerics
from mixbit.training.optimizer import Schedule
from mixbit.training.task import classification
from policies.indicators.limpq import accumulate_, assignments

CANDIDATES = (2, 3, 4, 5, 6)
SHAPE, CLASSES, EPOCH = (1, 32, 32), 47, 20_000
# Steps timed in one block; the step before them warms caches and is not counted.
STEPS = {"float": 3, "fake_quant": 3, "joint": 1}
TASK = classification()


def pictures(count: int, seed: int) -> Pictures:
    """Random bytes, random labels."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(256, (count, *SHAPE), generator=generator, dtype=torch.uint8)
    info = {"mean": [127.5], "std": [73.9], "num_classes": CLASSES}
    return Pictures(x, torch.randint(CLASSES, (count,), generator=generator), info)


def trainings(batch_size: int) -> dict[str, tuple[nn.Module, Callable[[Pictures], Callable[[Tensor, int], Tensor]]]]:
    """What is timed: a model in training mode, and its backward for `fit_` over some pictures."""
    torch.manual_seed(0)
    model = resnet20(CLASSES, in_channels=1)
    layers = describe_layers(model, SHAPE)
    calibration = pictures(batch_size, 1)
    calibration_x = calibration.at(torch.arange(batch_size))[0]
    names = [layer["name"] for layer in layers["layers"]]
    policy = {name: (8, 8) if name in {names[0], names[-1]} else (4, 4) for name in names}
    quantized = build_quantized(model, layers, policy, calibration_x).train()
    supernet = build_supernet(model, layers, CANDIDATES, calibration_x).train()

    def supervised(net: nn.Module) -> Callable[[Pictures], Callable[[Tensor, int], Tensor]]:
        def backward(data: Pictures, indices: Tensor) -> Tensor:
            inputs, targets = data.at(indices)
            loss = TASK.loss(net(inputs), targets)
            loss.backward()
            return loss

        return lambda data: lambda indices, _step: backward(data, indices)

    def joint(data: Pictures) -> Callable[[Tensor, int], Tensor]:
        searched = names[1:-1]
        return lambda indices, step: accumulate_(
            supernet, *data.at(indices), assignments(layers, searched, CANDIDATES, 0, step), TASK.loss
        )

    return {
        "float": (model.train(), supervised(model)),
        "fake_quant": (quantized, supervised(quantized)),
        "joint": (supernet, joint),
    }


def clock_s() -> float:
    """Processor time of one thread, or wall time of several."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def block(name: str, net: nn.Module, backward_of: Callable, batch_size: int) -> list[float]:
    """Milliseconds of each step of one block."""
    data = pictures((STEPS[name] + 1) * batch_size, 2)
    schedule = Schedule(
        epochs=1, batch_size=batch_size, learning_rate=1e-3, weight_decay=1e-4, scale_learning_rate=1e-3,
        clip_gradient=1.0 if name == "joint" else None,
    )  # fmt: skip
    ends_s: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        fit_(net, schedule, len(data), backward_of(data), keeping=Keeping(Path(folder), every_s=1e9),
             progress=lambda *_: ends_s.append(clock_s()),
             after_step=None if name == "float" else clamp_scales_)  # fmt: skip
    return [(end - began) * 1e3 for began, end in itertools.pairwise(ends_s)]


def evaluation_ms(net: nn.Module, data: Pictures) -> float:
    """Milliseconds to judge these pictures."""
    began_s = clock_s()
    evaluate(net, data.x, data.y, data.info, TASK)
    return (clock_s() - began_s) * 1e3


def spread(values: list[float]) -> dict[str, float]:
    """Median and quartiles."""
    low, median, high = statistics.quantiles(values, n=4)
    return {"median": round(median, 3), "q25": round(low, 3), "q75": round(high, 3)}


def measure(threads: int, batch_size: int, seconds: float, contiguous: bool) -> dict[str, object]:
    """Rounds of one block each until the time is up; ratios are formed within a round."""
    rounds: dict[str, list[float]] = {name: [] for name in (*STEPS, "evaluate_float", "evaluate_fake_quant")}
    judged = pictures(1024, 3)
    with fixed_numerics(threads), ExitStack() as orders:
        kinds = trainings(batch_size)
        if not contiguous:
            for net, _ in kinds.values():
                orders.enter_context(channels_last(net, judged.at(torch.tensor([0]))[0]))
        for name, (net, backward_of) in kinds.items():
            block(name, net, backward_of, batch_size)
        ends_s = time.perf_counter() + seconds
        while time.perf_counter() < ends_s or len(rounds["float"]) < 3:
            for name, (net, backward_of) in kinds.items():
                rounds[name].append(statistics.median(block(name, net, backward_of, batch_size)))
            for name in ("float", "fake_quant"):
                rounds[f"evaluate_{name}"].append(evaluation_ms(kinds[name][0], judged))
    return {"threads": threads, "batch_size": batch_size, "rounds": len(rounds["float"])} | figures(rounds, batch_size)


def figures(rounds: dict[str, list[float]], batch_size: int) -> dict[str, object]:
    """Times, ratios with their quartiles, and what an epoch costs."""
    passes = len(CANDIDATES) + 1
    ratios = {
        "fake_quant_over_float": [q / f for q, f in zip(rounds["fake_quant"], rounds["float"], strict=True)],
        f"joint_over_{passes}_fake_quant": [
            j / (passes * q) for j, q in zip(rounds["joint"], rounds["fake_quant"], strict=True)
        ],
        "evaluate_fake_quant_over_float": [
            q / f for q, f in zip(rounds["evaluate_fake_quant"], rounds["evaluate_float"], strict=True)
        ],
    }
    epochs = {name: round(statistics.median(rounds[name]) * EPOCH / batch_size / 1e3, 1) for name in STEPS}
    return {
        "step_ms": {name: spread(rounds[name]) for name in STEPS},
        "evaluate_us_per_picture": {
            name: spread([ms * 1e3 / 1024 for ms in rounds[f"evaluate_{name}"]]) for name in ("float", "fake_quant")
        },
        "ratio": {name: spread(values) for name, values in ratios.items()},
        f"epoch_of_{EPOCH}_pictures_s": epochs,
    }


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=75, help="per number of threads")
    parser.add_argument("--contiguous", action="store_true", help="leave weights and pictures in the usual order")
    options = parser.parse_args()
    rows = [measure(threads, options.batch_size, options.seconds, options.contiguous) for threads in options.threads]
    print(json.dumps({"rows": rows, "machine": f"{machine()}, PyTorch {torch.__version__}"}, indent=2))


if __name__ == "__main__":
    main()
