"""The sky grid of an image: slant orthographic (SIN) projection about the phase centre, as interferometers make it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import RectBivariateSpline

from dsa110_contimg.science.coordinates import direction_cosines

SkyFunction = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]


@dataclass(frozen=True)
class SkyGrid:
    """Pixels and directions; pixels count from 0, x runs west and y north, the centre is pixel n // 2.

    Attributes
    ----------
    n_pixels : int
    cell : true angle of a pixel on the sky (rad).
    ra, dec : phase centre (rad, ICRS).
    """

    n_pixels: int
    cell: float
    ra: float
    dec: float

    def sky(self, x: ArrayLike, y: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(ra, dec) in rad of pixels; NaN beyond the horizon of the projection (Calabretta & Greisen 2002, 5.1.5)."""
        l = -(np.asarray(x, np.float64) - self.n_pixels // 2) * self.cell
        m = (np.asarray(y, np.float64) - self.n_pixels // 2) * self.cell
        square = 1.0 - l**2 - m**2
        n = np.sqrt(np.where(square >= 0.0, square, np.nan))
        dec = np.arcsin(m * np.cos(self.dec) + n * np.sin(self.dec))
        ra = self.ra + np.arctan2(l, n * np.cos(self.dec) - m * np.sin(self.dec))
        return np.asarray(ra % (2 * np.pi)), np.asarray(dec)

    def pixel(self, ra: ArrayLike, dec: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(x, y) of directions (rad); NaN on the far side of the sky."""
        lmn = direction_cosines(ra, dec, self.ra, self.dec)
        near = np.where(lmn[..., 2] > 0.0, 1.0, np.nan)
        half = self.n_pixels // 2
        return np.asarray(half - near * lmn[..., 0] / self.cell), np.asarray(half + near * lmn[..., 1] / self.cell)

    def map(self, function: SkyFunction, spacing: float) -> NDArray[np.float32]:
        """A smooth function of (ra, dec) on every pixel ``[y, x]``: evaluated on a coarse grid, then cubic splines.

        Parameters
        ----------
        function : callable of two arrays (rad)
        spacing : float
            Largest distance of the coarse points (rad).
        """
        n_nodes = max(8, int(np.ceil(self.n_pixels * self.cell / spacing)) + 1)
        nodes = np.linspace(0.0, self.n_pixels - 1.0, n_nodes)
        x, y = np.meshgrid(nodes, nodes)
        values = function(*self.sky(x, y))
        pixels = np.arange(self.n_pixels, dtype=np.float64)
        return np.asarray(RectBivariateSpline(nodes, nodes, values)(pixels, pixels), dtype=np.float32)
