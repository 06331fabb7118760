"""Effect `report`: one self-contained page per experiment, and its picture. Written on every run, never cached."""

from pathlib import Path

from tasks import report_latency as times
from tasks import report_plots as plots
from tasks import report_sections as sections
from tasks import report_tables as tables
from tasks.report_content import ReportContent
from tasks.report_page import page


def write_report(path: Path, content: ReportContent) -> Path:
    """Write `report.html`; the same content makes the same bytes.

    Raises:
        OSError: the disk is full, or the folder can't be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.partial")
    scratch.write_text(render(content), encoding="utf-8")
    return scratch.replace(path)


def write_hero(path: Path, content: ReportContent) -> Path:
    """Write the picture of the result as PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(plots.hero(content))
    return path


def render(content: ReportContent) -> str:
    """The whole page."""
    makers = (
        *(sections.head, sections.tiles, sections.costs, sections.baselines, sections.bits),
        *(tables.heat, tables.movement, sections.latency, sections.deployment),
        *(times.candidates, times.conditions, times.simulated),
        *(tables.everything, tables.executed, times.layers, tables.choices, tables.facts),
    )
    parts = [make(content) for make in makers]
    return page(f"{content.experiment}: mixed-precision report", [part for part in parts if part])
