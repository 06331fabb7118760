"""A float model from a user's factory, and weights from a user's checkpoint."""

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from mixbit.errors import MisuseError, MixbitError
from mixbit.load import load_callable
from mixbit.models.faults import one_line

_WRAPPERS = ("state_dict", "model", "model_state_dict")


def build_model(factory: str, arguments: Mapping[str, Any], search_path: Sequence[Path], seed: int) -> nn.Module:
    """Call `module:callable` with arguments; its random weights depend on seed alone.

    Raises:
        MisuseError: the reference is wrong, or what it makes is no nn.Module.
        MixbitError: the factory raised, or its model is not float32.
    """
    make = load_callable(factory, search_path)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model = make(**arguments)
        except (Exception, SystemExit) as error:
            given = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
            what = f"the factory failed when called with ({given}): {one_line(error)}"
            raise MixbitError(factory, what, hint="Check model.arguments") from error
    if not isinstance(model, nn.Module):
        got = type(model).__name__ if model is not None else "None"
        raise MisuseError(factory, "not a model factory", expected="a callable that returns an nn.Module", got=got)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            hint = "Return the model without .half() or .double()"
            raise MixbitError(f"{factory}: {name}", "", expected="float32", got=tensor.dtype, hint=hint)
    return model


def load_checkpoint_(model: nn.Module, path: Path, where: str = "checkpoint") -> None:
    """Load a float checkpoint: safetensors, or a state_dict saved by torch (told apart by content, not by name).

    A state_dict may sit under `state_dict`, `model` or `model_state_dict`. Nothing is unpickled but tensors.

    Args:
        model: takes the weights, on its own device and dtype.
        path: the file.
        where: what errors call it.

    Raises:
        MixbitError: not such a file, a pickle that could run code, weights of another architecture, NaN or infinity.
    """
    tensors = _read(path, where)
    bad = [name for name, tensor in tensors.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if bad:
        hint = "Take the checkpoint before the training diverged"
        raise MixbitError(f"{where}: {bad[0]}", "NaN or infinity in the weights", hint=hint)
    load_state_(model, tensors, where)


def _read(path: Path, where: str) -> dict[str, Tensor]:
    with path.open("rb") as file:
        start = file.read(9)
    # safetensors begins with the length of its JSON header, which may look like a zip or a pickle: ask for the brace.
    if start[8:] != b"{" and (start[:2] == b"PK" or start[:1] == b"\x80"):
        return _read_torch(path, where)
    try:
        return load_file(path)
    except SafetensorError as error:
        what, hint = f"cannot be read: {one_line(error)}", "Save model.state_dict() with safetensors.torch.save_file"
        raise MixbitError(where, what, expected="safetensors or a torch state_dict", hint=hint) from error


def _read_torch(path: Path, where: str) -> dict[str, Tensor]:
    hint = "Save model.state_dict() again with safetensors.torch.save_file"
    try:
        data = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        what = "a pickle that holds more than tensors and could run code, which is refused"
        raise MixbitError(where, what, expected="safetensors or a state_dict", hint=hint) from error
    except (RuntimeError, EOFError, ValueError) as error:
        raise MixbitError(where, f"cannot be read: {one_line(error)}", hint=hint) from error
    for wrapper in _WRAPPERS:
        if isinstance(data, dict) and isinstance(data.get(wrapper), dict):
            data = data[wrapper]
    if not isinstance(data, dict) or not data or not all(isinstance(value, Tensor) for value in data.values()):
        raise MixbitError(where, "", expected="a state_dict (name -> tensor)", got=type(data).__name__, hint=hint)
    return data


def load_state_(model: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Load a whole state_dict; names and shapes must match exactly (BatchNorm's counters may be missing).

    Raises:
        MixbitError: the first few names that are missing, unexpected or of another shape.
    """
    held = model.state_dict()
    faults = [
        f"{name} expected {list(held[name].shape)}, got {list(tensors[name].shape)}"
        for name in held
        if name in tensors and held[name].shape != tensors[name].shape
    ]
    faults += [
        f"{name} is missing" for name in held if name not in tensors and not name.endswith(".num_batches_tracked")
    ]
    faults += [f"{name} is unknown to the model" for name in tensors if name not in held]
    if faults:
        more = f"; and {len(faults) - 3} more" if len(faults) > 3 else ""
        what = f"weights of another architecture: {'; '.join(faults[:3])}{more}"
        raise MixbitError(where, what, hint="Check the model's factory and arguments")
    model.load_state_dict(dict(tensors), strict=False)
