"""Between visibilities and images: gridding and degridding with w-terms, by ducc0.

Images are stored as FITS stores them: ``image[y, x]`` with y north and x *west*, phase centre at pixel n // 2 (from 0).
Flux convention: a point source of S Jy makes visibilities of S exp(...), and an image peak of S, wherever it stands,
so no factor n = sqrt(1 - l^2 - m^2) is applied.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from ducc0.wgridder import experimental as wgridder
from numpy.typing import NDArray
from scipy.constants import speed_of_light

from dsa110_contimg.exceptions import ImagingError
from dsa110_contimg.science.averaging import Channels, ImagingData

_COARSEST = 0.03
_MOST_LOST = 0.1
"""Of a sidelobe at the edge of the image, in `Gridder.quick_psf`."""


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
        image = wgridder.vis2dirty_bda(
            vis=visibilities,
            wgt=self.weights,
            npix_x=self.n_pixels,
            npix_y=self.n_pixels,
            epsilon=accuracy or self.accuracy,
            **self._geometry(),
        )
        image /= np.float32(self.weight_sum)
        return np.asarray(image)

    def psf(self, accuracy: float | None = None) -> NDArray[np.float32]:
        """Point spread function: the image of a source of 1 Jy at the phase centre."""
        return self.dirty(np.ones(len(self.weights), np.complex64), accuracy)

    def quick_psf(self, accuracy: float | None = None) -> NDArray[np.float32]:
        """The same in three quarters of the time, of neighbouring channels added in pairs, where that takes little.

        A pair of width d has lost (pi d tau)^2 / 6 of its fringe at delay tau (Thompson, Moran & Swenson 2017, section
        6.4): at the edge of the image, where that is most, a tenth of what sidelobes there are, at most.
        """
        data, lists = self.data, self.data.channels
        if not (all(_in_pairs(channels) for channels in lists) and self._lost_by_pairs() < _MOST_LOST):
            return self.psf(accuracy)
        pairs = [c.frequencies.reshape(-1, 2).mean(axis=1) for c in lists]
        channels = tuple(replace(c, frequencies=f, factor=2 * c.factor) for c, f in zip(lists, pairs, strict=True))
        weights = self.weights.reshape(-1, 2).sum(axis=1)
        of_pairs = replace(data, channels=channels, offsets=data.offsets // 2, weights=weights)
        return replace(self, data=of_pairs, weights=weights).psf(accuracy)

    def _lost_by_pairs(self) -> float:
        """Weighted mean of the loss of a source at the middle of an edge of the image."""
        data = self.data
        weights = np.add.reduceat(self.weights, data.offsets[:-1])
        width = np.array([2 * c.factor * c.native_width_hz for c in data.channels])[data.channels_index]
        delay = np.hypot(data.uvw[:, 0], data.uvw[:, 1]) * self.n_pixels / 2 * self.cell_rad / speed_of_light
        return float((weights * (np.pi * width * delay) ** 2 / 6).sum() / weights.sum())

    def predict(self, model: NDArray[np.float32], accuracy: float | None = None) -> NDArray[np.complex64]:
        """Visibilities (sample,) of an image of point sources (Jy/pixel), to the gridder's accuracy or another."""
        epsilon = accuracy or self.accuracy
        return np.asarray(wgridder.dirty2vis_bda(dirty=model, wgt=None, epsilon=epsilon, **self._geometry()))

    def _geometry(self) -> dict[str, object]:
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
            "do_wgridding": True,
            "nthreads": self.threads,
            "divide_by_n": False,
            "flip_u": True,
        }


def _in_pairs(channels: Channels) -> bool:
    """Whether they are an even number, and the two of each pair lie next to each other."""
    f, width = channels.frequencies, channels.factor * channels.native_width_hz
    return len(f) % 2 == 0 and bool((np.diff(f)[::2] < 1.5 * width).all())
