"""The command line as a user meets it: a process of its own, its exit code, and what it says when input is bad."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from dsa110_contimg.settings import load_settings


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
    for word in ("demo", "process", "images", "photometry", "caltables", "config", "simulate"):
        assert word in shown.stdout


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
