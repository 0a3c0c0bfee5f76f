"""Known sources, taken out of the visibilities before they are imaged.

Deconvolution puts sources on pixels, one flux for all times and frequencies; the sky does neither, and 3C138 then
limits its image to a dynamic range of some thousands. And a source beyond the image's edge throws its sidelobes into
it where deconvolution cannot reach: two groups before its transit 3C138 stands in the wing of the beam with 0.3 Jy.

So catalogue sources are predicted where they are, through the drifting beam and with the averaging of the correlator,
and subtracted. What is left of a source, because its flux or place is not the catalogue's, is imaged like anything
else; the prediction's own peak is put back when the image is restored. Both steps are linear, so a wrong catalogue
costs only what deconvolution of the difference costs (`tests/stages/test_image_known.py`: under 1 % of a flux for a
catalogue wrong by half).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr
from astropy.table import Table
from numpy.typing import NDArray

from dsa110_contimg import telescope
from dsa110_contimg.science import bandlimited, beam, predict
from dsa110_contimg.science.grid import SkyGrid
from dsa110_contimg.science.response import Response


@dataclass(frozen=True)
class PointSources:
    """Bare arrays of sources: directions (rad, ICRS), flux (Jy at 1.4 GHz), spectral index."""

    ra: NDArray[np.float64]
    dec: NDArray[np.float64]
    flux_jy: NDArray[np.float64]
    spectral_index: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.ra)

    def where(self, mask: NDArray[np.bool_]) -> PointSources:
        """Those of a mask (source,)."""
        return PointSources(self.ra[mask], self.dec[mask], self.flux_jy[mask], self.spectral_index[mask])

    def digest(self) -> str:
        """Equal for the same sources in the same order, and only for them."""
        whole = np.stack([self.ra, self.dec, self.flux_jy, self.spectral_index])
        return hashlib.sha256(np.ascontiguousarray(whole, "<f8").tobytes()).hexdigest()[:16]


NOTHING = PointSources(np.zeros(0), np.zeros(0), np.zeros(0), np.zeros(0))


def point_sources(catalog: pd.DataFrame) -> PointSources:
    """The columns of a catalogue (`io.catalogs.COLUMNS`) that a prediction needs."""
    columns = {name: catalog[name].to_numpy(float) for name in ("ra_deg", "dec_deg", "flux_jy", "spectral_index")}
    return PointSources(
        np.radians(columns["ra_deg"]), np.radians(columns["dec_deg"]), columns["flux_jy"], columns["spectral_index"]
    )


def matters(
    sources: PointSources,
    pointing: tuple[NDArray[np.float64], NDArray[np.float64]],
    least_jy: float,
    primary: beam.PrimaryBeam = beam.AIRY,
) -> NDArray[np.bool_]:
    """Which sources reach an apparent flux (Jy at 1.4 GHz) in any integration of a drift (pointings: rad, ICRS)."""
    apparent = predict.apparent_fluxes(
        sources.flux_jy,
        sources.spectral_index,
        (sources.ra, sources.dec),
        pointing,
        np.array([telescope.REFERENCE_FREQUENCY_HZ]),
        telescope.REFERENCE_FREQUENCY_HZ,
        primary,
    )
    return np.asarray(apparent.max(axis=(0, 1)) >= least_jy)


def subtract(dataset: xr.Dataset, sources: PointSources, primary: beam.PrimaryBeam = beam.AIRY) -> xr.Dataset:
    """A Visibilities view with sources subtracted from its parallel hands; lazy where the view is lazy.

    Parameters
    ----------
    dataset : Visibilities view of one phase centre, in the sense of a Measurement Set
    sources : PointSources
    primary : the beam they are seen through
    """
    if not len(sources):
        return dataset
    pointing = (dataset["pointing_ra"].to_numpy(), dataset["pointing_dec"].to_numpy())
    centre = (float(dataset.attrs["phase_center_ra"]), float(dataset.attrs["phase_center_dec"]))
    lmn, offset = predict.source_geometry(sources.ra, sources.dec, centre, pointing, float(dataset["time"].mean()))
    frequencies = dataset["frequency"].to_numpy()
    hands = np.isin(dataset["polarization"].to_numpy(), ("XX", "YY", "RR", "LL")).astype(np.float32)
    uvw = dataset["UVW"].to_numpy()
    seconds, width = float(dataset.attrs["integration_time"]), float(dataset.attrs["channel_width"])

    def model(start: int, stop: int) -> NDArray[np.complex64]:
        rows = np.ascontiguousarray(uvw[start:stop].reshape(-1, 3))
        when = np.repeat(np.arange(stop - start), uvw.shape[1])
        here = pointing[0][start:stop], pointing[1][start:stop]

        def spectra(channels: NDArray[np.float64]) -> NDArray[np.float32]:
            where = sources.ra, sources.dec
            given = sources.flux_jy, sources.spectral_index, where, here, channels
            return predict.apparent_fluxes(*given, telescope.REFERENCE_FREQUENCY_HZ, primary)

        geometry = lmn, offset[start:stop]
        pole = predict.pole(centre[1])
        out = bandlimited.predict_band(rows, when, frequencies, width, geometry, spectra, pole, seconds)
        return out.reshape(stop - start, uvw.shape[1], -1)[..., None] * hands

    def taken(
        block: NDArray[np.complex64], block_info: dict[int, dict[str, list[tuple[int, int]]]]
    ) -> NDArray[np.complex64]:
        start, stop = block_info[0]["array-location"][0]
        return np.asarray(block - model(start, stop), np.complex64)

    lazy = dataset["VISIBILITY"].data
    if not isinstance(lazy, da.Array):
        lazy = da.from_array(lazy, chunks=(4, -1, -1, -1))
    whole = lazy.rechunk({1: -1, 2: -1, 3: -1})
    return dataset.assign(VISIBILITY=(dataset["VISIBILITY"].dims, da.map_blocks(taken, whole, dtype=np.complex64)))


def known_sources(
    dataset: xr.Dataset, catalog: pd.DataFrame, least_jy: float, primary: beam.PrimaryBeam = beam.AIRY
) -> PointSources:
    """The catalogue sources that reach an apparent flux (Jy) in any integration of a Visibilities view."""
    sources = point_sources(catalog)
    pointing = (dataset["pointing_ra"].to_numpy(), dataset["pointing_dec"].to_numpy())
    return sources.where(matters(sources, pointing, least_jy, primary))


def known_table(
    sources: PointSources, grid: SkyGrid, response: Response, surviving: Callable[..., NDArray[np.float64]]
) -> Table:
    """What an image has of those subtracted sources that lie in it, to be put back.

    Parameters
    ----------
    sources : PointSources
    grid : SkyGrid
    response : Response
        Of the image.
    surviving : function (ra, dec) -> fraction of a peak that smearing leaves

    Returns
    -------
    Table
        RA, DEC (deg), X, Y (pixels from 0), PEAK (Jy/beam), SLOPE of the peak over f / f0 (Jy/beam, `Response.terms`).
    """
    x, y = grid.pixel(sources.ra, sources.dec)
    inside = (x > -0.5) & (x < grid.n_pixels - 0.5) & (y > -0.5) & (y < grid.n_pixels - 0.5)
    here = sources.where(inside)
    peak = slope = np.zeros(0)
    if len(here):
        left = here.flux_jy * surviving(here.ra, here.dec)
        peak, slope = (left * term for term in response.terms(here.ra, here.dec, here.spectral_index))
    columns = {"RA": np.degrees(here.ra), "DEC": np.degrees(here.dec), "X": x[inside], "Y": y[inside]}
    units = {"RA": "deg", "DEC": "deg", "X": "pix", "Y": "pix", "PEAK": "Jy/beam", "SLOPE": "Jy/beam"}
    return Table(columns | {"PEAK": peak, "SLOPE": slope}, units=units)
