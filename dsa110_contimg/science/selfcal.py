"""Gains from an image: what is left in the phases and amplitudes of antennas, against the sky that was imaged.

Corrected visibilities are held against the deconvolved model and the known sources that were subtracted before it, both
predicted through the drifting beam with all that averaging loses, and gains of the antennas solved from the normal
equations of the two. Each hand is averaged as imaging averages Stokes I, which makes the sums of a group in seconds; a
gain is common to all channels, so nothing is lost by it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dsa110_contimg.exceptions import CalibrationError, InputError
from dsa110_contimg.options import ImageOptions
from dsa110_contimg.science import stefcal, subtraction
from dsa110_contimg.science.aberration import aberration_scale
from dsa110_contimg.science.apparent import ApparentSky, predict_sources
from dsa110_contimg.science.averaging import ImagingData, from_dataset
from dsa110_contimg.science.beam import PrimaryBeam, half_power_radius
from dsa110_contimg.science.condense import Normal
from dsa110_contimg.science.grid import SkyGrid
from dsa110_contimg.science.gridding import Gridder

HANDS = ("XX", "YY")


class Sky(NamedTuple):
    """The sky of an image, and the beam it was seen through.

    Attributes
    ----------
    model : (n_pixels, n_pixels) Jy/pixel ``[y, x]``, apparent, as the image has it.
    known : sources that were subtracted before.
    primary : beam that the image was made with.
    """

    model: NDArray[np.float32]
    known: subtraction.PointSources
    primary: PrimaryBeam


def solve_on_image(
    dataset: xr.Dataset,
    sky: Sky,
    imaging: ImageOptions,
    *,
    noise_jy: float,
    reach: int,
    interval_s: float,
    phase_only: bool,
    min_snr: float,
) -> xr.Dataset:
    """Gains of a corrected Visibilities view against the sky of its image, as a CalTable view.

    V = g_1 conj(g_2) M, one gain an antenna, receptor and interval. Amplitudes are normalised to a geometric mean of 1:
    what antennas share is the flux scale, which an image cannot tell.

    Parameters
    ----------
    sky : Sky
    imaging : options the image was made with
    noise_jy, reach : of the image: its noise (Jy/beam), and how far a source's model pixels reach (`ApparentSky`)
    interval_s : float
        Of a solution (s).
    phase_only : bool
        Gains of modulus 1.
    min_snr : float
        Solutions with less are flagged.

    Raises
    ------
    InputError
        No parallel hands.
    CalibrationError
        No antenna has a solution, or the model is empty.
    """
    hands = [str(hand) for hand in dataset["polarization"].to_numpy() if str(hand) in HANDS]
    if not hands:
        raise InputError("Gains are solved in parallel hands", found=dataset["polarization"].to_numpy(), expected=HANDS)
    if not sky.model.any() and not len(sky.known):
        raise CalibrationError(
            "There is no sky to calibrate on", found="an empty model", expected="sources in the image"
        )
    times = np.asarray(dataset["time"].to_numpy(), np.float64)
    per = max(1, round(interval_s / float(dataset.attrs["integration_time"])))
    sums = []
    for hand in hands:
        one = dataset.sel(polarization=[hand]).assign_coords(polarization=["I"])
        data = _averaged(one, imaging, sky.primary)
        sums.append(_normal(data, _predicted(data, sky, imaging, noise_jy, reach), (len(times), per)))
    normal = Normal(*(np.concatenate(parts, axis=-1) for parts in zip(*(s.sums for s in sums), strict=True)))
    names, antennas = _antennas(dataset)
    weight = np.bincount(antennas.ravel(), np.repeat(normal.power.sum(axis=(0, 2, 3)), 2), minlength=len(names))
    best = tuple(int(k) for k in np.argsort(-weight))
    found = stefcal.solve_normal(normal, antennas, len(names), phase_only=phase_only, refants=best)
    coords = {
        "time": np.array([times[k : k + per].mean() for k in range(0, len(times), per)]),
        "frequency": np.array([float(dataset["frequency"].mean())]),
        "antenna_name": np.array(names),
        "polarization": np.array([hand[0] for hand in hands]),
    }
    table = stefcal.as_caltable(found, coords, "G Jones", names[best[0]], min_snr)
    if table["FLAG"].all():
        raise CalibrationError("No antenna has a solution", found=f"all below an SNR of {min_snr:g}", expected="some")
    return table if phase_only else _normalised(table)


def _antennas(dataset: xr.Dataset) -> tuple[list[str], NDArray[np.int64]]:
    """Names, and (baseline, 2) indices into them."""
    names = stefcal.antenna_names(dataset)
    number = {name: k for k, name in enumerate(names)}
    ends = [[number[str(name)] for name in dataset[f"baseline_antenna{i}_name"].to_numpy()] for i in (1, 2)]
    return names, np.array(ends, np.int64).T.copy()


def _normalised(table: xr.Dataset) -> xr.Dataset:
    amplitudes = np.abs(table["GAIN"].to_numpy())[~table["FLAG"].to_numpy()]
    level = np.exp(np.log(amplitudes).mean())
    return table.assign(GAIN=(table["GAIN"] / level).astype(np.complex64))


def _averaged(dataset: xr.Dataset, imaging: ImageOptions, primary: PrimaryBeam) -> ImagingData:
    radius = half_power_radius(float(dataset["frequency"].mean()), primary.diameter_m)
    data = from_dataset(dataset, imaging.averaging_loss, radius)
    return replace(data, track=replace(data.track, beam=primary))


def _predicted(
    data: ImagingData,
    sky: Sky,
    imaging: ImageOptions,
    noise_jy: float,
    reach: int,
) -> NDArray[np.complex64]:
    """What the sky of the image would be in the data."""
    predicted, model = predict_sources(data, sky.known), sky.model
    if model.any():
        cell = float(np.radians(imaging.cell_arcsec / 3600.0))
        centre = (data.phase_center_ra, data.phase_center_dec)
        gridder = Gridder(data, data.weights, len(model), cell, imaging.accuracy, imaging.threads)
        scale = aberration_scale(*centre, float(data.track.mjd.mean()))
        apparent = ApparentSky(gridder, SkyGrid(len(model), cell * scale, *centre), reach)
        predicted += apparent.predict(model, noise_jy)
    return predicted


def _normal(data: ImagingData, model: NDArray[np.complex64], cells: tuple[int, int]) -> Normal:
    """Sums over channels and so many integrations; rows of the data are (time, baseline)."""
    n_times, per = cells
    weight, value = data.weights.astype(np.float64), data.visibilities.astype(np.complex128)
    starts = np.arange(0, n_times, per)

    def added(samples: NDArray[Any]) -> NDArray[Any]:
        rows = np.add.reduceat(samples, data.offsets[:-1]).reshape(n_times, -1)
        return np.asarray(np.add.reduceat(rows, starts, axis=0)[:, :, None, None])

    return Normal(
        added(weight * value * model.conj()),
        added(weight * np.abs(model.astype(np.complex128)) ** 2),
        added(weight * np.abs(value) ** 2),
        added((weight > 0).astype(np.float64)),
    )
