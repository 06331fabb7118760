"""Reading YAML into settings: every fault at once, with the line and the value as written."""

import math
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from mixbit.config import Settings, read_yaml
from mixbit.errors import ConfigError
from tests.mixbit.reading import parse


class Inner(Settings):
    rate: float = Field(default=0.1, gt=0)
    epochs: int = 1


class Outer(Settings):
    title: str = "x"
    inner: Inner = Inner()
    either: str | Inner = "word"
    off: Inner | Literal["none"] = "none"
    counts: tuple[int, ...] = ()
    flag: bool = False
    anything: dict[str, Any] = Field(default_factory=dict)


@pytest.fixture
def write(tmp_path):
    def _write(content):
        path = tmp_path / "x.yaml"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return _write


def lines_of(path, model=Outer):
    with pytest.raises(ConfigError) as caught:
        parse(path, model)
    return str(caught.value).replace(f"{path.parent}/", "").split("\n")


def test_every_fault_is_told_at_once_in_the_order_of_lines(write):
    path = write("title: 3\ninner:\n  epocs: 2\n  rate: fast\ncounts:\n- 1\n- two\nflag: maybe\n")
    assert lines_of(path) == [
        "x.yaml:1: title: expected text, got 3. Put it in quotes",
        "x.yaml:3: inner.epocs: unknown key. Did you mean epochs?",
        "x.yaml:4: inner.rate: expected a number, got fast",
        "x.yaml:7: counts[1]: expected a whole number, got two",
        "x.yaml:8: flag: expected true or false, got maybe",
    ]


def test_a_union_is_told_once(write):
    assert lines_of(write("either: [1]\n")) == ["x.yaml:1: either: expected text or a mapping (key: value), got [1]"]
    assert lines_of(write("off: nome\n")) == [
        "x.yaml:1: off: expected a mapping (key: value) or none, got nome. Did you mean none?"
    ]


def test_a_mapping_in_a_union_is_told_by_its_own_keys(write):
    path = write("either:\n  epochs: x\n  rate: -1\n")
    assert lines_of(path) == [
        "x.yaml:2: either.epochs: expected a whole number, got x",
        "x.yaml:3: either.rate: expected a number > 0, got -1",
    ]


def test_a_key_written_twice_is_refused_beside_the_other_faults(write):
    assert lines_of(write("flag: true\ntitle: 3\nflag: false\n")) == [
        "x.yaml:2: title: expected text, got 3. Put it in quotes",
        "x.yaml:3: flag: written twice, first in line 1. Keep one of them",
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "x.yaml: expected a mapping (key: value), got an empty file"),
        (b"# nothing\n", "got an empty file"),
        (b"- 1\n- 2\n", "x.yaml:1: expected a mapping with title"),
        (b"just text\n", "got just text"),
        (b"a: 1\n\xff\xfe", "x.yaml:2: not text, expected UTF-8, got byte 0xff at offset 5"),
        (b"\x00\x01\x02", "not YAML"),
        (b"a: [1,\nb: 2", "not YAML"),
        (b"a:\n\t- 1\n", "Indent with spaces, not tabs"),
        (b"a: 1\n---\nb: 2\n", "a second document"),
        (b"[" * 5000, "nested deeper than 30 levels"),
        (b"a: &a [*a]\n", "an alias that contains itself"),
        (b"title: !!python/object/apply:os.system [x]\n", "a tag"),
        (b"title: !secret x\n", "x.yaml:1: title: a tag, expected a plain value, got !secret x. Remove the tag"),
        (b"a: &a {b: 1}\nc:\n  <<: *a\n", "Merge keys are not read"),
        (b"? [1, 2]\n: x\n", "expected a word as key, got [1, 2]"),
        (b'title: "\\0"\n', "expected printable text"),
        (b'title: "\\ud800"\n', "expected printable text"),
        (b"x" * 1_000_001, "too big, expected at most 1000000 bytes"),
    ],
)
def test_what_is_no_settings_file_is_refused_in_words(write, content, words):
    assert words in "\n".join(lines_of(write(content)))


def test_aliases_that_unfold_without_end_are_refused(write):
    bomb = "a0: &a0 [1, 2]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 25))
    assert "aliases unfold to more than" in lines_of(write(bomb))[0]


def test_a_missing_file_names_its_neighbours(write):
    path = write("title: a\n")
    assert lines_of(path.with_name("y.yaml")) == ["y.yaml: no such file. Did you mean x.yaml?"]
    assert "got a folder. In it: x.yaml" in lines_of(path.parent)[0]
    assert "There is no folder" in lines_of(path.parent / "none" / "x.yaml")[0]


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("no", "no"), ("on", "on"), ("1e-3", 1e-3), ("1.e3", 1e3), (".5", 0.5), ("08", 8), ("010", 10), ("0o10", 8),
        ("0x1F", 31), ("1_000_000", 1_000_000), ("1_2", "1_2"), ("true", True), ("~", None), ("", None), ("-7", -7),
        ("2024-01-02", "2024-01-02"), ("1:30", "1:30"), ("'3'", "3"), (".inf", math.inf), ("-.inf", -math.inf),
        ("9" * 5000, float("inf")), ("w4a4", "w4a4"), ("12.2x", "12.2x"), ("=", "="),
    ],
)  # fmt: skip
def test_plain_words_mean_what_the_yaml_core_schema_says(write, word, value):
    data, marks = read_yaml(write(f"- a\n- key: {word}\n"))
    assert data == ["a", {"key": value}]
    assert marks.line((1, "key")) == 2


def test_keys_are_text_as_written(write):
    assert read_yaml(write("on: 1\n4: 2\n1e3: 3\n"))[0] == {"on": 1, "4": 2, "1e3": 3}


def test_lines_of_nested_keys_and_items(write):
    _, marks = read_yaml(write("a:\n  b:\n  - 1\n  -\n    c: 2\n"))
    assert [marks.line(place) for place in [("a",), ("a", "b", 0), ("a", "b", 1, "c"), ("a", "gone")]] == [1, 3, 5, 1]


def test_not_finite_numbers_are_refused(write):
    assert lines_of(write("inner:\n  rate: .nan\n")) == ["x.yaml:2: inner.rate: expected a finite number, got .nan"]
    assert "expected a finite number" in lines_of(write("inner: {rate: 1e999}\n"))[0]


def test_nothing_is_converted_silently(write):
    path = write("inner: {epochs: 3.0}\nflag: 1\ncounts: ['1']\n")
    assert [line.partition(": ")[2].partition(":")[0] for line in lines_of(path)] == [
        "inner.epochs",
        "flag",
        "counts[0]",
    ]


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.binary(max_size=80), st.text(max_size=80).map(str.encode)))
def test_no_bytes_make_anything_but_a_config_error(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("bytes") / "x.yaml"
    path.write_bytes(content)
    try:
        told = parse(path, Outer).title
    except ConfigError as error:
        told = str(error)
    assert "pydantic" not in told
    assert "Input should" not in told
