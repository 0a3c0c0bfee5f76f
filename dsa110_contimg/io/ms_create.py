"""A new Measurement Set: all rows and metadata, ready to be filled by `io.ms.write_channels`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dsa110_contimg import telescope
from dsa110_contimg.io.ms import CORRELATIONS, FLAG_VERSIONS, MJD_S, Layout, opened, tiled_column, tiled_manager

if TYPE_CHECKING:
    from casacore.tables import table


def create(path: Path, layout: Layout) -> None:
    """Make a Measurement Set with all rows and metadata; every channel must then be written with `write_channels`."""
    from casacore import tables as ct

    if path.exists():
        shutil.rmtree(path)
    shape = (layout.frequencies.size, len(layout.polarizations))
    kinds = {"DATA": (0j, "complex"), "WEIGHT_SPECTRUM": (0.0, "float"), "FLAG": (False, "bool")}
    kinds |= dict.fromkeys(FLAG_VERSIONS, (False, "bool"))
    columns = [tiled_column(name, value, kind, shape) for name, (value, kind) in kinds.items()]
    managers = {f"*{number}": tiled_manager(name, shape) for number, name in enumerate(kinds)}
    description = ct.required_ms_desc()
    description.pop("FLAG", None)
    description.update(ct.maketabdesc(columns))
    main = ct.default_ms(str(path), description, ct.makedminfo(description, managers))
    try:
        main.addrows(layout.n_rows)
        _main_columns(main, layout)
    finally:
        main.close()
    _subtables(path, layout)


def _main_columns(main: table, layout: Layout) -> None:
    n_times, n_baselines = layout.mjd.size, layout.antenna1.size
    rows = layout.n_rows
    seconds = np.repeat(layout.mjd * MJD_S, n_baselines)
    for name in ("TIME", "TIME_CENTROID"):
        main.putcol(name, seconds)
    for name in ("INTERVAL", "EXPOSURE"):
        main.putcol(name, np.full(rows, layout.integration_s))
    main.putcol("ANTENNA1", np.tile(layout.antenna1, n_times).astype(np.int32))
    main.putcol("ANTENNA2", np.tile(layout.antenna2, n_times).astype(np.int32))
    main.putcol("UVW", layout.uvw.reshape(rows, 3))
    main.putcol("SCAN_NUMBER", np.ones(rows, np.int32))
    for name in (
        "ARRAY_ID",
        "DATA_DESC_ID",
        "FEED1",
        "FEED2",
        "FIELD_ID",
        "OBSERVATION_ID",
        "PROCESSOR_ID",
        "STATE_ID",
    ):
        main.putcol(name, np.zeros(rows, np.int32))
    main.putcol("FLAG_ROW", np.zeros(rows, bool))
    for name in ("WEIGHT", "SIGMA"):
        main.putcol(name, np.ones((rows, len(layout.polarizations)), np.float32))


def _subtables(path: Path, layout: Layout) -> None:
    span = [layout.mjd[0] * MJD_S - layout.integration_s / 2, layout.mjd[-1] * MJD_S + layout.integration_s / 2]
    one = np.zeros(1, np.int32)
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
        "DATA_DESCRIPTION": {"SPECTRAL_WINDOW_ID": one, "POLARIZATION_ID": one, **kept},
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
        "HISTORY": {
            "TIME": np.array([span[0]]),
            "MESSAGE": [layout.history],
            "PRIORITY": ["INFO"],
            "ORIGIN": ["dsa110_contimg"],
            "APPLICATION": ["dsa110_contimg"],
            "OBSERVATION_ID": one,
        },
    }
    for name, columns in tables.items():
        with opened(path / name, writable=True) as sub:
            sub.addrows(len(next(iter(columns.values()))))
            for column, values in columns.items():
                sub.putcol(column, values)


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
    direction = np.array([[[layout.ra, layout.dec]]])
    return {
        "NAME": [f"meridian_{layout.group_id}"],
        "CODE": [""],
        "TIME": np.array([layout.mjd.mean() * MJD_S]),
        "NUM_POLY": np.zeros(1, np.int32),
        "DELAY_DIR": direction,
        "PHASE_DIR": direction,
        "REFERENCE_DIR": direction,
        "SOURCE_ID": np.zeros(1, np.int32),
        "FLAG_ROW": np.zeros(1, bool),
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
    n = layout.frequencies.size
    widths = np.full((1, n), layout.channel_width)
    return {
        "NAME": ["L-band"],
        "NUM_CHAN": np.array([n], np.int32),
        "CHAN_FREQ": layout.frequencies[None],
        "CHAN_WIDTH": widths,
        "EFFECTIVE_BW": widths,
        "RESOLUTION": widths,
        "REF_FREQUENCY": layout.frequencies[:1],
        "TOTAL_BANDWIDTH": np.array([n * layout.channel_width]),
        "MEAS_FREQ_REF": np.array([5], np.int32),  # TOPO
        "NET_SIDEBAND": np.ones(1, np.int32),
        "FLAG_ROW": np.zeros(1, bool),
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
