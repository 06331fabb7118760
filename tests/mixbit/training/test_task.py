import pytest
import torch

from mixbit.errors import MixbitError
from mixbit.experiment import Task
from mixbit.training.task import build_task, classification, user_task


def test_classification_counts_the_largest_logit():
    outputs = torch.tensor([[1.0, 2.0], [3.0, 0.0]])
    metric = classification().metric(outputs, torch.tensor([1, 1]))
    assert metric.tolist() == [True, False]


def test_label_smoothing_changes_the_training_loss_only():
    outputs, targets = torch.tensor([[1.0, 2.0], [3.0, 0.0]]), torch.tensor([1, 1])
    plain, smooth = classification(), classification(0.1)
    assert plain.loss(outputs, targets) != smooth.loss(outputs, targets)
    assert torch.equal(plain.losses(outputs, targets), smooth.losses(outputs, targets))


def test_users_loss_is_also_taken_picture_by_picture():
    task = user_task(lambda o, t: ((o - t) ** 2).mean(), lambda o, t: (o - t).abs(), "minimize")
    assert task.losses(torch.tensor([1.0, 4.0]), torch.tensor([0.0, 2.0])).tolist() == [1.0, 4.0]


def test_users_loss_that_is_no_scalar_is_refused_by_name():
    task = user_task(lambda o, t: o - t, lambda o, t: o - t, "minimize", names=("mine:loss", "mine:metric"))
    with pytest.raises(MixbitError, match=r"mine:loss: .*expected a scalar tensor, got a tensor of shape \[2\]"):
        task.loss(torch.zeros(2), torch.zeros(2))


def test_users_metric_must_give_one_value_per_picture():
    task = user_task(lambda o, t: o.sum(), lambda o, t: o.sum(), "minimize", names=("mine:loss", "mine:metric"))
    with pytest.raises(MixbitError, match=r"mine:metric: .*shape \[2\], got a tensor of shape \[\]"):
        task.metric(torch.zeros(2), torch.zeros(2))


def test_users_task_is_loaded_from_their_folder(tmp_path):
    (tmp_path / "my_task_a.py").write_text("def loss(o, t): return (o - t).mean()\ndef metric(o, t): return o - t\n")
    declared = Task(loss="my_task_a:loss", metric="my_task_a:metric", direction="minimize")
    task = build_task(declared, (tmp_path,))
    assert task.direction == "minimize"
    assert task.loss(torch.ones(2), torch.zeros(2)) == 1


def test_a_failure_in_the_users_loss_is_told_by_name_and_shapes():
    task = user_task(lambda o, t: (o @ t).mean(), lambda o, t: o, "minimize", names=("mine:loss", "mine:metric"))
    with pytest.raises(MixbitError, match=r"mine:loss: failed on outputs \[2, 3\] and targets \[2\]: RuntimeError"):
        task.loss(torch.zeros(2, 3), torch.zeros(2))
