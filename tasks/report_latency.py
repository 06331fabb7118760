"""Sections of the report about time: what devices took, under which conditions, and what models say."""

from collections.abc import Iterator, Mapping
from typing import Any

from mixbit.latency import SIMULATED
from tasks.report_content import Profile, ReportContent, Shown
from tasks.report_page import Html, section, table, text
from tasks.report_points import short_amount
from tasks.report_tables import kernel_counts
from tasks.report_words import NOTHING, exact_words

NOT_SHOWN = "not shown by this machine"


def profiles(content: ReportContent) -> str | None:
    """Each file on each device: latency, ratios with their spread, memory, executed bits, and warnings."""
    heads = [
        "policy",
        "device",
        "dialect",
        "latency (10th to 90th percentile)",
        "relative to float",
        "relative to W8A8",
    ]
    heads += ["peak memory", "executed", ""]
    rows = [[shown.name, *_profile_row(device, profile)] for shown, device, profile in _profiled(content)]
    return table(heads, rows) if rows else None


def _profiled(content: ReportContent) -> Iterator[tuple[Shown, str, Profile]]:
    for shown in content.shown:
        for device, profile in sorted(shown.profiles.items()):
            yield shown, device, profile


def _profile_row(device: str, profile: Profile) -> Iterator[object]:
    figures, layers = profile.figures, profile.content.get("layers", {})
    yield device
    yield profile.content.get("dialect", NOTHING)
    yield _latency(figures)
    yield from (_spread(figures, f"ratio_to_{reference}") for reference in ("float", "w8a8"))
    yield f"{figures['peak_rss_bytes'] / 2**20:.0f} MiB" if "peak_rss_bytes" in figures else NOTHING
    yield kernel_counts(layers) if layers else NOTHING
    yield Html(f"<td class='left warn'>{text('; '.join(_warnings(figures)))}</td>")


def _warnings(figures: Mapping[str, float]) -> Iterator[str]:
    if figures.get("contention_alarm"):
        yield "the machine was busy: take with care"
    if figures.get("throttling_alarm"):
        yield f"the float reference slowed by {figures['slowed']:.0%} while it was measured: throttled, or ever busier"


def _latency(figures: Mapping[str, float]) -> str:
    if "latency_us" not in figures:
        return NOTHING
    low, high = figures.get("latency_us_p10"), figures.get("latency_us_p90")
    spread = f" ({short_amount(low)} to {short_amount(high)})" if low is not None and high is not None else ""
    return f"{short_amount(figures['latency_us'])} µs{spread}"


def _spread(figures: Mapping[str, float], name: str) -> str:
    if name not in figures:
        return NOTHING
    low, high = figures.get(f"{name}_p10"), figures.get(f"{name}_p90")
    return f"{figures[name]:.2f}x" + (f" ({low:.2f} to {high:.2f})" if low is not None and high is not None else "")


def conditions(content: ReportContent) -> str:
    """Under which conditions each figure came about: who else was there, and whether the machine kept its pace."""
    heads = ["policy", "device", "clock", "rounds kept", "wall / CPU time, median", "90 %", "float slowed by"]
    heads += ["MHz before", "after", "°C before", "after", "governor"]
    rows = [
        [shown.name, device, *_condition_row(profile.content)]
        for shown, device, profile in _profiled(content)
        if "throttling" in profile.content
    ]
    words = (
        "Float, W8A8 and the file take turns in one process; ratios are formed within a round. Wall over CPU time well "
        "above 1 tells of others on the machine; a float reference that slows down from the first third of the rounds "
        "to the last tells of throttling."
    )
    return section("How it was measured", words, table(heads, rows)) if rows else ""


def _condition_row(content: Mapping[str, Any]) -> Iterator[object]:
    kept, discarded = (content["rounds"][name] for name in ("kept", "discarded"))
    yield {"cpu": "CPU time of the thread", "wall": "wall"}[content["clock"]]
    yield f"{kept} of {kept + discarded}"
    yield from (f"{content['contention'][name]:.2f}" for name in ("median", "p90"))
    slowed = f"{content['throttling']['slowed']:+.1%}"
    yield Html(f"<td class='warn'>{slowed}</td>") if content["throttling"]["alarm"] else slowed
    before, after = (content["clocks"][name] for name in ("before", "after"))
    for name in ("frequency_mhz", "temperature_c"):
        yield from (NOT_SHOWN if found[name] is None else f"{found[name]:.0f}" for found in (before, after))
    yield after["governor"] or NOT_SHOWN


def layers(content: ReportContent) -> str:
    """Policy bits beside what each device executed for each layer, and how long that took."""
    parts = []
    for shown, device, profile in _profiled(content):
        rows = [[name, *_layer_row(layer)] for name, layer in profile.content.get("layers", {}).items()]
        if rows:
            title = text(f"{shown.name} on {device}: {kernel_counts(profile.content['layers'])}")
            inside = table(["layer", "policy w / a", "executed", "kernel", "µs", "relative to float"], rows)
            parts.append(f"<details><summary>{title}</summary>{inside}</details>")
    words = (
        "By the runtime's own profile, in sessions of their own: the profiler slows what it watches, so these do not "
        "add up to the latency of the file."
    )
    return section("Layers on each device", words, *parts)


def _layer_row(layer: Mapping[str, Any]) -> Iterator[object]:
    yield " / ".join(str(bits) for bits in layer.get("policy", ()))
    yield from (layer.get("executed", NOTHING), layer.get("kernel", NOTHING))
    yield f"{layer['latency_us']:.1f}" if "latency_us" in layer else NOTHING
    yield f"{layer['ratio_to_float']:.2f}x" if "ratio_to_float" in layer else NOTHING


def candidates(content: ReportContent) -> str:
    """Where a budget limits a latency: what the table said of each candidate, and what the device."""
    heads = ["policy", "device", "candidate", "float / int8 layers", "harm", "limit µs", "predicted µs", "measured µs"]
    rows = [row for shown in content.of_kind("budget") for row in _candidates(shown)]
    words = (
        "The latency table chose these policies, the device chose among them: each was measured whole, and the least "
        "harmful one that keeps the limit was taken."
    )
    title = "Predicted and measured latency"
    heads += ["off", "relative to float", "relative to W8A8", "", ""]
    return section(title, words, table(heads, rows)) if rows else ""


def _candidates(shown: Shown) -> Iterator[list[object]]:
    for candidate in shown.choice.get("candidates", ()):
        for device, run in candidate.get("measured", {}).items():
            predicted, measured = candidate["predicted_us"][device], run["latency_us"]
            chosen = "chosen" if candidate["policy_sha256"] == shown.policy_sha256 else ""
            ran = " / ".join(str(candidate["executed"][kind]) for kind in ("float", "int8"))
            measuring = shown.choice["measuring"]
            limit, w8a8 = measuring["limits_us"][device], measuring["references"][device]["w8a8"]["latency_us"]
            times = [exact_words(us) for us in (limit, predicted, measured)]
            ratio = run["ratio_to_float"]
            spread = f"{ratio['median']:.2f}x ({ratio['p10']:.2f} to {ratio['p90']:.2f})"
            off = f"{predicted / measured - 1:+.1%}"
            figures = {f"{name}_alarm": measuring[name][device]["alarm"] for name in ("contention", "throttling")}
            figures["slowed"] = measuring["throttling"][device]["slowed"]
            warning = Html(f"<td class='left warn'>{text('; '.join(_warnings(figures)))}</td>")
            head = [shown.name, device, candidate["kind"], ran, f"{candidate['harm']:.4g}", *times]
            yield [*head, off, spread, f"{measured / w8a8:.2f}x", chosen, warning]


def simulated(content: ReportContent) -> str:
    """What models say, in a section of its own: nothing here was measured."""
    models = sorted({model for shown in content.shown for model in shown.simulated})
    base = next((shown.simulated for shown in content.shown if shown.name == "float"), {})
    rows = [
        [shown.name, *(_simulated_words(shown.simulated.get(model), base.get(model)) for model in models)]
        for shown in content.shown
        if shown.simulated
    ]
    words = (
        "Computed from the policy by models in mixbit/simulated, each with an accelerator of its own: nothing here was "
        "measured, and nothing here says how long a file takes on any device. Times relative to float are relative to "
        "what the same model says of the float network."
    )
    heads = ["policy", *(f"{SIMULATED}{model}" for model in models)]
    classes = ["beside" if shown.kind == "baseline" else "" for shown in content.shown if shown.simulated]
    return section("Simulated latency", words, table(heads, rows, classes)) if rows else ""


def _simulated_words(us: float | None, float_us: float | None) -> str:
    if us is None:
        return NOTHING
    return f"{short_amount(us)} µs" + (f" ({us / float_us:.2f}x float)" if float_us else "")
