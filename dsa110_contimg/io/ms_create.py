"""A new Measurement Set: all metadata, then row by row as integrations come (`io.ms.write_rows` fills them).

Rows are added one integration at a time: casacore writes zeros into every tile of rows that are closed unfilled, which
costs as much as writing the data.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dsa110_contimg import telescope
from dsa110_contimg.io.ms import (
    CORRELATIONS,
    FLAG_VERSIONS,
    MJD_S,
    Layout,
    ensure_column,
    opened,
    put_row_weights,
    tiled_column,
    tiles,
)

if TYPE_CHECKING:
    from casacore.tables import table


def create(path: Path, layout: Layout, data_columns: Sequence[str] = ("DATA",)) -> None:
    """Make a Measurement Set with all metadata and no rows, which `add_time` adds.

    Parameters
    ----------
    data_columns : those that are made; others than DATA hold zeros.
    """
    from casacore import tables as ct

    if path.exists():
        shutil.rmtree(path)
    kinds = dict.fromkeys(data_columns, (0j, "complex")) | dict.fromkeys(("FLAG", *FLAG_VERSIONS), (False, "bool"))
    if layout.weight_spectrum:
        kinds["WEIGHT_SPECTRUM"] = (0.0, "float")
    columns = [tiled_column(name, value, kind, layout.cell) for name, (value, kind) in kinds.items()]
    description = ct.required_ms_desc()
    description.pop("FLAG", None)
    description.update(ct.maketabdesc(columns))
    managers = ct.makedminfo(description, tiles(kinds, layout.cell, layout.antenna1.size))
    ct.default_ms(str(path), description, managers).close()
    _subtables(path, layout)


def add_time(main: table, layout: Layout, time: int) -> int:
    """Add the rows of one integration with everything but their data, and WEIGHT and SIGMA, which come with them.

    Returns
    -------
    int
        The first of the rows.
    """
    n_windows, n_baselines = layout.n_windows, layout.antenna1.size
    start, rows = main.nrows(), n_windows * n_baselines
    main.addrows(rows)
    columns: dict[str, NDArray[Any]] = {
        "ANTENNA1": np.tile(layout.antenna1, n_windows).astype(np.int32),
        "ANTENNA2": np.tile(layout.antenna2, n_windows).astype(np.int32),
        "UVW": np.tile(layout.uvw[time], (n_windows, 1)),
        "SCAN_NUMBER": np.ones(rows, np.int32),
        "DATA_DESC_ID": np.repeat(np.arange(n_windows, dtype=np.int32), n_baselines),
        "FIELD_ID": np.full(rows, time if len(layout.centers) > 1 else 0, np.int32),
        "FLAG_ROW": np.zeros(rows, bool),
    }
    columns |= dict.fromkeys(("TIME", "TIME_CENTROID"), np.full(rows, layout.mjd[time] * MJD_S))
    columns |= dict.fromkeys(("INTERVAL", "EXPOSURE"), np.full(rows, layout.integration_s))
    unused = ("ARRAY_ID", "FEED1", "FEED2", "OBSERVATION_ID", "PROCESSOR_ID", "STATE_ID")
    columns |= dict.fromkeys(unused, np.zeros(rows, np.int32))
    for name, values in columns.items():
        main.putcol(name, values, start, rows)
    return int(start)


def _subtables(path: Path, layout: Layout) -> None:
    span = [layout.mjd[0] * MJD_S - layout.integration_s / 2, layout.mjd[-1] * MJD_S + layout.integration_s / 2]
    windows = np.arange(layout.n_windows, dtype=np.int32)
    kept = {"FLAG_ROW": np.zeros(1, bool)}
    tables: dict[str, dict[str, Any]] = {
        "ANTENNA": _antennas(layout),
        "FIELD": _field(layout),
        "SPECTRAL_WINDOW": _spectral_window(layout),
        "POLARIZATION": {
            "NUM_CORR": np.array([len(layout.polarizations)], np.int32),
            "CORR_TYPE": np.array([[CORRELATIONS[p] for p in layout.polarizations]], np.int32),
            "CORR_PRODUCT": np.array([[["XY".index(c) for c in p] for p in layout.polarizations]], np.int32),
            **kept,
        },
        "DATA_DESCRIPTION": {
            "SPECTRAL_WINDOW_ID": windows,
            "POLARIZATION_ID": np.zeros_like(windows),
            "FLAG_ROW": np.zeros(windows.size, bool),
        },
        "OBSERVATION": {
            "TELESCOPE_NAME": [telescope.TELESCOPE_NAME],
            "TIME_RANGE": np.array([span]),
            "OBSERVER": ["DSA-110"],
            "PROJECT": [layout.group_id],
            "SCHEDULE_TYPE": [""],
            "RELEASE_DATE": np.array([span[1]]),
            **kept,
        },
        "FEED": _feeds(len(layout.names), span),
        "POINTING": _pointing(layout, len(layout.names)),
        "STATE": {"SIG": np.ones(1, bool), "REF": np.zeros(1, bool), "OBS_MODE": ["OBSERVE_TARGET#ON_SOURCE"], **kept},
        "PROCESSOR": {"TYPE": ["CORRELATOR"], "SUB_TYPE": ["DSA-110"], **kept},
        "HISTORY": _history(layout),
    }
    for name, columns in tables.items():
        with opened(path / name, writable=True) as sub:
            sub.addrows(len(next(iter(columns.values()))))
            for column, values in columns.items():
                sub.putcol(column, values)


def _history(layout: Layout) -> dict[str, Any]:
    return {
        "TIME": np.array([layout.mjd[0] * MJD_S - layout.integration_s / 2]),
        "MESSAGE": [layout.history],
        "PRIORITY": ["INFO"],
        "ORIGIN": ["dsa110_contimg"],
        "APPLICATION": ["dsa110_contimg"],
        "OBSERVATION_ID": np.zeros(1, np.int32),
    }


def _antennas(layout: Layout) -> dict[str, Any]:
    n = len(layout.names)
    return {
        "NAME": list(layout.names),
        "STATION": list(layout.names),
        "TYPE": ["GROUND-BASED"] * n,
        "MOUNT": ["ALT-AZ"] * n,
        "POSITION": layout.positions,
        "OFFSET": np.zeros((n, 3)),
        "DISH_DIAMETER": layout.diameters,
        "FLAG_ROW": np.zeros(n, bool),
    }


def _field(layout: Layout) -> dict[str, Any]:
    """One field, or one for each integration."""
    n = len(layout.centers)
    direction = layout.centers.reshape(n, 1, 2)
    names = [f"meridian_{layout.group_id}" + (f"_t{i}" if n > 1 else "") for i in range(n)]
    return {
        "NAME": names,
        "CODE": [""] * n,
        "TIME": (layout.mjd if n > 1 else np.array([layout.mjd.mean()])) * MJD_S,
        "NUM_POLY": np.zeros(n, np.int32),
        "DELAY_DIR": direction,
        "PHASE_DIR": direction,
        "REFERENCE_DIR": direction,
        "SOURCE_ID": np.zeros(n, np.int32),
        "FLAG_ROW": np.zeros(n, bool),
    }


def _feeds(n: int, span: list[float]) -> dict[str, Any]:
    return {
        "ANTENNA_ID": np.arange(n, dtype=np.int32),
        "FEED_ID": np.zeros(n, np.int32),
        "SPECTRAL_WINDOW_ID": np.full(n, -1, np.int32),
        "TIME": np.full(n, np.mean(span)),
        "INTERVAL": np.full(n, span[1] - span[0]),
        "NUM_RECEPTORS": np.full(n, 2, np.int32),
        "BEAM_ID": np.full(n, -1, np.int32),
        "BEAM_OFFSET": np.zeros((n, 2, 2)),
        "POLARIZATION_TYPE": {"shape": [n, 2], "array": ["X", "Y"] * n},
        "POL_RESPONSE": np.tile(np.eye(2, dtype=np.complex64), (n, 1, 1)),
        "POSITION": np.zeros((n, 3)),
        "RECEPTOR_ANGLE": np.zeros((n, 2)),
    }


def _spectral_window(layout: Layout) -> dict[str, Any]:
    n, count = layout.n_windows, layout.cell[0]
    frequencies = layout.frequencies.reshape(n, count)
    widths = np.full((n, count), layout.channel_width)
    return {
        "NAME": ["L-band"] if n == 1 else [f"sb{n - 1 - i:02d}" for i in range(n)],
        "NUM_CHAN": np.full(n, count, np.int32),
        "CHAN_FREQ": frequencies,
        "CHAN_WIDTH": widths,
        "EFFECTIVE_BW": widths,
        "RESOLUTION": widths,
        "REF_FREQUENCY": frequencies[:, 0],
        "TOTAL_BANDWIDTH": np.full(n, count * layout.channel_width),
        "MEAS_FREQ_REF": np.full(n, 5, np.int32),  # TOPO
        "NET_SIDEBAND": np.ones(n, np.int32),
        "FLAG_ROW": np.zeros(n, bool),
    }


def _pointing(layout: Layout, n_ant: int) -> dict[str, Any]:
    """One row per antenna and integration: the drift of the beam."""
    n = layout.mjd.size * n_ant
    direction = np.stack([layout.pointing_ra, layout.pointing_dec], axis=-1)
    direction = np.repeat(direction, n_ant, axis=0).reshape(n, 1, 2)
    return {
        "ANTENNA_ID": np.tile(np.arange(n_ant, dtype=np.int32), layout.mjd.size),
        "TIME": np.repeat(layout.mjd * MJD_S, n_ant),
        "INTERVAL": np.full(n, layout.integration_s),
        "NAME": ["meridian"] * n,
        "NUM_POLY": np.zeros(n, np.int32),
        "TIME_ORIGIN": np.repeat(layout.mjd * MJD_S, n_ant),
        "DIRECTION": direction,
        "TARGET": direction,
        "TRACKING": np.zeros(n, bool),
    }


def complete(path: Path, layout: Layout, data_columns: Sequence[str]) -> None:
    """Give a Measurement Set that another program wrote what ours have: pointings, kept flags, the columns asked for.

    Its rows, antennas and windows stay as they were written.

    Raises
    ------
    CorruptFileError
        Not a Measurement Set.
    """
    from casacore import tables as ct

    with opened(path, writable=True) as main:
        cell, there = main.getcell("DATA", 0).shape, main.colnames()
        for name in FLAG_VERSIONS:
            if name not in there:
                column = ct.maketabdesc([tiled_column(name, False, "bool", cell)])  # noqa: FBT003  # the value's kind
                main.addcols(column, ct.makedminfo(column, tiles([name], cell, layout.antenna1.size)))
        step = layout.antenna1.size
        for start in range(0, main.nrows(), step):
            _settle(main, start, min(step, main.nrows() - start))
        if not layout.weight_spectrum and "WEIGHT_SPECTRUM" in there:
            main.removecols("WEIGHT_SPECTRUM")
    for name in data_columns:
        ensure_column(path, name)
    with opened(path / "OBSERVATION", writable=True) as sub:
        sub.putcol("PROJECT", [layout.group_id] * sub.nrows())
    with opened(path / "FIELD", writable=True) as sub:
        sub.putcol("NAME", _field(layout)["NAME"])
    with opened(path / "HISTORY", writable=True) as sub:
        sub.addrows(1)
        for name, values in _history(layout).items():
            sub.putcol(name, values, sub.nrows() - 1, 1)
    with opened(path / "ANTENNA") as sub:
        n_antennas = sub.nrows()
    with opened(path / "POINTING", writable=True) as sub:
        sub.removerows(list(range(sub.nrows())))
        columns = _pointing(layout, n_antennas)
        sub.addrows(len(columns["TIME"]))
        for name, values in columns.items():
            sub.putcol(name, values)


def _settle(main: table, start: int, count: int) -> None:
    """Flag what is no number, keep the flags, and make WEIGHT the mean weight of a channel (CASA's is the sum)."""
    data, flags, weights = (np.asarray(main.getcol(n, start, count)) for n in ("DATA", "FLAG", "WEIGHT_SPECTRUM"))
    strange = ~np.isfinite(data)
    if strange.any():
        flags = flags | strange
        main.putcol("DATA", np.where(strange, np.complex64(0), data), start, count)
        main.putcol("FLAG", flags, start, count)
    main.putcol(FLAG_VERSIONS[0], flags, start, count)
    total, number = np.where(flags, 0.0, weights).sum(axis=1), (~flags).sum(axis=1)
    put_row_weights(main, start, np.divide(total, number, out=np.zeros_like(total), where=number > 0))
