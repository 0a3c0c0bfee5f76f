"""Where things live and how many threads may run: environment and TOML, read once, at the door.

The only module that reads or sets environment variables. What counts, strongest first: values given by the caller (the
command line), environment variables, the TOML file (``DSA110_CONFIG``, or ``dsa110.toml`` in the working directory),
defaults. `Settings.explain` says for each value where it came from.

The pipeline's options may stand in the same file::

    input_dir = "/data/incoming"
    threads = 8

    [options.image]
    robust = 0.0
"""

from __future__ import annotations

import difflib
import os
import sys
import tomllib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, Field, PrivateAttr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings.exceptions import SettingsError as SourceError

from dsa110_contimg.exceptions import SettingsError
from dsa110_contimg.options import PipelineOptions

CONFIG_VARIABLE = "DSA110_CONFIG"
CONFIG_NAME = "dsa110.toml"
DATABASE_NAME = "contimg.sqlite3"
OPERATOR_VARIABLES = {
    "CONTIMG_INPUT_DIR": ("input_dir",),
    "CONTIMG_OUTPUT_DIR": ("output_dir",),
    "CONTIMG_SCRATCH_DIR": ("scratch_dir",),
    "CONTIMG_STATE_DIR": ("state_dir",),
    "CONTIMG_CHUNK_MINUTES": ("chunk_duration",),
    "VLA_CATALOG": ("vla_catalog",),
    "CAL_MATCH_RADIUS_DEG": ("options", "search", "radius_deg"),
    "CAL_MATCH_TOPN": ("options", "search", "top_n"),
    "BP_MINSNR": ("options", "calibrate", "bandpass_min_snr"),
    "DSA110_VALIDATION_DATA": ("validation_data",),
    "IMG_IMSIZE": ("options", "image", "n_pixels"),
    "IMG_CELL": ("options", "image", "cell_arcsec"),
    "IMG_ROBUST": ("options", "image", "robust"),
    "IMG_NITER": ("options", "image", "max_iterations"),
    "IMG_THRESHOLD": ("options", "image", "threshold_sigma"),
}
"""Variables under names that operators know, and the setting each one is."""
SEPARATE_DATABASES = ("PIPELINE_PRODUCTS_DB", "CAL_REGISTRY_DB", "PIPELINE_QUEUE_DB")
"""Operators' variables for files that are tables of the one database now."""
_DIRECTORIES = ("input_dir", "output_dir", "scratch_dir", "state_dir", "reports_dir", "validation_data", "vla_catalog")
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


class SettingsWarning(UserWarning):
    """A setting that is understood, but not as it was meant."""


class Explained(NamedTuple):
    """One line of ``dsa110 config``."""

    name: str
    value: Any
    origin: str
    help: str


def available_cores() -> int:
    """Cores this process may use: its affinity, and the quota of its container where there is one."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        cores = os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))


class Settings(BaseSettings):
    """Everything that depends on the machine and the site. Frozen; directories are absolute."""

    model_config = SettingsConfigDict(
        env_prefix="PIPELINE_", env_nested_delimiter="__", env_ignore_empty=True, frozen=True, extra="forbid"
    )

    input_dir: Path = Field(Path("contimg/input"), description="Directory of subband files (UVH5).")
    output_dir: Path = Field(
        Path("contimg/products"), description="Directory of products: images, photometry, calibration tables."
    )
    scratch_dir: Path = Field(
        Path("contimg/scratch"),
        description="Directory of what may be deleted between runs: working directories and logs of CASA.",
    )
    state_dir: Path = Field(
        Path("contimg/state"), description="Directory of the state database; must be on a local disk."
    )
    reports_dir: Path = Field(Path("reports"), description="Directory of reports: notebooks and pages.")
    chunk_duration: Annotated[float, Field(ge=0.5, le=60)] = Field(
        5.0,
        description="Length of a group as it was recorded (min): 5 stands for 24 integrations, 309.2 s, others in "
        "proportion. Groups of another length are refused.",
    )
    vla_catalog: Path | None = Field(
        None, description="Your own list of calibrators, CSV or SQLite, in place of the packaged VLA list."
    )
    pointing_dec_deg: Annotated[float, Field(ge=-90, le=90)] | None = Field(
        None, description="Apparent declination that the telescope points to (deg), where no file says so."
    )
    threads: Annotated[int, Field(ge=1)] = Field(
        default_factory=available_cores, description="Most threads that a step uses."
    )
    validation_data: Path = Field(
        Path(__file__).parents[2] / "shared" / "data" / "real",
        description="Directory of real data of other telescopes, which tests use.",
    )
    options: PipelineOptions = Field(PipelineOptions(), description="Options of every stage.")

    _origins: dict[tuple[str, ...], str] = PrivateAttr(default_factory=dict)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - given by name; we have none
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (
            init_settings,
            env_settings,
            _OperatorVariables(settings_cls),
            _TomlFile(settings_cls),
            _SeparateDatabases(settings_cls),
        )

    @field_validator(*_DIRECTORIES)
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        if value is None:
            return None
        # symbolic links stay as the operator wrote them; only "here" must not depend on who reads the value
        return Path(os.path.normpath(value.expanduser().absolute()))

    @field_validator("options", mode="before")
    @classmethod
    def _threads_of_stages(cls, value: Any, info: ValidationInfo) -> Any:
        """Stages use the machine's threads unless the options say otherwise."""
        threads = info.data.get("threads")
        if isinstance(value, PipelineOptions):
            value = value.model_dump(exclude_unset=True)
        if threads is None or not isinstance(value, Mapping):
            return value
        image = value.get("image", {})
        return {**value, "image": {"threads": threads, **image}} if isinstance(image, Mapping) else value

    @property
    def database(self) -> Path:
        """The one state database."""
        return self.state_dir / DATABASE_NAME

    def explain(self) -> list[Explained]:
        """Every setting and option with its value, where that came from, and what it means."""
        lines = []
        for name, field in type(self).model_fields.items():
            if name != "options":
                lines.append(Explained(name, getattr(self, name), self.origin(name), field.description or ""))
        for stage in PipelineOptions.model_fields:
            model: BaseModel = getattr(self.options, stage)
            for name, field in type(model).model_fields.items():
                where = ("options", stage, name)
                lines.append(
                    Explained(".".join(where), getattr(model, name), self.origin(*where), field.description or "")
                )
        return lines

    def trace(self, origins: Mapping[tuple[str, ...], str]) -> None:
        """Remember where values came from, in place of what was remembered of them before."""
        self._origins.update(origins)

    def origin(self, *where: str) -> str:
        """Where a value came from, by its keys: ``origin("options", "image", "robust")``."""
        if where == ("options", "image", "threads") and where not in self._origins:
            return "threads"
        return self._origins.get(where, "default")


def load_settings(**overrides: Any) -> Settings:
    """Read the settings, once, when a command starts.

    Parameters
    ----------
    **overrides
        Values that win over everything else, by field name; None stands for "not given".

    Returns
    -------
    Settings

    Raises
    ------
    SettingsError
        If the TOML file cannot be read or parsed, or a value is unknown or not acceptable: names the file or variable,
        the key, what was found and what was expected, for all faults at once.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        layers = _layers(given)
    except SourceError as error:
        raise SettingsError("An environment variable cannot be parsed", found=error, expected="JSON") from error
    try:
        settings = Settings(**given)
    except ValidationError as error:
        raise _settings_error(error, layers) from error
    for values, origin in reversed(layers):
        settings.trace({where: origin(where) for where in _leaves(values)})
    _warn_of_separate_databases(settings)
    _warn_of_misspelt_variables()
    return settings


def apply_process_environment(settings: Settings) -> None:
    """Set thread counts and HDF5 locking for this process and its children; call it before numerical imports.

    HDF5's own file locks fail on network file systems, and our files are complete before they get their names.
    """
    for name in _THREAD_VARIABLES:
        os.environ[name] = str(settings.threads)
    os.environ["HDF5_USE_FILE_LOCKING"] = "FALSE"
    numba = sys.modules.get("numba")
    if numba is not None:
        # numba refuses a changed variable once its threads run, so it is told directly and keeps its own number
        os.environ["NUMBA_NUM_THREADS"] = str(numba.config.NUMBA_NUM_THREADS)
        numba.set_num_threads(min(settings.threads, numba.config.NUMBA_NUM_THREADS))


class _Source(PydanticBaseSettingsSource):
    """A source that gives all its values at once."""

    def get_field_value(self, _: Any, field_name: str) -> tuple[Any, str, bool]:
        return self().get(field_name), field_name, False


class _OperatorVariables(_Source):
    def __call__(self) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for variable, (*sections, name) in OPERATOR_VARIABLES.items():
            if os.environ.get(variable):
                place = values
                for section in sections:
                    place = place.setdefault(section, {})
                place[name] = os.environ[variable]
        return values


class _TomlFile(_Source):
    def __call__(self) -> dict[str, Any]:
        path = config_path()
        if path is None:
            return {}
        values = _read_toml(path)
        for name in _DIRECTORIES:
            if isinstance(values.get(name), str):
                # relative to the file that says it, wherever the command is started
                values[name] = str(path.parent / Path(values[name]).expanduser())
        return values


class _SeparateDatabases(_Source):
    """The directory that the operators' database files were to be in, as the state directory."""

    def __call__(self) -> dict[str, Any]:
        places = {Path(path).parent for path in _separate_databases().values()}
        return {"state_dir": str(places.pop())} if len(places) == 1 else {}


def config_path() -> Path | None:
    """The TOML file that counts, or None.

    Raises
    ------
    SettingsError
        If ``DSA110_CONFIG`` names a file that is not there.
    """
    named = os.environ.get(CONFIG_VARIABLE)
    path = Path(named or CONFIG_NAME).expanduser().absolute()
    if path.is_file():
        return path
    if named:
        raise SettingsError(f"{CONFIG_VARIABLE} names no file", path=path, expected="a TOML file")
    return None


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError("The settings file is not TOML", path=path, found=error, expected="TOML 1.0") from error
    except OSError as error:
        raise SettingsError("The settings file cannot be read", path=path, found=error.strerror) from error


def _separate_databases() -> dict[str, str]:
    return {name: os.environ[name] for name in SEPARATE_DATABASES if os.environ.get(name)}


def _warn_of_separate_databases(settings: Settings) -> None:
    """Say where the tables of the operators' separate files are; refuse if that cannot be told."""
    found = _separate_databases()
    if not found:
        return
    if settings.origin("state_dir") == "default":
        raise SettingsError(
            "There is one state database, and the separate ones are set to different directories",
            found=", ".join(f"{name}={path}" for name, path in found.items()),
            expected="PIPELINE_STATE_DIR, the directory of the one database",
        )
    warnings.warn(
        f"{', '.join(found)}: these tables are in one database now, {settings.database}. "
        "Set PIPELINE_STATE_DIR to choose its directory.",
        SettingsWarning,
        stacklevel=3,
    )


def _warn_of_misspelt_variables() -> None:
    """Say which variables are almost ours: the environment cannot refuse an unknown name as the file does."""
    known = [
        CONFIG_VARIABLE,
        *OPERATOR_VARIABLES,
        *SEPARATE_DATABASES,
        *(_variable((n,)) for n in Settings.model_fields),
    ]
    for name in sorted(os.environ):
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.85)
        if near and name not in known and not name.startswith(_variable(("options", ""))):
            warnings.warn(f"{name} is not read; did you mean {near[0]}?", SettingsWarning, stacklevel=3)


def _variable(where: tuple[str, ...]) -> str:
    """The environment variable of a setting."""
    config = Settings.model_config
    return f"{config['env_prefix']}{str(config['env_nested_delimiter']).join(where).upper()}"


def _layers(given: dict[str, Any]) -> list[tuple[dict[str, Any], Any]]:
    """What each source says, strongest first, with a function from a key to the words for its origin."""
    toml = config_path()
    operators = {keys: name for name, keys in OPERATOR_VARIABLES.items()}
    return [
        (given, lambda _: "command line"),
        (EnvSettingsSource(Settings)(), lambda where: f"environment {_variable(where)}"),
        (_OperatorVariables(Settings)(), lambda where: f"environment {operators[where]}"),
        (_TomlFile(Settings)(), lambda _: str(toml)),
        (_SeparateDatabases(Settings)(), lambda _: f"environment {', '.join(_separate_databases())}"),
    ]


def _leaves(values: Any, where: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Values by path of keys; of a model only what was set."""
    if isinstance(values, BaseModel):
        values = {name: getattr(values, name) for name in values.model_fields_set}
    if not isinstance(values, Mapping):
        return {where: values}
    leaves: dict[tuple[str, ...], Any] = {}
    for name, value in values.items():
        leaves |= _leaves(value, (*where, str(name)))
    return leaves


def _settings_error(error: ValidationError, layers: list[tuple[dict[str, Any], Any]]) -> SettingsError:
    """All faults in one paragraph, each with its key and where that was said."""
    faults, expected, files = [], [], set()
    for fault in error.errors():
        where = tuple(str(part) for part in fault["loc"])
        key = ".".join(where)
        origin = next(
            (
                words(leaf)
                for values, words in layers
                for leaf in _leaves(values)
                if leaf[: len(where)] == where or where[: len(leaf)] == leaf
            ),
            "default",
        )
        faults.append(f"{key} = {fault['input']!r} ({origin})")
        expected.append(f"{key}: {_wanted(fault['type'], fault['msg'], where)}")
        files.add(origin)
    toml = config_path()
    return SettingsError(
        "Settings cannot be used",
        path=toml if toml is not None and str(toml) in files else None,
        found="; ".join(faults),
        expected="; ".join(expected),
    )


def _wanted(kind: str, message: str, where: tuple[str, ...]) -> str:
    if kind != "extra_forbidden":
        return message[0].lower() + message[1:]
    model: type[BaseModel] = Settings
    for name in where[:-1]:
        model = model.model_fields[name].annotation  # type: ignore[assignment]
    near = difflib.get_close_matches(where[-1], model.model_fields, n=1)
    return f"no such setting; did you mean {near[0]}?" if near else f"one of {', '.join(model.model_fields)}"
