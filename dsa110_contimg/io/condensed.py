"""Normal equations as a small Measurement Set, for solvers that read nothing else.

One visibility stands for all the data of a solution cell (`science.condense`), so CASA finds the gains that it finds in
the full data, and reads a small part of it. It is C / sqrt(P), of model sqrt(P) and weight 1, not C / P of model 1 and
weight P, which would be the same least-squares problem: CASA solves with the WEIGHT of a row and passes over its
WEIGHT_SPECTRUM, so weights that differ between channels would be lost (0.8 standard errors on a weak calibrator).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dsa110_contimg.io.ms import Layout, opened, write_rows
from dsa110_contimg.io.ms_create import add_time, create


def write_condensed(
    path: Path,
    layout: Layout,
    cross: NDArray[np.complex128],
    power: NDArray[np.float64],
    axes: tuple[NDArray[np.float64], NDArray[np.float64]],
    widths: tuple[float, float],
) -> None:
    """Write the sums of cells as visibilities; autocorrelations are left out.

    Parameters
    ----------
    layout : of the Measurement Set that they were made from.
    cross, power : (time, baseline, channel, polarization)
        Parallel hands, XX and YY, or one of them.
    axes : (time,) MJD UTC and (channel,) Hz
        Centres of the cells.
    widths : (s, Hz)
        Length and width of a cell.
    """
    mjd, frequencies = axes
    kept = np.flatnonzero(layout.antenna1 != layout.antenna2)
    nearest = np.abs(layout.mjd[None] - mjd[:, None]).argmin(axis=1)
    small = replace(
        layout,
        mjd=mjd,
        antenna1=layout.antenna1[kept],
        antenna2=layout.antenna2[kept],
        uvw=layout.uvw[nearest][:, kept],
        frequencies=frequencies,
        channel_width=widths[1],
        integration_s=widths[0],
        polarizations=tuple(p for p in layout.polarizations if p in ("XX", "YY")),
        pointing_ra=layout.pointing_ra[nearest],
        pointing_dec=layout.pointing_dec[nearest],
        weight_spectrum=True,
    )
    create(path, small, ("DATA", "MODEL_DATA"))
    with opened(path, writable=True) as main:
        for time in range(mjd.size):
            empty = ~(power[time, kept] > 0)
            model = np.sqrt(np.where(empty, 1.0, power[time, kept]))
            data = np.where(empty, 0.0, cross[time, kept] / model)
            row_weight = (~empty).any(axis=1).astype(np.float32)
            start = add_time(main, small, time)
            write_rows(main, start, data.astype(np.complex64), empty, (~empty).astype(np.float32), row_weight)
            main.putcol("MODEL_DATA", model.astype(np.complex64), start, len(model))
