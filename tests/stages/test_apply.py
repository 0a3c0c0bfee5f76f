"""Our kernel does to a Measurement Set what CASA's applycal does, flags and weights too, and says when it did not."""

import shutil

import numpy as np
import pytest
import xarray as xr

from dsa110_contimg.exceptions import CalibrationError, CorruptFileError, InputError
from dsa110_contimg.io import files, ms
from dsa110_contimg.io.bounds import calibration_bounds
from dsa110_contimg.io.caltable import open_caltable, write_caltable
from dsa110_contimg.options import ApplyOptions, ConvertOptions
from dsa110_contimg.records import CalTable
from dsa110_contimg.science.gains import apply_gains
from dsa110_contimg.science.judging import judge_calibration
from dsa110_contimg.stages import apply
from dsa110_contimg.stages.convert import convert

COLUMNS = ("CORRECTED_DATA", "FLAG", "WEIGHT", "WEIGHT_SPECTRUM")
STEP = 1.3


def gains(layout, kind, mjd, frequency, seed):
    """Random gains near 1 with slow phases; an antenna without a solution, and some holes."""
    rng = np.random.default_rng(seed)
    shape = (len(mjd), len(layout.names), len(frequency), 2)
    phase = 3 * rng.normal(size=(1, *shape[1:2], 1, 2)) + STEP * rng.normal(size=shape)
    flag = np.zeros(shape, bool)
    flag[:, 5] = seed == 0
    flag[0, 2, :3], flag[-1, 7, -1, 1] = True, True
    dims = ("time", "antenna_name", "frequency", "polarization")
    return xr.Dataset(
        {
            "GAIN": (dims, (rng.uniform(0.7, 1.4, shape) * np.exp(1j * phase)).astype(np.complex64)),
            "FLAG": (dims, flag),
            "SNR": (dims, np.full(shape, 100.0, np.float32)),
        },
        coords={
            "time": mjd,
            "antenna_name": list(layout.names),
            "frequency": frequency,
            "polarization": ["X", "Y"],
        },
        attrs={"kind": kind, "refant": layout.names[0]},
    )


@pytest.fixture(scope="module")
def observed(night16, tmp_path_factory):
    """A Measurement Set of 16 antennas with a model of 1 Jy, and tables for it: delays, bandpasses, gains in time."""
    base = tmp_path_factory.mktemp("apply")
    record = convert(night16.groups[1], ConvertOptions(smoke_test=False), base)
    layout = ms.read_layout(record.path)
    ms.ensure_column(record.path, "MODEL_DATA")
    with ms.opened(record.path, writable=True) as main:
        main.putcol("MODEL_DATA", np.ones((main.nrows(), *layout.cell), np.complex64))
        flags = main.getcol("FLAG")
        flags[::7, 100:200] = True
        main.putcol("FLAG", flags)
    made = {
        "K": gains(layout, "K Jones", layout.mjd[:1], [layout.frequencies.mean()], 4),
        "B": gains(layout, "B Jones", layout.mjd[:1], layout.frequencies, 0),
        "coarse": gains(layout, "B Jones", layout.mjd[3:4], layout.frequencies.reshape(-1, 4).mean(axis=1), 1),
        "G": gains(layout, "G Jones", layout.mjd[[2, 11, 20]] + 1e-5, layout.frequencies[380:381], 2),
        "GP": gains(layout, "G Jones", layout.mjd, layout.frequencies[380:381], 3),
    }
    delay = np.random.default_rng(9).uniform(-20e-9, 20e-9, made["K"].GAIN.shape)
    made["K"]["DELAY"] = (made["K"].GAIN.dims, delay)
    made["K"]["GAIN"][...] = 1.0
    made["K"]["FLAG"][...] = False
    paths = {kind: write_caltable(table, base / f"t.{kind}", record.path) for kind, table in made.items()}
    return record, paths


def records_of(record, paths, kinds):
    """Records of tables that are applied in the order of their kinds."""
    return tuple(
        CalTable(
            paths[kind], kind.replace("coarse", "B"), "set", order, record.group_id, "1", record.mjd_mid,
            record.mjd_start, record.mjd_end, 0.1, 100.0,
        )
        for order, kind in enumerate(kinds)
    )  # fmt: skip


def columns(path):
    with ms.opened(path) as main:
        return {name: main.getcol(name) for name in COLUMNS}


@pytest.fixture
def both(observed, tmp_path, places):
    """A function (kinds, calwt) -> what CASA and what we make of the same Measurement Set."""
    record, paths = observed

    def run(kinds, calwt):
        out = {}
        for engine in ("casa", "native"):
            path = tmp_path / f"{engine}.ms"
            shutil.copytree(record.path, path)
            copy = type(record)(**{**vars(record), "path": path})
            tables = records_of(record, paths, kinds)
            options = ApplyOptions(engine=engine, calwt=calwt)
            made = apply.apply(copy, tables, tmp_path, places.state_dir / "measures", options=options)
            out[engine] = (columns(path), made.flux_scale_error)
        return out

    return run


@pytest.mark.parametrize(("kinds", "calwt"), [(("B", "G", "GP"), False), (("K", "coarse", "G"), True)])
def test_we_write_what_casa_writes(both, kinds, calwt):
    done = both(kinds, calwt)
    (theirs, their_error), (ours, our_error) = done["casa"], done["native"]
    np.testing.assert_array_equal(ours["FLAG"], theirs["FLAG"])
    good = ~ours["FLAG"]
    assert 0.3 < good.mean() < 0.9
    data = theirs["CORRECTED_DATA"]
    # three gains at each end in single precision
    assert np.abs(ours["CORRECTED_DATA"] - data)[good].max() < 3e-6 * np.abs(data[good]).max()
    for name in ("WEIGHT", "WEIGHT_SPECTRUM"):
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-5)
    assert our_error == pytest.approx(their_error, rel=1e-3)


def test_one_pass_over_a_measurement_set_is_what_gains_on_a_view_are(observed, tmp_path):
    record, paths = observed
    path = tmp_path / "mine.ms"
    shutil.copytree(record.path, path)
    tables = [open_caltable(paths[kind]) for kind in ("K", "B", "GP")]
    view = apply_gains(ms.open_ms(path, "DATA"), *tables, scale_weights=False).compute()
    before = columns_of_weights(path)
    apply.correct(path, tuple(paths[kind] for kind in ("GP", "B", "K")))
    found = ms.open_ms(path, "CORRECTED_DATA").compute()
    np.testing.assert_array_equal(found.FLAG, view.FLAG)
    size = float(np.abs(view.VISIBILITY).max())
    assert np.abs(found.VISIBILITY - view.VISIBILITY).max() < 1e-6 * size
    np.testing.assert_array_equal(columns_of_weights(path), before)


def columns_of_weights(path):
    with ms.opened(path) as main:
        return main.getcol("WEIGHT")


def test_the_comparison_counts_what_a_plain_sum_counts(observed, tmp_path):
    record, paths = observed
    path = tmp_path / "sums.ms"
    shutil.copytree(record.path, path)
    apply.correct(path, (paths["B"],))
    found = apply.compare(path)
    view = ms.open_ms(path, "CORRECTED_DATA", model=True).compute()
    good = ~view.FLAG.to_numpy()
    data, model = (view[name].to_numpy() * good for name in ("VISIBILITY", "MODEL"))
    np.testing.assert_allclose(found.sums[..., 4], good.sum(axis=2))
    product = (data.astype(complex) * model.conj()).sum(axis=2)
    np.testing.assert_allclose(found.sums[..., 0] + 1j * found.sums[..., 1], product, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(found.sums[..., 3], (np.abs(data.astype(complex) - model) ** 2).sum(axis=2), rtol=1e-5)


def test_tables_that_leave_nothing_are_an_error_and_the_data_stay(observed, tmp_path):
    record, _ = observed
    layout = ms.read_layout(record.path)
    path = tmp_path / "none.ms"
    shutil.copytree(record.path, path)
    nothing = gains(layout, "G Jones", layout.mjd[:1], [1.4e9], 0)
    nothing["FLAG"][...] = True
    flagged = write_caltable(nothing, tmp_path / "flagged", path)
    before = files.fingerprint(path)
    with pytest.raises(CalibrationError, match="No antenna has a solution"):
        apply.correct(path, (flagged,))
    with pytest.raises(InputError, match="No calibration tables"):
        apply.correct(path, ())
    with pytest.raises(CorruptFileError, match="readable"):
        apply.correct(path, (tmp_path / "absent",))
    assert files.fingerprint(path) == before


def test_corrected_data_that_are_not_those_of_the_tables_are_noticed(observed, tmp_path):
    record, paths = observed
    path = tmp_path / "spoiled.ms"
    shutil.copytree(record.path, path)
    apply.correct(path, (paths["B"],))
    solutions, layout = apply._solutions(path, (paths["B"],))
    apply._verify(path, layout, solutions, calwt=False)
    with pytest.raises(CorruptFileError, match="WEIGHT is not scaled"):
        apply._verify(path, layout, solutions, calwt=True)
    with ms.opened(path, writable=True) as main:
        flags = main.getcol("FLAG")
        main.putcol("FLAG", np.zeros_like(flags))
    with pytest.raises(CorruptFileError, match="without a solution are not flagged"):
        apply._verify(path, layout, solutions, calwt=False)
    with ms.opened(path, writable=True) as main:
        main.putcol("FLAG", flags)
        main.putcol("CORRECTED_DATA", 1.1 * main.getcol("CORRECTED_DATA"))
    with pytest.raises(CorruptFileError, match="CORRECTED_DATA differs"):
        apply._verify(path, layout, solutions, calwt=False)


def test_zeros_are_not_corrected_data(observed, tmp_path):
    record, paths = observed
    path = tmp_path / "zeros.ms"
    shutil.copytree(record.path, path)
    with ms.opened(path, writable=True) as main:
        main.putcol("DATA", np.zeros((main.nrows(), 768, 2), np.complex64))
    with pytest.raises(CalibrationError, match="nothing to image"):
        apply.correct(path, (paths["B"],))


# ---- what judging makes of it: faults injected into the data -------------------------------------------------------


@pytest.fixture
def figures_of(observed, tmp_path):
    """A function: errors of the gains (time, antenna, polarization) -> the verdict on data that were corrected without.

    Truth is a source of 30 Jy at the phase centre, observed with these errors and thermal noise.
    """
    record, _ = observed
    layout = ms.read_layout(record.path)
    chosen = slice(300, 340)

    def run(error):
        rng = np.random.default_rng(3)
        shape = (layout.mjd.size, layout.antenna1.size, *layout.cell)
        noise = apply.layout_noise(layout)
        one, two = (error[:, ends][:, :, None] for ends in (layout.antenna1, layout.antenna2))
        data = np.zeros(shape, np.complex64)
        flags = np.ones(shape, bool)
        part = (*shape[:2], 40, shape[3])
        data[:, :, chosen] = 30.0 * one * two.conj() + noise * (rng.normal(size=part) + 1j * rng.normal(size=part))
        flags[:, :, chosen] = False
        path = tmp_path / "fault.ms"
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(record.path, path)
        with ms.opened(path, writable=True) as main:
            for name, values in (("DATA", data), ("FLAG", flags), ("MODEL_DATA", np.full(shape, 30.0, np.complex64))):
                main.putcol(name, values.reshape(-1, *layout.cell))
        unit = gains(layout, "G Jones", layout.mjd[:1], [1.4e9], 1)
        unit["GAIN"][...], unit["FLAG"][...] = 1.0, False
        apply.correct(path, (write_caltable(unit, tmp_path / "unit", path),))
        return judge_calibration({}, calibration_bounds(), comparison=apply.compare(path))

    return run, (layout.mjd.size, len(layout.names), 2)


def levels(verdict):
    return {figure.name: figure.level for figure in verdict.figures}


def test_without_a_fault_every_figure_of_the_data_is_good(figures_of):
    run, shape = figures_of
    assert levels(run(np.ones(shape))) == dict.fromkeys(
        (
            "residual_over_thermal",
            "coherence",
            "antenna_scatter",
            "closure_phase_over_noise",
            "closure_amplitude_over_noise",
        ),
        "good",
    )


def test_phases_that_wander_lose_coherence_and_wrong_amplitudes_do_not(figures_of, rng):
    run, shape = figures_of
    wandering = run(np.exp(0.4j * rng.normal(size=shape)))
    # two antennas, each with a phase of rms 0.4 rad that is new in every integration
    value = next(figure.value for figure in wandering.figures if figure.name == "coherence")
    assert value == pytest.approx(np.exp(-(0.4**2)), rel=0.03)
    assert wandering.level == "bad"
    uneven = levels(run(np.broadcast_to(1 + 0.2 * rng.normal(size=(1, *shape[1:])), shape)))
    assert uneven["antenna_scatter"] == "bad" and uneven["coherence"] == "good"
    assert uneven["closure_phase_over_noise"] == uneven["closure_amplitude_over_noise"] == "good"
