"""A whole small pipeline of tiny artifacts on the tracking server, for the tests of lineage."""

import hashlib
import json
from dataclasses import dataclass, replace

from tasks import tracking
from tasks.record import Input, Output, Record

MD5 = "0123456789abcdef0123456789abcdef"


@dataclass(frozen=True)
class Logged:
    """What a test needs of one pipeline."""

    records: dict
    files: dict

    def run_id(self, cell):
        return self.records[cell].run_id

    def sha256(self, cell, file):
        return self.records[cell].outputs[file].sha256


class Pipeline:
    """Logs cells in order; `salt` makes the bytes of one test differ from those of every other."""

    def __init__(self, url, folder, salt):
        self.url, self.folder, self.salt = url, folder, salt
        self.records, self.files = {}, {}

    def cell(self, name, outputs, inputs=None, params=None, *, figures=None, closure=None):
        stage = name.partition(" ")[0]
        record = Record(
            stage=stage,
            key=hashlib.sha256(
                f"{self.salt}{name}{sorted(outputs.items())}{inputs}{params}{closure}".encode()
            ).hexdigest(),
            params=params or {},
            inputs={key: self._input(*value) for key, value in (inputs or {}).items()},
            closure=closure or {f"tasks/{stage}.py": {"compute": "1"}},
            facts={"torch": "2.13.0"},
            outputs={file: self._output(file, content) for file, content in outputs.items()},
            figures=figures or {},
            seconds=0.5,
        )
        paths = {file: self.files[one.sha256] for file, one in record.outputs.items()}
        run_id = tracking.log_stage(self.url, record, paths, {"git.commit": "c0ffee"})
        self.records[name] = replace(record, run_id=run_id)

    def _input(self, cell, file):
        if cell is None:
            return Input(file, "source")
        return Input(self.records[cell].outputs[file].sha256, f"{self.records[cell].stage}/{file}")

    def _output(self, file, content):
        content = content if isinstance(content, bytes) else f"{self.salt}{content}".encode()
        sha256 = hashlib.sha256(content).hexdigest()
        self.files[sha256] = self.folder / sha256
        self.files[sha256].write_bytes(content)
        return Output(sha256, len(content))


def policy_json(salt, **weight_bits):
    """A policy whose layer names carry the salt."""
    entries = {f"{salt}.{layer}": {"weight_bits": bits, "activation_bits": 8} for layer, bits in weight_bits.items()}
    return json.dumps(entries, sort_keys=True, separators=(",", ":")).encode()


def log_pipeline(url, folder, salt, *, conv2=4, alpha=1.0, solver="1", accuracy=0.97):
    """Dataset to profile, for one budget `w4a4`."""
    p = Pipeline(url, folder, salt)
    info = json.dumps({"md5": MD5, "name": salt}).encode()
    p.cell("dataset", {"dataset.safetensors": "pictures", "dataset_info.json": info}, {"source": (None, "5" * 64)})
    data = {"dataset": ("dataset", "dataset.safetensors"), "info": ("dataset", "dataset_info.json")}
    p.cell("layers", {"layers.json": "layers"}, {"info": data["info"]})
    p.cell("float_model", {"float_model.safetensors": "float"}, data, figures={"val_metric": 0.99})
    p.cell(
        "indicators", {"indicators.json": "harm"}, data | {"float_model": ("float_model", "float_model.safetensors")}
    )
    policy = policy_json(salt, conv1=8, conv2=conv2)
    chosen = {"indicators": ("indicators", "indicators.json"), "layers": ("layers", "layers.json")}
    code = {"policies/ilp.py": {"solve": solver}}
    p.cell("policy w4a4", {"policy.json": policy}, chosen, {"alpha": alpha}, figures={"bitops": 1e6}, closure=code)
    tuned = {"policy": ("policy w4a4", "policy.json"), "float_model": ("float_model", "float_model.safetensors")}
    p.cell("finetuned_model w4a4", {"finetuned_model.safetensors": f"tuned {conv2}"}, data | tuned)
    made = {"finetuned_model": ("finetuned_model w4a4", "finetuned_model.safetensors"), "policy": tuned["policy"]}
    accuracies = {"test_metric_simulated": accuracy, "test_metric_deployed": accuracy}
    p.cell("deployable w4a4", {"packed.onnx": f"onnx {conv2}"}, data | made, figures=accuracies)
    measured = {"packed": ("deployable w4a4", "packed.onnx"), "info": data["info"]}
    latency = {"latency_us": 800.0 + conv2}
    profile = {"profile.json": f"profile {conv2}"}
    p.cell("profile w4a4 pi5", profile, measured, {"device": "pi5"}, figures=latency)
    return Logged(p.records, p.files)
