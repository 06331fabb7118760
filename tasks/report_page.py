"""HTML pieces of the report: everything that comes from outside is escaped."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape

STYLE = """
:root { --ink: #1f2937; --soft: #6b7280; --line: #e5e7eb; --paper: #ffffff; --back: #f6f7f9; --strong: #0b4f79; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink);
  font: 15px/1.55 system-ui, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 1.2rem 1rem 4rem; }
h1 { font-size: 1.7rem; margin: .4rem 0 .1rem; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .2rem; }
p { margin: .3rem 0 .8rem; max-width: 70ch; }
.soft { color: var(--soft); }
.grid { display: grid; gap: .8rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 310px), 1fr)); }
.card { background: var(--paper); border: 1px solid var(--line); border-radius: 10px; padding: .8rem .9rem;
  min-width: 0; }
.card svg { display: block; width: 100%; height: auto; }
.tile { border-top: 5px solid var(--mark, var(--soft)); }
.tile h3 { margin: 0; font-size: 1rem; color: var(--mark); }
.tile .big { font-size: 1.75rem; font-weight: 650; line-height: 1.25; white-space: nowrap; }
.tile dl { display: grid; grid-template-columns: auto 1fr; gap: .05rem .8rem; margin: .5rem 0 0; font-size: .88rem; }
.tile dt { color: var(--soft); }
.tile dd { margin: 0; text-align: right; font-variant-numeric: tabular-nums; }
.wide { min-width: 640px; }
section > * + .card, details .card { margin-top: .8rem; }
.fit { width: fit-content; max-width: 100%; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .86rem; font-variant-numeric: tabular-nums; }
th, td { padding: .28rem .55rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { font-weight: 600; color: var(--soft); vertical-align: bottom; }
th:first-child, td:first-child, .left { text-align: left; }
td.heat { border: 1px solid var(--paper); padding: .28rem .4rem; }
td.gap, th.gap { border: 0; padding: .15rem; }
th.over { text-align: center; border-bottom: 0; }
tr.beside td { color: var(--soft); }
tr.beside td:first-child { padding-left: 1.6rem; }
code { font: .82em/1.4 ui-monospace, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; white-space: normal; }
td code { display: inline-block; min-width: 17rem; text-align: left; }
.legend { display: flex; flex-wrap: wrap; gap: .3rem 1.1rem; margin: .5rem 0 .7rem; font-size: .86rem; }
.dot { display: inline-block; width: .75em; height: .75em; border-radius: 50%; margin-right: .4em;
  border: 2px solid var(--mark); background: var(--mark); }
.dot.hollow { background: var(--paper); }
.dot.square, .dot.diamond { border-radius: 0; }
.dot.diamond { transform: rotate(45deg) scale(.8); }
.warn { color: #b42318; font-weight: 600; }
details summary { cursor: pointer; font-weight: 600; padding: .3rem 0; }
a { color: var(--strong); }
@media (max-width: 520px) { main { padding: .6rem .6rem 3rem; } .tile .big { font-size: 1.5rem; } }
@media print { body { background: #fff; } }
"""


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


def text(value: object) -> str:
    """A value as HTML text."""
    return value if isinstance(value, Html) else escape(str(value))


def page(title: str, body: Iterable[str]) -> str:
    """A whole document that asks nothing of the network."""
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    head = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f"<title>{text(title)}</title><style>{STYLE}</style></head>\n<body><main>\n"
    )
    return head + "\n".join(body) + "\n</main></body></html>\n"


def section(title: str, words: str, *parts: str | None) -> str:
    """A heading, a sentence, and what there is of the rest; nothing when there is none."""
    there = [part for part in parts if part]
    return (
        f"<section><h2>{text(title)}</h2><p class='soft'>{text(words)}</p>{''.join(there)}</section>" if there else ""
    )


def wide(picture: str | None) -> str:
    """A picture over the whole width; on a phone it scrolls instead of shrinking to nothing."""
    return f'<div class="card scroll"><div class="wide">{picture}</div></div>' if picture else ""


def cards(*pictures: str | None) -> str:
    """Pictures side by side where there is room; empty without any."""
    there = [f'<div class="card">{picture}</div>' for picture in pictures if picture]
    return f'<div class="grid">{"".join(there)}</div>' if there else ""


def table(heads: Sequence[str], rows: Iterable[Sequence[object]], classes: Sequence[str] = (), over: str = "") -> str:
    """A table that scrolls sideways in its card; a cell or head that is Html with its own tag is taken as it is.

    Args:
        heads: one per column.
        rows: cells.
        classes: CSS class per row.
        over: a further head row, as markup.
    """
    head = "".join(_cell(name, "th") for name in heads)
    lines = []
    for index, row in enumerate(rows):
        mark = f' class="{classes[index]}"' if index < len(classes) and classes[index] else ""
        lines.append(f"<tr{mark}>{''.join(_cell(value) for value in row)}</tr>")
    inside = f"<thead>{over}<tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody>"
    return f'<div class="card scroll fit"><table>{inside}</table></div>'


def _cell(value: object, tag: str = "td") -> str:
    is_cell = isinstance(value, Html) and value.startswith(f"<{tag}")
    return str(value) if is_cell else f"<{tag}>{text(value)}</{tag}>"


def tile(title: str, big: str, pairs: Mapping[str, object], colour: str) -> str:
    """A result at a glance."""
    lines = "".join(f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in pairs.items())
    head = f'<h3>{text(title)}</h3><div class="big">{text(big)}</div>'
    return f'<div class="card tile" style="--mark:{colour}">{head}<dl>{lines}</dl></div>'


def link(title: str, url: str) -> Html:
    """A link, only to web addresses."""
    safe = url.startswith(("http://", "https://"))
    return Html(f'<a href="{escape(url)}" rel="noreferrer">{escape(title)}</a>') if safe else Html(escape(title))


def digest(sha256: str) -> Html:
    """All 64 digits, in a line that breaks anywhere."""
    return Html(f"<code>{escape(sha256)}</code>") if sha256 else Html("-")
