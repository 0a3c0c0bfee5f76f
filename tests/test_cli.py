"""The command line as a user meets it: a process of its own, its exit code, and what it says when input is bad."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from dsa110_contimg.io import ms
from dsa110_contimg.options import ConvertOptions
from dsa110_contimg.settings import load_settings
from dsa110_contimg.state.database import open_database
from dsa110_contimg.state.products import Products


def dsa110(*words, cwd, **environment):
    """Run the command line in a directory of its own; everything it makes goes under ``contimg`` and ``reports``."""
    command = [sys.executable, "-W", "ignore", "-m", "dsa110_contimg.cli", *map(str, words)]
    root = str(Path(__file__).parent.parent)
    return subprocess.run(
        command, cwd=cwd, text=True, capture_output=True, timeout=900, check=False,
        env=os.environ | {"PYTHONPATH": root, "COLUMNS": "200"} | environment,
    )  # fmt: skip


def linked(group, directory, keep=16):
    directory.mkdir()
    for file in group.files[:keep]:
        (directory / file.path.name).symlink_to(file.path)
    return directory


def one_paragraph(text):
    """The error lines: each names itself once and has no traceback."""
    assert "Traceback" not in text
    return [line for line in text.splitlines() if line.startswith("error")]


@pytest.fixture
def earlier(tmp_path):
    """A product of an earlier run, which must not be touched."""
    kept = tmp_path / "contimg" / "products" / "images" / "2026-01-01T00:00:00.image.fits"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"earlier")
    yield kept
    assert kept.read_bytes() == b"earlier"


def test_help_teaches(tmp_path):
    shown = dsa110("--help", cwd=tmp_path)
    assert shown.returncode == 0
    for word in ("demo", "process", "images", "photometry", "caltables", "config", "simulate", "convert", "qa"):
        assert word in shown.stdout
    shown = dsa110("convert", "groups", "--help", cwd=tmp_path).stdout
    for option, field in ConvertOptions.model_fields.items():
        assert (option if option != "smoke_test" else "validate").replace("_", "-") in shown
        assert field.description.split()[0] in shown
    assert "309.2 s" in shown and "--dry-run" in shown


def test_an_empty_directory(tmp_path, earlier):
    (tmp_path / "raw").mkdir()
    done = dsa110("process", "raw", cwd=tmp_path)
    assert done.returncode == 1
    (line,) = one_paragraph(done.stderr)
    assert "no subband files" in line and "raw" in line and "Found:" in line and "Expected:" in line


def test_a_file_of_another_telescope(tmp_path, earlier):
    source = load_settings().validation_data / "uvh5_other" / "hera.uvh5"
    if not source.is_file():
        pytest.skip(f"the validation data are not at {source}; DSA110_VALIDATION_DATA names the folder")
    (tmp_path / "raw").mkdir()
    shutil.copy(source, tmp_path / "raw" / "2026-01-26T05:00:00_sb03.hdf5")
    done = dsa110("process", "raw", cwd=tmp_path)
    assert done.returncode == 1
    (line,) = one_paragraph(done.stderr)
    assert "_sb03.hdf5" in line and "HERA" in line and "OVRO_MMA" in line


def test_eleven_of_sixteen_subbands(night16, tmp_path, earlier):
    linked(night16.groups[1], tmp_path / "raw", keep=11)
    done = dsa110("process", "raw", cwd=tmp_path)
    assert done.returncode == 1
    (line,) = one_paragraph(done.stderr)
    assert "11 of 16" in line and "at least 12" in line and night16.groups[1].group_id in line


def test_an_output_directory_that_cannot_be_written(night16, tmp_path, earlier):
    linked(night16.groups[1], tmp_path / "raw")
    done = dsa110("process", "raw", "--reports-dir", "/proc/reports", cwd=tmp_path)
    assert done.returncode == 1
    (line,) = one_paragraph(done.stderr)
    assert "/proc/reports" in line and "Expected: a writable place" in line


def test_a_truncated_file_and_no_calibration(night16, tmp_path, earlier):
    """One run, two faults: the group goes on without the bad file, and then finds no calibrator's tables."""
    raw = linked(night16.groups[0], tmp_path / "raw")
    bad = raw / night16.groups[0].files[2].path.name
    whole = bad.resolve()
    bad.unlink()
    shutil.copy(whole, bad)
    os.truncate(bad, 100_000)
    done = dsa110("process", "raw", cwd=tmp_path)
    assert done.returncode == 1
    truncated, uncalibrated = one_paragraph(done.stderr)
    assert bad.name in truncated and "Found:" in truncated
    assert "step calibrate" in uncalibrated and "No valid calibration" in uncalibrated and "Expected:" in uncalibrated
    page = tmp_path / "reports" / night16.groups[0].group_id[:10] / f"{night16.groups[0].group_id}.html"
    assert "FAILED at step calibrate" in page.read_text()
    assert (tmp_path / "reports" / "index.html").is_file()
    listed = dsa110("images", "--json", cwd=tmp_path)
    assert json.loads(listed.stdout) == []


def test_a_bad_source_list(night16, tmp_path, earlier):
    linked(night16.groups[1], tmp_path / "raw")
    (tmp_path / "mine.csv").write_text("name,ra,dec,flux\na,80.3,16.6,8.0\n")
    done = dsa110("process", "raw", "--catalog", "mine.csv", cwd=tmp_path)
    assert done.returncode == 1
    (line,) = one_paragraph(done.stderr)
    assert "mine.csv" in line and "ra_deg" in line


def test_config_says_where_a_value_comes_from(tmp_path):
    (tmp_path / "dsa110.toml").write_text('reports_dir = "pages"\n')
    shown = dsa110("config", "--json", cwd=tmp_path, PIPELINE_OUTPUT_DIR=str(tmp_path / "elsewhere"))
    rows = {row["name"]: row for row in json.loads(shown.stdout)}
    assert rows["reports_dir"]["value"] == str(tmp_path / "pages") and "dsa110.toml" in rows["reports_dir"]["origin"]
    assert rows["output_dir"]["value"] == str(tmp_path / "elsewhere")
    assert "PIPELINE_OUTPUT_DIR" in rows["output_dir"]["origin"]


def test_own_source_list_from_files_to_lists_and_nothing_twice(night16, tmp_path, earlier):
    """A user's catalogue in place of the packaged one: calibrator, field model and photometry are from it."""
    raw = tmp_path / "raw"
    raw.mkdir()
    for group in night16.groups:
        for file in group.files:
            (raw / file.path.name).symlink_to(file.path)
    truth = night16.truth.sources
    mine = truth.assign(name=[f"mine {k}" for k in range(len(truth))])
    mine[["name", "ra_deg", "dec_deg", "flux_jy", "spectral_index"]].to_csv(tmp_path / "mine.csv", index=False)
    done = dsa110("process", "raw", "--catalog", "mine.csv", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    groups = {group.group_id for group in night16.groups}
    images = json.loads(dsa110("images", "--json", cwd=tmp_path).stdout)
    assert {row["group"] for row in images} == groups
    for row in images:
        assert Path(row["path"]).is_file() and Path(row["pbcor_path"]).is_file()
        assert row["noise_jy"] > 0 and len(row["beam"]) == 3
    rows = pd.DataFrame(json.loads(dsa110("photometry", "--json", cwd=tmp_path).stdout))
    wanted = ["source", "group", "mjd", "ra_deg", "dec_deg", "flux_jy", "flux_error_jy", "image"]
    assert set(wanted) <= set(rows.columns)
    rows = rows.merge(mine[["name", "flux_jy"]].rename(columns={"name": "source", "flux_jy": "true_jy"}), on="source")
    bright = rows[(rows["flux_jy"] > 20 * rows["flux_error_jy"]) & (rows["beam_response"] > 0.5)]
    assert len(bright) >= 5
    assert (bright["flux_jy"] / bright["true_jy"]).median() == pytest.approx(1.0, abs=0.01)
    tables = json.loads(dsa110("caltables", "--json", cwd=tmp_path).stdout)
    assert {row["kind"] for row in tables} == {"B", "G", "GP"}
    night = tmp_path / "reports" / min(groups)[:10]
    assert {page.stem for page in night.glob("*.html")} == groups | {"night"}
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.fits")}
    again = dsa110("process", "raw", "--catalog", "mine.csv", cwd=tmp_path)
    assert again.returncode == 0 and again.stdout.count("nothing to do") == len(groups)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.fits")} == before


# ---- convert ------------------------------------------------------------------------------------------------------


def both(night, directory):
    directory.mkdir()
    for group in night.groups:
        for file in group.files:
            (directory / file.path.name).symlink_to(file.path)
    return directory


def test_convert_groups_converts_a_window_once(night16, tmp_path, earlier):
    both(night16, tmp_path / "raw")
    first, second = (group.group_id for group in night16.groups)
    done = dsa110("convert", "groups", "raw", "--end", first, "--no-validate", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert first in done.stdout and second not in done.stdout and "sb09" in done.stdout
    # all of them, in the order that operators are used to; those done already are said to be
    done = dsa110("convert", "groups", "raw", "contimg/products", first, "2026-12-31", "--no-validate", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (line,) = (line for line in done.stdout.splitlines() if first in line)
    assert "done already" in line
    (line,) = (line for line in done.stdout.splitlines() if second in line)
    assert "converted" in line
    made = tmp_path / "contimg" / "products" / "ms"
    assert {path.name for path in made.glob("*.ms")} == {f"{first}.ms", f"{second}.ms"}
    rows = Products(open_database(tmp_path / "contimg" / "state")).list_measurement_sets()
    assert [(row["group"], row["missing_subbands"]) for row in rows] == [(first, [9]), (second, [])]


def test_convert_single_and_validate(night16, tmp_path, earlier):
    """One group named by one of its files, written in another way than by default, then checked, then spoilt."""
    raw = both(night16, tmp_path / "raw")
    group = night16.groups[1]
    options = ("--phase-center", "meridian", "--spectral-windows", 16, "--columns", "imaging", "--out", "made")
    done = dsa110("convert", "single", raw / group.files[3].path.name, *options, "--no-validate", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    made = tmp_path / "made" / "ms" / f"{group.group_id}.ms"
    with ms.opened(made) as table:
        assert {"DATA", "MODEL_DATA", "CORRECTED_DATA"} <= set(table.colnames())
    checked = dsa110("convert", "validate", made, "--raw", "raw", "--json", cwd=tmp_path)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    body = json.loads(checked.stdout)
    assert body["ok"] and {check["result"] for check in body["checks"]} == {"ok"}
    assert {"uvw", "visibilities", "msmetadata", "gaincal"} <= {check["check"] for check in body["checks"]}
    with ms.opened(made, writable=True) as table:
        table.putcol("UVW", table.getcol("UVW") + 0.01)
    checked = dsa110("convert", "validate", made, "--no-casa", cwd=tmp_path)
    assert checked.returncode == 1
    assert "mm off" in checked.stdout and "below 1 mm" in checked.stdout and "failed" in checked.stdout


def test_convert_says_what_cannot_be_used_and_converts_the_rest(night16, tmp_path, earlier):
    raw = linked(night16.groups[0], tmp_path / "raw", keep=13)
    bad, copy, elsewhere = (raw / night16.groups[0].files[k].path.name for k in (2, 4, 6))
    whole = bad.resolve()
    bad.unlink()
    bad.write_bytes(whole.read_bytes()[:50_000])
    later = copy.with_name(f"{copy.name[:17]}{int(copy.name[17:19]) + 9:02d}{copy.name[19:]}")
    shutil.copy(copy.resolve(), later)
    (raw / elsewhere.name.replace("2026", "2025")).write_bytes(b"of another year")
    done = dsa110("convert", "groups", "raw", "--start", "2026-01-01", "--no-validate", cwd=tmp_path)
    assert done.returncode == 1
    (line,) = one_paragraph(done.stderr)
    assert bad.name in line and "truncated" in line and "Expected:" in line
    (note,) = (line for line in done.stderr.splitlines() if line.startswith("note"))
    assert later.name in note and "the first file is used" in note
    assert "converted" in done.stdout
    # with one more absent there are too few
    copy.unlink()
    later.unlink()
    done = dsa110("convert", "single", "raw/" + night16.groups[0].group_id, cwd=tmp_path)
    assert done.returncode == 1
    assert "11 of 16" in one_paragraph(done.stderr)[-1] and "at least 12" in one_paragraph(done.stderr)[-1]


def test_convert_refuses_what_it_is_not_told_right(night16, tmp_path, earlier):
    both(night16, tmp_path / "raw")
    done = dsa110("convert", "groups", "raw", "--chunk-duration", 10, cwd=tmp_path)
    assert done.returncode == 1
    lines = one_paragraph(done.stderr)
    assert len(lines) == len(night16.groups)
    assert all(
        "24 integrations" in line and "48 integrations" in line and "recorded with 5 min" in line for line in lines
    )
    for words, says in (
        (("--chunk-duration", 0), "chunk_duration = 0"),
        (("--start", "yesterday"), "Not a time"),
        (("--start", "2030-01-01"), "no subband files between"),
    ):
        done = dsa110("convert", "groups", "raw", *words, cwd=tmp_path)
        assert done.returncode == 1
        (line,) = one_paragraph(done.stderr)
        assert says in line and "Expected:" in line
    for words in (("--workers", 0), ("--writer", "best"), ("--spectral-windows", 4), ("out", "2026-01-26")):
        done = dsa110("convert", "groups", "raw", *words, cwd=tmp_path)
        assert done.returncode == 2 and "Traceback" not in done.stderr


def test_qa_draws_a_measurement_set_and_says_what_is_not_one(night16, tmp_path, earlier):
    made = linked(night16.groups[1], tmp_path / "raw")
    assert dsa110("convert", "single", made, "--no-validate", cwd=tmp_path).returncode == 0
    path = tmp_path / "contimg" / "products" / "ms" / f"{night16.groups[1].group_id}.ms"
    done = dsa110("qa", "fast-plots", path, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    page = Path(done.stdout.split("pages: ")[1].strip())
    assert page.is_file() and page.is_relative_to(tmp_path / "reports" / "qa" / night16.groups[1].group_id)
    done = dsa110("qa", "quicklooks", "nowhere.ms", "--out", "pages", cwd=tmp_path)
    assert done.returncode == 1
    (line,) = one_paragraph(done.stderr)
    assert "nowhere.ms" in line
