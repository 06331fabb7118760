"""The bytes of an ONNX file: the same for the same content, in every process."""

from collections.abc import Mapping
from typing import Any

import onnx_ir as ir

from mixbit.policy import Policy, canonical_json, policy_sha256, short_policy

FORMAT_VERSION = "2"


def describe(*, policy: Policy, inputs: Mapping[str, str], info: Mapping[str, Any]) -> dict[str, str]:
    """What a deployed file says about itself; never a key, a run id, a time, a path: equal results are equal bytes.

    Args:
        policy: layer -> (weight num_bits, activation num_bits).
        inputs: input name -> sha256 of what the file was made from.
        info: dataset_info.json, for preprocessing and labels.
    """
    preprocessing = {
        "input_shape": info["input_shape"],
        "layout": "NCHW",
        "dtype": info["dtype"],
        "mean": info["mean"],
        "std": info["std"],
    }
    return {
        "mixbit.format": FORMAT_VERSION,
        "mixbit.policy": canonical_json(short_policy(policy)).decode(),
        "mixbit.policy.sha256": policy_sha256(policy),
        "mixbit.inputs": canonical_json(dict(inputs)).decode(),
        "mixbit.preprocessing": canonical_json(preprocessing).decode(),
        "mixbit.labels": canonical_json(list(info["labels"])).decode(),
    }


def to_bytes(model: ir.Model, metadata: Mapping[str, str] | None = None) -> bytes:
    """Serialize; metadata in the order of their keys."""
    model.metadata_props.clear()
    model.metadata_props.update(sorted((metadata or {}).items()))
    proto = ir.to_proto(model)
    # Types and shapes of initializers, which carry them themselves.
    del proto.graph.value_info[:]
    content: bytes = proto.SerializeToString(deterministic=True)
    return content
