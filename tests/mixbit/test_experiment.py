"""What may be declared, and how a mistake is told."""

import pytest

from mixbit.errors import ConfigError
from mixbit.experiment import Experiment
from tests.mixbit.reading import parse

SEARCH = """
name: small
model: {factory: "my.model:net", train: {epochs: 3}}
data: digits
indicators: {num_bits: [8, 2, float, 4]}
budgets: {w4a4: {bitops: w4a4}}
finetune: none
"""


@pytest.fixture
def declare(tmp_path):
    def _declare(text):
        path = tmp_path / "x.yaml"
        path.write_text(text)
        return parse(path, Experiment)

    return _declare


@pytest.fixture
def refusal(declare):
    def _refusal(old, new):
        assert old in SEARCH
        with pytest.raises(ConfigError) as caught:
            declare(SEARCH.replace(old, new))
        return str(caught.value).partition("x.yaml:")[2]

    return _refusal


def test_all_that_can_be_declared_reads_back(declare):
    experiment = declare("""
name: everything
model: {factory: "my.model:net", arguments: {width: 8}, checkpoint: net.safetensors}
data: {callable: "my.data:load", arguments: {size: 8}}
task: {loss: "my.task:loss", metric: "my.task:metric", direction: minimize}
proxy: {method: herding, fraction: 0.25, seed: 3}
indicators: {method: limpq, num_bits: [float, 8, 2], settings: {epochs: 2}}
allocation: {alpha: 2, time_limit_s: 10}
fixed_layers: none
groups: [[a, b], [c, d]]
layers: {"stem*": {min_bits: 4, max_bits: 8}, head: {exclude: true}}
budgets:
  small: {bitops: 1_000_000, size_bits: 12.2x, file_bytes: 1e3}
  "no": {bitops: w2a8}
finetune: {epochs: 1, distill: 0.5, start: float}
devices: [local, pi5]
seed: 7
threads: 2
""")
    assert experiment.indicators.num_bits == (2, 8, "float")
    assert experiment.budgets["small"] == {"bitops": 1_000_000, "size_bits": "12.2x", "file_bytes": 1000.0}
    assert experiment.layers["stem*"].min_bits == 4
    assert experiment.finetune.distill == 0.5


def test_the_order_of_num_bits_means_nothing(declare):
    assert declare(SEARCH) == declare(SEARCH.replace("[8, 2, float, 4]", "[2, 4, 8, float]"))


def test_a_hand_written_policy_needs_no_search(declare):
    text = SEARCH.replace("indicators: {num_bits: [8, 2, float, 4]}\nbudgets: {w4a4: {bitops: w4a4}}", "policy: p.json")
    assert declare(text).policy == "p.json"


@pytest.mark.parametrize("bits", ["1", "9", "0", "-4", "4.0", "'4'", "true", "Float", "fp32", "null", "[4]"])
def test_num_bits_outside_2_to_8_and_float_are_refused(refusal, bits):
    assert refusal("[8, 2, float, 4]", f"[2, {bits}]").startswith(
        f"5: indicators.num_bits[1]: expected 2 to 8, or float, got {bits}"
    )


@pytest.mark.parametrize(
    "limit",
    [
        "0",
        "-5",
        ".nan",
        ".inf",
        "-.inf",
        "0x",
        "0.0x",
        "0.5x",
        "w9a4",
        "w4",
        "w4a1",
        "lots",
        "true",
        "''",
        "[1]",
        "x",
        "1e999",
    ],
)
def test_a_limit_that_limits_nothing_is_refused(refusal, limit):
    text = refusal("bitops: w4a4", f"bitops: {limit}")
    assert text.startswith("6: budgets.w4a4.bitops: expected a positive number, w2a2 to w8a8")
    assert f"got {limit}" in text


@pytest.mark.parametrize("limit", ["1", "0.5", "1e6", "12.2x", "1x", "w2a8", "w8a2"])
def test_limits_are_absolute_or_relative(declare, limit):
    assert "bitops" in declare(SEARCH.replace("bitops: w4a4", f"bitops: {limit}")).budgets["w4a4"]


TIMED = "budgets:\n  fast:\n    latency[local]: {}"


@pytest.mark.parametrize("limit", ["8 ms", "850 us", "1.5 s", "0.8x float", "1.1x w8a8"])
def test_a_latency_is_limited_by_a_time_or_a_reference(declare, limit):
    text = SEARCH.replace("budgets: {w4a4: {bitops: w4a4}}", TIMED.format(limit))
    assert declare(text).budgets["fast"] == {"latency[local]": limit}


PEAK = "budgets:\n  small:\n    peak_activation_bytes: {}"


@pytest.mark.parametrize("limit", ["200 kB", "1.5MiB", "w4a4", "2x"])
def test_peak_activation_memory_is_limited_by_a_size_too(declare, limit):
    text = SEARCH.replace("budgets: {w4a4: {bitops: w4a4}}", PEAK.format(limit))
    assert declare(text).budgets["small"] == {"peak_activation_bytes": limit}


def test_a_size_that_is_none_is_told_what_one_is(refusal):
    text = refusal("budgets: {w4a4: {bitops: w4a4}}", PEAK.format("200 kb"))
    assert text.startswith("8: budgets.small.peak_activation_bytes: expected a positive number, a size such as 200 kB")


@pytest.mark.parametrize("limit", ["8", "w4a4", "12.2x", "0 ms", "2x w4a4", "true", "[8 ms]"])
def test_a_latency_without_a_unit_or_a_reference_is_refused(refusal, limit):
    text = refusal("budgets: {w4a4: {bitops: w4a4}}", TIMED.format(limit))
    assert text.startswith('8: budgets.fast["latency[local]"]: expected a time such as 8 ms (us, ms or s), or such as')


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("bitops: w4a4", "bitop: w4a4", "6: budgets.w4a4.bitop: not a key here, expected bitops, size_bits, file_by"),
        ("{bitops: w4a4}", "{}", "6: budgets.w4a4: expected at least 1 entry, got {}"),
        ("{w4a4:", "{a/b:", '6: budgets["a/b"]: not a key here, expected a name'),
        ("finetune: none", "", "1: finetune: missing, expected none, or a mapping with epochs. Add finetune"),
        ("finetune: none", "finetune: {}", "7: finetune.epochs: missing, expected a whole number >= 1"),
        ("finetune: none", "finetune: none\npolicy: x", "expected either policy (a file) or budgets, not both"),
        ("finetune: none", "finetune: none\ndevices: [a, a]", "devices: expected each name once; more than once: a"),
        ("my.model:net", "os:system", "3: model.factory: expected module:callable of yours or of an installed package"),
        ("my.model:net", "my.model", "3: model.factory: expected module:callable"),
        ("my.model:net", "a..b:c", "3: model.factory: expected module:callable"),
        ("train: {epochs: 3}", "arguments: {a: .nan}", "3: model.arguments: expected finite numbers"),
        (", train: {epochs: 3}", "", "3: model: expected exactly one of checkpoint (a file) and train (a schedule)"),
        ("data: digits", "data: {npz: a, folder: b}", "4: data: expected exactly one of npz, folder and callable"),
        ("data: digits", "data: 3", "4: data: expected a name from dvc.yaml, or a mapping with npz, folder"),
        ("[8, 2, float, 4]", "[]", "5: indicators.num_bits: expected at least 1 entry, got []"),
        ("[8, 2, float, 4]", "[float]", "5: indicators.num_bits: expected at least one of num_bits from 2 to 8"),
        ("[8, 2, float, 4]", "[4, 4]", "5: indicators.num_bits: expected each of num_bits once"),
        ("name: small", "name: a b", "2: name: expected a name: letters, digits"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_line(refusal, old, new, words):
    assert words in refusal(old, new)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("groups: [[a]]", "groups: expected at least two layers in every group"),
        ("groups: [[a, b], [b, c]]", "groups: expected every layer in at most one group; more than once: b"),
        ("groups: [[a, a]]", "more than once: a"),
        ("layers: {a: {min_bits: 5, max_bits: 4}}", "layers.a: expected min_bits <= max_bits"),
        ("layers: {a: {exclude: true, max_bits: 4}}", "layers.a: expected exclude alone"),
        ("layers: {a: {}}", "layers.a: expected min_bits, max_bits or exclude"),
        ("layers: {a: {max_bits: 9}}", "layers.a.max_bits: expected a number <= 8, got 9"),
        ("proxy: {fraction: 0}", "proxy.fraction: expected a number > 0, got 0"),
        ("proxy: {method: herdng, fraction: 1}", "Did you mean herding?"),
        ("task: {loss: 'a:b', metric: 'a:c', direction: up}", "direction: expected maximize or minimize, got up"),
        ("threads: 0", "threads: expected a number >= 1, got 0"),
    ],
)
def test_a_mistake_in_an_optional_key_is_told_with_its_line(refusal, line, words):
    text = refusal("finetune: none", f"finetune: none\n{line}")
    assert text.startswith("8: ")
    assert words in text
