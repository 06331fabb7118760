"""Effect `sweep_report`: one self-contained page per night of a sweep."""

from pathlib import Path

from tasks.report_canvas import COLOURS, GREY, blank_figure, svg
from tasks.report_page import Html, cards, link, page, section, table, text, tile
from tasks.report_points import short_amount
from tasks.report_words import NOTHING, number_words
from tasks.store import write_atomic
from tasks.sweep_content import COSTS, Line, SweepContent


def write_sweep_report(path: Path, content: SweepContent) -> Path:
    """Write `sweep.html`; the same content makes the same bytes.

    Raises:
        OSError: the disk is full, or the folder can't be written.
    """
    makers = (_head, _gates, _fronts, _best, _changes, _failed, _everything)
    parts = [make(content) for make in makers]
    write_atomic(path, page(f"{content.sweep}: sweep report", [part for part in parts if part]).encode())
    return path


def _head(content: SweepContent) -> str:
    tiles = [
        tile(budget, _metric(content, best.val) + " val", _pairs(content, best), COLOURS[place % len(COLOURS)])
        for place, (budget, best) in enumerate((budget, content.best(budget)) for budget in content.budgets())
    ]
    facts = " · ".join(f"{name}: {value}" for name, value in content.facts.items())
    return f"<h1>{text(content.sweep)}</h1><p class='soft'>{text(facts)}</p><div class='grid'>{''.join(tiles)}</div>"


def _pairs(content: SweepContent, line: Line) -> dict[str, object]:
    pairs: dict[str, object] = {"best cell": line.cell, "test": _test(content, line)}
    pairs |= {cost_title(cost): short_amount(value) for cost, value in line.costs.items()}
    before = content.before.get((line.cell, line.budget))
    pairs["since the last good night"] = _moved(content, line, before) if before else "new"
    return pairs | {"registered": line.version or NOTHING}


def cost_title(cost: str) -> str:
    """What a cost is called on the page."""
    return COSTS.get(cost, f"{cost}, µs")


def _metric(content: SweepContent, value: float) -> str:
    return f"{value * 100:.2f} %" if content.metric == "accuracy" else f"{value:.4f}"


def _test(content: SweepContent, line: Line) -> str:
    percent = content.metric == "accuracy"
    return number_words(line.test, content.scale, 2 if percent else 4)


def _moved(content: SweepContent, line: Line, before: Line) -> str:
    if line.val == before.val:
        return "the same"
    return ("+" if line.val > before.val else "-") + _metric(content, abs(line.val - before.val))


def _gates(content: SweepContent) -> str:
    rows = [[Html(f'<td class="warn left">{text(line)}</td>')] for line in content.broken]
    words = "Against the last good night, with every input that differs; the cause is named where it is the only one."
    return section("Broken gates", words, table(["gate"], rows) if rows else "")


def _fronts(content: SweepContent) -> str:
    words = f"Every policy; the line joins those that no other beats in cost and {content.metric} on val."
    return section("Fronts", words, cards(*(_front(content, cost) for cost in content.costs())))


def _front(content: SweepContent, cost: str) -> str:
    scale = content.scale
    with blank_figure(3.7, 2.8) as figure:
        axes = figure.add_subplot()
        for place, budget in enumerate(content.budgets()):
            lines = [line for line in content.lines if line.budget == budget and cost in line.costs]
            colour = COLOURS[place % len(COLOURS)]
            axes.scatter(
                [line.costs[cost] for line in lines],
                [line.val * scale for line in lines],
                color=colour,
                s=26,
                label=budget,
            )
        front = content.front(cost)
        axes.plot(
            [line.costs[cost] for line in front],
            [line.val * scale for line in front],
            color=GREY,
            linewidth=1,
            zorder=1,
        )
        axes.set(xscale="log", xlabel=cost_title(cost), ylabel=f"{content.metric} on val")
        axes.minorticks_off()
        ticks = sorted({line.costs[cost] for line in front})
        axes.set_xticks(ticks, [short_amount(value) for value in ticks], rotation=30, fontsize=7)
        axes.legend(fontsize=8)
        return svg(figure, f"{content.metric} against {cost_title(cost)}")


def _best(content: SweepContent) -> str:
    rows = [[budget, *_row(content, content.best(budget))] for budget in content.budgets()]
    return section("Best for each budget", "The best on val.", table(["budget", *_heads(content)], rows))


def _heads(content: SweepContent) -> list[str]:
    return ["cell", "bits w / a", *map(cost_title, content.costs()), "val", "test", "MLflow", "registered"]


def _row(content: SweepContent, line: Line) -> list[object]:
    costs = [short_amount(line.costs[cost]) if cost in line.costs else NOTHING for cost in content.costs()]
    bits = " / ".join("float" if bits >= 32 else f"{bits:.2f}" for bits in line.bits)
    page_of = link("run", line.run) if line.run else Html(NOTHING)
    return [line.cell, bits, *costs, _metric(content, line.val), _test(content, line), page_of, line.version or NOTHING]


def _changes(content: SweepContent) -> str:
    rows = []
    for line in content.lines:
        before = content.before.get((line.cell, line.budget))
        if before is not None and (line.val, dict(line.costs)) != (before.val, dict(before.costs)):
            costs = [_ratio(line.costs.get(cost), before.costs.get(cost)) for cost in content.costs()]
            rows.append([line.cell, line.budget, _moved(content, line, before), *costs])
    heads = ["cell", "budget", "val", *map(cost_title, content.costs())]
    return section(
        "Changed since the last good night",
        "Costs as multiples of what they were.",
        table(heads, rows) if rows else "",
    )


def _ratio(now: float | None, before: float | None) -> str:
    return f"{now / before:.3f}x" if now and before else NOTHING


def _failed(content: SweepContent) -> str:
    rows = [
        [Html(f'<td class="warn">{text(cell)}</td>'), Html(f'<td class="left">{text(why)}</td>')]
        for cell, why in content.failed.items()
    ]
    return section(
        "Not done",
        "The same command tries these again, and nothing else.",
        table(["cell", "why"], rows) if rows else "",
    )


def _everything(content: SweepContent) -> str:
    rows = [[line.budget, *_row(content, line)] for line in content.lines]
    return section(
        "Every policy",
        "Grey: nothing had to be computed.",
        table(["budget", *_heads(content)], rows, ["beside" if line.was_cached else "" for line in content.lines]),
    )
