"""Records to store, and a database to store them in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dsa110_contimg.records import CalTable, ImageProduct, MeasurementSet, SubbandFile, SubbandGroup
from dsa110_contimg.state.database import Database, open_database

GROUP = "2026-01-25T22:26:05"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = open_database(tmp_path / "state")
    yield database
    database.close()


@pytest.fixture
def make_group(tmp_path: Path) -> Callable[..., SubbandGroup]:
    def make(group_id: str = GROUP, subbands: range = range(16), mjd: float = 61065.93) -> SubbandGroup:
        files = tuple(SubbandFile(tmp_path / f"{group_id}_sb{sb:02d}.hdf5", sb, mjd, 145_348_600) for sb in subbands)
        return SubbandGroup(group_id, mjd, 16.64, files)

    return make


@pytest.fixture
def make_caltable(tmp_path: Path) -> Callable[..., CalTable]:
    def make(name: str, **changes: Any) -> CalTable:
        path = tmp_path / name
        path.mkdir(exist_ok=True)
        values = {
            "path": path,
            "kind": "B",
            "set_name": "first",
            "apply_order": 0,
            "group_id": GROUP,
            "refant": "24",
            "mjd": 61000.0,
            "valid_from": 60999.5,
            "valid_to": 61000.5,
            "flagged_fraction": 0.02,
            "median_snr": 31.5,
            "calibrator": "3C138",
        }
        return CalTable(**(values | changes))

    return make


@pytest.fixture
def make_ms(tmp_path: Path) -> Callable[..., MeasurementSet]:
    def make(name: str = "a.ms", group_id: str = GROUP, **changes: Any) -> MeasurementSet:
        values = {"ra_deg": 80.29, "dec_deg": 16.64, "mjd_start": 61065.93, "mjd_end": 61065.9336, "n_antennas": 96}
        return MeasurementSet(tmp_path / name, group_id, **(values | changes))

    return make


@pytest.fixture
def make_image(tmp_path: Path) -> Callable[..., ImageProduct]:
    def make(name: str = "a", group_id: str = GROUP, **changes: Any) -> ImageProduct:
        planes = ("path", "pbcor_path", "pb_path", "residual_path", "model_path", "psf_path", "smearing_path")
        values: dict[str, Any] = {plane: tmp_path / f"{name}-{plane}.fits" for plane in planes}
        values |= {"group_id": group_id, "ra_deg": 80.29, "dec_deg": 16.64, "mjd_start": 61065.93}
        values |= {"mjd_end": 61065.9336, "n_pixels": 2400, "cell_arcsec": 6.0, "bmaj_deg": 44 / 3600}
        values |= {"bmin_deg": 20 / 3600, "bpa_deg": 88.0, "noise_jy": 3e-4, "thermal_noise_jy": 2.8e-4}
        values |= {"frequency_hz": 1.405e9, "flux_scale_error": 0.01, "dynamic_range": 4000.0}
        return ImageProduct(**(values | changes))

    return make
