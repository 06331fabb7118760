"""A followed layer's codes as a picture: one channel of one input, computed in every way."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from benchmarks.one_layer_codes import KERNEL, PACKED, PLAIN, PYTORCH, REF, Followed

SHOWN = {PYTORCH: "PyTorch", REF: "ref", PACKED: "packed, integers", KERNEL: "kernel", PLAIN: PLAIN}
WRONG = "#d62728"


def draw(followed: Followed, picture: int, path: Path) -> None:
    """Write a PNG; codes that are not PyTorch's are framed. The channel is one where most would be wrong."""
    unequal = {key: followed.codes[key][picture] != followed.codes[PYTORCH][picture] for key in SHOWN}
    channel = int(np.argmax(unequal[PLAIN].sum((1, 2))))
    figure = Figure(figsize=(11, 2.6), layout="constrained")
    for axes, (key, title) in zip(figure.subplots(1, len(SHOWN)), SHOWN.items(), strict=True):
        codes = followed.codes[key][picture, channel]
        axes.imshow(codes, cmap="Blues", vmin=0, vmax=followed.chain.writes.quant_max * 1.4)
        for (row, column), code in np.ndenumerate(codes):
            axes.text(column, row, str(code), ha="center", va="center", fontsize=7)
        for row, column in np.argwhere(unequal[key][channel]):
            axes.add_patch(Rectangle((column - 0.46, row - 0.46), 0.92, 0.92, fill=False, edgecolor=WRONG, lw=1.6))
        axes.set_title(title if key == PYTORCH else f"{title}: {unequal[key][channel].sum()} differ", fontsize=8)
        axes.set(xticks=[], yticks=[])
    figure.suptitle(f"{followed.chain.layer.name}, test picture {picture}, output channel {channel}", fontsize=9)
    figure.savefig(path, dpi=110)
