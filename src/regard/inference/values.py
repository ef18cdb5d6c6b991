"""The values of an image held against those that a model was trained on: their range, and what stands for no data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Shaped

from regard.card import Scaling
from regard.errors import BandMismatch
from regard.io.raster import Pixels

BYTE = 255.0
DEPTHS = {BYTE: "8-bit", 65535.0: "16-bit"}  # divisors of images whose values go from 0 to the divisor
ROUNDING = 0.5  # a value so little below 0 or above the highest is one of them, resampled
SPREADS = 20  # standard deviations from the mean of the training images: no value of an image lies there
BRIGHT = 8  # clouds and metal roofs are a little over 1 in an image of fractions of 1
RARE = 0.02  # share of its values that may be bright
REPEATED = 16  # pixels of one extreme value in all bands: it stands for something
FILLS = {
    *(10.0**digits - 1 for digits in range(3, 8)),
    *(2.0**bits - off for bits in (15, 16, 31, 32) for off in (0, 1)),
}
LARGE = 1e20  # and what lies above it: netCDF's and GDAL's values for no data
CELL = 32  # pixels: the side of a square of one colour that is no ground


@dataclass
class Values:
    """What the pixels that hold data are like: of an image, of a window, or of parts of a scene.

    ``repeated`` counts pixels of one value in all bands that is the lowest or highest around, ``plain`` squares of
    ``CELL`` pixels that are wholly black (0) or white (the highest value), of ``cells``.
    """

    low: float = np.inf
    high: float = -np.inf
    pixels: int = 0
    numbers: int = 0
    fractions: int = 0
    bright: int = 0
    repeated: Counter[float] = field(default_factory=Counter)
    plain: Counter[float] = field(default_factory=Counter)
    cells: int = 0

    @classmethod
    def of(cls, parts: Iterable[Pixels], divisor: float = BYTE) -> Values:
        """The values of some pixels."""
        found = cls()
        for part in parts:
            found._add(part, divisor)
        return found

    def _add(self, part: Pixels, divisor: float) -> None:
        held = part.values[:, part.valid]
        if held.size:
            low, high = float(held.min()), float(held.max())
            self.low, self.high = min(self.low, low), max(self.high, high)
            self.pixels += held.shape[1]
            if held.dtype != np.uint8:
                self.repeated.update({value: int((held == value).all(axis=0).sum()) for value in {low, high}})
            if np.issubdtype(held.dtype, np.floating):
                self.numbers += int(np.count_nonzero(held))
                self.fractions += int(((held > 0) & (held < 1)).sum())
                self.bright += int((held > BRIGHT).sum())
        plain = {value: _whole_cells(part, value) for value in {0.0, divisor if divisor in DEPTHS else 0.0}}
        self.plain.update({value: int(cells.sum()) for value, cells in plain.items()})
        self.cells += plain[0.0].size

    def fill(self, scaling: Scaling) -> float | None:
        """The value that usually stands for no data, beyond all that the model knows, which many pixels share."""
        for value in (self.low, self.high):
            usual = abs(value) in FILLS or abs(value) >= LARGE
            if usual and self.repeated[value] >= REPEATED and _is_beyond(value, scaling):
                return value
        return None


def _whole_cells(part: Pixels, value: float) -> Bool[np.ndarray, "m n"]:
    """Which squares of ``CELL`` pixels hold this value alone, in all bands."""
    rows, columns = (length // CELL for length in part.valid.shape)
    alike = (part.values == value).all(axis=0) & part.valid
    squares = alike[: rows * CELL, : columns * CELL].reshape(rows, CELL, columns, CELL)
    return squares.all(axis=(1, 3))


def _is_beyond(value: float, scaling: Scaling) -> bool:
    if scaling.divisor in DEPTHS:
        return not -ROUNDING <= value <= scaling.divisor + ROUNDING
    entering = (value / scaling.divisor - np.array(scaling.mean)) / np.array(scaling.std)
    return bool((np.abs(entering) > SPREADS).all())


def check_range(image: Shaped[np.ndarray, "*_"], divisor: float, name: str = "the image") -> None:
    """Refuse a window with values that a model of 8-bit or 16-bit images has never seen; 0 where there is no data.

    Raises:
        BandMismatch: a value is below 0 or above the highest.
    """
    if divisor in DEPTHS and image.dtype not in (np.uint8, np.uint16 if divisor > BYTE else np.uint8) and image.size:
        low, high = float(image.min()), float(image.max())
        if low < -ROUNDING or high > divisor + ROUNDING:
            raise _unlike(f"{name} holds values from {low:g} to {high:g}", divisor, low, high)


def check_image(pixels: Pixels, scaling: Scaling, name: str = "the image") -> None:
    """:func:`check_values` of an image; bytes are what a model of 8-bit images takes."""
    if pixels.values.dtype != np.uint8 or scaling.divisor != BYTE:
        check_values(Values.of([pixels], scaling.divisor), scaling, name)


def check_values(found: Values, scaling: Scaling, name: str = "the image") -> None:
    """Refuse an image or a scene with values that the model has never seen.

    Raises:
        BandMismatch: a value stands for no data and is not marked so; values are out of the range of an 8-bit or
            16-bit image; or most of them are fractions of 1.
    """
    fill = found.fill(scaling)
    if fill is not None:
        share = 100 * found.repeated[fill] / found.pixels
        raise BandMismatch(
            f"{name} holds the value {fill:.8g} in {share:.2g} % of its pixels, far from those that the model was "
            f"trained on, and does not mark it as no data. If it is, use --nodata={fill:.8g} or gdal_edit.py -a_nodata."
        )
    span = f"values from {found.low:g} to {found.high:g}"
    if scaling.divisor not in DEPTHS or not found.pixels:
        return
    if found.low < -ROUNDING or found.high > scaling.divisor + ROUNDING:
        raise _unlike(f"{name} holds {span}", scaling.divisor, found.low, found.high)
    if found.fractions > found.numbers / 2 and found.bright < RARE * found.numbers:
        raise _unlike(f"{name} holds mostly fractions of 1 ({span})", scaling.divisor, 0.0, 1.0)


def _unlike(got: str, divisor: float, low: float, high: float) -> BandMismatch:
    kind, low = "Byte" if divisor == BYTE else "UInt16", low if low < -ROUNDING else 0.0
    return BandMismatch(
        f"{got}; the model takes {DEPTHS[divisor]} images, 0 to {divisor:.0f}. Scale it in the same way as its "
        f"training images (for example gdal_translate -ot {kind} -scale {low:.6g} {high:.6g} 0 {divisor:.0f}), or "
        "train a model on such images."
    )
