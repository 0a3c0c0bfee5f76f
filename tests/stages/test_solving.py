"""The ways to solve come to the same gains, the plain CASA recipe among them; bad input leaves everything as it was."""

import shutil
import threading
import time

import numpy as np
import psutil
import pytest

from dsa110_contimg.exceptions import CalibrationError, ExternalToolError
from dsa110_contimg.io import blocks, casa, ms
from dsa110_contimg.io.caltable import open_caltable
from dsa110_contimg.options import CalibrateOptions
from dsa110_contimg.pipeline import GroupRun
from dsa110_contimg.science.stefcal import agreement
from dsa110_contimg.settings import load_settings
from dsa110_contimg.stages import calibrate, model


@pytest.fixture(scope="module")
def ready(night16, tmp_path_factory):
    """A flagged Measurement Set of a calibrator's group, its model predicted, and the calibrator's position."""
    base = tmp_path_factory.mktemp("ready")
    names = ("output_dir", "scratch_dir", "state_dir", "reports_dir")
    run = GroupRun(night16.groups[1], load_settings(**{name: base / name for name in names}))
    for step in ("convert", "flag"):
        run.step(step)
    record = run.records["convert"]
    model.predict_field(record, run.field_catalog, run.options.calibrate)
    transit = run.transits[0]
    return record, (np.radians(transit.ra_deg), np.radians(transit.dec_deg)), run.settings.state_dir / "measures"


@pytest.fixture
def place(ready, tmp_path):
    for name in ("tables", "work"):
        (tmp_path / name).mkdir()
    return calibrate.Workplace(tmp_path / "tables", tmp_path / "work", ready[2])


@pytest.fixture
def spoiled(ready, tmp_path):
    """A copy of the Measurement Set that a test may write into."""
    from dataclasses import replace

    record = ready[0]
    shutil.copytree(record.path, tmp_path / "copy.ms")
    return replace(record, path=tmp_path / "copy.ms")


def product(tables):
    """Bandpass times gains; errors and flags of the bandpass."""
    bandpass, gains = (open_caltable(table.path) for table in tables[:2])
    return bandpass.assign(GAIN=bandpass.GAIN * gains.GAIN.to_numpy(), FLAG=bandpass.FLAG | gains.FLAG.to_numpy())


def named(place):
    return sorted(path.name for path in place.out_dir.iterdir())


@pytest.fixture(scope="module")
def plainly(ready, tmp_path_factory):
    """The plain recipe of casatasks on the Measurement Set itself."""
    record, _, measures = ready
    folder = tmp_path_factory.mktemp("plain")
    paths = {name: folder / name for name in ("pre", "B", "G")}
    common = {"vis": record.path, "refant": calibrate.choose_refant(record), "parang": False, "minsnr": 3.0}
    whole = common | {"solint": "inf", "combine": "scan,field"}
    calls = (
        ("gaincal", common | {"caltable": paths["pre"], "calmode": "p", "solint": "int", "gaintype": "G"}),
        ("bandpass", whole | {"caltable": paths["B"], "bandtype": "B", "gaintable": [paths["pre"]]}),
        ("gaincal", whole | {"caltable": paths["G"], "gaintype": "G", "calmode": "ap", "gaintable": [paths["B"]]}),
    )
    tasks = [casa.CasaTask(name, arguments, "caltable") for name, arguments in calls]
    casa.run_tasks(tasks, workdir=folder, measures_cache=measures)
    bandpass, gains = open_caltable(paths["B"]), open_caltable(paths["G"])
    return bandpass.assign(GAIN=bandpass.GAIN * gains.GAIN.to_numpy(), FLAG=bandpass.FLAG | gains.FLAG.to_numpy())


@pytest.mark.parametrize("solver", ["casa", "casa-only", "stefcal"])
def test_every_solver_finds_the_gains_of_plain_casa_far_within_their_errors(solver, ready, place, plainly):
    record, position, _ = ready
    tables = calibrate.solve_calibrator(record, "J0521+166", CalibrateOptions(solver=solver), place, position)
    assert [table.kind for table in tables] == ["B", "G"]
    assert named(place) == sorted(table.path.name for table in tables)
    found = agreement(plainly, product(tables))
    assert found.compared > 0.9 * (~plainly.FLAG).sum()
    assert found.rms_sigma < 0.1
    assert list(place.work_dir.glob("*.ms")) == []


def test_phases_of_both_solvers_agree(ready, place):
    record, position, _ = ready
    options = CalibrateOptions(solver="stefcal")
    tables = calibrate.solve_calibrator(record, "J0521+166", options, place, position)
    phases = []
    for solver in ("stefcal", "casa"):
        table = calibrate.solve_phases(record, tables, CalibrateOptions(solver=solver), place)
        phases.append(open_caltable(table.path).load())
    assert phases[0].sizes["time"] == 24
    assert agreement(*phases).rms_sigma < 0.3


def test_the_fast_preset_solves_phases_on_averages(ready, place, plainly):
    record, position, _ = ready
    tables = calibrate.solve_calibrator(record, "J0521+166", CalibrateOptions(preset="fast"), place, position)
    bandpass, gains = (open_caltable(table.path) for table in tables)
    assert bandpass.sizes["frequency"] == 192
    np.testing.assert_allclose(np.abs(gains.GAIN.to_numpy()[~gains.FLAG.to_numpy()]), 1.0, atol=1e-5)
    phases = calibrate.solve_phases(record, tables, CalibrateOptions(preset="fast"), place)
    assert open_caltable(phases.path).sizes["time"] == 12
    # the amplitudes are those of the full solution, averaged; the noise of a mean of four channels is half of one's
    mine, theirs = (np.abs(t.GAIN.where(~t.FLAG)).mean(["time", "frequency"]) for t in (bandpass, plainly))
    np.testing.assert_allclose(mine / theirs, 1.0, atol=0.005)


def test_the_window_follows_the_calibrator(ready, place):
    record, position, _ = ready
    options = CalibrateOptions(solver="stefcal", window_integrations=6)
    tables = calibrate.solve_calibrator(record, "J0521+166", options, place, position)
    when = float(open_caltable(tables[0].path).time[0])
    layout = ms.read_layout(record.path)
    transit = np.abs(np.angle(np.exp(1j * (layout.pointing_ra - position[0])))).argmin()
    assert abs(when - layout.mjd[transit]) < 1.1 * layout.integration_s / 86400
    halved = tables[0].median_snr
    options = CalibrateOptions(solver="stefcal", fields="0~23")
    assert calibrate.solve_calibrator(record, "J0521+166", options, place)[0].median_snr > 1.5 * halved


def test_a_delay_is_solved_before_the_bandpass(ready, place):
    record, position, _ = ready
    tables = calibrate.solve_calibrator(record, "J0521+166", CalibrateOptions(do_k=True), place, position)
    assert [table.kind for table in sorted(tables, key=lambda t: t.apply_order)] == ["K", "B", "G"]
    slopes = []
    for view in (open_caltable(tables[1].path),):
        phase = np.unwrap(np.angle(view.GAIN.to_numpy()[0, :, :, 0]), axis=-1)
        slopes.append(np.polyfit(view.frequency.to_numpy() - 1.4e9, phase.T, 1)[0] / (2 * np.pi))
    # simulated delays are 2 ns rms; what CASA leaves is the curvature's share
    assert np.median(np.abs(slopes)) < 0.6e-9


def test_solvers_that_disagree_are_told_and_leave_no_table(ready, place):
    record, position, _ = ready
    with pytest.raises(CalibrationError, match=r"disagree.*standard errors rms") as caught:
        calibrate.solve_calibrator(record, "J0521+166", CalibrateOptions(cross_check_sigma=1e-9), place, position)
    assert "stefcal" in str(caught.value)
    assert named(place) == []


def test_a_reference_antenna_flagged_in_a_subband_is_refused(spoiled, place):
    layout = ms.read_layout(spoiled.path)
    name = calibrate.choose_refant(spoiled)
    index = layout.names.index(name)
    _, flags = ms.read_channels(spoiled.path, "DATA", 0, 48)
    rows = np.tile((layout.antenna1 == index) | (layout.antenna2 == index), layout.mjd.size)
    flags[rows] = True
    with ms.opened(spoiled.path, writable=True) as main:
        ms.write_flags(main, 0, flags)
    ranking = calibrate.rank_refants(spoiled)
    assert ranking[0].name != name
    assert "fully flagged in 1 of 16 subbands" in next(a.reasons for a in ranking if a.name == name)
    with pytest.raises(CalibrationError, match=rf"Antenna {name} cannot be the reference"):
        calibrate.solve_calibrator(spoiled, "J0521+166", CalibrateOptions(refant=name), place)
    assert named(place) == []


def test_all_data_flagged_is_an_error(spoiled, place):
    with ms.opened(spoiled.path, writable=True) as main:
        for first, stop in blocks.subbands(ms.read_layout(spoiled.path)):
            shape = (main.nrows(), stop - first, 2)
            ms.write_flags(main, first, np.ones(shape, bool))
    with pytest.raises(CalibrationError, match="No antenna has unflagged data"):
        calibrate.solve_calibrator(spoiled, "J0521+166", CalibrateOptions(), place)
    assert named(place) == []


@pytest.mark.parametrize(("value", "message"), [(0.0, "model to solve against is empty"), (1.0, "not of this field")])
def test_a_model_that_was_never_predicted_is_refused(value, message, spoiled, place):
    with ms.opened(spoiled.path, writable=True) as main:
        for first, stop in blocks.subbands(ms.read_layout(spoiled.path)):
            ms.write_column(main, "MODEL_DATA", first, np.full((main.nrows(), stop - first, 2), value, np.complex64))
    with pytest.raises(CalibrationError, match=message):
        calibrate.solve_calibrator(spoiled, "J0521+166", CalibrateOptions(), place)


def test_casa_killed_half_way_leaves_tables_and_data_as_they_were(ready, place):
    record, position, _ = ready
    options = CalibrateOptions(solver="casa-only")
    before = calibrate.solve_calibrator(record, "J0521+166", options, place, position)
    kept = [open_caltable(table.path).load() for table in before]
    flags = ms.read_channels(record.path, "DATA", 0, 768)[1]
    killed = []

    def kill():
        while not killed:
            for child in psutil.Process().children():
                if "dsa110_contimg.io.casa" in child.cmdline() and list(place.out_dir.glob(".*/.*.partial")):
                    child.kill()
                    killed.append(child.pid)
            time.sleep(0.02)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    with pytest.raises(ExternalToolError, match="SIGKILL"):
        calibrate.solve_calibrator(record, "J0521+166", options, place, position)
    killer.join()
    assert named(place) == sorted(table.path.name for table in before)
    for table, old in zip(before, kept, strict=True):
        assert open_caltable(table.path).load().equals(old)
    assert (ms.read_channels(record.path, "DATA", 0, 768)[1] == flags).all()
    assert list(place.work_dir.glob("*.ms")) == []
