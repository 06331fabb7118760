import pytest
import torch
from torch import nn
from torch.nn import functional

from mixbit.errors import MixbitError
from mixbit.training.batches import Pictures
from mixbit.training.optimizer import Schedule
from mixbit.training.supervised import check_outputs, distillation, reestimate_batchnorm_, train_supervised_
from mixbit.training.task import classification, user_task

INFO = {"mean": [0.0], "std": [1.0], "num_classes": 3}
PICTURES = Pictures(
    torch.randn(40, 1, 2, 2, generator=torch.Generator().manual_seed(0)) + 5, torch.arange(40) % 3, INFO
)


def test_distillation_of_the_teacher_itself_costs_nothing():
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    inputs, targets = PICTURES.at(torch.arange(8))
    objective = distillation(classification(), teacher, 1.0)
    assert objective(inputs, teacher(inputs), targets).item() == pytest.approx(0.0, abs=1e-6)


def test_distillation_mixes_loss_and_divergence():
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    inputs, targets = PICTURES.at(torch.arange(8))
    outputs = torch.zeros(8, 3)
    wanted = teacher(inputs).softmax(1)
    divergence = (wanted * (wanted.log() + torch.log(torch.tensor(3.0)))).sum(1).mean()
    expected = 0.75 * functional.cross_entropy(outputs, targets) + 0.25 * divergence
    assert distillation(classification(), teacher, 0.25)(inputs, outputs, targets).item() == pytest.approx(
        expected.item()
    )


def test_batchnorm_takes_the_pictures_statistics_and_nothing_else_changes():
    net = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(4, 3))
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    reestimate_batchnorm_(net, PICTURES, batch_size=40)
    assert net[0].running_mean.item() == pytest.approx(PICTURES.x.mean().item())
    assert net[0].momentum == 0.1
    assert not net.training
    assert torch.equal(before["2.weight"], net[2].weight)


@pytest.mark.parametrize("width", [2, 4])
def test_a_model_with_another_number_of_classes_is_refused_before_training(width):
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, width))
    with pytest.raises(MixbitError, match=rf"mine:net: .*expected \[1, 3\], got \[1, {width}\].*model.arguments"):
        check_outputs(net, PICTURES, classification(), "mine:net")


def test_a_users_loss_may_view_the_outputs_as_they_lie(tmp_path):
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4))
    task = user_task(lambda o, t: o.view(-1).square().mean(), lambda o, t: o.view(len(o), -1).mean(1), "minimize")
    schedule = Schedule(epochs=1, batch_size=20, learning_rate=0.1, weight_decay=0)
    train_supervised_(net, PICTURES, PICTURES, task, schedule, checkpoint=tmp_path, progress=lambda *_: None)
    assert net[0].weight.is_contiguous()


def test_a_users_task_may_have_any_outputs():
    task = user_task(lambda o, t: o.mean(), lambda o, t: o.mean((1, 2, 3)), "minimize")
    check_outputs(nn.Identity(), PICTURES, task, "mine:net")
