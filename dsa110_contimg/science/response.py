"""What an image saw: the weight that each pointing and frequency has in it, and the beam that follows.

The table is small enough to be kept with the image, so that a flux measured later is divided by exactly the response
of its image, for a source's own spectrum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from dsa110_contimg import telescope
from dsa110_contimg.science.averaging import ImagingData
from dsa110_contimg.science.beam import PrimaryBeam, drift_averaged, separation

if TYPE_CHECKING:
    from astropy.table import Table

BIN_HZ = 12.0e6
"""Channels are summed in bins of about a subband: beam and steep spectra curve by less than 2e-4 within one."""


@dataclass(frozen=True)
class Response:
    """Weights of pointings and frequencies in an image.

    Attributes
    ----------
    pointing_ra, pointing_dec : (time,) rad, ICRS.
    frequencies : (bin,) weighted mean frequency (Hz).
    weights : (time, bin) sums of the imaging weights.
    beam : PrimaryBeam
    """

    pointing_ra: NDArray[np.float64]
    pointing_dec: NDArray[np.float64]
    frequencies: NDArray[np.float64]
    weights: NDArray[np.float64]
    beam: PrimaryBeam

    @property
    def dish_diameter_m(self) -> float:
        """Of the dish, or of the Airy pattern as wide as a measured beam."""
        return self.beam.diameter_m

    @property
    def mean_frequency_hz(self) -> float:
        return float((self.weights.sum(axis=0) * self.frequencies).sum() / self.weights.sum())

    def by_bin(self, ra: NDArray[np.float64], dec: NDArray[np.float64]) -> NDArray[np.float64]:
        """(time, bin, source) beam towards sources at (ra, dec) (rad, ICRS)."""
        theta = separation(ra[None, :], dec[None, :], self.pointing_ra[:, None], self.pointing_dec[:, None])
        return self.beam.power(theta[:, None, :], self.frequencies[None, :, None])

    def table(self) -> Table:
        """One row a pointing; frequencies and the dish in a FITS header would lose digits, so they are columns."""
        from astropy.table import Table

        n = len(self.pointing_ra)
        return Table(
            {
                "POINTING_RA": np.degrees(self.pointing_ra),
                "POINTING_DEC": np.degrees(self.pointing_dec),
                "FREQUENCY": np.tile(self.frequencies, (n, 1)),
                "WEIGHT": self.weights,
                "DISH_DIAMETER": np.full(n, self.dish_diameter_m),
            },
            units={"POINTING_RA": "deg", "POINTING_DEC": "deg", "FREQUENCY": "Hz", "DISH_DIAMETER": "m"},
        )

    def merged(self) -> Response:
        """The same response with equal pointings (a tracking telescope) summed into one."""
        both = np.stack([self.pointing_ra, self.pointing_dec], axis=-1)
        pointings, number = np.unique(both, axis=0, return_inverse=True)
        weights = np.zeros((len(pointings), self.weights.shape[1]))
        np.add.at(weights, number.ravel(), self.weights)
        return Response(pointings[:, 0], pointings[:, 1], self.frequencies, weights, self.beam)

    def at(
        self,
        ra: ArrayLike,
        dec: ArrayLike,
        spectral_index: ArrayLike = 0.0,
        reference_hz: float = telescope.REFERENCE_FREQUENCY_HZ,
    ) -> NDArray[np.float64]:
        """Apparent over true flux density at ``reference_hz`` of sources at (ra, dec) (rad, ICRS).

        The mean over the image's weights of B(t, f) (f / f0)^alpha; smearing is not in it.
        """
        return drift_averaged(
            ra,
            dec,
            self.pointing_ra,
            self.pointing_dec,
            self.frequencies,
            self.weights,
            spectral_index,
            reference_hz,
            self.beam,
        )

    def terms(
        self,
        ra: ArrayLike,
        dec: ArrayLike,
        spectral_index: ArrayLike = 0.0,
        reference_hz: float = telescope.REFERENCE_FREQUENCY_HZ,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean, which is `at`, and slope of B(t, f) (f / f0)^alpha over the image's weights.

        The slope is that of the weighted least-squares line over f / f_mean - 1 (`science.spectral`); its ratio to the
        mean is a source's apparent index: alpha, and -1.5 of the beam at the half-power radius.

        Returns
        -------
        mean, slope : (...) arrays.
        """
        ra, dec, index = np.broadcast_arrays(*(np.asarray(value, np.float64) for value in (ra, dec, spectral_index)))
        x = self.frequencies / self.mean_frequency_hz - 1.0
        seen = self.by_bin(ra.ravel(), dec.ravel()) * (self.frequencies[:, None] / reference_hz) ** index.ravel()
        mean = np.einsum("tb,tbs->s", self.weights, seen) / self.weights.sum()
        slope = np.einsum("tb,tbs->s", self.weights * x, seen) / (self.weights * x**2).sum()
        return np.asarray(mean.reshape(ra.shape)), np.asarray(slope.reshape(ra.shape))

    def index_at(self, ra: NDArray[np.float64], dec: NDArray[np.float64]) -> NDArray[np.float64]:
        """Spectral index of the beam alone: what it adds to that of a source at (ra, dec) (rad, ICRS)."""
        mean, slope = self.terms(ra, dec)
        return slope / mean


def image_response(data: ImagingData, weights: NDArray[np.float32], bin_hz: float = BIN_HZ) -> Response:
    """The response of an image made of ``data`` with imaging ``weights`` (sample,).

    Every time has its entry, weight or none; frequencies without weight are left out.
    """
    low = min(c.frequencies[0] for c in data.channels)
    high = max(c.frequencies[-1] for c in data.channels)
    n_bins = max(1, round((high - low) / bin_hz))
    edges = np.linspace(low, high, n_bins + 1)[1:-1]
    total = np.zeros((len(data.track.mjd), n_bins))
    moment = np.zeros(n_bins)
    every = np.concatenate([c.frequencies for c in data.channels])
    first = np.cumsum([0] + [len(c.frequencies) for c in data.channels])
    rows = data.offsets, data.time_index, data.channels_index
    _sum_weights(weights, rows, (first, every, np.searchsorted(edges, every)), total, moment)
    used = total.sum(axis=0)
    seen = used > 0.0
    frequencies = moment[seen] / used[seen]
    track = data.track
    return Response(track.pointing_ra, track.pointing_dec, frequencies, total[:, seen], track.primary_beam)


@njit(nogil=True, cache=True)
def _sum_weights(
    weights: NDArray[np.float32],
    rows: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]],
    channels: tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]],
    total: NDArray[np.float64],
    moment: NDArray[np.float64],
) -> None:
    """Add weights (sample,) to ``total`` (time, bin), and weights times frequencies to ``moment`` (bin,).

    ``rows`` are offsets, indices of time and of the list of channels; ``channels`` are the first of each list,
    frequencies and bins of all lists, one after the other.
    """
    offsets, times, lists = rows
    first, frequencies, bins = channels
    for row in range(len(times)):
        base = first[lists[row]]
        for k in range(offsets[row + 1] - offsets[row]):
            weight = np.float64(weights[offsets[row] + k])
            total[times[row], bins[base + k]] += weight
            moment[bins[base + k]] += weight * frequencies[base + k]


def noise_map(noise_jy: float | NDArray[np.float32], pb: NDArray[np.float32], pb_cut: float) -> NDArray[np.float32]:
    """Noise of the beam-corrected image (Jy/beam): noise over the beam, NaN where the beam is below ``pb_cut``.

    Parameters
    ----------
    noise_jy : float or (n, n)
        Rms of the image before beam correction, of all or of each pixel (Jy/beam).
    pb : (n, n) drift-averaged primary beam.
    pb_cut : float
        As of the beam-corrected image, in (0, 1).
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(pb >= pb_cut, np.asarray(noise_jy, np.float32) / pb, np.float32(np.nan)), np.float32)
