"""Measurement Sets of others: real ones, and small ones made by casacore with what can be odd in them."""

import re
import tarfile

import numpy as np
import pytest
from astropy.coordinates import FK5, SkyCoord
from casacore import tables as ct
from xradio.measurement_set.schema import VisibilityXds
from xradio.schema.check import check_dataset

from dsa110_contimg import schema
from dsa110_contimg.exceptions import CorruptFileError, InputError
from dsa110_contimg.io import casa, foreign
from dsa110_contimg.settings import load_settings

N_ANTENNAS, N_TIMES = 4, 3
PAIRS = [(i, j) for i in range(N_ANTENNAS) for j in range(i, N_ANTENNAS)]
DIRECTIONS = SkyCoord([10, 359.9], [20, -30], unit="deg", frame=FK5())
WINDOWS = (np.array([1.4e9, 1.401e9, 1.402e9]), np.array([1.51e9, 1.50e9]))


def fill(path, name, rows):
    with ct.table(f"{path}/{name}", readonly=False, ack=False) as sub:
        sub.addrows(len(rows))
        for i, row in enumerate(rows):
            for column, value in row.items():
                sub.putcell(column, i, value)


@pytest.fixture
def made(tmp_path):
    """Two fields, two windows (one descending), times that lack a baseline, rows in no order."""
    path = tmp_path / "made.ms"
    ct.default_ms(
        str(path),
        ct.maketabdesc([ct.makearrcoldesc("DATA", 0j, ndim=2), ct.makearrcoldesc("WEIGHT_SPECTRUM", 0.0, ndim=2)]),
    ).close()
    fill(
        path,
        "ANTENNA",
        [
            {"NAME": f"A{i}", "STATION": f"S{i}", "POSITION": np.array([i, 2.0 * i, 5e6]), "DISH_DIAMETER": 25.0}
            for i in range(N_ANTENNAS)
        ],
    )
    fill(
        path,
        "FIELD",
        [
            {"NAME": f"F{i}", "NUM_POLY": 0, "PHASE_DIR": np.array([[d.ra.rad, d.dec.rad]])}
            for i, d in enumerate(DIRECTIONS)
        ],
    )
    fill(
        path,
        "SPECTRAL_WINDOW",
        [{"CHAN_FREQ": f, "CHAN_WIDTH": np.full(f.size, 1e6), "NUM_CHAN": f.size} for f in WINDOWS],
    )
    fill(path, "POLARIZATION", [{"CORR_TYPE": np.array([5, 8]), "NUM_CORR": 2}])
    fill(path, "DATA_DESCRIPTION", [{"SPECTRAL_WINDOW_ID": i, "POLARIZATION_ID": 0} for i in (0, 1)])
    fill(path, "OBSERVATION", [{"TELESCOPE_NAME": "EVLA", "OBSERVER": "somebody", "PROJECT": "AB1"}])
    rows = [
        (f, w, t, a, b)
        for f in (0, 1)
        for w in (0, 1)
        for t in range(N_TIMES)
        for a, b in PAIRS
        if (t, a, b) != (1, 0, 2)
    ]
    with ct.table(str(path), readonly=False, ack=False) as main:
        main.addrows(len(rows))
        for i, (f, w, t, a, b) in enumerate(np.random.default_rng(0).permutation(rows)):
            shape = (WINDOWS[w].size, 2)
            values = {
                "DATA": (value(f, w, t, a, b) + np.arange(shape[0] * 2).reshape(shape)).astype(complex),
                "FLAG": np.zeros(shape, bool),
                "FLAG_ROW": bool((t, a, b) == (2, 1, 1)),
                "WEIGHT": np.array([1.0, 2.0]),
                "UVW": np.array([a, b, t], float),
                "TIME": 59000 * 86400.0 + 10 * t,
                "INTERVAL": 10.0,
                "ANTENNA1": int(a),
                "ANTENNA2": int(b),
                "FIELD_ID": int(f),
                "DATA_DESC_ID": int(w),
            }
            for column, cell in values.items():
                main.putcell(column, i, cell)
    return path


def value(field, window, time, one, two):
    return 10000 * field + 5000 * window + 1000 * time + 100 * one + 10 * two


def place(vis, one, two):
    there = (vis.baseline_antenna1_name == f"A{one}") & (vis.baseline_antenna2_name == f"A{two}")
    assert there.sum() == 1
    return int(np.flatnonzero(there)[0])


def test_several_fields_or_windows_are_listed_with_how_to_choose(made):
    with pytest.raises(
        InputError, match=re.escape("several fields. File: ") + r".*0 F0; 1 F1\. Expected: field=NUMBER"
    ):
        foreign.open_window(made)
    with pytest.raises(
        InputError, match=r"several spectral windows.*0 \(3 channels, 1400\.000-1402\.000 MHz\); 1 .*spw=NUMBER"
    ):
        foreign.open_window(made, field=1)
    with pytest.raises(InputError, match=r"No such field has rows.*Found: 7\. Expected: 0 F0; 1 F1"):
        foreign.open_window(made, field=7, spw=0)
    with pytest.raises(InputError, match=r"lacks a column.*Found: \['DATA'\]"):
        foreign.open_window(made, "CORRECTED_DATA", field=0, spw=0)


def test_rows_in_no_order_and_missing_ones_become_a_rectangle(made):
    vis = foreign.open_window(made, field=1, spw=0)
    assert dict(vis.sizes) | {"time": 3, "baseline_id": 10, "frequency": 3, "polarization": 2} == dict(vis.sizes)
    for t in range(N_TIMES):
        for one, two in PAIRS:
            here = vis.isel(time=t, baseline_id=place(vis, one, two))
            if (t, one, two) == (1, 0, 2):
                assert (
                    here.FLAG.all() and not here.VISIBILITY.any() and not here.WEIGHT.any() and here.UVW.isnull().all()
                )
            else:
                expected = value(1, 0, t, one, two) + np.arange(6).reshape(3, 2)
                assert np.array_equal(here.VISIBILITY, expected)
                assert here.UVW.values.tolist() == [one, two, t]
                assert bool(here.FLAG.all()) == bool(here.FLAG.any()) == ((t, one, two) == (2, 1, 1))
                assert (here.WEIGHT == [1, 2]).all()


def test_it_is_lazy_and_channels_ascend(made):
    vis = foreign.open_window(made, field=0, spw=1)
    assert vis.VISIBILITY.chunks is not None
    assert vis.frequency.values.tolist() == [1.50e9, 1.51e9]
    one = vis.VISIBILITY.isel(time=0, baseline_id=[place(vis, *PAIRS[4]), place(vis, *PAIRS[1])], polarization=1)
    assert one.values.real.tolist() == [
        [value(0, 1, 0, a, b) + 3, value(0, 1, 0, a, b) + 1] for a, b in (PAIRS[4], PAIRS[1])
    ]
    assert not schema.faults(vis, schema.VISIBILITIES)


def test_the_phase_centre_is_icrs_whatever_frame_it_is_given_in(made):
    vis = foreign.open_window(made, field=1, spw=0)
    here = SkyCoord(vis.attrs["phase_center_ra"], vis.attrs["phase_center_dec"], unit="rad", frame="icrs")
    assert here.separation(DIRECTIONS[1]).mas < 1e-3
    with ct.table(f"{made}/FIELD", readonly=False, ack=False) as sub:
        sub.putcolkeyword("PHASE_DIR", "MEASINFO", {"type": "direction", "Ref": "AZEL"})
    with pytest.raises(InputError, match=r"frame that is not read.*Found: AZEL"):
        foreign.open_window(made, field=1, spw=0)


def test_all_windows_of_a_field_come_as_one_view_each(made):
    assert [view.sizes["frequency"] for view in foreign.open_foreign(made, field=0)] == [3, 2]


def test_two_rows_of_one_baseline_and_time_are_refused(made):
    with ct.table(str(made), readonly=False, ack=False) as main:
        main.putcell("TIME", 0, main.getcell("TIME", 1))
        for column in ("ANTENNA1", "ANTENNA2", "FIELD_ID", "DATA_DESC_ID"):
            main.putcell(column, 0, main.getcell(column, 1))
        field, window = (int(main.getcell(c, 1)) for c in ("FIELD_ID", "DATA_DESC_ID"))
        main.putcell("DATA", 0, main.getcell("DATA", 1))
    with pytest.raises(InputError, match="several rows at one time"):
        foreign.open_window(made, field=field, spw=window)


def test_what_is_no_measurement_set_is_our_error(tmp_path):
    with pytest.raises(CorruptFileError, match="Not a readable CASA table"):
        foreign.open_window(tmp_path)


# ---- real ones ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vla():
    path = load_settings().validation_data / "vla"
    if not path.is_dir():
        pytest.skip(f"the validation data are not at {path}; DSA110_VALIDATION_DATA names the folder")
    return path


@pytest.fixture(scope="module")
def lwa(vla, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lwa")
    with tarfile.open(vla / "ovro_lwa.ms.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return next(folder.glob("*.ms"))


def plain(path):
    """The main table as casacore gives it, sorted by time and baseline."""
    with ct.table(str(path), ack=False) as main:
        order = np.lexsort([main.getcol(c) for c in ("ANTENNA2", "ANTENNA1", "TIME")])
        return {c: main.getcol(c)[order] for c in ("DATA", "FLAG", "UVW", "TIME", "ANTENNA1", "ANTENNA2")}


def test_a_measurement_set_of_the_ovro_lwa_is_read(lwa):
    vis, rows = foreign.open_window(lwa), plain(lwa)
    assert vis.attrs["telescope_name"] == "OVRO_MMA"  # which is theirs, and stands in our raw files too
    assert np.array_equal(vis.VISIBILITY.to_numpy().reshape(rows["DATA"].shape), rows["DATA"])
    assert np.array_equal(vis.UVW.to_numpy().reshape(-1, 3), rows["UVW"])
    # the two differences from MSv4 that docs/visibilities.md lists: time in days, antenna positions beside the data
    issues = check_dataset(vis, VisibilityXds).issues
    assert {(issue.path[-2:][0][1], issue.path[-1][1]) for issue in issues} == {("time", "units"), (None, None)}


def test_a_vla_observation_imported_by_casa_is_read(vla, tmp_path):
    path = tmp_path / "3c286.ms"
    casa.import_uvfits(vla / "3C286_VLA_1400MHz.uvfits", path, workdir=tmp_path / "casa")
    rows, whole = plain(path), foreign.contents(path)
    assert "VLA" in whole.telescope_name
    views = foreign.open_foreign(path)
    assert sum(int((~view.WEIGHT.isel(frequency=0, polarization=0).isnull()).sum()) for view in views) >= len(
        rows["TIME"]
    )
    first = views[0]
    there = SkyCoord("13h31m08.288s +30d30m32.96s")
    here = SkyCoord(first.attrs["phase_center_ra"], first.attrs["phase_center_dec"], unit="rad")
    assert here.separation(there).arcsec < 1
    good = ~first.FLAG.isel(polarization=0).to_numpy()
    amplitude = np.abs(first.VISIBILITY.isel(polarization=0).to_numpy())[good]
    assert np.median(amplitude) == pytest.approx(14.5, abs=0.5)  # data-package README: 14.2-14.7 Jy
