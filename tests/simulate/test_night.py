"""Simulated nights: what is in the directory, and that the truth beside the files is the truth."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from astropy.coordinates import HADec, SkyCoord
from astropy.time import Time
from pydantic import ValidationError

from dsa110_contimg import telescope
from dsa110_contimg.exceptions import CatalogError, CorruptFileError, InputError, OutputError
from dsa110_contimg.simulate.faults import GroupFaults, draw_interference, interference_mask
from dsa110_contimg.simulate.night import SimulatedNight, simulate_night
from dsa110_contimg.simulate.plan import NightOptions, demo_night_options, transit_start
from dsa110_contimg.simulate.truth import load_truth

START = datetime(2026, 1, 26, 4, 45, tzinfo=UTC)
FAULTS = {
    0: GroupFaults(missing_subbands=(9,), truncated_subbands=(3,)),
    1: GroupFaults(rfi=True, dead_antennas=(101,)),
}
OPTIONS = NightOptions(start=START, n_groups=2, n_antennas=8, dec_deg=16.6, seed=11, faults=FAULTS)


def _visdata(directory: Path, name: str, n_antennas: int = 8) -> np.ndarray:
    with h5py.File(directory / name) as file:
        return file["Data/visdata"][:, 0].reshape(24, n_antennas * (n_antennas + 1) // 2, 48, -1)


def _pairs(directory: Path, name: str) -> np.ndarray:
    """(2, baseline) station numbers."""
    with h5py.File(directory / name) as file:
        n = len(file["Header/ant_1_array"]) // 24
        return np.stack([file[f"Header/ant_{i}_array"][:n] for i in (1, 2)]) + 1


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> SimulatedNight:
    return simulate_night(OPTIONS, tmp_path_factory.mktemp("night"))


def test_a_group_has_sixteen_files_less_the_missing_one(night: SimulatedNight) -> None:
    truth = load_truth(night.directory)
    assert night.n_files == 31
    assert [len(group.files) for group in truth.groups] == [15, 16]
    assert not [name for name in truth.groups[0].files if "sb09" in name]
    on_disk = {p.name for p in night.directory.glob("*.hdf5")}
    assert on_disk == {name for group in truth.groups for name in group.files}


def test_names_are_wall_clocks_that_differ_by_up_to_two_seconds(night: SimulatedNight) -> None:
    for number, group in enumerate(load_truth(night.directory).groups):
        begin = START + timedelta(seconds=number * telescope.GROUP_S)
        late = [(datetime.fromisoformat(name[:19]).replace(tzinfo=UTC) - begin).total_seconds() for name in group.files]
        assert len(set(late)) > 1
        assert -1.0 <= min(late) <= max(late) <= 2.0


def test_groups_follow_each_other_without_a_gap(night: SimulatedNight) -> None:
    mjd = np.concatenate([group.mjd for group in load_truth(night.directory).groups])
    assert np.allclose(np.diff(mjd) * 86400, telescope.INTEGRATION_S, atol=1e-3)
    assert (Time(mjd[0], format="mjd") - Time(START)).sec == pytest.approx(telescope.INTEGRATION_S / 2, abs=1e-3)
    assert night.group_ids == ("2026-01-26T04:45:00", "2026-01-26T04:50:09")


def test_a_truncated_file_cannot_be_opened(night: SimulatedNight) -> None:
    [name] = [name for name in load_truth(night.directory).groups[0].files if "sb03" in name]
    with pytest.raises(OSError, match="truncated"):
        h5py.File(night.directory / name)


def test_a_dead_antenna_delivers_a_thousandth_of_its_noise_and_no_sky(night: SimulatedNight) -> None:
    truth = load_truth(night.directory)
    [name] = [name for name in truth.groups[1].files if "sb05" in name]
    vis, pairs = np.abs(_visdata(night.directory, name)), _pairs(night.directory, name)
    dead = (pairs == 101).any(axis=0)
    auto = pairs[0] == pairs[1]
    assert np.median(vis[:, dead & ~auto]) < 3e-3 * np.median(vis[:, ~dead & ~auto])
    assert np.median(vis[:, dead & auto]) == pytest.approx(1e-3 * np.median(vis[:, ~dead & auto]), rel=1.0)


def test_interference_stands_where_the_truth_says(night: SimulatedNight) -> None:
    truth = load_truth(night.directory)
    mask = truth.rfi[1][:, ::-1].reshape(24, 16, 48)
    assert not truth.rfi[0].any()
    inside, outside = [], []
    for name in truth.groups[1].files:
        vis, pairs = np.abs(_visdata(night.directory, name)), _pairs(night.directory, name)
        alive = (pairs[0] != pairs[1]) & (pairs != 101).all(axis=0)
        level = vis[:, alive].mean(axis=(1, 3)) * 220
        here = mask[:, int(name[22:24])]
        inside.append(level[here])
        outside.append(level[~here])
    assert np.concatenate(inside).min() > np.concatenate(outside).max()


def test_interference_takes_three_to_five_percent_of_a_group_on_average() -> None:
    shares = [interference_mask(draw_interference(seed, 0)).mean() for seed in range(100)]
    assert 0.03 < np.mean(shares) < 0.05


def test_dividing_by_the_true_gains_leaves_sky_and_radiometer_noise(tmp_path: Path) -> None:
    quiet = OPTIONS.model_copy(update={"n_groups": 1, "faults": {}, "subbands": (6,)})
    simulate_night(quiet, tmp_path / "noisy")
    simulate_night(quiet.model_copy(update={"noise": False, "gains": False}), tmp_path / "clean")
    truth = load_truth(tmp_path / "noisy")
    [name] = truth.groups[0].files
    pairs = _pairs(tmp_path / "noisy", name)
    where = np.searchsorted(truth.station, pairs)
    gains = truth.gains(truth.groups[0].group_id)[..., ::-1][..., 6 * 48 : 7 * 48]
    gains = gains.transpose(0, 1, 3, 2)  # time, antenna, frequency, feed
    solved = _visdata(tmp_path / "noisy", name) / (np.conj(gains[:, where[0]]) * gains[:, where[1]])
    error = solved - 220 * _visdata(tmp_path / "clean", name)
    cross = pairs[0] != pairs[1]
    sigma = telescope.visibility_noise(telescope.CHANNEL_WIDTH_HZ, telescope.INTEGRATION_S)
    parts = error[:, cross].view(np.float32)
    assert truth.visibility_noise_jy == pytest.approx(sigma, rel=1e-6)
    assert parts.std() == pytest.approx(sigma, rel=5 / np.sqrt(2 * parts.size))
    # an autocorrelation is the system power, with a relative error of one over the root of the samples
    power = solved[:, ~cross].real
    assert power.mean() == pytest.approx(6500 / 0.9, rel=2e-3)
    assert power.std() / power.mean() == pytest.approx(1 / np.sqrt(244140.625 * 12.884902), rel=0.05)


def test_a_source_stands_in_the_truth_with_its_catalogue_flux(night: SimulatedNight) -> None:
    sources = load_truth(night.directory).sources
    brightest = sources.iloc[0]
    assert brightest["name"] == "J0521+166"
    perley_butler_2017 = [0.0223, -0.0102, -0.1552, -0.4981, 1.0088]
    assert brightest["flux_jy"] == pytest.approx(10 ** np.polyval(perley_butler_2017, np.log10(1.4)), rel=1e-6)
    assert sources["name"].is_unique


def test_pointings_are_the_meridian(night: SimulatedNight) -> None:
    truth = load_truth(night.directory)
    group = truth.groups[1]
    when = Time(group.mjd, format="mjd", scale="utc")
    seen = SkyCoord(group.pointing_ra_deg, group.pointing_dec_deg, unit="deg").transform_to(
        HADec(obstime=when, location=telescope.location())
    )
    assert np.abs(seen.ha.arcsec).max() < 1e-3
    assert np.abs(seen.dec.rad - truth.pointing_dec_rad).max() < 1e-8


def test_the_same_night_again_does_nothing(night: SimulatedNight) -> None:
    before = {p: p.stat().st_mtime_ns for p in night.directory.iterdir()}
    again = simulate_night(OPTIONS, night.directory)
    assert again.resumed
    assert again.group_ids == night.group_ids
    assert before == {p: p.stat().st_mtime_ns for p in night.directory.iterdir()}


def test_another_night_is_not_written_over(night: SimulatedNight) -> None:
    with pytest.raises(OutputError, match="another simulated night"):
        simulate_night(OPTIONS.model_copy(update={"seed": 12}), night.directory)


def test_a_group_is_the_same_whatever_follows_it_and_however_many_threads(tmp_path: Path) -> None:
    one = NightOptions(start=START, n_groups=1, n_antennas=4, subbands=(2,), seed=3, threads=1)
    two = one.model_copy(update={"n_groups": 2, "threads": 2})
    first = simulate_night(one, tmp_path / "one")
    simulate_night(two, tmp_path / "two")
    [name] = load_truth(first.directory).groups[0].files
    assert np.array_equal(_visdata(tmp_path / "one", name, 4), _visdata(tmp_path / "two", name, 4))


def test_a_sky_of_ones_own_is_used_and_an_empty_one_refused(tmp_path: Path) -> None:
    mine = pd.DataFrame(
        {
            "name": ["mine"], "ra_deg": [80.29], "dec_deg": [16.7], "flux_jy": [2.0], "flux_error_jy": [0.0],
            "spectral_index": [0.0], "spectral_index_error": [0.0], "origin": ["user"],
        }
    )  # fmt: skip
    options = NightOptions(start=START, n_groups=1, n_antennas=4, subbands=(0,))
    made = simulate_night(options, tmp_path / "mine", catalog=mine)
    assert load_truth(made.directory).sources["name"].tolist() == ["mine"]
    with pytest.raises(CatalogError, match="No catalogue source is in the beam"):
        simulate_night(options, tmp_path / "none", catalog=mine.assign(dec_deg=-30.0))


def test_four_polarizations_have_a_sky_in_the_parallel_hands_only(tmp_path: Path) -> None:
    options = NightOptions(
        start=START, n_groups=1, n_antennas=4, subbands=(0,), n_polarizations=4, noise=False, gains=False
    )
    made = simulate_night(options, tmp_path)
    vis = _visdata(tmp_path, load_truth(made.directory).groups[0].files[0], 4)
    assert np.array_equal(vis[..., 0], vis[..., 3])
    assert np.abs(vis[..., 0]).min() > 0
    assert not vis[..., 1:3].any()


def test_transit_start_puts_the_source_on_the_meridian() -> None:
    start = transit_start(80.29119, 16.63946, datetime(2026, 1, 26, tzinfo=UTC), 2)
    middle = Time(start + timedelta(seconds=2.5 * telescope.GROUP_S))
    seen = SkyCoord(80.29119, 16.63946, unit="deg").transform_to(HADec(obstime=middle, location=telescope.location()))
    assert abs(seen.ha.hourangle * 3600) < 1.1  # whole seconds
    assert 0 <= (start - datetime(2026, 1, 26, tzinfo=UTC)).total_seconds() < 86400


def test_the_demonstration_has_a_calibrator_a_missing_subband_and_a_dead_antenna_with_interference() -> None:
    options = demo_night_options()
    assert (options.n_groups, options.n_antennas) == (6, 48)
    assert len(options.faults[3].missing_subbands) == 1
    assert options.faults[4].rfi
    assert len(options.faults[4].dead_antennas) == 1


def test_faults_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValidationError, match="there are groups 0 to 1"):
        NightOptions(start=START, n_groups=2, faults={2: GroupFaults()})
    with pytest.raises(ValidationError, match="do not take part"):
        NightOptions(start=START, faults={0: GroupFaults(dead_antennas=(10,))})


def test_truth_that_is_absent_or_broken_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no simulated night"):
        load_truth(tmp_path)
    (tmp_path / "truth.json").write_text("{")
    with pytest.raises(CorruptFileError, match="cannot be read"):
        load_truth(tmp_path)
