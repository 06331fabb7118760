import json

import pytest

from mixbit.errors import ConfigError, MisuseError, MixbitError
from mixbit.own_indicators import ask_own, own_table

ROW = {"2": 0.5, "4": 0.25}
GOOD = {"a": {"weight": ROW, "activation": ROW}, "b": {"weight": ROW, "activation": ROW}}
OWN = """
from mixbit.config import Settings as Base

class Settings(Base):
    rate: float = 0.5

def compute_indicators(*, settings, searched, **given):
    row = {"2": settings.rate, "float": 0.0}
    return {"layers": {name: {"weight": row, "activation": row} for name in searched}}, {}

def fails(**given):
    raise ValueError("no such\\npicture")

def short(**given):
    return {"layers": {}}
"""


def table(content, num_bits=(2, 4)):
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return own_table(text, ["a", "b", "fc"], ["a", "b"], num_bits, "mine.json")


def told(content):
    with pytest.raises(MisuseError) as caught:
        table(content)
    return str(caught.value).split("\n")


def with_row(row):
    return {**GOOD, "b": {"weight": ROW, "activation": row}}


def test_a_table_is_taken_as_it_is_and_float_is_zero():
    assert table(GOOD)["a"] == {"weight": {**ROW, "float": 0.0}, "activation": {**ROW, "float": 0.0}}


def test_an_indicators_json_is_such_a_file():
    assert table({"method": "limpq", "num_bits": [2, 4], "layers": GOOD}) == table(GOOD)


def test_layers_and_bits_that_are_not_searched_are_left_out():
    more = {**GOOD, "fc": {}, "a": {"weight": {**ROW, "8": 0.0}, "activation": ROW}}
    assert table(more) == table(GOOD)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"{", "mine.json: not JSON: "),
        (b'{"a": 1, "a": 2}', "mine.json: not JSON: 'a' is written twice"),
        ([1], "mine.json: not a table of harm"),
        ({"a": GOOD["a"]}, "mine.json: b: no harm, expected {weight: …, activation: …}, got nothing"),
        ({**GOOD, "bb": 1}, "mine.json: bb: no such layer. Did you mean b?"),
        ({**GOOD, "b": {"weight": ROW}}, "mine.json: b: activation: no harm, expected {num_bits: harm}, got nothing"),
        ({**GOOD, "b": {**GOOD["b"], "wieght": ROW}}, "mine.json: b: wieght: unknown kind"),
        (with_row({"2": 0.5}), "mine.json: b: activation: no harm of 4 bits"),
        (with_row({**ROW, "9": 0}), "mine.json: b: activation: 9: not a num_bits"),
        (with_row({**ROW, "4": -1}), "mine.json: b: activation: 4 bits: expected a finite number >= 0, got -1"),
        (with_row({**ROW, "4": float("nan")}), "mine.json: b: activation: 4 bits: expected a finite number >= 0, got"),
        (with_row({**ROW, "4": 10**400}), "mine.json: b: activation: 4 bits: expected a finite number >= 0, got 1000"),
        (with_row({**ROW, "4": True}), "mine.json: b: activation: 4 bits: expected a finite number >= 0, got True"),
        (with_row({**ROW, "float": 0.1}), "mine.json: b: activation: float bits: expected 0, got 0.1"),
    ],
)  # fmt: skip
def test_a_fault_names_file_layer_and_kind(content, line):
    lines = told(content)
    assert len(lines) == 1
    assert lines[0].startswith(line)


def test_all_faults_are_told_at_once():
    assert len(told({"a": {"weight": {"2": -1}, "activation": {}}, "c": 1})) == 5


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own_harm.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "own_harm", raising=False)
    return lambda name, **settings: ask_own(f"own_harm:{name}", [tmp_path], settings, searched=["a"])


def test_a_callable_gets_its_modules_settings(own):
    assert own("compute_indicators", rate=2.0)[0]["layers"]["a"]["weight"]["2"] == 2.0
    assert own("compute_indicators")[0]["layers"]["a"]["weight"]["2"] == 0.5


@pytest.mark.parametrize(
    ("name", "settings", "line"),
    [
        (
            "compute_indicators",
            {"rat": 1},
            "own_harm:compute_indicators: its Settings refuse indicators.settings: rat: ",
        ),
        ("fails", {}, "own_harm:fails: failed: ValueError: no such picture"),
        ("short", {}, "own_harm:short: wrong result, expected ({layers: "),
        ("compute_indicator", {}, "own_harm:compute_indicator: no compute_indicator in module own_harm. Did you mean"),
    ],
)
def test_a_callable_that_fails_gives_one_line(own, name, settings, line):
    with pytest.raises(MixbitError) as caught:
        own(name, **settings)
    assert str(caught.value).startswith(line)
    assert not isinstance(caught.value, ConfigError)
    assert len(str(caught.value).split("\n")) == 1
