"""The quick look of a Measurement Set is one page with its pictures, for ours and for others'."""

from __future__ import annotations

import re
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dsa110_contimg.exceptions import CorruptFileError, InputError
from dsa110_contimg.io import foreign, ms, shadems
from dsa110_contimg.options import ConvertOptions
from dsa110_contimg.reports import quicklook
from dsa110_contimg.settings import load_settings
from dsa110_contimg.stages.convert import convert


@pytest.fixture(scope="module")
def ours(night16: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A converted group in which an antenna is flagged and another is weak."""
    path = convert(night16.groups[1], ConvertOptions(), tmp_path_factory.mktemp("quicklook")).path
    layout = ms.read_layout(path)
    ends = np.tile(np.stack([layout.antenna1, layout.antenna2]), layout.mjd.size)
    with ms.opened(path, writable=True) as main:
        flag, data = main.getcol("FLAG"), main.getcol("DATA")
        flag[(ends == 2).any(axis=0)] = True
        data[(ends == 4).any(axis=0)] *= 0.02
        main.putcol("FLAG", flag)
        main.putcol("DATA", data)
    return path


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    packed = load_settings().validation_data / "vla" / "ovro_lwa.ms.tar.gz"
    if not packed.is_file():
        pytest.skip(f"the validation data are not at {packed.parent}; DSA110_VALIDATION_DATA names the folder")
    folder = tmp_path_factory.mktemp("lwa")
    with tarfile.open(packed) as archive:
        archive.extractall(folder, filter="data")
    return next(path for path in folder.iterdir() if path.suffix == ".ms")


def require_pictures(page: Path) -> list[Path]:
    """Every picture of the page is there, is a picture, and nothing comes from elsewhere."""
    text = page.read_text(encoding="utf-8")
    assert not re.search(r'(src|href)="https?:', text)
    files = [page.parent / name for name in re.findall(r'<img[^>]* src="([^"]+)"', text)]
    for file in files:
        with Image.open(file) as picture:
            picture.verify()
    assert not list(page.parent.rglob("*.partial"))
    return files


def test_a_converted_group_has_all_figures_and_names_the_antennas_that_stand_out(ours: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    page = quicklook.fast_plots(ours, tmp_path, lambda done, total: told.append((done, total)))
    names = {file.stem for file in require_pictures(page)}
    kinds = {f"group-{kind}-{x}" for kind in ("amplitude", "phase") for x in ("uvdist", "time", "frequency")}
    layout = ms.read_layout(ours)
    gone, weak = layout.names[2], layout.names[4]
    assert kinds | {"group-uv", "group-flags", f"group-waterfall-{weak}"} <= names
    text = page.read_text(encoding="utf-8")
    assert f"Wholly flagged: {gone}." in text
    assert f"group-waterfall-{gone}" not in names
    assert told[-1] == (len(told), len(told))
    assert "shadeMS" not in text


def test_the_weak_antenna_is_first_of_the_ratios(ours: Path) -> None:
    ratios = quicklook.antenna_ratios(quicklook.open_ms(ours))
    layout = ms.read_layout(ours)
    assert str(ratios["antenna_name"].values[0]) == layout.names[4]
    assert float(ratios[0].mean()) < 0.1
    assert layout.names[2] not in ratios["antenna_name"].values


def test_a_measurement_set_of_another_telescope_works_too(theirs: Path, tmp_path: Path) -> None:
    page = quicklook.fast_plots(theirs, tmp_path)
    whole = foreign.contents(theirs)
    assert len(require_pictures(page)) == 11
    assert whole.fields[0].name in page.read_text(encoding="utf-8")


def test_without_shadems_one_line_says_so(theirs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    page = quicklook.quicklooks(theirs, tmp_path / "page")
    assert page.read_text(encoding="utf-8").count("shadeMS is not installed here") == 1


def test_with_shadems_its_pictures_and_its_failures_are_on_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin" / shadems.PROGRAM
    program.parent.mkdir()
    program.write_text(
        "#!/bin/sh\n"
        'case "$*" in *TIME*) echo out of memory; exit 1;; esac\n'
        'while [ "$1" != --png ]; do shift; done; echo picture > "$2"\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    made = quicklook._by_shadems(tmp_path / "a.ms", tmp_path / "page", "DATA")
    assert len(made.pictures) == 4
    assert "out of memory" in made.notes[0]


def test_what_is_not_there_is_refused(theirs: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such field or spectral window"):
        quicklook.fast_plots(theirs, tmp_path / "page", field=7)
    with pytest.raises(InputError, match="column"):
        quicklook.fast_plots(theirs, tmp_path / "page", column="MODEL_DATA")
    with pytest.raises(CorruptFileError):
        quicklook.fast_plots(tmp_path, tmp_path / "page")
    assert not (tmp_path / "page" / "index.html").exists()
