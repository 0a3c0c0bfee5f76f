"""Nine hours between two calibrators, gains drifting: what groups in between measure, and how wrong they say it is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from astropy.time import Time

from dsa110_contimg import telescope
from dsa110_contimg.io import catalogs, groups
from dsa110_contimg.pipeline import GroupRun
from dsa110_contimg.science import calibrators, interpolation
from dsa110_contimg.science.photometry import OF_CALIBRATION, Quality
from dsa110_contimg.settings import load_settings
from dsa110_contimg.simulate.night import simulate_night
from dsa110_contimg.simulate.plan import NightOptions
from dsa110_contimg.simulate.truth import load_truth

pytestmark = pytest.mark.campaign

DEC_DEG, N_ANTENNAS = 16.6, 24
ENDS = ("J2253+161", "J0738+177")
"""12.7 Jy and 2.3 Jy, 8.7 h apart. Calibrators in between are left unrecorded."""
BETWEEN = (0.1, 0.3, 0.6, 0.72, 0.9)
"""Where the groups lie in the gap; no other calibrator crosses them."""


def ends() -> tuple[float, float]:
    """Transits of the two calibrators (MJD)."""
    table = catalogs.packaged_calibrators().set_index("name").loc[list(ENDS)]
    ra, dec = np.radians(table["ra_deg"].to_numpy()), np.radians(table["dec_deg"].to_numpy())
    begin = float(Time(datetime(2026, 1, 26, 12, tzinfo=UTC)).mjd)
    _, mjd = calibrators.transit_times(ra, dec, begin, begin + 0.99)
    return float(mjd[0]), float(mjd[1])


@dataclass(frozen=True)
class Stretch:
    calibrators: list[GroupRun]
    between: list[GroupRun]
    measured: pd.DataFrame


@pytest.fixture(scope="module")
def stretch(tmp_path_factory) -> Stretch:
    base = tmp_path_factory.mktemp("stretch")
    settings = load_settings(**{n: base / n for n in ("output_dir", "scratch_dir", "state_dir", "reports_dir")})
    first, last = ends()
    runs, truth = [], {}
    for number, part in enumerate((0.0, 1.0, *BETWEEN)):
        middle = Time(first + part * (last - first), format="mjd", scale="utc").to_datetime(timezone=UTC)
        start = (middle - timedelta(seconds=telescope.GROUP_S / 2)).replace(microsecond=0)
        # the gains depend on seed, station and absolute time alone: one drift runs through all of these nights
        options = NightOptions(start=start, n_groups=1, n_antennas=N_ANTENNAS, dec_deg=DEC_DEG, seed=11)
        raw = base / "raw" / str(number)
        simulate_night(options, raw)
        (group,) = groups.discover(raw).groups
        run = GroupRun(group, settings)
        run.run()
        runs.append(run)
        truth[run.group_id] = load_truth(raw).sources.set_index("name")["flux_jy"]
        _forget(raw)
    tables = [
        run.photometry().assign(true_jy=lambda t, r=run: truth[r.group_id].reindex(t["source"]).to_numpy())
        for run in runs[2:]
    ]
    return Stretch(runs[:2], runs[2:], pd.concat(tables, ignore_index=True).dropna(subset="true_jy"))


def _forget(raw: Path) -> None:
    """Raw files are not needed again, and large."""
    for file in raw.glob("*.hdf5"):
        file.unlink()


def bright(stretch: Stretch) -> pd.DataFrame:
    """Above 20 sigma, inside half power."""
    table = stretch.measured
    return table[(table["flux_raw_jy"] > 20 * table["local_noise_jy"]) & (table["beam_response"] > 0.5)]


def test_every_group_between_is_calibrated_by_its_own_phases_and_interpolated_amplitudes(stretch) -> None:
    assert all(run.is_calibrator for run in stretch.calibrators)
    for run in stretch.between:
        assert not run.is_calibrator
        assert [table.kind for table in run.records["calibrate"].tables] == ["B", "GA", "GP"]
        (row,) = [row for row in run.registry.list_tables("GA") if row["group"] == run.group_id]
        bits = interpolation.BEYOND_VALIDITY | interpolation.DRIFT_ASSUMED
        assert row["quality"]["quality"] == run.records["apply"].quality == bits
        told = (Quality.GAINS_OLD | Quality.DRIFT_ASSUMED).value
        assert (run.photometry()["quality"] & OF_CALIBRATION.value == told).all()


def test_fluxes_are_true_to_a_per_cent(stretch) -> None:
    chosen = bright(stretch)
    assert len(chosen) >= 20
    assert chosen["group"].nunique() == len(BETWEEN)
    assert abs((chosen["flux_jy"] / chosen["true_jy"]).median() - 1) < 0.01


def test_scales_of_groups_are_off_by_what_they_say(stretch) -> None:
    """What all sources of a group share is one number a group, told apart from the noise of its sources."""
    chosen = bright(stretch)
    for run in stretch.between:
        ours = chosen[chosen["group"] == run.group_id]
        ratio = ours["flux_jy"] / ours["true_jy"]
        noise = 1.25 * (ours["flux_error_jy"] / ours["flux_jy"]).median() / np.sqrt(len(ours))
        # 3 sigma of the scale as quoted and of the median of some twenty sources
        assert abs(ratio.median() - 1) < 3 * np.hypot(run.records["measure"].flux_scale_error, noise)
        # assumed drift alone would say 3.5 to 4 %: the sources of the field know better
        assert run.records["measure"].flux_scale_error < 0.015 < run.records["apply"].flux_scale_error


def test_errors_are_honest(stretch) -> None:
    chosen = bright(stretch)
    pull = (chosen["flux_jy"] - chosen["true_jy"]) / chosen["flux_error_jy"]
    assert 0.8 <= (pull**2).mean() <= 1.3
