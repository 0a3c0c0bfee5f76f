"""How many pixels of which size an image has, where nobody says: from band, longest baseline and primary beam.

The synthesised beam asks for the cell, the primary beam for the width. Both are round numbers, so that images of one
array lie on one grid although a subband is missing, and flags do not change them. DSA-110 gets 2400 x 6 arcsec, in the
tier development 1800 x 8, in high_precision 4096 x 4, whichever of its antennas were recorded: what is to be compared
from night to night, or put into one mosaic, has one grid. Of another telescope the antennas that have data count.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import xarray as xr
from scipy.constants import speed_of_light
from scipy.fft import next_fast_len
from scipy.spatial.distance import pdist

from dsa110_contimg import telescope
from dsa110_contimg.exceptions import ImagingError
from dsa110_contimg.options import ImageOptions
from dsa110_contimg.options_image import QUICK_PIXELS
from dsa110_contimg.science.casasyntax import parse_uvrange

_SAMPLES = {"development": 1.875, "standard": 2.5, "high_precision": 3.75}
"""Least pixels across lambda / B of the longest baseline B at the highest frequency; Nyquist's are two. Only the
last channels of the longest baselines have less in the tier development, and Briggs or natural weights give them
little to say."""
_WIDTHS = {"development": 1.45, "standard": 1.45, "high_precision": 1.66}
"""Half-power widths of the beam at mid-band that an image has: at its edge the beam is down to a fifth or a ninth."""
_HALF_POWER_WIDTH = 1.02899
"""Of an Airy pattern, in lambda / D and as a direction cosine: 2 x / pi, where 2 J1(x) / x = sqrt(1/2)."""
_ROUND = np.array([1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0])
_LEAST_PIXELS = 128
_WIDEST = 1.3
"""Direction cosines, which pixels are even in: with what rounding adds, the corners are still above the horizon."""


class Geometry(NamedTuple):
    """Pixels on a side, their size, and how they came to be, for a header; empty if they were asked for."""

    n_pixels: int
    cell_arcsec: float
    told: str


def geometry(options: ImageOptions, datasets: Sequence[xr.Dataset]) -> Geometry:
    """What the options say, and what they leave open derived from the visibilities.

    Parameters
    ----------
    options : ImageOptions
        ``n_pixels`` and ``cell_arcsec`` of 0 are derived, each alone or both. Baselines beyond ``uvrange`` do not
        count.
    datasets : Visibilities views
        All that go into the image.

    Raises
    ------
    ImagingError
        There is nothing to derive from: no baselines, or a dish without a diameter.
    """
    if options.n_pixels and options.cell_arcsec:
        return Geometry(options.n_pixels, options.cell_arcsec, "")
    low = min(float(data["frequency"].min()) for data in datasets)
    high = max(float(data["frequency"].max()) for data in datasets)
    longest = _longest(options, datasets, high)
    diameter = max(float(data.attrs.get("dish_diameter", telescope.DISH_DIAMETER_M)) for data in datasets)
    if not (longest > 0.0 and diameter > 0.0):
        raise ImagingError(
            "Size and cell of the image cannot be derived from the data",
            found=f"longest baseline {longest:g} m, dishes of {diameter:g} m",
            expected="n_pixels and cell_arcsec given (--size, --cell)",
        )
    cell = options.cell_arcsec or derived_cell(longest, high, options.tier)
    n_pixels = options.n_pixels or derived_pixels(cell, 0.5 * (low + high), diameter, options.tier)
    if options.quick:
        n_pixels = min(n_pixels, QUICK_PIXELS)
    told = f"{longest:.0f} m, {low / 1e6:.2f} to {high / 1e6:.2f} MHz, dishes of {diameter:g} m"
    return Geometry(n_pixels, cell, f"{n_pixels} x {cell:g} arcsec derived from {told}")


def derived_cell(longest_m: float, highest_hz: float, tier: str = "standard") -> float:
    """Size of a pixel (arcsec), the next round number below what the longest baseline asks for.

    Parameters
    ----------
    longest_m : longest baseline (m).
    highest_hz : the highest frequency.
    tier : of `options.ImageOptions`.
    """
    cell = float(np.degrees(speed_of_light / highest_hz / longest_m / _SAMPLES[tier])) * 3600.0
    digit = 10.0 ** np.floor(np.log10(cell))
    return float(digit * _ROUND[np.searchsorted(_ROUND, cell / digit, side="right") - 1])


def derived_pixels(cell_arcsec: float, middle_hz: float, dish_m: float, tier: str = "standard") -> int:
    """Pixels on a side that cover the beam: a multiple of eight without prime factors above five, as FFTs like it.

    Parameters
    ----------
    cell_arcsec : size of a pixel.
    middle_hz : middle of the band.
    dish_m : effective diameter of a dish (m).
    tier : of `options.ImageOptions`.
    """
    width = _WIDTHS[tier] * _HALF_POWER_WIDTH * speed_of_light / middle_hz / dish_m
    width = float(np.degrees(min(width, _WIDEST))) * 3600.0
    return max(_LEAST_PIXELS, 8 * int(next_fast_len(int(np.ceil(width / cell_arcsec / 8.0)), real=True)))


def _longest(options: ImageOptions, datasets: Sequence[xr.Dataset], highest_hz: float) -> float:
    """The longest baseline (m) that is imaged; 0 if there is none."""
    lengths = [np.sqrt((np.nan_to_num(data["UVW"].to_numpy()) ** 2).sum(axis=-1)) for data in datasets]
    longest = max((float(length.max()) for length in lengths if length.size), default=0.0)
    if longest and any(data.attrs.get("telescope_name") == telescope.TELESCOPE_NAME for data in datasets):
        longest = max(longest, _array_m())
    limits = parse_uvrange(options.uvrange)
    return min(longest, limits.most * (speed_of_light / highest_hz if limits.in_wavelengths else 1.0))


@lru_cache
def _array_m() -> float:
    """The longest baseline (m) of the stations of DSA-110 that are in use."""
    table = telescope.stations()
    return float(pdist(table.itrf[table.active]).max())
