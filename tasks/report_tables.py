"""Sections of the report that are tables."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from mixbit.limits import COUNTED
from tasks.report_content import ReportContent, Shown
from tasks.report_page import Html, digest, link, section, table, text
from tasks.report_words import (
    NOTHING,
    amount_words,
    bits_words,
    exact_words,
    latency_words,
    metric_words,
    number_words,
    percent,
)


def heat(content: ReportContent) -> str:
    """Layer x num_bits, shaded by the logarithm of harm; what monotony repaired is marked."""
    found = content.indicators.get("layers")
    if not found:
        return ""
    # Float is 0 by definition: no column worth showing.
    bits = [str(value) for value in content.indicators["num_bits"] if value != "float"]
    values = [value for kinds in found.values() for row in kinds.values() for value in row.values() if value > 0]
    low, high = (math.log(min(values)), math.log(max(values))) if values else (0.0, 0.0)
    repaired = {(r["layer"], r["kind"], str(r["num_bits"])): r for r in content.indicators.get("repairs", [])}
    rows = []
    for layer in [layer["name"] for layer in content.layers["layers"] if layer["name"] in found]:
        cells: list[object] = [layer]
        for kind in ("weight", "activation"):
            cells += [_heat_cell(found[layer][kind].get(b), repaired.get((layer, kind, b)), low, high) for b in bits]
            cells += [Html('<td class="gap"></td>')] if kind == "weight" else []
        rows.append(cells)
    heads = ["layer", *bits, Html('<th class="gap"></th>'), *bits]
    over = "".join(f'<th class="over" colspan="{len(bits)}">{kind} bits</th>' for kind in ("weight", "activation"))
    over = "<tr><th></th>" + over.replace("</th>", '</th><th class="gap"></th>', 1) + "</tr>"
    words = (
        "Harm of that many bits in a layer as the method measures it (limpq: the learned step size), before alpha "
        "weighs weights against activations. Darker is worse (logarithmic). A dot marks a value that was raised so "
        "that fewer bits never look less harmful; hold the pointer over it for the raw value."
    )
    return section(f"Indicators ({content.indicators.get('method', '')})", words, table(heads, rows, over=over))


def _heat_cell(value: float | None, repair: Mapping[str, Any] | None, low: float, high: float) -> Html:
    if value is None:
        return Html("<td></td>")
    share = (math.log(value) - low) / (high - low) if value > 0 and high > low else 0.0
    # From near white to a dark blue that still carries white letters.
    red, green, blue = (round(a + (b - a) * share) for a, b in ((241, 11), (246, 60), (251, 110)))
    ink = "#fff" if share > 0.55 else "#1f2937"
    told = f' title="raw {repair["from"]:.4g}, repaired {repair["to"]:.4g}"' if repair else ""
    mark = " •" if repair else ""
    return Html(
        f'<td class="heat" style="background:rgb({red},{green},{blue});color:{ink}"{told}>{value:.2g}{mark}</td>'
    )


def movement(content: ReportContent) -> str:
    """How far training moved the step sizes, and what to think of it."""
    moved: Mapping[str, float] = content.indicators.get("step_movement", {})
    if not moved:
        return ""
    rows = [
        [b, f"{value:.3f}", f"{math.expm1(value):.0%}"] for b, value in sorted(moved.items(), key=lambda item: item[0])
    ]
    typical = sorted(moved.values())[len(moved) // 2]
    words = (
        f"Median |ln(s / s0)| over all quantizers. A typical step size ended {math.expm1(typical):.0%} away from where "
    )
    words += "it began. "
    if typical < 0.1:
        words += (
            "That is little: the indicators above mostly repeat the statistics that the step sizes were started from, "
            "and a longer schedule or a higher scale_learning_rate would let training speak."
        )
    else:
        words += "That is enough for the indicators to tell what training found, not only where it began."
    return section("How far the step sizes moved", words, table(["num_bits", "median |ln(s / s0)|", "change"], rows))


def everything(content: ReportContent) -> str:
    """Every policy with every figure, digest and link."""
    heads = ["policy", "bits w / a", "BitOps", "size bits", "file bytes", "peak bytes"]
    heads += [f"val {content.metric}", "val loss"]
    heads += [f"test {content.metric} simulated", "deployed", "test loss simulated", "deployed"]
    heads += [f"latency {device}" for device in content.devices()]
    heads += ["registered", "runs", "policy sha256", "packed.onnx sha256"]
    rows = [list(_row(content, shown)) for shown in content.shown]
    classes = ["beside" if shown.kind == "baseline" else "" for shown in content.shown]
    words = "Every policy with the digests it can be traced by: mixbit trace takes either."
    return section("Everything", words, table(heads, rows, classes))


def _row(content: ReportContent, shown: Shown) -> Iterator[object]:
    figures = shown.figures
    yield shown.name
    yield bits_words(shown)
    yield from (amount_words(figures.get(name)) for name in COUNTED)
    yield number_words(shown.measured("val_metric"), percent(content), 2 if content.metric == "accuracy" else 4)
    yield number_words(shown.measured("val_loss"))
    yield from (metric_words(content, shown, side) for side in ("simulated", "deployed"))
    yield from (number_words(shown.measured(f"test_loss_{side}")) for side in ("simulated", "deployed"))
    for device in content.devices():
        yield latency_words(shown.profiles[device].figures) if device in shown.profiles else NOTHING
    yield shown.registered or NOTHING
    yield Html(" ".join(link(title, url) for title, url in shown.links.items()) or NOTHING)
    yield digest(shown.policy_sha256)
    yield digest(shown.onnx_sha256)


def executed(content: ReportContent) -> str:
    """Policy bits beside executed bits, layer by layer."""
    parts: list[str] = []
    for shown in (*content.of_kind("budget"), *content.of_kind("reference")):
        kernels = shown.deployable.get("layers")
        if kernels:
            opened = " open" if shown.kind == "budget" and not parts else ""
            title = text(f"{shown.name}: {kernel_counts(kernels)}")
            inside = f"<summary>{title}</summary>{_kernels(content, kernels)}"
            parts.append(f"<details{opened}>{inside}</details>")
    words = (
        "What was asked of each layer, and which kernel of ONNX Runtime computed it on the machine that made the file."
    )
    return section("Policy bits and executed bits", words, *parts)


def kernel_counts(kernels: Mapping[str, Any]) -> str:
    """`1 float, 9 int8`."""
    ran = [kernel["executed"] for kernel in kernels.values()]
    return ", ".join(f"{ran.count(kind)} {kind}" for kind in sorted(set(ran)))


def _kernels(content: ReportContent, kernels: Mapping[str, Any]) -> str:
    rows = []
    for layer in content.layers["layers"]:
        kernel = kernels.get(layer["name"])
        if kernel is None:
            continue
        asked = " / ".join(str(bits) for bits in kernel.get("policy", ()))
        reason = Html(f"<td class='left warn'>{text(kernel.get('reason', ''))}</td>")
        stored = kernel.get("stored_bytes")
        cost = [amount_words(layer["macs"]), amount_words(layer["weights"]), amount_words(stored)]
        rows.append([layer["name"], *cost, asked, kernel["executed"], kernel["kernel"], reason])
    return table(["layer", "MACs", "weights", "stored bytes", "policy w / a", "executed", "kernel", ""], rows)


def choices(content: ReportContent) -> str:
    """Each budget's limits, what was used, and the solver's evidence."""
    rows = []
    for shown in content.of_kind("budget"):
        choice = shown.choice
        if not choice:
            continue
        for cost, limit in choice.get("budget", {}).items():
            asked, used = choice.get("requested", {}).get(cost, limit), choice.get("costs", {}).get(cost)
            share = f"{used / limit:.1%}" if used is not None and limit else NOTHING
            solver = ", ".join(f"{name} {version}" for name, version in choice.get("solver", {}).items())
            evidence = [
                choice.get("status", NOTHING),
                f"{choice.get('gap', 0):.2g}",
                f"{choice.get('harm', 0):.5g}",
                f"{choice['alpha']:.4g}" if "alpha" in choice else NOTHING,
                solver,
            ]
            rows.append(
                [
                    shown.name,
                    f"{cost}: {asked}",
                    exact_words(limit),
                    exact_words(used) if used is not None else NOTHING,
                    share,
                    *evidence,
                ]
            )
    heads = ["policy", "asked", "limit", "used", "share", "solver says", "gap", "harm", "alpha", "solver"]
    return section(
        "Why these policies",
        "What each budget allowed, and how sure the solver is. Harms compare where alpha is the same.",
        table(heads, rows) if rows else None,
    )


def facts(content: ReportContent) -> str:
    """Whatever else a reader may want to know."""
    rows = [[name, Html(f"<td class='left'>{text(value)}</td>")] for name, value in content.facts.items()]
    return section("Made from", "What a reader needs to make it again.", table(["", ""], rows) if rows else None)
