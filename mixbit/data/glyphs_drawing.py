"""Pictures of single characters: a DejaVu face, an affine warp, clutter, contrast and noise, all from one stream."""

import functools
import hashlib
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from mixbit.errors import MixbitError

SIDE = 32
FINER = 3
WINDOW = SIDE * FINER
SHEET = 2 * WINDOW
FONT_SIZE = 78
SEVERITIES = 5
FACES = tuple(
    f"DejaVu{family}"
    for family in (
        *("Sans", "Sans-Bold", "Sans-Oblique", "Sans-BoldOblique"),
        *("SansMono", "SansMono-Bold", "SansMono-Oblique", "SansMono-BoldOblique"),
        *("Serif", "Serif-Bold", "Serif-Italic", "Serif-BoldItalic"),
    )
)
# Of the twelve files one after the other, as matplotlib 3.11 ships them (DejaVu 2.37).
FACES_SHA256 = "16babe5c0753da54aeeea137816d6f96e5c7c2cb606e2973064f5fe7922d4261"
# Pixels of the finer drawing that are taken off or put on around every stroke.
WEIGHTS = (-3, 0, 0, 3)
Picture = npt.NDArray[np.uint8]


class Stream:
    """Random numbers from raw PCG64 words, whose order NumPy promises to keep; one stream per picture."""

    def __init__(self, *key: int) -> None:
        self._words = np.random.PCG64(np.random.SeedSequence(key))

    def between(self, low: float, high: float) -> float:
        """Uniform in [low, high)."""
        return low + (high - low) * (int(self._words.random_raw()) >> 11) * 2.0**-53

    def below(self, count: int) -> int:
        """0..count-1."""
        return int(self.between(0, count))

    def noise(self) -> npt.NDArray[np.float64]:
        """[SIDE, SIDE] of mean 0 and standard deviation 1: sums of four bytes, the same on every machine."""
        quarters = self._words.random_raw(SIDE * SIDE // 2).view(np.uint8).reshape(SIDE, SIDE, 4)
        return np.asarray((quarters.sum(axis=2, dtype=np.int64) - 510) / math.sqrt(4 * (256**2 - 1) / 12))


def picture(character: str, neighbours: tuple[str, str], severity: int, stream: Stream) -> Picture:
    """One grey picture.

    Args:
        character: what it shows.
        neighbours: what may stand cut off to its left and right.
        severity: 0 (upright, clean) to 4 (warped, crowded, faint, noisy).
        stream: everything random comes from here.

    Returns:
        uint8 [32, 32].
    """
    strength = severity / (SEVERITIES - 1)
    sheet = _written(character, neighbours, strength, stream)
    window = _warped(sheet, strength, stream)
    _crossed(window, strength, stream)
    ink = np.asarray(window.reduce(FINER), np.float64) / 255
    return _exposed(ink, strength, stream)


def _written(character: str, neighbours: tuple[str, str], strength: float, stream: Stream) -> Image.Image:
    """The character in the middle of a sheet of ink, pieces of others beside it."""
    face, weight = stream.below(len(FACES)), WEIGHTS[stream.below(len(WEIGHTS))]
    glyph = _glyph(face, weight, character)
    sheet = Image.new("L", (SHEET, SHEET))
    sheet.paste(glyph, ((SHEET - glyph.width) // 2, (SHEET - glyph.height) // 2))
    for side, neighbour in zip((-1, 1), neighbours, strict=True):
        other, gap = _glyph(face, weight, neighbour), stream.between(2, 14)
        shift, shown = stream.between(-16, 16), stream.between(0, 1)
        if shown < 0.1 + 0.8 * strength:
            centre = side * (glyph.width / 2 + other.width / 2 + gap)
            corner = (int(SHEET / 2 + centre - other.width / 2), int((SHEET - other.height) / 2 + shift))
            sheet.paste(255, corner, other)
    return sheet


@functools.cache
def _glyph(face: int, weight: int, character: str) -> Image.Image:
    font, pad = _fonts()[face], 4
    left, top, right, bottom = (int(edge) for edge in font.getbbox(character))
    glyph = Image.new("L", (right - left + 2 * pad, bottom - top + 2 * pad))
    ImageDraw.Draw(glyph).text((pad - left, pad - top), character, fill=255, font=font)
    if weight:
        glyph = glyph.filter(ImageFilter.MaxFilter(weight) if weight > 0 else ImageFilter.MinFilter(-weight))
    return glyph


@functools.cache
def _fonts() -> tuple[ImageFont.FreeTypeFont, ...]:
    import matplotlib as mpl

    folder = Path(mpl.get_data_path()) / "fonts" / "ttf"
    paths = [folder / f"{face}.ttf" for face in FACES]
    try:
        digest = hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()
    except OSError as error:
        raise MixbitError("glyphs", f"a font of matplotlib {mpl.__version__} can't be read: {error}") from None
    if digest != FACES_SHA256:
        got = f"{digest} in matplotlib {mpl.__version__}"
        raise MixbitError("glyphs", "other fonts give other pictures", expected=f"sha256 {FACES_SHA256}", got=got)
    # The basic layout: the other one depends on a library of the system.
    return tuple(ImageFont.truetype(path, FONT_SIZE, layout_engine=ImageFont.Layout.BASIC) for path in paths)


def _warped(sheet: Image.Image, strength: float, stream: Stream) -> Image.Image:
    """The window around the middle: turned, slanted, stretched and moved."""
    turn, slant = math.radians(4 + 14 * strength), 0.04 + 0.22 * strength
    angle, shear = stream.between(-turn, turn), stream.between(-slant, slant)
    stretch = 0.06 + 0.2 * strength
    size = stream.between(1 - stretch, 1 + stretch)
    wide = size * stream.between(1 - stretch / 2, 1 + stretch / 2)
    far = 3 + 9 * strength
    x, y = stream.between(-far, far) + WINDOW / 2, stream.between(-far, far) + WINDOW / 2
    a, b = math.cos(angle) / wide, (math.sin(angle) + shear) / wide
    c, d = -math.sin(angle) / size, math.cos(angle) / size
    inverse = (a, b, SHEET / 2 - a * x - b * y, c, d, SHEET / 2 - c * x - d * y)
    return sheet.transform((WINDOW, WINDOW), Image.Transform.AFFINE, inverse, Image.Resampling.BILINEAR)


def _crossed(window: Image.Image, strength: float, stream: Stream) -> None:
    """Up to three lines from edge to edge, of ink or of background."""
    brush = ImageDraw.Draw(window)
    for _ in range(stream.below(1 + round(3 * strength))):
        start, end = stream.between(0, WINDOW), stream.between(0, WINDOW)
        width, fill = 2 + stream.below(5), 255 * stream.below(2)
        ends = ((0, start), (WINDOW, end)) if stream.below(2) else ((start, 0), (end, WINDOW))
        brush.line(ends, fill=fill, width=width)


def _exposed(ink: npt.NDArray[np.float64], strength: float, stream: Stream) -> Picture:
    """Dark on light or light on dark, less contrast and more noise the more severe, a slope of light across."""
    contrast = stream.between(1 - 0.65 * strength, 1 - 0.45 * strength) * 200
    darkest = stream.between(0, 255 - contrast)
    ink = ink if stream.below(2) else 1 - ink
    slope = np.linspace(-1, 1, SIDE) * 40 * strength
    light = slope[:, np.newaxis] * stream.between(-1, 1) + slope * stream.between(-1, 1)
    noise = stream.noise() * (3 + 22 * strength)
    return np.clip(np.rint(darkest + contrast * ink + light + noise), 0, 255).astype(np.uint8)
