"""A Dataset is flagged as its Measurement Set is; injected interference in the view of a group, by each detector."""

import json
import shutil

import numpy as np
import pytest
import xarray as xr
from pydantic import ValidationError

import dsa110_contimg as dc
from dsa110_contimg import telescope
from dsa110_contimg.exceptions import ExternalToolError, InputError, SchemaError
from dsa110_contimg.io import ms, rfi
from dsa110_contimg.options import ConvertOptions, FlagOptions
from dsa110_contimg.science import flagging, masking
from dsa110_contimg.simulate.faults import GroupFaults
from dsa110_contimg.stages.convert import convert
from dsa110_contimg.stages.flag import flag

DEAD = "48"
LINES = (slice(100, 102), slice(333, 334), slice(520, 523))
WIDE, BURST = slice(600, 660), (slice(7, 9), slice(192, 288))


@pytest.fixture(scope="module")
def night12(simulated, tmp_path_factory):
    faults = {0: GroupFaults(rfi=True, dead_antennas=(int(DEAD),), missing_subbands=(5,))}
    return simulated(tmp_path_factory.mktemp("night12"), n_antennas=12, n_groups=2, faults=faults)


@pytest.fixture(scope="module")
def bad(night12, tmp_path_factory):
    """The Measurement Set of a group with interference, a dead antenna and a missing subband."""
    return convert(night12.groups[0], ConvertOptions(smoke_test=False), tmp_path_factory.mktemp("bad"))


@pytest.fixture(scope="module")
def quiet(night12):
    """The view of a group without faults, lazy; 3C138 transits in it: 2.8 sigma a visibility."""
    return dc.open(night12.groups[1])


def crosses(vis):
    return (vis["baseline_antenna1_name"] != vis["baseline_antenna2_name"]).to_numpy()


def sigma(vis):
    """(baseline, channel, polarization) of the real part, from autocorrelations: sqrt(A_1 A_2 / 2 B t)."""
    names = vis["baseline_antenna1_name"].to_numpy().astype(str), vis["baseline_antenna2_name"].to_numpy().astype(str)
    power = np.abs(vis["VISIBILITY"].to_numpy()).mean(axis=0)
    auto = {name: power[k] for k, name in enumerate(names[0]) if names[1][k] == name}
    both = np.stack([auto[a] * auto[b] for a, b in zip(*names, strict=True)])
    return np.sqrt(both / (2 * telescope.CHANNEL_WIDTH_HZ * telescope.INTEGRATION_S))


def injected(vis, strength, rng):
    """The view with lines, a wide carrier and a burst of a strength in sigma; where they are, (time, channel)."""
    on = np.zeros((vis.sizes["time"], vis.sizes["frequency"]), bool)
    for line in (*LINES, WIDE):
        on[:, line] = True
    on[BURST] = True
    phase = np.exp(2j * np.pi * rng.random((vis.sizes["baseline_id"], 1, 1)))
    signal = (strength * sigma(vis) * phase * crosses(vis)[:, None, None]).astype(np.complex64)
    dims = ("time", "baseline_id", "frequency", "polarization")
    added = xr.DataArray(on[:, None, :, None] * signal, dims=dims)
    return vis.assign(VISIBILITY=vis["VISIBILITY"] + added), on


def rates(flagged, on):
    flags = flagged["FLAG"].to_numpy()[:, crosses(flagged)].mean(axis=(1, 3))
    return {"lines": flags[:, np.r_[LINES]].mean(), "wide": flags[:, WIDE].mean(), "burst": flags[BURST].mean()}, flags[
        ~on
    ].mean()


@pytest.mark.parametrize("method", ["builtin", "aoflagger", "none"])
def test_a_dataset_gets_the_flags_that_its_measurement_set_gets(bad, tmp_path, method):
    if method == "aoflagger":
        pytest.importorskip("aoflagger")
    path = tmp_path / bad.path.name
    shutil.copytree(bad.path, path)
    record = type(bad)(**{**bad.__dict__, "path": path})
    before = dc.open_ms(path)
    known = before["FLAG"].to_numpy()
    flagged = before.dsa.flag(method, grow_channels=1)
    summary = flag(record, FlagOptions(rfi=method, grow_channels=1))
    cross = crosses(flagged)
    with ms.opened(path) as main:
        expected = main.getcol("FLAG").reshape(flagged["FLAG"].shape)
    np.testing.assert_array_equal(flagged["FLAG"].to_numpy()[:, cross], expected[:, cross])
    assert flagged["FLAG"].attrs == dict(summary.causes)
    assert flagged["FLAG"].attrs["dead antennas"] > 0.1
    np.testing.assert_array_equal(flagged["FLAG"].to_numpy()[:, ~cross], known[:, ~cross])
    assert json.loads(flagged.attrs["flagging"])["rfi"] == method
    # again, now that all autocorrelations are flagged: what is left is not taken for dead
    again = dc.open_ms(path).dsa.flag(method, grow_channels=1)
    assert (again["FLAG"].to_numpy() >= expected).all()
    assert again["FLAG"].to_numpy()[:, cross].mean() < expected[:, cross].mean() + 0.02


@pytest.mark.parametrize(("strength", "least"), [(3, {"lines": 1.0}), (5, {}), (10, {}), (100, {})])
def test_interference_beside_a_calibrator_is_found_by_the_builtin_detector(quiet, rng, strength, least):
    """Of random phase to it, 3 sigma make 2.8 to 4.1: 0.46 more, with a threshold of 6 x 0.52 / sqrt(66) = 0.39."""
    vis, on = injected(quiet, strength, rng)
    found, false = rates(vis.dsa.flag(), on)
    for kind, share in (least or dict.fromkeys(found, 1.0)).items():
        assert found[kind] >= share, found
    # 2.4 million amplitudes beyond 5.8 sigma, and 3C138 on some baselines
    assert false < 1e-3


@pytest.mark.parametrize(("strength", "least"), [(3, 0.1), (5, 0.7), (10, 0.99)])
def test_interference_beside_a_calibrator_is_found_by_aoflagger(quiet, rng, strength, least):
    """Baseline by baseline a phase decides how much brighter the sum of both is."""
    pytest.importorskip("aoflagger")
    vis, on = injected(quiet, strength, rng)
    found, false = rates(vis.dsa.flag("aoflagger"), on)
    assert min(found["lines"], found["burst"]) > least, found
    assert false < 0.01


@pytest.mark.parametrize("method", ["builtin", "aoflagger"])
def test_a_group_without_interference_is_left_alone(quiet, method):
    if method == "aoflagger":
        pytest.importorskip("aoflagger")
    flagged = quiet.dsa.flag(method)
    assert flagged["FLAG"].to_numpy()[:, crosses(quiet)].mean() < 0.001
    assert flagged["VISIBILITY"].chunks == quiet["VISIBILITY"].chunks  # still lazy
    xr.testing.assert_identical(flagged.drop_vars("FLAG").drop_attrs(), quiet.drop_vars("FLAG").drop_attrs())


def test_what_was_flagged_stays_and_is_not_looked_at(quiet, rng):
    vis, on = injected(quiet, 1000, rng)
    known = vis["FLAG"].to_numpy() | on[:, None, :, None]
    flagged = vis.assign(FLAG=(vis["FLAG"].dims, known)).dsa.flag()
    assert flagged["FLAG"].to_numpy()[known].all()
    assert flagged["FLAG"].attrs["already flagged"] == pytest.approx(on.mean())
    assert flagged["FLAG"].attrs["interference"] == 0


def test_a_part_of_the_band_and_one_polarisation_will_do_and_another_order_of_dimensions_will_not(quiet):
    part = quiet.isel(frequency=slice(40, 90), polarization=[0]).compute()
    assert part.dsa.flag()["FLAG"].shape == part["FLAG"].shape
    with pytest.raises(SchemaError):
        part.transpose("baseline_id", ...).dsa.flag()


def test_cross_hands_are_held_against_the_feeds_that_they_are_of():
    one, two = np.triu_indices(4)
    axes = masking.Axes(one, two, 4, np.arange(3.0), ("XX", "XY", "YX", "YY"))
    assert axes.feeds == [0, 3]
    assert axes.hands == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert masking.Axes(one, two, 4, np.arange(3.0), ("XX", "XY")).hands is None
    assert masking.Axes(one, two, 4, np.arange(3.0), ("I",)).hands == [(0, 0)]
    dead = np.array([False, True, False, False])
    names = {0: "", flagging.DEAD: "dead", flagging.AUTOCORRELATION: "auto"}
    assert [names[cause] for cause in axes.known(dead)[:5]] == ["auto", "dead", "", "", "auto"]


def test_detectors_that_need_a_measurement_set_or_are_not_given_are_refused(quiet):
    for method in ("casa", "aoflagger"):
        with pytest.raises(InputError, match="cannot flag a Dataset"):
            masking.flag_visibilities(quiet, FlagOptions(rfi=method))
    with pytest.raises(ValidationError):
        quiet.dsa.flag(visibility_sigma=1)


def test_a_strategy_that_is_not_known_is_an_error(tmp_path, monkeypatch):
    aoflagger = pytest.importorskip("aoflagger")
    strategy = tmp_path / "other.lua"
    strategy.write_text("function execute(input)\n  local base_threshold = 1.0\nend\n")
    monkeypatch.setattr(aoflagger.AOFlagger, "find_strategy_file", lambda *_: str(strategy))
    with pytest.raises(ExternalToolError, match="not the one that is known"):
        rfi.AOFlagger(1.2)
