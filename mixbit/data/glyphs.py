"""DVC stage `glyphs`: characters drawn from the DejaVu fonts that matplotlib ships, grey 32x32, in three splits.

Fonts: https://dejavu-fonts.github.io. Characters that look alike once size and slant vary are one class.
"""

import argparse
import string
import sys
from pathlib import Path

import numpy as np

from mixbit.data.arrays import SPLITS, Array, Arrays, dump, write_whole
from mixbit.data.glyphs_drawing import SEVERITIES, SIDE, Stream, picture
from mixbit.data.strata import shuffled
from mixbit.errors import MixbitError

COUNTS = {"train": 20_000, "val": 2_000, "test": 4_000}
ALIKE = ("0Oo", "1Il|", "Cc", "Jj", "Kk", "Pp", "Ss", "Uu", "Vv", "Ww", "Xx", "Yy", "Zz")
CHARACTERS = string.digits + string.ascii_letters + "|"
CLASSES = tuple(
    sorted((*ALIKE, *(character for character in CHARACTERS if not any(character in group for group in ALIKE))))
)


def glyphs(seed: int, counts: dict[str, int] | None = None) -> Arrays:
    """Pictures uint8 [N, 1, 32, 32], labels, and `<split>_severity` uint8 [N], 0 (clean) to 4.

    Classes and severities are balanced to within one picture. A picture depends on seed, split and its place alone.

    Args:
        seed: >= 0.
        counts: pictures per split; None: 20 000, 2 000 and 4 000.

    Raises:
        MixbitError: matplotlib's fonts are missing, or are not those these pictures are drawn from.
    """
    tensors: dict[str, Array] = {}
    for number, split in enumerate(SPLITS):
        tensors |= _split(split, (counts or COUNTS)[split], (seed, number))
    return Arrays(tensors, CLASSES)


def _split(split: str, count: int, key: tuple[int, int]) -> dict[str, Array]:
    # Every (class, severity) pair comes round before any comes again.
    places = shuffled(count, 3 * key[0] + key[1])
    labels, severities = places % len(CLASSES), places // len(CLASSES) % SEVERITIES
    pictures = np.empty((count, 1, SIDE, SIDE), np.uint8)
    for index in range(count):
        pictures[index, 0] = _drawn(int(labels[index]), int(severities[index]), Stream(*key, index))
    return {f"{split}_x": pictures, f"{split}_y": labels, f"{split}_severity": severities.astype(np.uint8)}


def _drawn(label: int, severity: int, stream: Stream) -> Array:
    spelt = CLASSES[label]
    character = spelt[stream.below(len(spelt))]
    left, right = (CHARACTERS[stream.below(len(CHARACTERS))] for _ in range(2))
    return picture(character, (left, right), severity, stream)


def main() -> None:
    """`python -m mixbit.data.glyphs --seed 0 --out FILE`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    try:
        write_whole(arguments.out, dump(glyphs(arguments.seed)))
    except MixbitError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
