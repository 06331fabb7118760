"""proxy.json is not believed unchecked."""

import json

import numpy as np
import pytest

from mixbit.data.manifest import parse, verified
from mixbit.data.proxy import manifest
from mixbit.errors import ConfigError, MixbitError

Y = np.array([0, 0, 0, 0, 0, 0, 1, 1])
GOOD = manifest(np.array([0, 2, 4, 6]), method="herding", fraction=0.5, seed=0, dataset_sha256="ab" * 32)


def message(**changes):
    with pytest.raises(ConfigError) as caught:
        verified({**GOOD, **changes}, Y, ("cat", "dog"), "ab" * 32, "half")
    return str(caught.value)


def test_a_good_manifest_gives_its_indices():
    said = parse(json.dumps(GOOD).encode(), "half")
    assert verified(said, Y, ("cat", "dog"), "ab" * 32, "half").tolist() == [0, 2, 4, 6]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"dataset_sha256": "cd" * 32}, "half: dataset_sha256: expected abababababab, got cdcdcdcdcdcd"),
        ({"indices": [0, 2, 2, 6]}, "half: indices: expected sorted, each once"),
        ({"indices": [0, 4, 2, 6]}, "half: indices: expected sorted, each once"),
        ({"indices": [0, 2, 6, 8]}, "half: indices: 1 outside train, expected 0..7, got 8"),
        ({"indices": [-1, 0, 2, 6]}, "half: indices: 1 outside train, expected 0..7, got -1"),
        ({"indices": [0, 6], "count": 2}, "half: count: expected 4 pictures (0.5 of 8), got 2 and 2 indices"),
        ({"count": 5}, "half: count: expected 4 pictures (0.5 of 8), got 5 and 4 indices"),
        ({"fraction": 1.5}, "half: fraction: expected in (0, 1], got 1.5"),
        ({"indices": [0, 1, 2, 3]}, "half: no picture of class dog, expected every class. A fraction of 0.5 would do"),
    ],
)
def test_a_manifest_that_can_not_be_true_is_refused(changes, expected):
    assert expected in message(**changes)


def test_all_faults_come_at_once():
    assert len(message(indices=[9, 3, 3], count=3).splitlines()) == 4


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        json.dumps({**GOOD, "more": 1}).encode(),
        json.dumps({**GOOD, "count": "4"}).encode(),
        json.dumps({**GOOD, "count": True}).encode(),
        json.dumps({**GOOD, "indices": []}).encode(),
        json.dumps({**GOOD, "indices": [0.5]}).encode(),
    ],
)
def test_what_is_no_manifest_is_said_in_one_line(content):
    with pytest.raises(MixbitError, match=r"^half") as caught:
        parse(content, "half")
    assert "\n" not in str(caught.value)
