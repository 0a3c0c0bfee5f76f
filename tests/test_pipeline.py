"""The whole thread against the truth: what was put into the sky comes out of the tables, with errors that hold."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dsa110_contimg.pipeline import STEPS, GroupRun, read_photometry
from dsa110_contimg.settings import load_settings

ROOT = Path(__file__).parent.parent


def settings_in(base):
    return load_settings(**{name: base / name for name in ("output_dir", "scratch_dir", "state_dir", "reports_dir")})


@pytest.fixture(scope="module")
def night48(simulated, tmp_path_factory):
    """Three groups of 48 antennas, 3C138 in the last."""
    base = tmp_path_factory.mktemp("night48")
    night = simulated(base / "raw", n_antennas=48, n_groups=3)
    settings = settings_in(base)
    runs = [GroupRun(group, settings) for group in night.groups]
    for run in sorted(runs, key=lambda run: not run.is_calibrator):
        run.run()
    return night, runs


@pytest.fixture(scope="module")
def fluxes(night48):
    """All measurements with the true flux of their source."""
    night, runs = night48
    table = pd.concat([run.photometry() for run in runs], ignore_index=True)
    truth = night.truth.sources.set_index("name")["flux_jy"]
    table = table[table["source"].isin(truth.index)]
    return table.assign(true_jy=truth.reindex(table["source"]).to_numpy())


def bright(fluxes):
    """Above 20 sigma, inside half power."""
    return fluxes[(fluxes["flux_raw_jy"] > 20 * fluxes["local_noise_jy"]) & (fluxes["beam_response"] > 0.5)]


def test_median_flux_is_true_to_a_per_cent(fluxes):
    chosen = bright(fluxes)
    assert len(chosen) >= 30
    assert (chosen["flux_jy"] / chosen["true_jy"]).median() == pytest.approx(1.0, abs=0.01)


def test_scatter_is_what_the_quoted_errors_say(fluxes):
    chosen = bright(fluxes)
    pull = (chosen["flux_jy"] - chosen["true_jy"]) / chosen["flux_error_jy"]
    assert 0.8 <= (pull**2).mean() <= 1.3


def test_positions_are_true_to_a_tenth_of_the_beam(fluxes, night48):
    chosen = bright(fluxes)
    beam_arcsec = 3600 * night48[1][0].records["image"].bmin_deg
    offset = np.hypot(chosen["offset_ra_arcsec"], chosen["offset_dec_arcsec"])
    # noise moves a source by beam / (2 SNR); the systematic part is the median
    assert offset.median() < 0.1 * beam_arcsec
    snr = chosen["flux_raw_jy"] / chosen["local_noise_jy"]
    assert (offset < 0.1 * beam_arcsec + 3 * 3600 * night48[1][0].records["image"].bmaj_deg / (2 * snr)).all()


def test_noise_is_the_radiometer_equations(night48):
    """The simulated sky has no source below 50 mJy, so no classical confusion; the field is deconvolved to 3 sigma."""
    for run in night48[1]:
        image = run.records["image"]
        assert image.noise_jy == pytest.approx(image.thermal_noise_jy, rel=0.15), run.group_id


def test_a_repeated_run_does_nothing_and_says_so(night48):
    _, runs = night48
    for run in runs:
        again = GroupRun(run.group, run.settings)
        results = [again.step(name) for name in STEPS]
        assert all(result.resumed for result in results)
        assert "resumed" in results[0]._repr_html_()


def test_other_options_redo_only_what_depends_on_them(night48):
    run = night48[1][0]
    options = run.options.model_copy(update={"measure": run.options.measure.model_copy(update={"min_flux_jy": 0.1})})
    again = GroupRun(run.group, run.settings, options)
    assert [again.step(name).resumed for name in STEPS] == [True] * 5 + [False]


_SCRIPT = """
import sys
from pathlib import Path
from dsa110_contimg.io import groups
from dsa110_contimg.pipeline import GroupRun
from dsa110_contimg.settings import load_settings
base = Path(sys.argv[2])
places = {name: base / name for name in ("output_dir", "scratch_dir", "state_dir", "reports_dir")}
run = GroupRun(groups.discover(Path(sys.argv[1])).groups[1], load_settings(**places))
for name in ("convert", "flag", "calibrate", "apply", "image", "measure"):
    print(name, run.step(name).resumed, flush=True)
"""


def start(night, base):
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", _SCRIPT, str(night.directory), str(base)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip


@pytest.mark.parametrize("amid", ["flag", "calibrate", "image"])
def test_a_killed_run_resumes_and_gives_the_same_fluxes(night16, tmp_path, amid, request):
    """Killed a moment after the step before was done; nothing half-made may be taken for whole."""
    child = start(night16, tmp_path)
    before = STEPS[STEPS.index(amid) - 1]
    for line in child.stdout:
        if line.startswith(before):
            break
    time.sleep(0.7)
    os.killpg(child.pid, signal.SIGKILL)
    child.communicate()
    again, _ = start(night16, tmp_path).communicate()
    resumed = dict(line.split()[:2] for line in again.splitlines() if line.split()[:1] and line.split()[0] in STEPS)
    assert set(resumed) == set(STEPS)
    assert [resumed[name] for name in STEPS[: STEPS.index(amid)]] == ["True"] * STEPS.index(amid)
    run = GroupRun(night16.groups[1], settings_in(tmp_path))
    run.run()
    killed = read_photometry(run.records["measure"])
    reference = request.getfixturevalue("unkilled16")
    assert killed["flux_jy"].to_numpy() == pytest.approx(reference["flux_jy"].to_numpy(), rel=1e-5, abs=1e-6)
    assert not list((tmp_path / "output_dir").rglob("*.partial"))


@pytest.mark.campaign
@pytest.mark.parametrize("seed", range(200))
def test_runs_killed_at_any_moment_give_the_same_fluxes(night16, tmp_path, unkilled16, seed):
    """Two hundred kills, each at a random moment of the half minute that the run takes."""
    child = start(night16, tmp_path)
    time.sleep(np.random.default_rng(seed).uniform(3.0, 30.0))
    os.killpg(child.pid, signal.SIGKILL)
    child.communicate()
    run = GroupRun(night16.groups[1], settings_in(tmp_path))
    run.run()
    assert run.photometry()["flux_jy"].to_numpy() == pytest.approx(unkilled16["flux_jy"].to_numpy(), rel=1e-5, abs=1e-6)


@pytest.fixture(scope="module")
def unkilled16(night16, tmp_path_factory):
    run = GroupRun(night16.groups[1], settings_in(tmp_path_factory.mktemp("unkilled")))
    run.run()
    return run.photometry()
