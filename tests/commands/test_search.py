"""``dsa110 calibrate search``, as an operator types it."""

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from dsa110_contimg.commands.search import search
from dsa110_contimg.exceptions import CalibrationError, EmptyInputError, InputError

SAMPLES = Path(__file__).parents[2] / "data-samples"


@pytest.fixture
def ask(monkeypatch, tmp_path):
    """Run the command where nothing is configured; what it printed, as JSON."""
    for name in ("PIPELINE_POINTING_DEC_DEG", "CAL_MATCH_TOPN", "CAL_MATCH_RADIUS_DEG", "VLA_CATALOG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    app = typer.Typer()
    app.command()(search)

    def run(*words, code=0):
        done = CliRunner().invoke(app, [*map(str, words), "--json"])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == code, done.output
        return json.loads(done.stdout) if code == 0 else done.output

    return run


def test_a_directory_gives_the_group_that_holds_the_transit(ask):
    rows = ask(SAMPLES, "--top", 1)
    assert {row["name"] for row in rows} == {"J0521+166"}
    assert rows[0]["group"] == "2026-01-26T04:51:13"
    assert rows[0]["utc"] == "2026-01-26T04:53:48"
    assert 0.9 < rows[0]["group_response"] < rows[0]["beam_response"] <= 1


def test_a_day_and_a_declination_are_enough(ask):
    rows = ask("--date", "2026-01-26", "--dec", 54.6)
    assert len(rows) == 12
    assert [row["mjd"] for row in rows] == sorted(row["mjd"] for row in rows)
    assert {row["group"] for row in rows} == {""}
    assert len(ask("--date", "2026-01-26", "--dec", 54.6, "--min-flux", 3, "--radius", 1)) < 12


def test_operators_variables_say_where_and_how_many(ask, monkeypatch):
    monkeypatch.setenv("PIPELINE_POINTING_DEC_DEG", "54.6")
    monkeypatch.setenv("CAL_MATCH_TOPN", "2")
    monkeypatch.setenv("CAL_MATCH_RADIUS_DEG", "1.0")
    rows = ask("--date", "2026-01-26")
    assert len({row["name"] for row in rows}) == 2
    assert all(abs(row["offset_deg"]) <= 1.0 for row in rows)
    assert len({row["name"] for row in ask("--date", "2026-01-26", "--top", 3)}) == 3


def test_an_own_list_takes_the_place_of_the_packaged_one(ask, monkeypatch, tmp_path):
    (tmp_path / "own.csv").write_text("name,ra_deg,dec_deg,flux_jy\nmine,80.0,16.6,3.5\n")
    assert {row["name"] for row in ask("--date", "2026-01-26", "--dec", 16.6, "--catalog", "own.csv")} == {"mine"}
    monkeypatch.setenv("VLA_CATALOG", str(tmp_path / "own.csv"))
    assert {row["name"] for row in ask("--date", "2026-01-26", "--dec", 16.6)} == {"mine"}


def test_what_cannot_be_searched_is_an_error(ask, tmp_path):
    assert "give DIR, or --dec" in ask("--date", "2026-01-26", code=2).replace("\n", " ")
    with pytest.raises(InputError, match="Not a date"):
        ask("--date", "today", "--dec", 16)
    with pytest.raises(CalibrationError, match="below the horizon"):
        ask("--date", "2026-01-26", "--dec", -60)
    with pytest.raises(EmptyInputError):
        ask(tmp_path)


def test_the_table_fits_a_terminal_and_says_what_is_left_without_a_transit(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    app = typer.Typer()
    app.command()(search)
    done = CliRunner().invoke(app, ["--date", "2026-01-26", "--dec", "54.6"])
    assert done.exit_code == 0, done.output
    assert "J0655+541" in done.output
    assert "longest time without a transit 6.5 h" in done.output
    assert max(map(len, done.output.splitlines())) <= 130
