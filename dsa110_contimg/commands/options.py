"""Flags of a command made from the options of a stage: name, bounds and help are stated once, in `options`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import typer
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from dsa110_contimg.options import Options

_Chosen = TypeVar("_Chosen", bound=Options)


def with_flags(
    model: type[Options], renamed: Mapping[str, str] | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command a flag for each option of a stage.

    The command receives those that were given as its argument ``given``, a dict by option name, for `chosen`.

    Parameters
    ----------
    model : the options of the stage.
    renamed : flags that are not called as the option is.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        flags = {name: _flag(name, field, (renamed or {}).get(name)) for name, field in model.model_fields.items()}

        @functools.wraps(command)
        def run(**values: Any) -> None:
            given = {name: values.pop(name) for name in flags}
            command(**values, given={name: value for name, value in given.items() if value is not None})

        hints = get_type_hints(command, include_extras=True)
        signature = inspect.signature(command)
        own = [
            p.replace(annotation=hints[p.name], kind=inspect.Parameter.KEYWORD_ONLY)
            for p in signature.parameters.values()
            if p.name != "given"
        ]
        made = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)
            for name, kind in flags.items()
        ]
        parameters = [*own, *made]
        # Typer reads both; without these it would see the original's
        run.__dict__.pop("__wrapped__")
        run.__dict__["__signature__"] = signature.replace(parameters=parameters)
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        return run

    return decorate


def chosen(configured: _Chosen, given: Mapping[str, Any]) -> _Chosen:
    """The configured options with what was given on the command line over them.

    What was not configured explicitly follows what is given here: a preset, a source of the model.

    Raises
    ------
    typer.BadParameter
        A value out of its bounds.
    """
    try:
        return type(configured).model_validate(configured.model_dump(exclude_unset=True) | dict(given))
    except ValidationError as error:
        # a fault of several options together has no place
        faults = (
            ": ".join([*(f"--{_dashed(str(f['loc'][0]))}" for _ in f["loc"][:1]), f["msg"]]) for f in error.errors()
        )
        raise typer.BadParameter("; ".join(faults)) from error


def _flag(name: str, field: FieldInfo, renamed: str | None) -> Any:
    """What Typer makes a flag from."""
    kind: Any = field.annotation
    words = get_args(kind) if get_origin(kind) is Literal else ()
    declared = renamed or f"--{_dashed(name)}"
    if kind is bool and "/" not in declared:
        declared = f"{declared}/--no-{_dashed(name)}"
    if words and not all(isinstance(word, str) for word in words):
        kind = type(words[0])
    if get_origin(kind) is tuple:
        one = get_args(kind)[0]  # bounds are checked by the options; the flag is given once for each
        kind = list[get_args(one)[0] if get_origin(one) is Annotated else one]  # type: ignore[misc]
    default = f"{'on' if field.default else 'off'}" if kind is bool else field.default
    help_text = f"{field.description} Default: {default}, unless configured."
    metavar = "|".join(map(str, words)) if words else None
    return Annotated[kind | None, typer.Option(declared, metavar=metavar, help=help_text)]


def _dashed(name: str) -> str:
    return name.replace("_", "-")
