"""docs/methods.md says what there is, and its file works."""

import re
import sys

import pytest

from mixbit.indicators import check_table
from mixbit.load import method_names
from mixbit.models.graph import describe_layers
from mixbit.own_indicators import ask_own, own_table
from mixbit.training.numerics import fixed_numerics
from mixbit.training.task import classification
from tasks.place import ROOT
from tests.policies.indicator_case import FOLDER, NUM_BITS, SHAPE, pictures, quiet, resnet, searched

PAGE = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")


def block(language):
    return re.search(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)[1]


def test_the_page_has_a_row_for_every_method_and_no_other():
    rows = re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)
    assert sorted(rows) == sorted([*method_names(FOLDER), *method_names("policies.searches")])


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "my_noise.py").write_text(block("python"))
    yield tmp_path
    sys.modules.pop("my_noise", None)
    sys.path.remove(str(tmp_path))


def test_the_file_on_the_page_is_a_method(folder):
    layers = describe_layers(resnet(), SHAPE)
    given = {"model": resnet(), "layers": layers, "pictures": pictures(), "task": classification(), "seed": 0,
             "num_bits": NUM_BITS, "searched": searched(layers), "checkpoint": folder, "progress": quiet}  # fmt: skip
    with fixed_numerics(1):
        indicators, tensors = ask_own("my_noise:compute_indicators", [folder], {"calibration_pictures": 32}, **given)
    check_table(indicators["layers"], searched(layers), NUM_BITS, "my_noise")
    assert tensors == {}


def test_the_table_on_the_page_is_a_table():
    rows = own_table(block("json").encode(), ["conv1"], ["conv1"], (2, 4, 8), "my_table.json")
    assert rows["conv1"]["weight"]["2"] == 0.9
