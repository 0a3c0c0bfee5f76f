"""Flagging of Measurement Sets: injected interference by each detector, its causes, bad input, interrupted runs."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from dsa110_contimg.exceptions import ContimgError, CorruptFileError, ExternalToolError, OutputError
from dsa110_contimg.io import ms
from dsa110_contimg.options import ConvertOptions, FlagOptions
from dsa110_contimg.simulate.faults import GroupFaults, draw_interference, interference_mask
from dsa110_contimg.stages.convert import convert
from dsa110_contimg.stages.flag import flag

N_TIMES, N_CHANNELS = 24, 768
KINDS = ("carriers", "bursts", "drifting", "intermittent")


DEAD = 48
"""A station of twelve that were chosen from the arms."""


@pytest.fixture(scope="module")
def template(simulated, tmp_path_factory):
    """The bad group of the demonstration, with fewer antennas; most tests put other data into it."""
    faults = {0: GroupFaults(rfi=True, dead_antennas=(DEAD,))}
    night = simulated(tmp_path_factory.mktemp("raw"), n_antennas=12, n_groups=1, faults=faults)
    return convert(night.groups[0], ConvertOptions(smoke_test=False), tmp_path_factory.mktemp("template"))


@pytest.fixture
def copied(template, tmp_path):
    """A Measurement Set of 12 antennas of its own to spoil."""
    path = tmp_path / template.path.name
    shutil.copytree(template.path, path)
    return type(template)(**{**template.__dict__, "path": path})


def columns(record, *names):
    """(time, baseline, channel, polarization) of each."""
    layout = ms.read_layout(record.path)
    shape = (layout.mjd.size, layout.antenna1.size, *layout.cell)
    with ms.opened(record.path) as main:
        return [main.getcol(name).reshape(shape) for name in names]


def put(record, **cubes):
    with ms.opened(record.path, writable=True) as main:
        for name, cube in cubes.items():
            main.putcol(name, cube.reshape(-1, *cube.shape[2:]))


def antennas(record):
    layout = ms.read_layout(record.path)
    return layout.antenna1, layout.antenna2


# ---- injected interference ----------------------------------------------------------------------------------------


def _signals(rng, kind):
    """(time, channel) where interference of a kind is."""
    on = np.zeros((N_TIMES, N_CHANNELS), bool)
    for first in rng.integers(0, N_CHANNELS - 150, 6):
        width = int(rng.integers(1, 4))
        if kind == "carriers":
            on[:, first : first + width] = True
        elif kind == "intermittent":
            on[rng.random(N_TIMES) < 0.3, first : first + width] = True
        elif kind == "drifting":
            for t in range(N_TIMES):
                on[t, first + 2 * t : first + 2 * t + 2] = True
    if kind == "bursts":
        for start in rng.integers(0, N_TIMES - 2, 2):
            first = int(rng.integers(0, 13)) * 48
            on[start : start + 2, first : first + 144] = True
    return on


def inject(record, strength, kinds=KINDS, seed=0, quiet=()):
    """Noise of unit variance a part, with signals of a strength in sigma a visibility; where each kind is.

    ``quiet`` antennas hear nothing of them.
    """
    rng = np.random.default_rng(seed)
    one, two = antennas(record)
    shape = (N_TIMES, one.size, N_CHANNELS, 2)
    data = rng.standard_normal((*shape, 2), np.float32).view(np.complex64)[..., 0]
    hears = ~(np.isin(one, quiet) | np.isin(two, quiet))
    truth = {kind: _signals(rng, kind) for kind in kinds} if strength else {}
    for on in truth.values():
        turns = rng.random(one.max() + 1)
        heard = (strength * hears * np.exp(2j * np.pi * (turns[two] - turns[one]))).astype(np.complex64)
        t, c = np.nonzero(on)
        data[t, :, c] += heard[:, None]
    data[:, one == two] += 100
    put(record, DATA=data, FLAG_CONVERTED=np.zeros(shape, bool))
    return truth


def rates(record, truth, quiet=()):
    """Detected share of each kind where it is alone, and the flagged share of all that is clean, of cross-correlations.

    Where two signals meet their phases differ: they may cancel, and nobody knows how strong they are.
    """
    one, two = antennas(record)
    hears = ~(np.isin(one, quiet) | np.isin(two, quiet))
    flags = columns(record, "FLAG")[0][:, (one != two) & hears].mean(axis=(1, 3))
    together = np.sum(list(truth.values()), axis=0) if truth else np.zeros(flags.shape, int)
    return {kind: flags[on & (together == 1)].mean() for kind, on in truth.items()}, flags[together == 0].mean()


def test_clean_noise_is_left_alone(copied):
    inject(copied, 0)
    summary = flag(copied, FlagOptions())
    # 2.4 million samples beyond 5.83 s of a Rayleigh amplitude, each with its other polarisation: 2 x 4.2e-8, and room
    assert summary.flagged_fraction < 1e-6
    # 36,864 means beyond 6 sigma of a normal distribution: 1e-9 each
    assert dict(summary.causes)["interference"] == 0


def measure(record, strength, kinds=KINDS, **options):
    truth = inject(record, strength, kinds)
    flag(record, FlagOptions(**options))
    return rates(record, truth)


@pytest.mark.parametrize("strength", [3, 5, 10, 30])
def test_interference_common_to_the_array_is_found(copied, strength):
    found, false = measure(copied, strength)
    # the amplitude of 66 baselines at 3 sigma: mean 3.2 against 1.25 with scatter 0.08; a carrier's gaps are flagged
    assert min(found.values()) > 0.99, found
    assert false < 0.005


def test_outliers_alone_find_what_is_strong_enough(copied):
    only = {"rfi": "none", "extend_polarizations": False, "extend_fraction": 1.0}
    # 10 s +- 1 s against a limit of 5.8 s, or of 7 s in a subband of which a tenth is interference
    found, false = measure(copied, 10, ("drifting",), **only)
    assert found["drifting"] > 0.97
    assert false < 1e-5
    # where several signals fill a quarter of a subband, its median and MAD rise: this detector is not enough there
    assert min(measure(copied, 10, **only)[0].values()) > 0.9
    # 5 s +- 1 s is below the limit, by 0.8 s and more
    assert max(measure(copied, 5, **only)[0].values()) < 0.25


@pytest.mark.parametrize("width", [10, 30, 48, 100])
def test_wide_carriers_that_never_stop_are_found_whole(copied, width):
    """3 sigma adds 1.5 to the ratio of a mean amplitude to that of noise, with a threshold of 6 x 0.52 / sqrt(66)."""
    inject(copied, 0)
    data = columns(copied, "DATA")[0]
    one, two = antennas(copied)
    turns = np.random.default_rng(width).random(12)
    carrier = 3 * np.exp(2j * np.pi * (turns[two] - turns[one])).astype(np.complex64)
    data[:, one != two, 400 : 400 + width] += carrier[one != two, None, None]
    put(copied, DATA=data)
    summary = flag(copied, FlagOptions())
    flags = columns(copied, "FLAG")[0][:, one != two]
    assert flags[:, :, 400 : 400 + width].all()
    assert summary.flagged_fraction == pytest.approx(width / N_CHANNELS, abs=1e-4)


@pytest.mark.parametrize("rfi", ["aoflagger", "casa"])
def test_other_detectors_find_strong_interference_and_spare_noise(copied, rfi, tmp_path):
    """They look at one baseline at a time: those of an antenna that hears nothing tell what becomes of noise."""
    if rfi == "aoflagger":
        pytest.importorskip("aoflagger")
    truth = inject(copied, 10, quiet=(0, 1, 2))
    flag(copied, FlagOptions(rfi=rfi), work_dir=tmp_path / "work")
    found, false = rates(copied, truth, quiet=(0, 1, 2))
    assert min(found.values()) > 0.95, found
    assert false < 0.005
    one, two = antennas(copied)
    quiet = ((one < 3) | (two < 3)) & (one != two)
    assert columns(copied, "FLAG")[0][:, quiet].mean() < 0.005


def test_each_detector_adds_to_the_outliers_what_it_finds(copied):
    """Weak interference is what the choice of the detector makes a difference for."""
    inject(copied, 4)
    nothing, spectrogram = (flag(copied, FlagOptions(rfi=rfi)).flagged_fraction for rfi in ("none", "builtin"))
    assert spectrogram > nothing + 0.02


def test_aoflagger_finds_less_with_a_higher_threshold(copied):
    pytest.importorskip("aoflagger")
    inject(copied, 4, quiet=range(6))
    loose, strict = (
        dict(flag(copied, FlagOptions(rfi="aoflagger", aoflagger_threshold=t)).causes)["interference"] for t in (1.2, 3)
    )
    assert loose > 1.5 * strict


def test_without_aoflagger_the_error_names_the_package_and_flags_stay(copied, monkeypatch):
    monkeypatch.setitem(sys.modules, "aoflagger", None)
    before = columns(copied, "FLAG")[0]
    with pytest.raises(ExternalToolError, match=r"dsa110_contimg\[rfi\]"):
        flag(copied, FlagOptions(rfi="aoflagger"))
    np.testing.assert_array_equal(columns(copied, "FLAG")[0], before)


def test_flags_are_put_back_where_casa_cannot_run(copied, tmp_path):
    inject(copied, 10)
    (tmp_path / "file").touch()
    before = columns(copied, "FLAG")[0]
    with pytest.raises(OutputError):
        flag(copied, FlagOptions(rfi="casa"), work_dir=tmp_path / "file")
    np.testing.assert_array_equal(columns(copied, "FLAG")[0], before)


# ---- options and causes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("off", "on"),
    [
        ({"extend_polarizations": False}, {"extend_polarizations": True}),
        ({"extend_fraction": 1.0}, {"extend_fraction": 0.2}),
        ({"grow_channels": 0}, {"grow_channels": 1}),
        ({"grow_integrations": 0}, {"grow_integrations": 1}),
    ],
)
def test_each_way_of_extending_flags_more_and_nothing_less(copied, off, on):
    inject(copied, 5)
    flags = []
    for options in (off, on):
        flag(copied, FlagOptions(rfi="none", **options))
        flags.append(columns(copied, "FLAG")[0])
    assert flags[1].sum() > flags[0].sum()
    assert not (flags[0] & ~flags[1]).any()


def test_threads_do_not_change_flags(copied):
    inject(copied, 5)
    results = []
    for threads in (1, 3):
        summary = flag(copied, FlagOptions(threads=threads))
        results.append((summary, columns(copied, "FLAG")[0]))
    assert results[0][0] == results[1][0]
    np.testing.assert_array_equal(results[0][1], results[1][1])


def test_causes_add_up_and_the_version_is_kept(copied):
    inject(copied, 10)
    one, two = antennas(copied)
    data, known = columns(copied, "DATA", "FLAG_CONVERTED")
    empty = np.flatnonzero((one != two) & (one != 3) & (two != 3))[:2]
    data[:, empty[0], :100] = 0
    data[:, empty[1], :100] = np.nan
    known[:, :, 700:] = True
    data[:, (one == 3) | (two == 3)] *= 0.01
    put(copied, DATA=data, FLAG_CONVERTED=known)
    summary = flag(copied, FlagOptions())
    causes = dict(summary.causes)
    flags, kept = columns(copied, "FLAG", "FLAG_FLAGGED")
    np.testing.assert_array_equal(flags, kept)
    assert flags[:, one == two].all()
    assert flags[:, empty, :100].all()
    assert (flags | ~known).all()
    assert summary.dead_antennas == (ms.read_layout(copied.path).names[3],)
    assert summary.flagged_fraction == pytest.approx(flags[:, one != two].mean(), abs=1e-12)
    assert sum(causes.values()) == pytest.approx(summary.flagged_fraction)
    assert causes["already flagged"] == pytest.approx(68 / 768)
    assert causes["zeros and NaNs"] == pytest.approx(2 * 100 / 768 / 66)
    assert causes["dead antennas"] == pytest.approx(700 / 768 * 11 / 66, rel=0.02)


def test_a_group_with_interference_and_a_dead_antenna_keeps_more_than_half(copied):
    summary = flag(copied, FlagOptions())
    assert summary.dead_antennas == (str(DEAD),)
    assert summary.flagged_fraction < 0.5
    one, two = antennas(copied)
    names = np.array(ms.read_layout(copied.path).names)
    alive = (one != two) & (names[one] != str(DEAD)) & (names[two] != str(DEAD))
    mask = interference_mask(draw_interference(7, 0))[:, ::-1]
    flags = columns(copied, "FLAG")[0][:, alive].mean(axis=(1, 3))
    assert flags[mask].mean() > 0.99
    assert flags[~mask].mean() < 0.005


# ---- bad input ----------------------------------------------------------------------------------------------------


def test_all_data_flagged_is_an_error_and_nothing_is_written(copied):
    flags = columns(copied, "FLAG")[0]
    put(copied, FLAG_CONVERTED=np.ones_like(flags), FLAG_FLAGGED=flags)
    with pytest.raises(CorruptFileError, match="flagged already"):
        flag(copied, FlagOptions())
    np.testing.assert_array_equal(columns(copied, "FLAG")[0], flags)
    np.testing.assert_array_equal(columns(copied, "FLAG_FLAGGED")[0], flags)


def test_nearly_all_data_bad_is_an_error_that_says_why_and_nothing_is_written(copied):
    one, two = antennas(copied)
    data, flags = columns(copied, "DATA", "FLAG")
    data[:, one != two, 20:] = 0
    put(copied, DATA=data)
    with pytest.raises(CorruptFileError, match="zeros and NaNs 97%"):
        flag(copied, FlagOptions())
    np.testing.assert_array_equal(columns(copied, "FLAG")[0], flags)


def test_an_antenna_flagged_in_some_subbands_keeps_the_others(copied):
    inject(copied, 0)
    one, two = antennas(copied)
    known = columns(copied, "FLAG_CONVERTED")[0]
    known[:, (one == 5) | (two == 5), : 9 * 48] = True
    put(copied, FLAG_CONVERTED=known)
    summary = flag(copied, FlagOptions())
    assert summary.dead_antennas == ()
    flags = columns(copied, "FLAG")[0][:, (one == 5) ^ (two == 5)]
    assert flags[:, :, : 9 * 48].all()
    assert flags[:, :, 9 * 48 :].mean() < 1e-5


def test_an_antenna_dead_in_a_part_of_the_band_loses_that_part(copied):
    inject(copied, 0)
    one, two = antennas(copied)
    data = columns(copied, "DATA")[0]
    data[:, (one == 5) | (two == 5), :96] *= 0.01
    put(copied, DATA=data)
    summary = flag(copied, FlagOptions())
    assert summary.dead_antennas == ()
    flags = columns(copied, "FLAG")[0][:, (one == 5) ^ (two == 5)]
    assert flags[:, :, :96].all()
    assert flags[:, :, 96:].mean() < 1e-5


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="users are those of POSIX")
def test_a_read_only_measurement_set_is_refused_before_any_work(template):
    with tempfile.TemporaryDirectory() as base:
        Path(base).chmod(0o755)
        path = Path(base) / "read_only.ms"
        shutil.copytree(template.path, path)
        for place in (path, *path.rglob("*")):
            place.chmod(0o555 if place.is_dir() else 0o444)
        record = type(template)(**{**template.__dict__, "path": path})
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)  # nothing is read-only for root
        try:
            with pytest.raises(OutputError, match="read-only"):
                flag(record, FlagOptions())
        finally:
            os.seteuid(user)
            path.chmod(0o755)
            for place in path.rglob("*"):
                place.chmod(0o755)


def test_what_is_no_measurement_set_is_named(template, tmp_path):
    for path in (tmp_path / "nothing.ms", tmp_path):
        record = type(template)(**{**template.__dict__, "path": path})
        with pytest.raises(ContimgError, match=str(path)):
            flag(record, FlagOptions())


KILLED = """
import os, signal, sys
from dsa110_contimg.options import FlagOptions
from dsa110_contimg.records import MeasurementSet
from dsa110_contimg.stages.flag import flag

def progress(done, total):
    if done == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)

flag(MeasurementSet.from_json(sys.argv[1]), FlagOptions(visibility_sigma=4.1), progress)
"""


@pytest.mark.parametrize("step", [5, 30], ids=["reading", "writing"])
def test_a_try_that_was_killed_leaves_no_trace_in_the_next(copied, step):
    """The killed try flags more than the one after it, which starts from the flags that `convert` left."""
    inject(copied, 5)
    plain = flag(copied, FlagOptions())
    flags = columns(copied, "FLAG")[0]
    done = subprocess.run([sys.executable, "-c", KILLED, copied.to_json(), str(step)], capture_output=True)
    assert done.returncode == -signal.SIGKILL
    assert (columns(copied, "FLAG")[0] != flags).any() == (step > 16)
    assert flag(copied, FlagOptions()) == plain
    np.testing.assert_array_equal(columns(copied, "FLAG")[0], flags)
