"""Settings: what wins over what, where each value came from, and errors that name file, key, found and expected."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dsa110_contimg.exceptions import SettingsError
from dsa110_contimg.options import ImageOptions, PipelineOptions
from dsa110_contimg.settings import OPERATOR_VARIABLES, Settings, SettingsWarning, available_cores, load_settings


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory and none of our variables."""
    for name in list(os.environ):
        if name.startswith(("PIPELINE_", "CONTIMG_", "IMG_", "DSA110_", "CAL_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _origins(settings: Settings) -> dict[str, str]:
    return {line.name: line.origin for line in settings.explain()}


def test_defaults_are_below_the_working_directory(here: Path) -> None:
    settings = load_settings()
    assert settings.output_dir == here / "contimg" / "products"
    assert settings.scratch_dir == here / "contimg" / "scratch"
    assert settings.state_dir == here / "contimg" / "state"
    assert settings.reports_dir == here / "reports"
    assert settings.database == here / "contimg" / "state" / "contimg.sqlite3"
    assert settings.threads == available_cores() >= 1
    assert list(here.iterdir()) == [], "reading settings makes nothing"


@pytest.mark.parametrize("name", ["input_dir", "output_dir", "scratch_dir", "state_dir", "reports_dir"])
def test_each_directory_has_its_variable(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"PIPELINE_{name.upper()}", "/somewhere/else")
    settings = load_settings()
    assert getattr(settings, name) == Path("/somewhere/else")
    assert _origins(settings)[name] == f"environment PIPELINE_{name.upper()}"


def test_command_line_wins_over_environment_over_file_over_defaults(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = [f'{name}_dir = "/file"' for name in ("input", "output", "scratch")]
    (here / "dsa110.toml").write_text("\n".join(said))
    monkeypatch.setenv("PIPELINE_OUTPUT_DIR", "/environment")
    monkeypatch.setenv("PIPELINE_SCRATCH_DIR", "/environment")
    settings = load_settings(scratch_dir="/caller", input_dir=None)
    assert (settings.input_dir, settings.output_dir) == (Path("/file"), Path("/environment"))
    assert settings.scratch_dir == Path("/caller")
    origins = _origins(settings)
    assert origins["input_dir"] == str(here / "dsa110.toml")
    assert origins["output_dir"] == "environment PIPELINE_OUTPUT_DIR"
    assert origins["scratch_dir"] == "command line"
    assert origins["state_dir"] == "default"


def test_paths_in_a_file_are_relative_to_the_file(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = here / "site"
    site.mkdir()
    (site / "night.toml").write_text('output_dir = "../products"\nscratch_dir = "~/scratch"')
    monkeypatch.setenv("DSA110_CONFIG", str(site / "night.toml"))
    monkeypatch.setenv("PIPELINE_STATE_DIR", "state")
    monkeypatch.setenv("HOME", "/home/observer")
    settings = load_settings()
    assert settings.output_dir == here / "products"
    assert settings.scratch_dir == Path("/home/observer/scratch")
    assert settings.state_dir == here / "state"


def test_options_come_from_the_file_and_the_operators_variables(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "dsa110.toml").write_text("[options.image]\nrobust = -1.0\ncell_arcsec = 4.0\n[options.flag]\n")
    monkeypatch.setenv("IMG_ROBUST", "0.25")
    monkeypatch.setenv("IMG_IMSIZE", "4096")
    monkeypatch.setenv("IMG_NITER", "1000")
    assert load_settings().options.image.cell_arcsec == 4.0
    monkeypatch.setenv("IMG_CELL", "4.5")
    monkeypatch.setenv("PIPELINE_OPTIONS__MEASURE__MIN_FLUX_JY", "0.2")
    settings = load_settings(threads=1)
    image = settings.options.image
    assert (image.robust, image.n_pixels, image.max_iterations, image.cell_arcsec) == (0.25, 4096, 1000, 4.5)
    assert settings.options.measure.min_flux_jy == 0.2
    assert settings.options.calibrate == PipelineOptions().calibrate
    origins = _origins(settings)
    assert origins["options.image.robust"] == "environment IMG_ROBUST"
    assert origins["options.image.cell_arcsec"] == "environment IMG_CELL"
    assert origins["options.measure.min_flux_jy"] == "environment PIPELINE_OPTIONS__MEASURE__MIN_FLUX_JY"


def test_stages_use_the_threads_of_the_machine_unless_told_otherwise(here: Path) -> None:
    assert load_settings(threads=3).options.image.threads == 3
    assert load_settings(threads=3, options=PipelineOptions(image=ImageOptions(threads=1))).options.image.threads == 1
    (here / "dsa110.toml").write_text("threads = 5\n[options.image]\nthreads = 4\n")
    settings = load_settings()
    assert (settings.threads, settings.options.image.threads) == (5, 4)


def test_every_value_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = load_settings().explain()
    names = [line.name for line in lines]
    assert len(names) == len(set(names))
    assert {"input_dir", "threads", "validation_data", "options.image.robust", "options.flag.visibility_sigma"} <= set(
        names
    )
    assert all(line.help and line.origin for line in lines)


def test_every_operator_variable_is_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in OPERATOR_VARIABLES:
        monkeypatch.setenv(
            variable,
            {
                "IMG_ROBUST": "1",
                "CONTIMG_CHUNK_MINUTES": "5",
                "CAL_MATCH_RADIUS_DEG": "1",
                "CAL_MATCH_TOPN": "5",
            }.get(variable, "1024"),
        )
    told = set(_origins(load_settings()).values())
    assert {f"environment {variable}" for variable in OPERATOR_VARIABLES} <= told


def test_validation_data_lies_beside_the_checkout_unless_named(monkeypatch: pytest.MonkeyPatch) -> None:
    checkout = Path(__file__).parents[1]
    assert load_settings().validation_data == checkout.parent / "shared" / "data" / "real"
    monkeypatch.setenv("DSA110_VALIDATION_DATA", "/real")
    assert load_settings().validation_data == Path("/real")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("threads = 0", ["threads = 0", "greater than or equal to 1"]),
        ("thread = 2", ["thread = 2", "did you mean threads?"]),
        ("[options.image]\nrobust = 3", ["options.image.robust = 3", "less than or equal to 2"]),
        ("[options.image]\nrobst = 1", ["options.image.robst = 1", "did you mean robust?"]),
        ("[options.imaging]\nrobust = 1", ["options.imaging", "did you mean image?"]),
        ("[options]\nimage = 3", ["options.image = 3", "dictionary"]),
        ("output_dir = 7", ["output_dir = 7", "path"]),
        ("threads = ", ["not TOML", "Invalid value", "TOML 1.0"]),
        ("threads = 0\nstate_dir = false", ["threads = 0", "state_dir = False"]),
    ],
)
def test_a_bad_file_is_named_with_key_found_and_expected(here: Path, text: str, parts: list[str]) -> None:
    (here / "dsa110.toml").write_text(text)
    with pytest.raises(SettingsError) as error:
        load_settings()
    for part in [f"File: {here / 'dsa110.toml'}", "Found:", "Expected:", *parts]:
        assert part in str(error.value)


def test_a_bad_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPELINE_THREADS", "many")
    monkeypatch.setenv("IMG_ROBUST", "3")
    with pytest.raises(SettingsError) as error:
        load_settings()
    assert "threads = 'many' (environment PIPELINE_THREADS)" in str(error.value)
    assert "options.image.robust = '3' (environment IMG_ROBUST)" in str(error.value)
    assert error.value.path is None


def test_a_variable_that_is_not_json_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPELINE_OPTIONS", "robust=1")
    with pytest.raises(SettingsError, match="options"):
        load_settings()


def test_an_unknown_override_is_an_error() -> None:
    with pytest.raises(SettingsError, match=r"outputdir = '/x' \(command line\).*did you mean output_dir"):
        load_settings(outputdir="/x")


def test_a_configuration_file_that_is_named_must_exist(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSA110_CONFIG", "missing.toml")
    with pytest.raises(SettingsError, match=r"DSA110_CONFIG.*missing\.toml"):
        load_settings()


def test_a_configuration_file_that_is_no_text_is_refused(here: Path) -> None:
    (here / "dsa110.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match="not TOML"):
        load_settings()


def test_an_empty_variable_is_not_set(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PIPELINE_THREADS", "PIPELINE_OUTPUT_DIR", "IMG_ROBUST", "DSA110_CONFIG", "CAL_REGISTRY_DB"):
        monkeypatch.setenv(name, "")
    assert {line.origin for line in load_settings().explain()} == {"default", "threads"}


@pytest.mark.parametrize("name", ["PIPELINE_PRODUCTS_DB", "CAL_REGISTRY_DB", "PIPELINE_QUEUE_DB"])
def test_a_separate_database_is_mapped_onto_the_one_with_a_warning(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "/data/state/old.sqlite3")
    with pytest.warns(SettingsWarning, match=rf"{name}.*/data/state/contimg\.sqlite3.*PIPELINE_STATE_DIR"):
        settings = load_settings()
    assert settings.database == Path("/data/state/contimg.sqlite3")
    assert _origins(settings)["state_dir"] == f"environment {name}"


def test_the_state_directory_wins_over_separate_databases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPELINE_STATE_DIR", "/state")
    monkeypatch.setenv("PIPELINE_PRODUCTS_DB", "/one/products.sqlite3")
    monkeypatch.setenv("PIPELINE_QUEUE_DB", "/two/queue.sqlite3")
    with pytest.warns(SettingsWarning, match=r"/state/contimg\.sqlite3"):
        assert load_settings().state_dir == Path("/state")


def test_separate_databases_in_several_places_cannot_be_mapped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPELINE_PRODUCTS_DB", "/one/products.sqlite3")
    monkeypatch.setenv("PIPELINE_QUEUE_DB", "/two/queue.sqlite3")
    with pytest.raises(SettingsError, match=r"/one/products\.sqlite3.*PIPELINE_STATE_DIR"):
        load_settings()


def test_a_misspelt_variable_is_pointed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPELINE_OUTPT_DIR", "/x")
    monkeypatch.setenv("PIPELINE_WORKSPACE", "/of/another/program")
    with pytest.warns(SettingsWarning, match=r"PIPELINE_OUTPT_DIR is not read; did you mean PIPELINE_OUTPUT_DIR\?"):
        load_settings()


def test_settings_do_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings().threads = 3


SHOW = """
import json, os, sys
from dsa110_contimg.settings import apply_process_environment, load_settings
{first}
apply_process_environment(load_settings(threads=1))
import numba
# numba looks at the environment again whenever it compiles, and raises if it then finds another number of threads
doubled = numba.njit(lambda x: 2 * x)(1)
wanted = ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "HDF5_USE_FILE_LOCKING"]
sys.stdout.write(json.dumps([numba.get_num_threads(), doubled, *(os.environ[name] for name in wanted)]))
"""


def _process_environment(first: str) -> list[object]:
    code = SHOW.format(first=first)
    environment = {**os.environ, "NUMBA_NUM_THREADS": "2"} if first else dict(os.environ)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    return list(json.loads(done.stdout))


def test_the_process_environment_is_set_before_numerical_imports() -> None:
    assert _process_environment("") == [1, 2, "1", "1", "1", "FALSE"]


def test_threads_of_numba_are_limited_even_after_it_has_started() -> None:
    first = "import numba; numba.set_num_threads(2)"
    assert _process_environment(first) == [1, 2, "1", "1", "2", "FALSE"]


def test_no_other_module_reads_the_environment() -> None:
    package = Path(__file__).parents[1] / "dsa110_contimg"
    readers = [
        str(source.relative_to(package))
        for source in sorted(package.rglob("*.py"))
        if source.name != "settings.py" and any(word in source.read_text() for word in ("os.environ", "getenv"))
    ]
    assert readers == []
