"""A command for shadeMS is a value; what the program does with it is told or raised."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsa110_contimg.exceptions import ExternalToolError
from dsa110_contimg.io import shadems


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """A program of that name which is a shell script."""
    program = folder / "bin" / shadems.PROGRAM
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")


def test_each_command_names_the_measurement_set_the_column_and_its_own_picture(tmp_path: Path) -> None:
    made = shadems.commands(tmp_path / "a.ms", tmp_path / "figures", "CORRECTED_DATA")
    assert len({command.image for command in made}) == len(made)
    for command in made:
        assert command.arguments[-1] == str(tmp_path / "a.ms")
        assert command.arguments[command.arguments.index("--yaxis") + 1].startswith("CORRECTED_DATA:")
        assert command.arguments[command.arguments.index("--png") + 1] == command.image.name
        assert command.arguments[command.arguments.index("--dir") + 1] == str(command.image.parent)


def test_its_picture_is_returned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, 'while [ "$1" != --png ]; do shift; done; echo picture > "$2"')
    command = shadems.commands(tmp_path / "a.ms", tmp_path / "figures")[0]
    assert shadems.run(command).read_text() == "picture\n"


@pytest.mark.parametrize("script", ["echo no such column >&2; exit 1", "echo no such column"])
def test_a_run_that_fails_or_makes_nothing_is_our_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    install(tmp_path, monkeypatch, script)
    with pytest.raises(ExternalToolError, match="no such column"):
        shadems.run(shadems.commands(tmp_path / "a.ms", tmp_path / "figures")[0])


def test_an_absent_program_is_our_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not shadems.is_installed()
    with pytest.raises(ExternalToolError, match="not installed"):
        shadems.run(shadems.commands(tmp_path / "a.ms", tmp_path / "figures")[0])
