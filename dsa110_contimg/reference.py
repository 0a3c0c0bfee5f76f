"""The reference manual, written from the code: options, errors, tables and the command line.

``make docs`` writes the pages to ``docs/reference``, and a test holds them to the code. A default, a unit or a meaning
is stated once, where it acts.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from dsa110_contimg import cli, exceptions, schema
from dsa110_contimg.options import PipelineOptions
from dsa110_contimg.settings import Settings
from dsa110_contimg.state import tables

_NOTE = "<!-- Written by `make docs` from the code; do not edit. -->\n\n"


def pages() -> dict[str, str]:
    """Every page of the reference: file name -> Markdown."""
    return {
        "options.md": _NOTE + _options(),
        "errors.md": _NOTE + _errors(),
        "tables.md": _NOTE + _tables(),
        "cli.md": _NOTE + _command_line(),
    }


def write(directory: Path) -> None:
    """Write the pages into ``directory``."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (directory / name).write_text(text)


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(head), *(list(row) for row in rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines) + "\n"


# ---- options ------------------------------------------------------------------------------------------------------


def _options() -> str:
    text = "# Options and settings\n\nOptions are set in `dsa110.toml`, section `[options.<stage>]`.\n\n"
    for stage, field in PipelineOptions.model_fields.items():
        model = field.annotation
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            raise TypeError(f"the options of {stage} are no pydantic model")
        text += f"## {stage}\n\n{(model.__doc__ or '').strip()}\n\n"
        rows = (_option(name, option) for name, option in model.model_fields.items())
        text += _table(("option", "type", "default", "bounds", "meaning"), rows)
    text += "## Settings\n\nWhere things live: environment variables `PIPELINE_<NAME>` or the top of `dsa110.toml`.\n\n"
    places = ((n, f) for n, f in Settings.model_fields.items() if n != "options")
    return text + _table(("setting", "default", "meaning"), (_setting(name, field) for name, field in places))


def _option(name: str, field: FieldInfo) -> tuple[str, ...]:
    return f"`{name}`", _type(field.annotation), f"`{field.default}`", _bounds(field), field.description or ""


def _setting(name: str, field: FieldInfo) -> tuple[str, ...]:
    # an absolute default depends on the machine, and one that is computed on its load
    stated = field.default_factory is None and not (isinstance(field.default, Path) and field.default.is_absolute())
    return f"`{name}`", f"`{field.default}`" if stated else "depends on the machine", field.description or ""


def _type(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(annotation))
    return getattr(annotation, "__name__", str(annotation)) if not get_args(annotation) else str(annotation)


def _bounds(field: FieldInfo) -> str:
    signs = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
    return ", ".join(
        f"{sign} {getattr(rule, name)}"
        for rule in field.metadata
        for name, sign in signs.items()
        if hasattr(rule, name)
    )


# ---- errors -------------------------------------------------------------------------------------------------------


def _errors() -> str:
    text = "# Errors\n\nEvery error names the file, what was found and what was expected.\n\n"
    return text + _table(("error", "is a", "meaning"), _error_rows(exceptions.ContimgError))


def _error_rows(kind: type[Exception]) -> Iterator[tuple[str, ...]]:
    base = kind.__bases__[0]
    yield f"`{kind.__name__}`", f"`{base.__name__}`", (kind.__doc__ or "").strip().splitlines()[0]
    for child in sorted(kind.__subclasses__(), key=lambda c: c.__name__):
        if child.__module__ == exceptions.__name__:
            yield from _error_rows(child)


# ---- tables and views ---------------------------------------------------------------------------------------------


def _tables() -> str:
    text = "# Views\n\nThe Datasets that records open to. Names and units follow MSv4.\n\n"
    views = [view for view in vars(schema).values() if isinstance(view, schema.View)]
    for view in sorted(views, key=lambda v: v.name):
        declared = {**view.variables, **view.coordinates}
        rows = ((f"`{n}`", ", ".join(v.dims), v.unit, v.meaning) for n, v in declared.items())
        text += f"## {view.name}\n\n" + _table(("name", "dimensions", "unit", "meaning"), rows)
    text += "# State database\n\n"
    for table in tables.metadata.sorted_tables:
        columns = ((f"`{c.name}`", str(c.type), str(c.info.get("help", ""))) for c in table.columns)
        text += f"## {table.name}\n\n" + _table(("column", "type", "meaning"), columns)
    return text


# ---- command line -------------------------------------------------------------------------------------------------


def _command_line() -> str:
    return "# Command line\n\n" + "".join(_command("dsa110", typer.main.get_command(cli.app)))


def _command(name: str, command: Any) -> Iterator[str]:
    yield f"## {name}\n\n{_plain(command.help)}\n\n"
    shown = (p for p in command.params if not p.name.endswith("_completion"))
    rows = [(f"`{_argument(p)}`", _plain(getattr(p, "help", ""))) for p in shown]
    if rows:
        yield _table(("argument", "meaning"), rows)
    for child_name, child in sorted(getattr(command, "commands", {}).items()):
        yield from _command(f"{name} {child_name}", child)


def _argument(parameter: Any) -> str:
    return ", ".join(parameter.opts) if parameter.param_type_name == "option" else parameter.name.upper()


def _plain(markup: str | None) -> str:
    """Help text without the colours of the terminal, and with code as code."""
    text = (markup or "").strip()
    for tag in ("bold", "/bold", "/cyan", "cyan"):
        text = text.replace(f"[{tag}]", "`" if "cyan" in tag else "**")
    return text


if __name__ == "__main__":
    write(Path(sys.argv[1]))
