import subprocess
import sys

import pytest
import torch
from safetensors.torch import save

from mixbit.indicators import check_table
from mixbit.models.graph import describe_layers
from mixbit.models.resnet import ResNet
from mixbit.models.supernet import build_supernet, set_bits_
from mixbit.policy import canonical_json
from mixbit.training.batches import Pictures, calibration_pictures
from mixbit.training.numerics import fixed_numerics
from mixbit.training.optimizer import scale_parameters
from mixbit.training.task import classification
from policies.indicators.limpq import Settings, accumulate_, assignments, compute_indicators

NUM_BITS = (2, 4, 6)
GENERATOR = torch.Generator().manual_seed(0)
PICTURES = Pictures(
    torch.randn(24, 1, 6, 6, generator=GENERATOR), torch.arange(24) % 3, {"mean": [0.0], "std": [1.0], "num_classes": 3}
)


@pytest.fixture(autouse=True)
def one_thread():
    with fixed_numerics(1):
        yield


@pytest.fixture
def net():
    torch.manual_seed(0)
    return ResNet(1, num_classes=3, in_channels=1, width=2).eval()


def searched(layers):
    return [layer["name"] for layer in layers["layers"]][1:-1]


def compute(net, folder, num_bits=NUM_BITS, progress=lambda done, total, note: None, **settings):
    layers = describe_layers(net, (1, 6, 6))
    settings = Settings(**{"epochs": 2, "batch_size": 8, **settings})
    return compute_indicators(
        model=net, layers=layers, pictures=PICTURES, task=classification(), settings=settings, num_bits=num_bits,
        searched=searched(layers), seed=0, checkpoint=folder, progress=progress,
    )  # fmt: skip


def as_bytes(result):
    return canonical_json(result[0]), save(result[1])


def test_harm_is_complete_finite_and_monotone_and_fixed_layers_are_absent(net, tmp_path):
    indicators, _ = compute(net, tmp_path)
    names = searched(describe_layers(net, (1, 6, 6)))
    check_table(indicators["layers"], names, NUM_BITS, "limpq")
    assert "fc" not in indicators["layers"]


def test_the_harm_before_training_is_given_out_too(net, tmp_path):
    indicators, _ = compute(net, tmp_path / "moved")
    still, _ = compute(net, tmp_path / "still", scale_learning_rate=1e-12)
    names = searched(describe_layers(net, (1, 6, 6)))
    check_table(indicators["initial"], names, NUM_BITS, "limpq")
    assert indicators["initial"] == still["initial"] != indicators["layers"]
    for name in names:
        assert still["layers"][name]["weight"] == pytest.approx(still["initial"][name]["weight"], rel=1e-6)


def test_weights_get_the_sum_of_the_gradients_of_all_passes(net):
    layers = describe_layers(net, (1, 6, 6))
    inputs, targets = PICTURES.at(torch.arange(8))
    drawn = assignments(layers, searched(layers), NUM_BITS, seed=0, step=0)
    assert len(drawn) == len(NUM_BITS) + 1

    def gradients(lists):
        supernet = build_supernet(net, layers, NUM_BITS, inputs).train()
        total = torch.zeros_like(supernet.conv.weight)
        for part in lists:
            supernet.zero_grad()
            accumulate_(supernet, inputs, targets, part, classification().loss)
            total += supernet.conv.weight.grad
        return total

    torch.testing.assert_close(gradients([drawn]), gradients([[one] for one in drawn]))


def test_one_step_gives_every_searched_step_size_a_gradient(net):
    layers = describe_layers(net, (1, 6, 6))
    supernet = build_supernet(net, layers, NUM_BITS, calibration_pictures(PICTURES, 16, 0)).train()
    drawn = assignments(layers, searched(layers), NUM_BITS, seed=0, step=0)
    accumulate_(supernet, *PICTURES.at(torch.arange(16)), drawn, classification().loss)
    unused = {f"{name}.weight_quantizer" for name in ("conv", "fc")}
    for path, module in supernet.named_modules():
        if path.endswith("weight_quantizer") and path not in unused:
            assert all(scale.grad is not None and scale.grad != 0 for scale in module.parameters()), path


def test_the_random_assignment_follows_from_seed_and_step(net):
    layers = describe_layers(net, (1, 6, 6))
    draws = [
        assignments(layers, searched(layers), NUM_BITS, seed, step)[-1]
        for seed, step in ((0, 1), (0, 1), (0, 2), (1, 1))
    ]
    assert draws[0] == draws[1]
    assert draws[0] != draws[2]
    assert draws[0] != draws[3]


def test_layers_that_read_one_tensor_draw_together_and_float_layers_stay_float(net):
    layers = describe_layers(net, (1, 6, 6))
    for step in range(10):
        drawn = assignments(layers, searched(layers), NUM_BITS, 0, step)[-1]
        assert all(len({drawn[name] for name in group}) == 1 for group in layers["shared_activations"])
        assert drawn[layers["first"]] == drawn[layers["last"]] == ("float", "float")
        assert all(weight == activation for weight, activation in drawn.values())


def test_a_tensor_that_a_float_layer_reads_is_float_for_all_its_readers(net):
    layers = describe_layers(net, (1, 6, 6))
    left = [name for name in searched(layers) if name != "stages.1.shortcut.0"]
    for drawn in assignments(layers, left, NUM_BITS, 0, 0):
        assert drawn["stages.1.conv1"][1] == "float"
        assert drawn["stages.1.conv1"][0] != "float"
        set_bits_(build_supernet(net, layers, NUM_BITS, PICTURES.x), drawn)


@pytest.mark.parametrize("stop", [1, 3, 5])
def test_an_interrupted_search_ends_with_the_same_bytes(net, tmp_path, stop, monkeypatch):
    monkeypatch.setattr("mixbit.training.fit.Keeping.__init__.__defaults__", (0.0, 1e9))
    undisturbed = as_bytes(compute(net, tmp_path / "a"))

    def progress(done, total, note):
        if done == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compute(net, tmp_path / "b", progress=progress)
    steps = []
    resumed = as_bytes(compute(net, tmp_path / "b", progress=lambda done, total, note: steps.append(done)))
    assert resumed == undisturbed
    assert steps[0] == stop + 1


def test_each_reader_of_a_shared_tensor_carries_half_its_step_size(net, tmp_path):
    indicators, tensors = compute(net, tmp_path)
    raw = indicators["raw"]
    assert raw["stages.1.conv1"]["activation"] == raw["stages.1.shortcut.0"]["activation"]
    sizes = {value.item() for name, value in tensors.items() if name.endswith("scales.2")}
    assert 2 * raw["stages.1.conv1"]["activation"]["2"] in sizes


def test_float_among_the_candidates_has_a_pass_of_its_own_and_no_harm(net, tmp_path):
    without, _ = compute(net, tmp_path / "a")
    indicators, _ = compute(net, tmp_path / "b", num_bits=(*NUM_BITS, "float"))
    assert indicators["cost"]["forward_passes"] == without["cost"]["forward_passes"] // 4 * 5 == 30
    assert indicators["cost"]["samples"] == 2 * 24 * 5
    assert all(kinds[kind]["float"] == 0 for kinds in indicators["layers"].values() for kind in kinds)


def test_step_sizes_move_and_tell_how_far(net, tmp_path):
    indicators, _ = compute(net, tmp_path, epochs=6)
    assert set(indicators["step_movement"]) == {"2", "4", "6"}
    assert all(moved > 0.02 for moved in indicators["step_movement"].values())


def test_one_candidate_is_enough(net, tmp_path):
    indicators, _ = compute(net, tmp_path, num_bits=(4,))
    assert set(indicators["layers"]["stages.0.conv1"]["weight"]) == {"4", "float"}


def test_step_sizes_above_one_are_not_clamped(net, tmp_path):
    with torch.no_grad():
        net.bn.weight.mul_(300)
    supernet = build_supernet(net, describe_layers(net, (1, 6, 6)), NUM_BITS, PICTURES.x)
    assert max(scale.item() for scale in scale_parameters(supernet)) > 1
    indicators, _ = compute(net, tmp_path)
    assert indicators["raw"]["stages.0.conv1"]["activation"]["2"] > 1


def test_importing_the_method_and_its_stage_loads_no_torch():
    code = "import sys, policies.indicators.limpq, tasks.indicators, tasks.float_model, tasks.finetuned_model;"
    subprocess.run([sys.executable, "-c", f"{code} sys.exit('torch' in sys.modules)"], check=True)
