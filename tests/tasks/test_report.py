"""The report: one file, the same bytes for the same content, nothing from outside unescaped."""

import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tasks.report import render, write_hero, write_report
from tasks.report_content import Measured, Profile, ReportContent, Shown

NAMES = ("stem", "layer1.conv", "head")
LAYERS = {"layers": [{"name": name, "kind": "conv2d", "macs": 1000, "weights": 90} for name in NAMES]}
BITS = {"2": 0.3, "4": 0.02, "float": 0.0}
INDICATORS = {
    "method": "limpq",
    "num_bits": [2, 4, "float"],
    "layers": {"layer1.conv": {"weight": BITS, "activation": BITS}},
    "repairs": [{"layer": "layer1.conv", "kind": "weight", "num_bits": 2, "from": 0.01, "to": 0.3}],
    "step_movement": {"2": 0.01, "4": 0.02},
}
VOID = {"meta", "br", "path", "use", "rect", "circle", "line", "img"}


def uniform(bits):
    return {name: {"weight_bits": bits, "activation_bits": bits} for name in NAMES}


def figures(bits, metric, *, exported=True):
    found = {"bitops": 1000.0 * bits * bits, "file_bytes": 100.0 * bits, "val_metric": metric, "val_loss": 1 - metric}
    sides = ("simulated", "deployed") if exported else ()
    for side in sides:
        found |= {f"test_metric_{side}": metric, f"test_metric_{side}_se": 0.01, f"test_loss_{side}": 1 - metric}
    return found


def content(**changes):
    kernels = {name: {"policy": [4, 4], "executed": "int8", "kernel": "QLinearConv"} for name in NAMES}
    latency = {"latency_us": 250.0, "ratio_to_float": 0.6, "ratio_to_w8a8": 1.1, "ratio_to_float_p10": 0.55}
    budget = Shown(
        "w4a4",
        "budget",
        uniform(4),
        "4" * 64,
        figures(4, 0.98),
        choice={"budget": {"bitops": 20_000}, "requested": {"bitops": "w4a4"}, "costs": {"bitops": 16_000}},
        deployable={"layers": kernels},
        profiles={"pi5": Profile(latency, {"layers": kernels})},
        onnx_sha256="a" * 64,
        registered="digits-w4a4 v3",
        links={"run": "http://localhost:5000/#/1"},
    )
    shown = (
        Shown("float", "reference", uniform("float"), "f" * 64, figures(32, 0.99)),
        Shown("w8a8", "reference", uniform(8), "8" * 64, figures(8, 0.985)),
        budget,
        Shown("w4a4-uniform", "baseline", uniform(4), "5" * 64, figures(4, 0.97, exported=False), beside="w4a4"),
    )
    return replace(
        ReportContent("digits", shown, LAYERS, {"source": "digits", "counts": {"train": 10}}, INDICATORS), **changes
    )


def test_simulated_times_stand_in_a_section_of_their_own_under_their_models_names():
    shown = tuple(replace(one, simulated={"roofline": 250.0 * (i + 1)}) for i, one in enumerate(content().shown[:2]))
    page = render(content(shown=(*shown, *content().shown[2:])))
    section = page.partition("<h2>Simulated latency</h2>")[2].partition("<h2>")[0]
    assert "<th>simulated:roofline</th>" in section
    assert "500 µs (2.00x float)" in section
    assert "pi5" not in section
    assert "roofline" not in page.replace(section, "")


SHOWN = {"frequency_mhz": 1800.0, "temperature_c": 61.4, "governor": "performance"}
HIDDEN = dict.fromkeys(SHOWN)
CONDITIONS = {
    "clock": "cpu", "rounds": {"kept": 12, "discarded": 3}, "contention": {"median": 1.0, "p90": 1.31, "alarm": False},
    "throttling": {"slowed": 0.081, "alarm": True},
    "clocks": {"before": SHOWN | {"temperature_c": 50.0}, "after": SHOWN},
    "layers": {"stem": {"policy": [4, 4], "executed": "float", "kernel": "Conv", "latency_us": 7.0,
                        "ratio_to_float": 1.5}},
}  # fmt: skip


def measured(**changes):
    figures = {"latency_us": 250.0, "latency_us_p10": 240.0, "latency_us_p90": 290.0, "slowed": 0.081}
    profile = Profile(figures | {"throttling_alarm": 1.0}, CONDITIONS | changes)
    return render(content(shown=(replace(content().shown[2], profiles={"pi5": profile}),)))


def test_spread_pace_and_clocks_stand_beside_a_measured_latency():
    page = measured()
    assert "250 µs (240 to 290)" in page
    assert "the float reference slowed by 8% while it was measured" in page
    told = page.partition("<h2>How it was measured</h2>")[2].partition("<h2>")[0]
    cells = ["12 of 15", "1.00", "1.31", "+8.1%", "1800", "1800", "50", "61", "performance"]
    assert [told.index(f">{cell}<") for cell in cells] == sorted(told.index(f">{cell}<") for cell in cells)


def test_candidates_stand_with_both_references_and_what_disturbed_them():
    run = {"latency_us": 50.0, "ratio_to_float": {"median": 0.5, "p10": 0.48, "p90": 0.55}}
    one = {"kind": "best", "harm": 0.1, "policy_sha256": "4" * 64, "executed": {"float": 1, "int8": 2}}
    measuring = {
        "limits_us": {"pi5": 60.0}, "references": {"pi5": {"w8a8": {"latency_us": 40.0}}},
        "contention": {"pi5": {"alarm": True}}, "throttling": {"pi5": {"slowed": 0.07, "alarm": True}},
    }  # fmt: skip
    choice = {"candidates": [one | {"predicted_us": {"pi5": 52.0}, "measured": {"pi5": run}}], "measuring": measuring}
    page = render(content(shown=(replace(content().shown[2], choice=choice),)))
    assert "<td>+4.0%</td><td>0.50x (0.48 to 0.55)</td><td>1.25x</td><td>chosen</td>" in page
    assert "the machine was busy: take with care; the float reference slowed by 7%" in page


def test_what_a_machine_does_not_show_is_said_not_left_out():
    page = measured(clocks={"before": HIDDEN, "after": HIDDEN})
    assert page.count("not shown by this machine") == 5


def test_each_devices_own_kernels_stand_beside_the_policys_bits():
    own = measured().partition("<h2>Layers on each device</h2>")[2]
    assert "<td>stem</td><td>4 / 4</td><td>float</td><td>Conv</td><td>7.0</td><td>1.50x</td>" in own


def test_layers_that_lose_from_int8_are_said_and_escaped():
    kernels = {"a<b": {"policy": [4, 4], "executed": "int8", "kernel": "QLinearConv", "depthwise": True}}
    lost = Profile({"latency_us": 9.0}, {"layers": kernels, "slower_in_int8": {"a<b": 1.31}})
    changed = replace(content().shown[2], profiles={"pi5": lost})
    said = "w4a4: slower in int8 than in float on pi5: a&lt;b (depthwise, 1.3x)"
    assert said in render(content(shown=(changed,)))
    assert "slower in int8" not in render(content())


@pytest.fixture(scope="module")
def html():
    return render(content())


class Balance(HTMLParser):
    """Tags that are open, and everything that would be fetched."""

    def __init__(self):
        super().__init__()
        self.open, self.fetched = [], []

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.fetched += [value for name, value in found.items() if name in {"src", "srcset", "data", "action"}]
        self.fetched += [found["href"]] if tag in {"link", "image"} else []
        self.open += [tag] if tag not in VOID else []

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag("br", attrs)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag


def test_it_is_whole_and_fetches_nothing(html):
    parser = Balance()
    parser.feed(html)
    assert parser.open == []
    assert parser.fetched == []
    assert "<script" not in html
    assert "url(http" not in html
    assert "@import" not in html


def test_every_section_is_there(html):
    titles = [part.partition("</h2>")[0] for part in html.split("<h2>")[1:]]
    assert titles == [
        *("What the bits cost", "Against baselines", "Bits per layer", "Indicators (limpq)"),
        *("How far the step sizes moved", "Predicted and measured latency", "Simulated and deployed", "Everything"),
        *("Policy bits and executed bits", "Layers on each device", "Why these policies"),
    ]


def test_policies_and_files_are_named_by_their_whole_digests(html):
    assert all(digit * 64 in html for digit in "f845a")


def test_small_movement_is_told_in_plain_words(html):
    assert "A typical step size ended 2% away from where it began. That is little" in html
    moved = content(indicators={**INDICATORS, "step_movement": {"2": 0.4, "4": 0.5}})
    assert "That is enough" in render(moved)


def test_repaired_values_show_their_raw_value(html):
    assert 'title="raw 0.01, repaired 0.3"' in html


def test_policy_bits_stand_beside_executed_bits(html):
    assert "<td>4 / 4</td><td>int8</td><td>QLinearConv</td>" in html


def test_the_same_content_makes_the_same_bytes_in_another_process(html):
    code = (
        "import importlib.util, sys; spec = importlib.util.spec_from_file_location('t', sys.argv[1])\n"
        "module = importlib.util.module_from_spec(spec); spec.loader.exec_module(module)\n"
        "sys.stdout.write(module.render(module.content()))"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code, __file__], cwd=root, env={"PYTHONPATH": str(root)}, capture_output=True, check=True
    )
    assert done.stdout.decode() == html


def test_names_from_outside_are_escaped():
    evil = '<script>alert("1")</script>'
    layers = {"layers": [{"name": evil, "kind": "conv2d", "macs": 1, "weights": 1}]}
    policy = {evil: {"weight_bits": 4, "activation_bits": 4}}
    kernels = {"layers": {evil: {"policy": [evil], "executed": evil, "kernel": evil, "reason": evil}}}
    links = {evil: f"javascript:{evil}", "ok": f"http://x/{evil}"}
    one = Shown(evil, "budget", policy, evil, figures(4, 0.9), registered=evil, links=links, deployable=kernels)
    indicators = {"method": evil, "num_bits": [2], "layers": {evil: {"weight": {"2": 1.0}, "activation": {"2": 1.0}}}}
    page = render(ReportContent(evil, (one,), layers, {"source": evil}, indicators, metric=evil, facts={evil: evil}))
    assert "<script" not in page
    assert 'href="javascript' not in page


def test_a_hand_written_policy_without_profile_indicators_and_baseline_is_shown():
    one = Shown("given", "budget", uniform(4), "4" * 64, figures(4, 0.98), choice={"status": "given"})
    page = render(ReportContent("digits", (one,), LAYERS))
    assert "What the bits cost" in page
    assert "Indicators" not in page
    assert "Predicted and measured latency" not in page


def test_an_experiment_without_results_still_makes_a_page():
    assert "<h1>digits</h1>" in render(ReportContent("digits", (), LAYERS))


def test_another_metric_has_no_percent():
    page = render(content(metric="mean error"))
    assert "0.9800 ± 0.0100" in page
    assert "accuracy" not in page


def test_mathtext_in_a_name_is_only_text():
    layers = {"layers": [{"name": "a$_{b", "kind": "conv2d", "macs": 1, "weights": 1}]}
    one = Shown("c$^{d", "budget", {"a$_{b": {"weight_bits": 4, "activation_bits": 4}}, "4" * 64, figures(4, 0.9))
    assert "bits per layer" in render(ReportContent("x", (one,), layers))


def test_writing_leaves_one_file(tmp_path):
    path = write_report(tmp_path / "reports" / "report.html", content())
    assert [entry.name for entry in path.parent.iterdir()] == ["report.html"]
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_the_hero_is_the_same_png_every_time(tmp_path):
    first, second = (write_hero(tmp_path / name, content()).read_bytes() for name in ("a.png", "b.png"))
    assert first == second
    assert first.startswith(b"\x89PNG")


def test_figures_carry_their_standard_errors():
    shown = content().shown[0]
    assert shown.measured("test_metric_deployed") == Measured(0.99, 0.01)
    assert shown.measured("val_loss").standard_error is None
    assert shown.measured("nothing") is None
