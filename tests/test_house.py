"""The house rules that no linter knows: what importing costs, who may do what, and that the papers match the code."""

from __future__ import annotations

import ast
import importlib
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import dsa110_contimg
from dsa110_contimg import reference

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "dsa110_contimg"
MODULES = sorted(PACKAGE.rglob("*.py"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


# ---- importing ----------------------------------------------------------------------------------------------------


def _modules_after(statement: str) -> set[str]:
    program = f"{statement}\nimport json, sys\nsys.stdout.write(json.dumps(sorted(sys.modules)))"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = {"astropy", "casacore", "casatasks", "casatools", "dask", "h5py", "matplotlib", "numba", "numpy", "pandas"}
    heavy |= {"papermill", "pydantic", "pyuvdata", "scipy", "sqlalchemy", "xarray"}
    assert _modules_after("import dsa110_contimg") & heavy == set()


def test_no_public_name_loads_casa_into_this_process() -> None:
    loaded = _modules_after("import dsa110_contimg as dc\nfor name in dc.__all__: getattr(dc, name)")
    assert loaded & {"casatasks", "casatools"} == set()


def test_the_public_names_are_these() -> None:
    assert sorted(dsa110_contimg.__all__) == [
        "GroupRun",
        "PipelineOptions",
        "fit_fluxes",
        "open",
        "open_caltable",
        "open_group",
        "open_image",
        "open_ms",
        "open_uvh5",
    ]
    assert dir(dsa110_contimg) == sorted(dsa110_contimg.__all__)
    for name in dsa110_contimg.__all__:
        assert getattr(dsa110_contimg, name).__doc__
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = dsa110_contimg.no_such_name


@pytest.mark.parametrize("script", sorted(PROJECT["scripts"]))
def test_every_entry_point_can_be_called(script: str) -> None:
    module, _, function = PROJECT["scripts"][script].partition(":")
    assert callable(getattr(importlib.import_module(module), function))


# ---- dependencies -------------------------------------------------------------------------------------------------


def _pins() -> dict[str, str]:
    lines = (line.strip() for line in (ROOT / "constraints.txt").read_text().splitlines())
    return dict(_pin(line) for line in lines if line and not line.startswith("#"))


def _pin(line: str) -> tuple[str, str]:
    name, separator, version = line.partition("==")
    assert separator, f"not a pin: {line}"
    assert re.fullmatch(r"[A-Za-z0-9._-]+", name), line
    assert re.fullmatch(r"[A-Za-z0-9.+!]+", version), line
    return canonicalize_name(name), version


def _needed(requirements: list[str], extras: frozenset[str]) -> Iterator[Requirement]:
    for requirement in map(Requirement, requirements):
        environments = [{"extra": extra} for extra in extras] or [{"extra": ""}]
        if requirement.marker is None or any(requirement.marker.evaluate(e) for e in environments):
            yield requirement


def test_constraints_pin_every_dependency_of_every_extra_to_what_is_installed() -> None:
    pins, seen = _pins(), set()
    direct = PROJECT["dependencies"] + [line for extra in PROJECT["optional-dependencies"].values() for line in extra]
    waiting = list(_needed(direct, frozenset()))
    while waiting:
        requirement = waiting.pop()
        name, extras = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if (name, extras) in seen or name == canonicalize_name(PROJECT["name"]):
            continue
        seen.add((name, extras))
        assert name in pins, f"{name} is not pinned"
        assert metadata.version(name) == pins[name], f"{name} is installed in another version"
        waiting += _needed(metadata.requires(name) or [], extras)
    # nothing is pinned that nothing needs
    assert {name for name, _ in seen} == set(pins)


def test_no_file_holds_the_address_of_a_package_index() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    address = re.compile(
        rb"(--(extra-)?index-url|--find-links)[ =]|\S+://\S+/simple/?\b|\bpip\.conf\b|\[\[tool\.uv\.index"
    )
    small = (ROOT / name for name in listed.stdout.splitlines() if Path(name).suffix not in {".gz", ".hdf5", ".npz"})
    files = [path for path in small if path.is_file() and path != Path(__file__)]
    assert [_name(path) for path in files if address.search(path.read_bytes())] == []


# ---- rules of the code --------------------------------------------------------------------------------------------


def test_folders_are_two_deep() -> None:
    assert [_name(path) for path in MODULES if len(path.relative_to(PACKAGE).parts) > 2] == []


def test_modules_stay_within_500_lines() -> None:
    lengths = {_name(path): len(path.read_text().splitlines()) for path in MODULES}
    assert {name: lines for name, lines in lengths.items() if lines > 500} == {}


def _functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))


def _code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from the signature to the end without those of the docstring."""
    docstring = function.body[0] if ast.get_docstring(function, clean=False) is not None else None
    inside = docstring.end_lineno - docstring.lineno + 1 if docstring is not None and docstring.end_lineno else 0
    return (function.end_lineno or function.lineno) - function.lineno + 1 - inside


def test_functions_stay_within_50_lines() -> None:
    lengths = {
        f"{_name(path)}:{function.name}": _code_lines(function)
        for path in MODULES
        for function in _functions(ast.parse(path.read_text()))
    }
    assert {name: lines for name, lines in lengths.items() if lines > 50} == {}


def test_own_modules_are_imported_at_the_top() -> None:
    """But where they must not wait: `dsa110 --help` for astropy and numba, each notebook's kernel for papermill."""
    found = [
        f"{_name(path)}:{node.lineno}"
        for path in MODULES
        if _name(path) not in ("dsa110_contimg/cli.py", "dsa110_contimg/reports/render.py")
        and path.parent.name != "commands"
        for function in _functions(ast.parse(path.read_text()))
        for node in ast.walk(function)
        if (isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dsa110_contimg"))
        or (isinstance(node, ast.Import) and any(alias.name.startswith("dsa110_contimg") for alias in node.names))
    ]
    assert found == []


def test_only_the_settings_know_the_environment() -> None:
    reading = re.compile(r"\bos\.(environ|getenv|putenv)\b")
    users = [_name(path) for path in MODULES if reading.search(path.read_text())]
    assert users == ["dsa110_contimg/settings.py"]


# ---- papers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", sorted(reference.pages()))
def test_the_reference_manual_is_that_of_this_code(page: str) -> None:
    written = ROOT / "docs" / "reference" / page
    assert written.is_file(), "run `make docs`"
    assert written.read_text() == reference.pages()[page], "run `make docs`"


def test_every_decision_is_indexed_and_names_a_guard_that_exists() -> None:
    folder = ROOT / "docs" / "decisions"
    index = (folder / "README.md").read_text()
    decisions = sorted(path for path in folder.glob("*.md") if path.name != "README.md")
    assert decisions
    for path in decisions:
        text = path.read_text()
        assert f"({path.name})" in index, f"{path.name} is not in the index"
        for part in ("## Context", "## Decision", "## Consequence", "## Guard"):
            assert part in text, f"{path.name} lacks {part}"
        guards = re.findall(r"`((?:tests/|pyproject)[\w./]+)", text.partition("## Guard")[2])
        assert guards, f"{path.name} names no guard"
        assert [guard for guard in guards if not (ROOT / guard).exists()] == [], path.name
