"""model: the field that a group is calibrated on, written into MODEL_DATA."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dsa110_contimg import telescope
from dsa110_contimg.exceptions import CalibrationError
from dsa110_contimg.io import ms
from dsa110_contimg.options import CalibrateOptions
from dsa110_contimg.records import MeasurementSet
from dsa110_contimg.science import beam, predict, subtraction

Progress = Callable[[int, int], None]


def predict_field(
    record: MeasurementSet, field: pd.DataFrame, options: CalibrateOptions, progress: Progress | None = None
) -> int:
    """Write MODEL_DATA: catalogue sources through the drifting beam; take FLAG back to what `flag` left.

    Returns the number of sources.

    Parameters
    ----------
    field : DataFrame
        A catalogue (`io.catalogs.COLUMNS`) of the sources about the field; cut here by ``options.model_min_jy`` and by
        ``options.model_radius_deg`` about the pointings.

    Raises
    ------
    CalibrationError
        No source is left: there is nothing to calibrate on.
    """
    layout = ms.read_layout(record.path)
    pointing = (layout.pointing_ra, layout.pointing_dec)
    ra, dec, flux, index = (np.asarray(a) for a in _in_field(field, pointing, options))
    if flux.size == 0:
        raise CalibrationError(
            "The field model is empty: no catalogue source near the pointing",
            path=record.path,
            found=f"0 of {len(field)} sources",
            expected=f"at least one of {options.model_min_jy} Jy within {options.model_radius_deg} deg",
        )
    lmn, offset = predict.source_geometry(ra, dec, (layout.ra, layout.dec), pointing, float(layout.mjd.mean()))
    uvw = np.ascontiguousarray(layout.uvw.reshape(-1, 3))
    time_index = np.repeat(np.arange(layout.mjd.size), layout.antenna1.size)
    parallel = [i for i, p in enumerate(layout.polarizations) if p in ("XX", "YY")]
    ms.ensure_column(record.path, "MODEL_DATA")
    step, total = telescope.N_CHANNELS_PER_SUBBAND, layout.frequencies.size
    with ms.opened(record.path, writable=True) as main:
        for first in range(0, total, step):
            channels = layout.frequencies[first : first + step]
            apparent = predict.apparent_fluxes(
                flux, index, (ra, dec), pointing, channels, telescope.REFERENCE_FREQUENCY_HZ
            )
            model = predict.predict(
                uvw, time_index, channels, lmn, offset, apparent, predict.pole(layout.dec), layout.integration_s
            )
            full = np.zeros((*model.shape, len(layout.polarizations)), np.complex64)
            full[..., parallel] = model[..., None]
            ms.write_column(main, "MODEL_DATA", first, full)
            # an earlier try may have added the flags of its solutions
            kept = main.getcolslice(ms.FLAG_VERSIONS[1], [first, 0], [first + len(channels) - 1, full.shape[2] - 1])
            ms.write_flags(main, first, kept)
            if progress:
                progress(min(first + step, total), total)
    return int(flux.size)


def _in_field(
    field: pd.DataFrame, pointing: tuple[NDArray[np.float64], NDArray[np.float64]], options: CalibrateOptions
) -> tuple[NDArray[Any], ...]:
    sources = subtraction.point_sources(field)
    nearest = np.min([beam.separation(sources.ra, sources.dec, *p) for p in zip(*pointing, strict=True)], axis=0)
    keep = (nearest <= np.radians(options.model_radius_deg)) & (sources.flux_jy >= options.model_min_jy)
    keep &= subtraction.matters(sources, pointing, options.model_min_apparent_jy)
    return sources.ra[keep], sources.dec[keep], sources.flux_jy[keep], sources.spectral_index[keep]
