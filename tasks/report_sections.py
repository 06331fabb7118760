"""Sections of the report that are pictures, and its head."""

from tasks import report_plots as plots
from tasks.report_content import ReportContent, Shown
from tasks.report_latency import profiles
from tasks.report_page import cards, section, table, text, tile, wide
from tasks.report_points import colours, figure_of, latency_of, marker, scatter, short_amount
from tasks.report_words import (
    NOTHING,
    amount_words,
    bits_words,
    latency_words,
    metric_title,
    metric_words,
    number_words,
    percent,
    share_words,
)

SHAPES = {"o": "", "s": " square", "D": " diamond"}


def head(content: ReportContent) -> str:
    """The experiment's name, and the network and data in one line."""
    layers, counts = content.layers["layers"], content.dataset.get("counts", {})
    pictures = ", ".join(f"{number} {split}" for split, number in counts.items())
    macs = short_amount(sum(layer["macs"] for layer in layers))
    weights = short_amount(sum(layer["weights"] for layer in layers))
    words = [f"{len(layers)} layers", f"{macs} MACs", f"{weights} weights"]
    words += [f"data: {content.dataset.get('source')} ({pictures})"] if pictures else []
    return f"<h1>{text(content.experiment)}</h1><p class='soft'>{text(' · '.join(words))}</p>"


def tiles(content: ReportContent) -> str:
    """Each budget at a glance, beside float."""
    painted = colours(content)
    base = next((shown for shown in content.shown if shown.name == "float"), None)
    tiles = []
    for shown in content.of_kind("budget"):
        pairs: dict[str, object] = {"loss": number_words(shown.measured("test_loss_deployed"))}
        if base is not None:
            pairs[f"float {content.metric}"] = metric_words(content, base, "deployed")
        pairs["mean bits w / a"] = bits_words(shown)
        pairs["BitOps"] = _times(shown, base, "bitops")
        pairs["file bytes"] = _times(shown, base, "file_bytes")
        for device, profile in shown.profiles.items():
            pairs[f"latency, {device}"] = latency_words(profile.figures)
        pairs["registered"] = shown.registered or NOTHING
        unit = " %" if content.metric == "accuracy" else ""
        tiles.append(tile(shown.name, metric_words(content, shown, "deployed") + unit, pairs, painted[shown.name]))
    return f'<div class="grid">{"".join(tiles)}</div>' if tiles else ""


def _times(shown: Shown, base: Shown | None, figure: str) -> str:
    value = shown.figures.get(figure)
    reference = base.figures.get(figure) if base else None
    return amount_words(value) + (
        f" ({reference / value:.1f}x less)" if value and reference and reference > value else ""
    )


def _legend(content: ReportContent, *, baselines: bool) -> str:
    painted = colours(content)
    items = []
    for shown in content.shown:
        shape = " hollow" if shown.kind == "baseline" else SHAPES[marker(shown)]
        if shown.kind != "baseline" or baselines:
            items.append(
                f'<span style="--mark:{painted[shown.name]}"><i class="dot{shape}"></i>{text(shown.name)}</span>'
            )
    return f'<div class="legend">{"".join(items)}</div>'


def costs(content: ReportContent) -> str:
    """Metric and loss of the deployed file against each cost."""
    axes = [figure_of("bitops", "BitOps", log=True), figure_of("file_bytes", "file bytes", log=True)]
    axes += [latency_of(content, device) for device in content.devices()]
    metric = figure_of("test_metric_deployed", metric_title(content), scale=percent(content))
    loss = figure_of("test_loss_deployed", "loss")
    pictures = cards(*(scatter(content, x, y) for y in (metric, loss) for x in axes))
    words = (
        "The exported file itself, judged on the test split; bars are standard errors (of latency: the 10th to the "
        "90th percentile of rounds). Grey are the references: the float network, and the same with 8 bits everywhere, "
        "not fine-tuned."
    )
    return section("What the bits cost", words, pictures and _legend(content, baselines=False) + pictures)


def baselines(content: ReportContent) -> str:
    """The searched policy beside its baselines, where both have been judged."""
    metric = figure_of("val_metric", f"validation {metric_title(content)}", scale=percent(content))
    loss = figure_of("val_loss", "validation loss")
    bitops = figure_of("bitops", "BitOps", log=True)
    if not content.of_kind("baseline"):
        return ""
    words = (
        "Hollow: policies to compare with, fine-tuned from the same weights with the same steps. uniform: every layer "
        "at the same bits, at equal or higher BitOps; reversed: the most harm at 98 to 100 % of the BitOps; "
        "statistics_init_only: the same search on untrained indicators; random: of equal BitOps; greedy: the least "
        "harm per BitOps saved, step by step. A dotted line joins each to the policy it stands beside. Judged on the "
        "validation split, which is all that baselines read."
    )
    pictures = cards(*(scatter(content, bitops, y, link=True) for y in (metric, loss)))
    return section("Against baselines", words, pictures and _legend(content, baselines=True) + pictures)


def bits(content: ReportContent) -> str:
    """Bits per layer of every budget's policy."""
    words = (
        "Layers in order of execution. First and last layer are set by the fixed-layer profile; a hatched bar is float."
    )
    return section("Bits per layer", words, wide(plots.bits_per_layer(content)))


def latency(content: ReportContent) -> str:
    """What was predicted by BitOps, what was measured, and what was executed."""
    pictures = cards(*(plots.latency_against_bitops(content, device) for device in content.devices()))
    words = (
        "The budget is counted in BitOps; time is not. On the dashed line latency would follow BitOps. Where kernels "
        "compute in 8 bits whatever the policy says, points lie on one height: the executed bits say what really ran."
    )
    pictures = pictures and _legend(content, baselines=False) + pictures
    return section("Predicted and measured latency", words, pictures, profiles(content), _slower(content))


def _slower(content: ReportContent) -> str:
    """Layers that lose from int8, a paragraph for each policy that has some."""
    lost = [
        f"{shown.name}: slower in int8 than in float on {device}: {', '.join(profile.slower_in_int8)}"
        for shown in content.shown
        for device, profile in sorted(shown.profiles.items())
        if profile.slower_in_int8
    ]
    return "".join(f"<p class='soft'>{text(line)}</p>" for line in lost)


def deployment(content: ReportContent) -> str:
    """The network and its exported file, judged on the same pictures."""
    scale = percent(content)
    pictures = cards(
        plots.simulated_against_deployed(content, "test_metric", metric_title(content), scale),
        plots.simulated_against_deployed(content, "test_loss", "loss", 1.0),
    )
    rows = [
        [
            shown.name,
            *(
                share_words(shown.figures.get(name), digits)
                for name, digits in (("top1_agreement", 2), ("code_flip_rate", 4))
            ),
        ]
        for shown in content.shown
        if "top1_agreement" in shown.figures
    ]
    heads = ["policy", "same first choice", "activation codes that differ"]
    words = "The network with fake quantizers and the exported file, on the same test pictures."
    return section("Simulated and deployed", words, pictures, table(heads, rows) if rows else None)
