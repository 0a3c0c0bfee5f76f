"""model: what a group is calibrated on, written into MODEL_DATA.

From a catalogue, from a standard calibrator's spectrum alone, or from a CASA component list; always predicted here.
CASA's own ``setjy`` puts a source at the phase centre of its field (and a Jansky there if it does not know the field's
name), and ``ft`` takes the direction that the field had when it was written: here the calibrator drifts past at a place
that is neither, through a beam that CASA does not know. What ``setjy`` is kept for is its spectrum, from the same
coefficients; its tables of standards are not in the data that CASA is given (`io.measures`), and are not needed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numba import get_num_threads, set_num_threads
from numpy.typing import NDArray

from dsa110_contimg import telescope
from dsa110_contimg.exceptions import CalibrationError
from dsa110_contimg.io import beams, blocks, catalogs, components, fieldmodel, ms
from dsa110_contimg.options import CalibrateOptions
from dsa110_contimg.records import MeasurementSet
from dsa110_contimg.science import bandlimited, beam, predict, subtraction
from dsa110_contimg.science.calibrators import Transit
from dsa110_contimg.science.threads import one_blas_thread

Progress = Callable[[int, int], None]
_TIMES = 2
"""Integrations of a block."""
_AT_ONCE = 2
"""Blocks that are predicted at once."""
_Pointing = tuple[NDArray[np.float64], NDArray[np.float64]]

_SAME_PLACE_ARCSEC = 30.0
"""A component this near to the calibrator is the calibrator: well inside the synthesised beam."""


@dataclass(frozen=True)
class _Sky:
    """Directions (rad, ICRS), flux densities as a function of frequencies: (frequency, source), and where from."""

    ra: NDArray[np.float64]
    dec: NDArray[np.float64]
    spectra: Callable[[NDArray[np.float64]], NDArray[np.float64]]
    told: fieldmodel.FieldModel


def predict_field(
    record: MeasurementSet,
    field: pd.DataFrame,
    options: CalibrateOptions,
    progress: Progress | None = None,
    calibrator: Transit | None = None,
    catalog: str = "",
) -> fieldmodel.FieldModel:
    """Write MODEL_DATA: sources through the drifting beam; take FLAG back to what `flag` left.

    What it was made from is returned, and kept with the column (`io.fieldmodel`).

    Parameters
    ----------
    field : DataFrame
        A catalogue (`io.catalogs.COLUMNS`) of the sources about the field; cut here by ``options.model_min_jy`` and by
        ``options.model_radius_deg`` about the pointings. Used by ``model_source`` ``catalog`` alone.
    calibrator : Transit, optional
        That the group is solved on: the one source of ``setjy``; a component list must hold it.
    catalog : text
        Which catalogue ``field`` is of, and how deep it is (`io.catalogs.describe`).

    Raises
    ------
    CalibrationError
        No source is left: there is nothing to calibrate on; ``setjy`` of a calibrator that is not a standard; or a
        component list without the calibrator.
    CatalogError
        The component list cannot be used.
    CorruptFileError
        ``options.beam_table`` is not a beam.
    """
    layout = ms.read_layout(record.path)
    pointing = (layout.pointing_ra, layout.pointing_dec)
    primary = _primary_beam(options)
    parallel = blocks.parallel_hands(layout)
    sky = _sky(record, field, pointing, options, calibrator, catalog)
    lmn, offset = predict.source_geometry(sky.ra, sky.dec, (layout.ra, layout.dec), pointing, float(layout.mjd.mean()))
    n_times, n_rows = layout.mjd.size, layout.antenna1.size

    def block(first: int) -> NDArray[np.complex64]:
        """The model of some integrations, (row, channel, polarization)."""
        times = slice(first, min(first + _TIMES, n_times))
        here = pointing[0][times], pointing[1][times]
        model = bandlimited.predict_band(
            np.ascontiguousarray(layout.uvw[times].reshape(-1, 3)),
            np.repeat(np.arange(len(here[0])), n_rows),
            layout.frequencies,
            layout.channel_width,
            (lmn, offset[times]),
            lambda channels: predict.through_beam(sky.spectra(channels), (sky.ra, sky.dec), here, channels, primary),
            predict.pole(layout.dec),
            layout.integration_s,
        )
        every = np.zeros((len(model), *layout.cell), np.complex64)
        every[..., parallel] = model[..., None]
        return every

    _write(record, layout, block, sky.told, progress)
    return sky.told


def _write(
    record: MeasurementSet,
    layout: ms.Layout,
    block: Callable[[int], NDArray[np.complex64]],
    told: fieldmodel.FieldModel,
    progress: Progress | None,
) -> None:
    """Write MODEL_DATA, some integrations while the next are predicted; take FLAG back to what `flag` left."""
    n_times, n_rows = layout.mjd.size, layout.antenna1.size
    starts = range(0, n_times, _TIMES)
    # parts of a block are not parallel; two at once, with half of the threads each, leave no processor idle
    threads = max(1, get_num_threads() // _AT_ONCE)
    with (
        ms.opened(record.path, writable=True) as main,
        one_blas_thread(),
        ThreadPoolExecutor(_AT_ONCE, initializer=set_num_threads, initargs=(threads,)) as pool,
    ):
        fieldmodel.forget_field_model(main)
        # an earlier try may have added the flags of its solutions
        tried = "CORRECTED_DATA" in main.colnames()
        ms.add_column(main, fieldmodel.COLUMN)
        pending = deque(pool.submit(block, first) for first in starts[:_AT_ONCE])
        for number, first in enumerate(starts):
            model = pending.popleft().result()
            if number + _AT_ONCE < len(starts):  # they are predicted while these are written
                pending.append(pool.submit(block, starts[number + _AT_ONCE]))
            main.putcol(fieldmodel.COLUMN, model, first * n_rows, len(model))
            if tried:
                kept = main.getcol(ms.FLAG_VERSIONS[1], first * n_rows, len(model))
                main.putcol("FLAG", kept, first * n_rows, len(model))
            if progress:
                progress(min(first + _TIMES, n_times), n_times)
        fieldmodel.write_field_model(main, told)


def _primary_beam(options: CalibrateOptions) -> beam.PrimaryBeam:
    return beam.primary_beam(None if options.beam_table is None else beams.read_beam(options.beam_table))


def _sky(
    record: MeasurementSet,
    field: pd.DataFrame,
    pointing: _Pointing,
    options: CalibrateOptions,
    calibrator: Transit | None,
    catalog: str,
) -> _Sky:
    if options.model_source == "setjy":
        return _standard(record, pointing, calibrator)
    if options.model_source == "catalog":
        limits = options.model_min_jy, options.model_min_apparent_jy
        return _point_sources(record, field, pointing, options, limits, catalog or "a catalogue of the caller's")
    if options.model_path is None:
        raise CalibrationError("There is no component list", found="model_path not given", expected="a directory")
    listed = components.read_components(options.model_path)
    if calibrator is not None:
        _require_calibrator(listed, calibrator, options)
    # a list made for the purpose is not cut by flux
    return _point_sources(record, listed, pointing, options, (0.0, 0.0), str(options.model_path))


def _point_sources(
    record: MeasurementSet,
    field: pd.DataFrame,
    pointing: _Pointing,
    options: CalibrateOptions,
    limits: tuple[float, float],
    catalog: str,
) -> _Sky:
    """Those within the radius and above the limits (true and apparent flux, Jy at 1.4 GHz)."""
    ra, dec, flux, index = (np.asarray(a) for a in _in_field(field, pointing, options, limits))
    if flux.size == 0:
        raise CalibrationError(
            "The field model is empty: no source near the pointing",
            path=record.path,
            found=f"0 of {len(field)} sources of {options.model_source} {catalog}",
            expected=f"at least one of {limits[0]:g} Jy within {options.model_radius_deg:g} deg, {limits[1]:g} Jy "
            "through the beam",
        )

    def spectra(frequencies: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(flux * (frequencies[:, None] / telescope.REFERENCE_FREQUENCY_HZ) ** index)

    own = options.beam_table is None
    told = fieldmodel.FieldModel(
        record.group_id, options.model_source, catalog, int(flux.size), float(flux.min()), options.model_radius_deg,
        *limits, subtraction.PointSources(ra, dec, flux, index).digest() if own else "",
    )  # fmt: skip
    return _Sky(ra, dec, spectra, told)


def _in_field(
    field: pd.DataFrame, pointing: _Pointing, options: CalibrateOptions, limits: tuple[float, float]
) -> tuple[NDArray[Any], ...]:
    primary = _primary_beam(options)
    sources = subtraction.point_sources(field)
    nearest = np.min([beam.separation(sources.ra, sources.dec, *p) for p in zip(*pointing, strict=True)], axis=0)
    keep = (nearest <= np.radians(options.model_radius_deg)) & (sources.flux_jy >= limits[0])
    keep &= subtraction.matters(sources, pointing, limits[1], primary)
    return sources.ra[keep], sources.dec[keep], sources.flux_jy[keep], sources.spectral_index[keep]


def _standard(record: MeasurementSet, pointing: _Pointing, calibrator: Transit | None) -> _Sky:
    """The calibrator alone, with the spectrum of Perley & Butler (2017), which is not quite a power law."""
    standards = ", ".join(f"{also} (J{name})" for name, (also, _) in catalogs.PERLEY_BUTLER.items())
    name = None if calibrator is None else catalogs.standard_calibrator(calibrator.name)
    if calibrator is None or name is None:
        raise CalibrationError(
            "setjy knows the spectrum of a standard calibrator only",
            path=record.path,
            found="no calibrator in this group" if calibrator is None else calibrator.name,
            expected=f"one of {standards}; or model_source catalog",
        )
    ra, dec = (np.array([np.radians(value)]) for value in (calibrator.ra_deg, calibrator.dec_deg))
    reached = min(float(np.degrees(beam.separation(ra, dec, *place))[0]) for place in zip(*pointing, strict=True))
    told = fieldmodel.FieldModel(
        record.group_id,
        "setjy",
        f"Perley & Butler (2017), {calibrator.name} alone",
        1,
        catalogs.perley_butler_flux(name, telescope.REFERENCE_FREQUENCY_HZ / 1e9),
        round(reached, 3),
    )
    return _Sky(ra, dec, lambda channels: catalogs.perley_butler_spectrum(name, channels)[:, None], told)


def _require_calibrator(listed: pd.DataFrame, calibrator: Transit, options: CalibrateOptions) -> None:
    place = np.radians([calibrator.ra_deg, calibrator.dec_deg])
    distance = beam.separation(*np.radians(listed[["ra_deg", "dec_deg"]].to_numpy()).T, *place)
    nearest = float(np.degrees(distance.min()) * 3600)
    if nearest > _SAME_PLACE_ARCSEC:
        raise CalibrationError(
            f"The component list does not hold the calibrator {calibrator.name}",
            path=options.model_path,
            found=f"{len(listed)} components, the nearest {nearest:.0f} arcsec away",
            expected=f"one within {_SAME_PLACE_ARCSEC:g} arcsec of it",
        )
