import math

import pytest
import torch
from safetensors.torch import save
from torch import nn
from torch.nn import functional

from mixbit.errors import MixbitError
from mixbit.models.graph import describe_layers
from mixbit.models.quantize import build_quantized, save_quantized
from mixbit.models.resnet import resnet8
from mixbit.training.channels_last import channels_last
from mixbit.training.evaluate import Evaluation
from mixbit.training.fit import Judging, Keeping, fit_
from mixbit.training.optimizer import Schedule, build_optimizers, drop_unused_gradients_, set_rates_

SCHEDULE = Schedule(epochs=3, batch_size=4, learning_rate=0.1, weight_decay=1e-3, clip_gradient=1.0)
X = torch.randn(14, 3, generator=torch.Generator().manual_seed(1))
POLICY = {layer["name"]: (4, 4) for layer in describe_layers(resnet8(3, in_channels=1, width=4), (1, 6, 6))["layers"]}
QUIET = lambda done, total, note: None


class InterruptedError_(Exception):
    pass


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 1))


def train(folder, progress=QUIET, schedule=SCHEDULE, judged=True, net=None):
    net = net or model()

    def backward(batch, step):
        loss = (net(X[batch]) - X[batch].sum(1, keepdim=True)).square().mean()
        loss.backward()
        return loss

    def score():
        with torch.no_grad():
            error = (net.eval()(X) - X.sum(1, keepdim=True)).square().mean().item()
        net.train()
        return Evaluation(error, error, 0, 0)

    judging = Judging(score, "minimize") if judged else None
    fit_(net, schedule, len(X), backward, keeping=Keeping(folder, 0.0, math.inf), progress=progress, judging=judging)
    return save(net.state_dict())


def stop_at(steps, error=InterruptedError_):
    def progress(done, total, note):
        if done in steps:
            steps.remove(done)
            raise error

    return progress


@pytest.mark.parametrize("steps", [[1], [4], [5], [3, 7, 11], [12]])
@pytest.mark.parametrize("judged", [True, False])
def test_an_interrupted_run_ends_with_the_same_bytes(tmp_path, steps, judged):
    undisturbed = train(tmp_path / "a", judged=judged)
    progress = stop_at(list(steps))
    for _ in steps:
        with pytest.raises(InterruptedError_):
            train(tmp_path / "b", progress, judged=judged)
    assert train(tmp_path / "b", progress, judged=judged) == undisturbed


def train_convolutions(folder, progress=QUIET):
    pictures, targets = X.repeat(1, 12).view(14, 1, 6, 6), torch.arange(14) % 3
    torch.manual_seed(0)
    net = resnet8(3, in_channels=1, width=4)
    net = build_quantized(net, describe_layers(net, (1, 6, 6)), POLICY, pictures).train()

    def backward(batch, step):
        loss = functional.cross_entropy(net(pictures[batch]), targets[batch])
        loss.backward()
        return loss

    with channels_last(net, pictures):
        fit_(net, SCHEDULE, 14, backward, keeping=Keeping(folder, 0.0, math.inf), progress=progress)
    return save(save_quantized(net))


@pytest.mark.parametrize("step", [1, 6])
def test_interrupted_convolutions_end_with_the_same_bytes(tmp_path, step):
    undisturbed = train_convolutions(tmp_path / "a")
    with pytest.raises(InterruptedError_):
        train_convolutions(tmp_path / "b", stop_at([step]))
    assert train_convolutions(tmp_path / "b") == undisturbed


def test_a_damaged_checkpoint_costs_time_only(tmp_path):
    undisturbed = train(tmp_path / "a")
    with pytest.raises(InterruptedError_):
        train(tmp_path / "b", stop_at([6]))
    newest = tmp_path / "b" / "6.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1] + b"?")
    assert train(tmp_path / "b") == undisturbed


def test_ctrl_c_leaves_a_usable_checkpoint(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, stop_at([7], KeyboardInterrupt))
    steps = []
    train(tmp_path, lambda done, total, note: steps.append(done))
    assert steps == list(range(8, 13))


def test_another_schedule_does_not_take_up_the_checkpoint(tmp_path):
    with pytest.raises(InterruptedError_):
        train(tmp_path, stop_at([6]))
    steps = []
    other = Schedule(epochs=3, batch_size=4, learning_rate=0.2, weight_decay=1e-3)
    train(tmp_path, lambda done, total, note: steps.append(done), other)
    assert steps[0] == 1


def test_divergence_names_the_place_and_keeps_the_last_good_checkpoint(tmp_path):
    wild = Schedule(epochs=20, batch_size=4, learning_rate=1e18, weight_decay=0)
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))
    with pytest.raises(MixbitError, match=r"epoch \d+ of 20, step \d+ of 80: .*lower rates.*last good checkpoint"):
        train(tmp_path, schedule=wild, net=net)
    assert list(tmp_path.glob("*.json"))


def test_the_note_tells_epoch_loss_and_val(tmp_path):
    notes = []
    train(tmp_path, lambda done, total, note: notes.append(note))
    assert notes[0].startswith("epoch 1/3 loss ")
    assert " val " in notes[-1]


def fit_with_scores(tmp_path, scores):
    net, left = nn.Linear(1, 1), list(scores)

    def backward(batch, step):
        net.weight.grad = torch.ones_like(net.weight)
        return torch.tensor(float(step))

    schedule = Schedule(epochs=len(left), batch_size=4, learning_rate=1.0, weight_decay=0, momentum=0)
    seen = []

    def score():
        seen.append(net.weight.item())
        return left.pop(0)

    fit_(net, schedule, 4, backward, keeping=Keeping(tmp_path), progress=QUIET, judging=Judging(score))
    return seen.index(net.weight.item())


def test_the_best_epoch_is_kept_by_metric_then_loss_then_earliness(tmp_path):
    worse, good, better = (Evaluation(m, loss, 0, 0) for m, loss in ((0.1, 0.1), (0.9, 0.5), (0.9, 0.4)))
    assert fit_with_scores(tmp_path / "a", [worse, good, worse]) == 1
    assert fit_with_scores(tmp_path / "b", [good, better, good]) == 1
    assert fit_with_scores(tmp_path / "c", [worse, good, good]) == 1


def test_the_rate_falls_from_full_to_nothing_on_a_cosine():
    optimizers = build_optimizers(nn.Linear(2, 2), SCHEDULE)
    rates = []
    for done in (0.0, 0.5, 1.0):
        set_rates_(optimizers, done)
        rates.append(optimizers[0].param_groups[0]["lr"])
    assert rates == pytest.approx([0.1, 0.05, 0.0])


def test_momentum_and_decay_do_not_move_unused_parameters():
    net = nn.Linear(2, 2)
    (optimizer,) = build_optimizers(net, SCHEDULE)
    net.weight.grad, net.bias.grad = torch.ones_like(net.weight), torch.ones_like(net.bias)
    optimizer.step()
    moved, net.weight.grad, net.bias.grad = net.weight.clone(), torch.zeros_like(net.weight), torch.ones_like(net.bias)
    drop_unused_gradients_(net.parameters())
    optimizer.step()
    assert torch.equal(net.weight, moved)
    assert net.bias.grad is not None


def test_decay_is_for_weights_only():
    groups = build_optimizers(model(), SCHEDULE)[0].param_groups
    decays = {parameter.ndim: group["weight_decay"] for group in groups for parameter in group["params"]}
    assert decays == {2: 1e-3, 1: 0.0}


def test_nan_gradients_count_as_used():
    net = nn.Linear(1, 1)
    net.weight.grad = torch.full_like(net.weight, math.nan)
    drop_unused_gradients_(net.parameters())
    assert net.weight.grad is not None
