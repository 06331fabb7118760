import pytest
import torch
from torch import nn

from mixbit.models.resnet import resnet8
from mixbit.training.channels_last import channels_last

PICTURES = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))


class Viewing(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 3, 3), nn.Linear(108, 2)

    def forward(self, x):
        return self.fc(self.conv(x).view(len(x), -1))


def outputs_of(model, inputs):
    seen = []
    handle = model.conv.register_forward_hook(lambda module, given, out: seen.append(out))
    model(inputs)
    handle.remove()
    return seen[0]


def test_tensors_follow_the_weights_and_return_to_the_usual_order():
    model = resnet8(3, in_channels=1).eval()
    assert outputs_of(model, PICTURES).is_contiguous()
    with channels_last(model, PICTURES):
        assert outputs_of(model, PICTURES).is_contiguous(memory_format=torch.channels_last)
    assert outputs_of(model, PICTURES).is_contiguous()


def test_parameters_stay_the_same_objects_with_the_same_values():
    model = resnet8(3, in_channels=1)
    before = {name: (parameter, parameter.detach().clone()) for name, parameter in model.named_parameters()}
    with channels_last(model, PICTURES):
        for name, parameter in model.named_parameters():
            assert parameter is before[name][0]
            assert torch.equal(parameter, before[name][1])
    assert all(parameter.is_contiguous() for parameter in model.parameters())


def test_outputs_and_gradients_agree_with_the_usual_order():
    model = resnet8(3, in_channels=1).double()
    (plain := model(PICTURES.double())).square().sum().backward()
    expected = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad()
    with channels_last(model, PICTURES.double()):
        (last := model(PICTURES.double())).square().sum().backward()
    assert torch.allclose(plain, last)
    assert all(torch.allclose(parameter.grad, expected[name]) for name, parameter in model.named_parameters())


def test_a_model_that_views_pictures_keeps_the_usual_order():
    model = Viewing()
    with channels_last(model, PICTURES):
        assert model.conv.weight.stride() == (9, 9, 3, 1)
        model(PICTURES).sum().backward()


def test_training_mode_and_running_statistics_are_left_alone():
    model = resnet8(3, in_channels=1).train()
    with channels_last(model, PICTURES):
        assert all(module.training for module in model.modules())
        assert model.bn.num_batches_tracked == 0


def test_the_usual_order_returns_after_an_error():
    model = resnet8(3, in_channels=1)
    with pytest.raises(KeyboardInterrupt), channels_last(model, PICTURES):
        raise KeyboardInterrupt
    assert outputs_of(model, PICTURES).is_contiguous()
