"""The registry from the command line: list, look, correct by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from typer.testing import CliRunner

from dsa110_contimg.commands.caltables import app
from dsa110_contimg.exceptions import NoValidCalibrationError, StateError
from dsa110_contimg.io.caltable import write_caltable
from dsa110_contimg.records import CalTable
from dsa110_contimg.state.database import open_database
from dsa110_contimg.state.registry import Registry


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Any]:
    def call(*words: str, state_first: bool = False) -> Any:
        place = ["--state-dir", str(tmp_path / "state")]
        done = CliRunner().invoke(app, [*place, *words] if state_first else [*words, *place])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done

    return call


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    registry = Registry(open_database(tmp_path / "state"))
    for number, kind in enumerate(("B", "G")):
        path = tmp_path / f"a.{kind}"
        path.mkdir()
        half = 0.5 / (1 + 23 * number)
        table = CalTable(
            path, kind, "first", number, "g", "24", 61000.0, 61000 - half, 61000 + half, 0.1, 20.0, "3C138"
        )
        registry.register([table], quality={path: {"phase_rms_deg": 3.5}})
    return registry


def test_without_a_command_it_lists(run, registry) -> None:
    for words in ((), ("list",)):
        rows = json.loads(run(*words, "--json").stdout)
        assert [row["kind"] for row in rows] == ["B", "G"]
        assert [row["kind"] for row in json.loads(run(*words, "--json", "--kind", "G").stdout)] == ["G"]
    assert "3C138" in run().stdout
    misplaced = run("list", state_first=True)
    assert misplaced.exit_code == 2 and "after the command" in misplaced.output


def test_at_says_what_is_applied_and_what_is_missing(run, registry) -> None:
    rows = json.loads(run("at", "61000.01", "--json").stdout)
    assert [row["kind"] for row in rows] == ["B", "G"]
    assert all(len(row["content_hash"]) == 64 for row in rows)
    assert rows[0]["hours"] == pytest.approx(-0.24)
    with pytest.raises(NoValidCalibrationError, match="G: the nearest before"):
        run("at", "61000.3")
    assert [row["kind"] for row in json.loads(run("at", "61000.3", "--kind", "B", "--json").stdout)] == ["B"]
    with pytest.raises(NoValidCalibrationError, match="as of 2020"):
        run("at", "61000.0", "--as-of", "2020-01-01", "--kind", "B")
    with pytest.raises(StateError, match="Not a moment"):
        run("at", "61000.0", "--as-of", "yesterday")


def test_retire_show_and_restore(run, registry, tmp_path) -> None:
    path = str(tmp_path / "a.B")
    assert "1 retired" in run("retire", path, "--reason", "wrong model").stdout
    (row,) = json.loads(run("show", path, "--json").stdout)
    assert (row["status"], row["reason"], row["quality"]) == ("retired", "wrong model", {"phase_rms_deg": 3.5})
    assert "wrong model" in run("show", path).stdout
    assert "2 in force" in run("restore", "first").stdout
    assert "2 retired" in run("retire", "first").stdout
    with pytest.raises(StateError, match="set of tables"):
        run("retire", "second")


@pytest.fixture
def found(tmp_path) -> Path:
    """A directory with a bandpass under our name, and a file under another."""
    place = tmp_path / "tables"
    dims = ("time", "antenna_name", "frequency", "polarization")
    shape = (1, 3, 4, 2)
    view = xr.Dataset(
        {
            "GAIN": (dims, np.full(shape, 2.0, np.complex64)),
            "FLAG": (dims, np.zeros(shape, bool)),
            "SNR": (dims, np.full(shape, 30.0, np.float32)),
        },
        {"time": [61065.9], "antenna_name": ["5", "24", "103"], "frequency": np.linspace(1.3e9, 1.5e9, 4)},
        {"kind": "B", "refant": "24"},
    ).assign_coords(polarization=["X", "Y"])
    write_caltable(view, place / "2026-01-25T21:33:25.3C48.B")
    return place


def test_discover_registers_once_and_at_finds_it(run, found) -> None:
    shown = json.loads(run("discover", str(found), "--dry-run", "--json").stdout)
    assert [(row["kind"], row["calibrator"], row["refant"]) for row in shown] == [("B", "3C48", "24")]
    with pytest.raises(StateError, match="no state database"):
        run("list")
    for _ in range(2):
        assert run("discover", str(found)).exit_code == 0
    assert len(json.loads(run("list", "--history", "--json").stdout)) == 1
    (row,) = json.loads(run("at", "61066.3", "--json").stdout)
    assert row["path"] == str(found / "2026-01-25T21:33:25.3C48.B")
    (found / "2026-01-25T21:33:25.3C48.G").write_text("a file")
    torn = run("discover", str(found))
    assert torn.exit_code == 1 and "not a directory" in torn.output


def test_register_a_table_as_failed_and_it_is_never_applied(run, found) -> None:
    path = str(found / "2026-01-25T21:33:25.3C48.B")
    assert f"{path}: failed" in run("register", path, "--failed", "--reason", "no closure").stdout
    assert f"{path}: failed" in run("register", path).stdout, "what has failed is not made good by saying it again"
    with pytest.raises(NoValidCalibrationError, match="retired or failed"):
        run("at", "61065.9")
    assert f"{path}: active" in run("register", path, "--set", "mine", "--run-label", "try").stdout
    assert [row["set_name"] for row in json.loads(run("list", "--run-label", "try", "--json").stdout)] == ["mine"]


def test_discover_needs_a_directory_of_tables(run, tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(Exception, match="No calibration table"):
        run("discover", str(tmp_path / "empty"))
    # a question does not make a database
    with pytest.raises(StateError, match="no state database"):
        run("list")
