"""CASA behind its door: what goes in, what comes back, and what is left when it fails."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from astropy.io import fits
from astropy.time import Time
from astropy.utils.iers import IERS_A
from astropy_iers_data import IERS_A_FILE

from dsa110_contimg import telescope
from dsa110_contimg.exceptions import CorruptFileError, ExternalToolError, InputError, OutputError
from dsa110_contimg.io.casa import CasaTask, import_uvfits, run_tasks, severe_lines
from dsa110_contimg.settings import load_settings


@pytest.fixture(scope="module")
def measures_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("measures")


@pytest.fixture(scope="module")
def uvfits() -> Path:
    path = load_settings().validation_data / "vla" / "3C286_VLA_1400MHz.uvfits"
    if not path.is_file():
        pytest.skip(f"real data are not at {path}: set DSA110_VALIDATION_DATA")
    return path


@pytest.fixture(scope="module")
def vla_ms(tmp_path_factory: pytest.TempPathFactory, measures_cache: Path, uvfits: Path) -> Path:
    workdir = tmp_path_factory.mktemp("3C286")
    ms = workdir / "3C286.ms"
    import_uvfits(uvfits, ms, workdir=workdir, measures_cache=measures_cache)
    return ms


def test_imported_measurement_set_holds_what_the_fits_header_says(
    vla_ms: Path, measures_cache: Path, uvfits: Path, tmp_path: Path
) -> None:
    header = fits.getheader(uvfits)
    axis = {header[f"CTYPE{n}"].strip(): n for n in range(2, header["NAXIS"] + 1) if f"CTYPE{n}" in header}
    [summary] = run_tasks(
        [CasaTask("msmetadata.summary", {"vis": vla_ms})], workdir=tmp_path, measures_cache=measures_cache
    )
    n_windows = header[f"NAXIS{axis['IF']}"]
    assert summary["rows"] == header["GCOUNT"] * n_windows
    assert [len(window) for window in summary["frequencies_hz"]] == [header[f"NAXIS{axis['FREQ']}"]] * n_windows
    value, pixel, step = (header[f"{key}{axis['FREQ']}"] for key in ("CRVAL", "CRPIX", "CDELT"))
    assert summary["frequencies_hz"][0][0] == pytest.approx(value + (1 - pixel) * step, rel=1e-9)
    [center] = summary["phase_centers_deg"]
    assert center[0] % 360 == pytest.approx(header[f"CRVAL{axis['RA']}"], abs=1e-7)
    assert center[1] == pytest.approx(header[f"CRVAL{axis['DEC']}"], abs=1e-7)


def test_casa_knows_the_array_and_the_rotation_of_the_earth(measures_cache: Path, tmp_path: Path) -> None:
    # measured, the first predicted day, after the end of the tables that python-casacore brings, and near ours
    dates = np.array([61065.94, 61158.5, 61159.25, 61386.3, 61700.7])
    tasks = [CasaTask("measures.observatory", {"name": telescope.TELESCOPE_NAME})]
    tasks += [CasaTask("measures.ut1_minus_utc", {"mjd_utc": float(mjd)}) for mjd in dates]
    where, *ut1 = run_tasks(tasks, workdir=tmp_path, measures_cache=measures_cache)
    expected = IERS_A.open(IERS_A_FILE).ut1_utc(Time(dates, format="mjd", scale="utc")).to_value("s")
    # the two series of the IERS, and two interpolations within a day, differ by less than 0.1 ms (1.5 mas of sky)
    np.testing.assert_allclose(ut1, expected, rtol=0, atol=1e-4)
    # 1e-9 deg is 0.1 mm
    assert where == pytest.approx([telescope.LONGITUDE_DEG, telescope.LATITUDE_DEG, telescope.HEIGHT_M], abs=1e-9)


def test_tasks_use_each_others_products_by_their_final_names(
    vla_ms: Path, measures_cache: Path, tmp_path: Path
) -> None:
    gains, bandpass = tmp_path / "first.g", tmp_path / "first.b"
    solved, _, _ = run_tasks(
        [
            CasaTask("gaincal", {"vis": vla_ms, "caltable": gains, "calmode": "p"}, product="caltable"),
            CasaTask("bandpass", {"vis": vla_ms, "caltable": bandpass, "gaintable": [gains]}, product="caltable"),
            CasaTask("msmetadata.summary", {"vis": vla_ms}),
        ],
        workdir=tmp_path,
        measures_cache=measures_cache,
    )
    assert solved["solve_tables"] == [str(gains)]
    assert (gains / "table.dat").is_file()
    assert (bandpass / "table.dat").is_file()
    assert not list(tmp_path.glob(".*"))


def test_the_exception_that_bandpass_swallows_is_an_error_and_leaves_the_earlier_table(
    vla_ms: Path, measures_cache: Path, tmp_path: Path
) -> None:
    table = tmp_path / "kept.b"
    table.mkdir()
    (table / "table.dat").write_text("an earlier table")
    task = CasaTask("bandpass", {"vis": vla_ms, "caltable": table, "spw": "7"}, product="caltable")
    with pytest.raises(ExternalToolError, match=r"bandpass failed.*3C286\.ms.*No match found for 7"):
        run_tasks([task], workdir=tmp_path, measures_cache=measures_cache)
    assert (table / "table.dat").read_text() == "an earlier table"
    assert not list(tmp_path.glob(".*"))


def test_a_task_that_raises_is_named_with_its_file_and_its_message(
    vla_ms: Path, measures_cache: Path, tmp_path: Path
) -> None:
    tasks = [
        CasaTask("msmetadata.summary", {"vis": vla_ms}),
        CasaTask("gaincal", {"vis": vla_ms, "caltable": tmp_path / "g", "field": "nowhere"}, product="caltable"),
    ]
    with pytest.raises(ExternalToolError, match=r"gaincal failed.*3C286\.ms.*No match found for name .nowhere."):
        run_tasks(tasks, workdir=tmp_path, measures_cache=measures_cache)
    assert [path.name for path in tmp_path.iterdir()] == ["casa-msmetadata.summary.log"]


def test_a_solution_that_made_no_table_is_an_error(vla_ms: Path, measures_cache: Path, tmp_path: Path) -> None:
    copy = tmp_path / "flagged.ms"
    tasks = [
        CasaTask("split", {"vis": vla_ms, "outputvis": copy, "datacolumn": "data"}, product="outputvis"),
        CasaTask("flagdata", {"vis": copy, "mode": "manual", "flagbackup": False}),
        CasaTask("gaincal", {"vis": copy, "caltable": tmp_path / "none.g"}, product="caltable"),
    ]
    with pytest.raises(ExternalToolError, match=r"gaincal made no product.*none\.g"):
        run_tasks(tasks, workdir=tmp_path, measures_cache=measures_cache)


def _processes_of(workdir: Path) -> list[int]:
    running = psutil.process_iter(["cmdline"])
    named = [p.pid for p in running if any(str(workdir) in word for word in p.info["cmdline"] or [])]
    return [pid for pid in named if pid != os.getpid()]


def test_time_over_kills_the_child(vla_ms: Path, measures_cache: Path, tmp_path: Path) -> None:
    task = CasaTask("gaincal", {"vis": vla_ms, "caltable": tmp_path / "late.g"}, product="caltable")
    with pytest.raises(ExternalToolError, match=r"gaincal ran out of time.*3C286\.ms.*0\.3 s"):
        run_tasks([task], workdir=tmp_path, timeout_s=0.3, measures_cache=measures_cache)
    assert _processes_of(tmp_path) == []
    assert not (tmp_path / "late.g").exists()


def test_the_child_dies_with_a_parent_that_is_killed(vla_ms: Path, measures_cache: Path, tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from dsa110_contimg.io.casa import CasaTask, run_tasks\n"
        "ms, work, cache = map(Path, sys.argv[1:])\n"
        "run_tasks([CasaTask('msmetadata.summary', {'vis': ms})] * 1000, workdir=work, measures_cache=cache)"
    )
    command = [sys.executable, "-c", program, str(vla_ms), str(tmp_path / "work"), str(measures_cache)]
    parent = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})
    deadline = time.monotonic() + 60
    while len(_processes_of(tmp_path)) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(_processes_of(tmp_path)) == 2, "the parent and its child"
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 10
    while _processes_of(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert _processes_of(tmp_path) == []


def test_inputs_are_judged_before_casa_starts(vla_ms: Path, uvfits: Path, tmp_path: Path) -> None:
    def run(name: str, product: str = "", **kwargs: Path) -> None:
        run_tasks([CasaTask(name, kwargs, product=product)], workdir=tmp_path, measures_cache=tmp_path / "unused")

    with pytest.raises(InputError, match="nothing"):
        run("gaincal", vis=tmp_path / "absent.ms")
    with pytest.raises(CorruptFileError, match=r"a file.*Expected: a CASA table"):
        run("gaincal", vis=uvfits)
    with pytest.raises(CorruptFileError, match=r"without table\.dat.*Expected: a CASA table"):
        run("applycal", vis=vla_ms, gaintable=tmp_path)
    with pytest.raises(OutputError, match="no such directory"):
        run("gaincal", product="caltable", vis=vla_ms, caltable=uvfits / "in-a-file.g")
    with pytest.raises(OutputError, match="in-a-file"):
        run_tasks([CasaTask("listobs", {"vis": vla_ms})], workdir=uvfits / "in-a-file")
    assert not (tmp_path / "unused").exists()


def test_a_file_that_is_no_uvfits_is_an_error_that_names_it(measures_cache: Path, tmp_path: Path) -> None:
    text = tmp_path / "README.txt"
    text.write_text("not FITS")
    with pytest.raises(ExternalToolError, match=r"importuvfits failed.*README\.txt"):
        import_uvfits(text, tmp_path / "never.ms", workdir=tmp_path, measures_cache=measures_cache)
    assert not (tmp_path / "never.ms").exists()


def test_this_process_holds_no_casa(vla_ms: Path) -> None:
    assert vla_ms.is_dir()
    assert not {"casatools", "casatasks"} & set(sys.modules)


def test_only_severe_lines_count() -> None:
    log = (
        "2026-11-21 13:10:32\tINFO\tgaincal::::casa\tSEVERE is only a word here\n"
        "2026-11-21 13:10:32\tSEVERE\tCalibrater::selectvis\tCaught exception: no match\n"
        "2026-11-21 13:10:32\tWARN\tgaincal::::casa\tInsufficient unflagged antennas\n"
        "a line of no known form\n"
    )
    assert severe_lines(log) == ["Calibrater::selectvis Caught exception: no match"]
