"""Between visibilities and images: gridding and degridding with w-terms, by ducc0.

Images are stored as FITS stores them: ``image[y, x]`` with y north and x *west*, phase centre at pixel n // 2 (from 0).
Flux convention: a point source of S Jy makes visibilities of S exp(...), and an image peak of S, wherever it stands,
so no factor n = sqrt(1 - l^2 - m^2) is applied.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from ducc0.wgridder import experimental as wgridder
from numpy.typing import NDArray
from scipy import ndimage
from scipy.constants import speed_of_light

from dsa110_contimg.exceptions import ImagingError
from dsa110_contimg.science.averaging import ImagingData

_COARSEST = 0.03
_LEAST_FLAT = 0.1
"""Phase (rad) that may be left out of `Gridder.quick_dirty`: of an image of noise, as large a part."""


@dataclass(frozen=True)
class Gridder:
    """Gridding of one data set onto one image.

    Attributes
    ----------
    data : ImagingData
    weights : (sample,) imaging weights.
    n_pixels, cell_rad : image size and pixel (rad).
    accuracy : relative error of gridding.
    threads : int
    """

    data: ImagingData
    weights: NDArray[np.float32]
    n_pixels: int
    cell_rad: float
    accuracy: float
    threads: int

    @property
    def weight_sum(self) -> float:
        total = float(self.weights.sum(dtype=np.float64))
        if not total > 0.0:
            raise ImagingError("No visibility has weight in this image", expected="a smaller cell, or unflagged data")
        return total

    def coarser(self, times: float) -> float:
        """An accuracy so many times coarser than the gridder's own, up to 3 %: beyond, nothing is gained."""
        return max(self.accuracy, min(times * self.accuracy, _COARSEST))

    def dirty(self, visibilities: NDArray[np.complex64], accuracy: float | None = None) -> NDArray[np.float32]:
        """Image of visibilities: sum w V exp(-2 pi i (u l + v m + w (n - 1))) / sum w.

        Parameters
        ----------
        visibilities : (sample,) complex64, Jy
        accuracy : float, optional
            Instead of the gridder's own.

        Returns
        -------
        (n_pixels, n_pixels) float32, Jy/beam, ``[y, x]`` (north, west).
        """
        return self._gridded(visibilities, accuracy or self.accuracy)

    def psf(self, accuracy: float | None = None) -> NDArray[np.float32]:
        """Point spread function: the image of a source of 1 Jy at the phase centre."""
        return self.dirty(np.ones(len(self.weights), np.complex64), accuracy)

    def quick_dirty(self, visibilities: NDArray[np.complex64], accuracy: float) -> NDArray[np.float32]:
        """`dirty` in half the time, or less, to some per cent: as if the baselines lay in a plane.

        With w = a u + b v the image at (l, m) is that of (u, v) alone at l + a (n - 1), m + b (n - 1) (Cornwell &
        Perley 1992): one plane of the grid instead of a dozen, then interpolated. Ours is all but flat for minutes.
        What w differs by from the plane is left out; where that would be more than `_LEAST_FLAT`, this is `dirty`.
        """
        slopes, phase = self._plane()
        if phase > _LEAST_FLAT:
            return self.dirty(visibilities, accuracy)
        margin = 4 + int(np.ceil(np.abs(slopes).max() * -self._corner() / self.cell_rad))
        flat = self._gridded(visibilities, accuracy, margin, do_wgridding=False)
        flat = ndimage.spline_filter(flat, output=np.float32)
        steps = (np.arange(self.n_pixels) - self.n_pixels // 2) * self.cell_rad
        image = np.empty((self.n_pixels, self.n_pixels), np.float32)

        def fill(rows: NDArray[np.intp]) -> None:
            n_less_1 = np.sqrt(1.0 - steps[rows, None] ** 2 - steps**2) - 1.0
            y = rows[:, None] + slopes[1] * n_less_1 / self.cell_rad + margin
            x = np.arange(self.n_pixels) - slopes[0] * n_less_1 / self.cell_rad + margin  # x runs west
            ndimage.map_coordinates(flat, (y, x), image[rows[0] : rows[-1] + 1], prefilter=False)

        with ThreadPoolExecutor(self.threads) as pool:
            list(pool.map(fill, np.array_split(np.arange(self.n_pixels), 16)))
        return image

    def quick_psf(self, accuracy: float) -> NDArray[np.float32]:
        """`psf`, likewise."""
        return self.quick_dirty(np.ones(len(self.weights), np.complex64), accuracy)

    def _plane(self) -> tuple[NDArray[np.float64], float]:
        """Slopes (a, b) of the plane; and the phase (rad) that it lacks, rms of weighted data and of the image."""
        weights, (u, v, w) = np.add.reduceat(self.weights, self.data.offsets[:-1]).astype(np.float64), self.data.uvw.T
        root = np.sqrt(weights)
        slopes = np.linalg.lstsq(np.stack([u * root, v * root], axis=-1), w * root)[0]
        off = np.sqrt((weights * (w - slopes[0] * u - slopes[1] * v) ** 2).sum() / self.weight_sum)
        highest = max(c.frequencies.max() for c in self.data.channels)
        # n - 1 goes with the square of the radius: 0.39 of the corner's in the rms
        return slopes, float(2 * np.pi * off * highest / speed_of_light * 0.39 * -self._corner())

    def _corner(self) -> float:
        """n - 1 at a corner."""
        return float(np.sqrt(max(0.0, 1.0 - 2.0 * (self.n_pixels / 2 * self.cell_rad) ** 2)) - 1.0)

    def _gridded(
        self, visibilities: NDArray[np.complex64], accuracy: float, margin: int = 0, *, do_wgridding: bool = True
    ) -> NDArray[np.float32]:
        """The image with so many more pixels on each side."""
        image = wgridder.vis2dirty_bda(
            vis=visibilities,
            wgt=self.weights,
            npix_x=self.n_pixels + 2 * margin,
            npix_y=self.n_pixels + 2 * margin,
            epsilon=accuracy,
            **self._geometry(do_wgridding=do_wgridding),
        )
        image /= np.float32(self.weight_sum)
        return np.asarray(image)

    def predict(self, model: NDArray[np.float32], accuracy: float | None = None) -> NDArray[np.complex64]:
        """Visibilities (sample,) of an image of point sources (Jy/pixel), to the gridder's accuracy or another."""
        epsilon = accuracy or self.accuracy
        return np.asarray(wgridder.dirty2vis_bda(dirty=model, wgt=None, epsilon=epsilon, **self._geometry()))

    def _geometry(self, *, do_wgridding: bool = True) -> dict[str, object]:
        # ducc0 takes V = exp(-2 pi i (u l + v m - w (n - 1))) with [l, m] ascending. Giving it (v, u, w) stores [y, x];
        # its first axis is flipped for our sign of phase, its second not, because x runs west; w is right as it is
        channels = self.data.channels
        return {
            "uvw": self.data.uvw[:, [1, 0, 2]],
            "freqlist_id": self.data.channels_index.astype(np.uint64),
            "freqlist_nfreqs": np.array([len(c.frequencies) for c in channels], np.uint64),
            "freqlist_freqs": np.concatenate([c.frequencies for c in channels]),
            "pixsize_x": self.cell_rad,
            "pixsize_y": self.cell_rad,
            "do_wgridding": do_wgridding,
            "nthreads": self.threads,
            "divide_by_n": False,
            "flip_u": True,
        }
