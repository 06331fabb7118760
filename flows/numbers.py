"""Numbers as people read them, in few columns."""

from collections.abc import Mapping

# What a reader looks for first, where a stage has many figures.
FIRST = (
    *(
        "test_metric_deployed",
        "val_metric",
        "test_loss_deployed",
        "val_loss",
        "mean_weight_bits",
        "mean_activation_bits",
    ),
    *("latency_us", "ratio_to_float", "bitops", "file_bytes", "count", "layers", "train"),
)
SHORT = {
    "test_metric_deployed": "test",
    "test_loss_deployed": "loss",
    "val_metric": "val",
    "val_loss": "loss",
    "mean_weight_bits": "w",
    "mean_activation_bits": "a",
    "ratio_to_float": "vs float",
}


def seconds_text(seconds: float) -> str:
    """`0.42 s`, `12.3 s`, `3:05`, `2h03m`; at most 6 columns."""
    if seconds < 99.95:
        return f"{seconds:.2f} s" if seconds < 9.995 else f"{seconds:.1f} s"
    return duration(seconds)


def duration(seconds: float) -> str:
    """`0:07`, `3:05`, `2h03m`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}:{rest:02}"


def amount(value: float, digits: int = 4) -> str:
    """A few digits and a thousand's letter: `412.3`, `1.234 M`, `0.0712`."""
    for factor, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor and (factor > 1e3 or abs(value) >= 1e4):
            return f"{value / factor:.{digits}g} {letter}"
    return f"{value:.{max(digits, 4)}g}"


def figures_text(figures: Mapping[str, float], width: int) -> str:
    """The first figures that fit, whole: `val 0.981  loss 0.07`."""
    names = [name for name in FIRST if name in figures] + [
        name for name in figures if name not in FIRST and not name.endswith("_se")
    ]
    text = ""
    for name in names:
        unit = next((unit for unit in ("us", "bytes") if name.endswith(f"_{unit}")), "")
        word = SHORT.get(name) or (name.removesuffix(f"_{unit}") if unit else name)
        pair = f"{word} {amount(figures[name])}{' us' if unit == 'us' else ''}"
        longer = f"{text}  {pair}" if text else pair
        if len(longer) > width:
            break
        text = longer
    return text


def bytes_text(size_bytes: int) -> str:
    """`812 B`, `4.1 kB`, `17.3 MB`."""
    for factor, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size_bytes >= factor:
            return f"{size_bytes / factor:.1f} {unit}"
    return f"{size_bytes} B"
