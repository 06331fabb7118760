"""Datasets in a folder of pictures: `train/<class>/<file>`, `val/<class>/<file>`, `test/<class>/<file>`."""

import warnings
from pathlib import Path

import numpy as np

from mixbit.data.arrays import SPLITS, Array, Arrays
from mixbit.errors import ConfigError, MixbitError

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
GREY_MODES = ("1", "L", "LA")
# Wider than 8 bits a channel: turning these into bytes would clip silently.
WIDE_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")


def read(folder: Path, where: str, image_size: int | None = None) -> Arrays:
    """Read every picture: uint8 [N, 1, H, W] when all are grey, else [N, 3, H, W]; classes are train's folders, sorted.

    Args:
        folder: holds `train`, `val` and `test`, each with one folder per class.
        where: names the folder in errors.
        image_size: resize to image_size x image_size (bilinear over the covered area); None: all must be of one size.

    Raises:
        ConfigError: every fault at once: missing splits, classes train does not have, files that are no pictures,
            damaged pictures, mixed sizes.
    """
    missing = [split for split in SPLITS if not (folder / split).is_dir()]
    if missing:
        there = ", ".join(sorted(path.name for path in folder.iterdir())) if folder.is_dir() else "no folder"
        raise ConfigError(
            [MixbitError(where, f"no folder {', '.join(missing)}", expected=", ".join(SPLITS), got=there)]
        )
    labels = [path.name for path in _visible(folder / "train") if path.is_dir()]
    if not labels:
        raise MixbitError(f"{where}/train", "no class folders", expected="train/<class>/<picture>", got="nothing")
    faults: list[MixbitError] = []
    tensors: dict[str, Array] = {}
    for split in SPLITS:
        pictures, classes = _read_split(folder, split, labels, image_size, faults)
        tensors |= {f"{split}_x": pictures, f"{split}_y": classes}
    if faults:
        raise ConfigError(faults)
    return Arrays(_of_one_depth(tensors), tuple(labels))


def _read_split(
    folder: Path, split: str, labels: list[str], image_size: int | None, faults: list[MixbitError]
) -> tuple[Array, Array]:
    """(pictures [N, H, W, 1 or 3], classes [N]); faults are added to the list."""
    pictures: list[Array] = []
    classes: list[int] = []
    for place in _visible(folder / split):
        if not place.is_dir() or place.name not in labels:
            faults.append(MixbitError(str(place.relative_to(folder)), "not a class of train", expected=_few(labels)))
            continue
        for path in _visible(place):
            try:
                pictures.append(_picture(path, str(path.relative_to(folder)), image_size))
                classes.append(labels.index(place.name))
            except MixbitError as fault:
                faults.append(fault)
                continue
            if pictures[-1].shape[:2] != pictures[0].shape[:2]:
                faults.append(_other_size(path.relative_to(folder), pictures.pop(), pictures[0]))
                classes.pop()
    deepest = max((picture.shape[2] for picture in pictures), default=1)
    same = [np.broadcast_to(picture, (*picture.shape[:2], deepest)) for picture in pictures]
    return np.stack(same) if same else np.zeros((0, 1, 1, 1), np.uint8), np.asarray(classes, np.int64)


def _other_size(path: Path, picture: Array, first: Array) -> MixbitError:
    expected, got = (f"{shape[1]}x{shape[0]} as the first picture" for shape in (first.shape, picture.shape))
    hint = "Set image_size to resize all of them"
    return MixbitError(
        str(path), "another size", expected=expected, got=got.removesuffix(" as the first picture"), hint=hint
    )


def _of_one_depth(tensors: dict[str, Array]) -> dict[str, Array]:
    """Channels first; grey pictures get three equal channels when any split has colours."""
    deepest = max(tensors[f"{split}_x"].shape[3] for split in SPLITS)
    for split in SPLITS:
        pictures = tensors[f"{split}_x"]
        tensors[f"{split}_x"] = np.broadcast_to(pictures, (*pictures.shape[:3], deepest)).transpose(0, 3, 1, 2)
    return tensors


def _picture(path: Path, where: str, image_size: int | None) -> Array:
    """uint8 [H, W, 1 or 3]."""
    from PIL import Image

    if path.suffix.lower() not in SUFFIXES:
        raise MixbitError(where, "not a picture file", expected=" ".join(SUFFIXES))
    try:
        with warnings.catch_warnings(), Image.open(path) as image:
            # Decoders warn about odd metadata; what they can't decode they raise.
            warnings.simplefilter("ignore")
            image.load()
            if image.mode in WIDE_MODES:
                raise MixbitError(
                    where, "more than 8 bits per channel", expected="8-bit pictures", got=f"mode {image.mode}"
                )
            flat = image.convert("L" if image.mode in GREY_MODES else "RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise MixbitError(where, f"damaged picture: {str(error).replace(str(path), path.name)}") from None
    if image_size is not None:
        flat = flat.resize((image_size, image_size), Image.Resampling.BILINEAR)
    return np.asarray(flat).reshape(flat.height, flat.width, -1)


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _few(names: list[str]) -> str:
    return ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
