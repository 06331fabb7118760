"""ONNX Runtime sessions as every measurement and check here opens them."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mixbit.devices.onnx_file import read_opset
from mixbit.errors import MisuseError, MixbitError


def open_session(
    model: Path | bytes,
    *,
    threads: int,
    optimize: bool = True,
    dump: Path | None = None,
    profile: Path | None = None,
    config: Mapping[str, str] | None = None,
) -> Any:
    """An `onnxruntime.InferenceSession` on the CPU.

    Args:
        model: a file, or its bytes.
        threads: intra-op threads; waiting threads do not spin.
        optimize: False runs every node as written.
        dump: where to write the optimized graph.
        profile: how names of the runtime's own profile begin; it is written when the session's profiling is ended.
        config: further session configuration entries.

    Raises:
        MixbitError: ONNX Runtime is not installed, or refuses the file.
    """
    ort = import_runtime()
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    for key, value in (config or {}).items():
        options.add_session_config_entry(key, value)
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    if dump is not None:
        options.optimized_model_filepath = str(dump)
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    source = model if isinstance(model, bytes) else str(model)
    try:
        return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        where = "ONNX model" if isinstance(model, bytes) else str(model)
        needs = f"{_opset_words(model)}ONNX Runtime here is {ort.__version__}: upgrade it if that is too old"
        hint = f"{needs}; 4-bit files need 1.23, 2-bit files 1.24"
        raise MixbitError(where, f"ONNX Runtime refuses it: {str(error).splitlines()[0]}", hint=hint) from error


def optimized_graph(model: Path | bytes, *, threads: int) -> bytes:
    """The graph that ONNX Runtime really executes on this machine, as ONNX bytes."""
    with tempfile.TemporaryDirectory() as folder:
        dump = Path(folder) / "optimized.onnx"
        open_session(model, threads=threads, dump=dump)
        return dump.read_bytes()


def _opset_words(model: Path | bytes) -> str:
    try:
        return f"The file is opset {read_opset(model)}, "
    except (MisuseError, OSError):
        return ""


def import_runtime() -> Any:
    """The module `onnxruntime`.

    Raises:
        MixbitError: it is not installed.
    """
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise MixbitError(
            "device",
            "ONNX Runtime is not installed",
            hint="In the clone: pip install --require-hashes -r requirements-device.lock",
        ) from None
    return onnxruntime
