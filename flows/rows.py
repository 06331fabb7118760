"""From what is known about each policy to the rows of the closing table."""

from collections import Counter

from flows.summary import Latency, PolicyRow
from tasks.report_content import Profile, ReportContent, Shown


def policy_rows(content: ReportContent) -> list[PolicyRow]:
    """References, then each budget with its baseline beneath it."""
    return [_row(shown) for shown in content.shown]


def _row(shown: Shown) -> PolicyRow:
    figures = shown.figures
    size_bytes = figures.get("file_bytes") if shown.kind != "baseline" else None
    return PolicyRow(
        name=shown.name,
        weight_bits=figures["mean_weight_bits"],
        activation_bits=figures["mean_activation_bits"],
        bitops=round(figures["bitops"]),
        file_bytes=None if size_bytes is None else round(size_bytes),
        metric_val=figures.get("val_metric"),
        loss_val=figures.get("val_loss"),
        metric_simulated=shown.measured("test_metric_simulated"),
        metric_deployed=shown.measured("test_metric_deployed"),
        loss_simulated=shown.measured("test_loss_simulated"),
        loss_deployed=shown.measured("test_loss_deployed"),
        latencies=tuple(_latency(device, profile) for device, profile in sorted(shown.profiles.items())),
        registered=shown.registered,
        link=next(iter(shown.links.values()), ""),
        beside=shown.beside,
    )


def _latency(device: str, profile: Profile) -> Latency:
    figures = profile.figures
    executed = Counter(layer["executed"] for layer in profile.content["layers"].values())
    words = ", ".join(f"{kind} {count}" for kind, count in sorted(executed.items()))
    ratios = figures.get("ratio_to_float"), figures.get("ratio_to_w8a8")
    return Latency(device, figures["latency_us"], *ratios, words, profile.slower_in_int8)
