"""Tables in a directory: known by name or by what CASA wrote, with the times of their solutions."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dsa110_contimg import telescope
from dsa110_contimg.exceptions import CorruptFileError, EmptyInputError
from dsa110_contimg.io.discovery import discover_caltables
from dsa110_contimg.settings import load_settings

GROUP = "2026-01-25T22:26:05"
MJD = 61065.936


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    """A CASA calibration table of three antennas, the last dead, written by casacore alone."""
    from casacore.tables import makearrcoldesc, makescacoldesc, maketabdesc, table

    def write(name: str, jones: str = "G Jones", mjd: tuple[float, ...] = (MJD,), amplitude: float = 2.0) -> Path:
        path = tmp_path / "tables" / name
        path.parent.mkdir(exist_ok=True)
        columns = [makescacoldesc("TIME", 0.0), makescacoldesc("ANTENNA1", 0), makescacoldesc("ANTENNA2", 0)]
        columns += [makearrcoldesc("CPARAM", 0j), makearrcoldesc("FLAG", False), makearrcoldesc("SNR", 0.0)]  # noqa: FBT003
        rows = 3 * len(mjd)
        with table(str(path), maketabdesc(columns), nrow=rows, ack=False) as main:
            main.putkeyword("VisCal", jones)
            if rows:
                main.putcol("TIME", np.repeat(mjd, 3) * 86400.0)
                main.putcol("ANTENNA1", np.tile(np.arange(3), len(mjd)))
                main.putcol("ANTENNA2", np.ones(rows, int))
                main.putcol("CPARAM", np.full((rows, 4, 2), amplitude + 0j))
                flags = np.zeros((rows, 4, 2), bool)
                flags[2::3] = True
                flags[0, 0, 0] = True
                main.putcol("FLAG", flags)
                main.putcol("SNR", np.full((rows, 4, 2), 25.0))
        names = maketabdesc([makescacoldesc("NAME", "")])
        with table(str(path / "ANTENNA"), names, nrow=3, ack=False) as sub:
            sub.putcol("NAME", ["5", "24", "103"])
        return path

    return write


def test_ours_are_known_by_name_and_windows_come_from_the_solutions(make) -> None:
    bandpass = make(f"{GROUP}.J0521+166.B", "B Jones")
    make(f"{GROUP}.J0521+166.G")
    times = MJD + np.arange(24) * telescope.INTEGRATION_S / 86400
    make(f"{GROUP}.GP", mjd=tuple(times), amplitude=1.0)
    tables, problems = discover_caltables(bandpass.parent)
    assert problems == []
    found = {table.kind: table for table in tables}
    assert set(found) == {"B", "G", "GP"}
    assert {table.set_name for table in tables} == {f"{GROUP}_J0521+166", f"{GROUP}_field"}
    assert (found["B"].calibrator, found["B"].group_id, found["B"].refant) == ("J0521+166", GROUP, "24")
    assert found["B"].valid_from == pytest.approx(MJD - 0.5) and found["B"].valid_to == pytest.approx(MJD + 0.5)
    assert found["G"].valid_to - found["G"].mjd == pytest.approx(30 / 1440)
    # phases of the field: the 24 integrations they were solved on
    assert 86400 * (found["GP"].valid_to - found["GP"].valid_from) == pytest.approx(telescope.GROUP_S, abs=0.01)
    # the dead antenna does not count: one of 2 antennas x 4 channels x 2 polarisations
    assert found["B"].flagged_fraction == pytest.approx(1 / 16)
    assert found["B"].median_snr == 25.0


def test_others_are_known_by_what_casa_wrote(make) -> None:
    make("night.bcal", "B Jones")
    make("night.gcal", "G Jones")
    make("night.pcal", "G Jones", amplitude=1.0)
    tables, problems = discover_caltables(make("night.kcal", "K Jones").parent)
    assert problems == []
    assert [table.kind for table in tables] == ["K", "B", "G", "GP"]
    assert {table.group_id for table in tables} == {"2026-01-25T22:27:50"}


def test_what_cannot_be_used_is_told_and_does_not_hide_the_rest(make) -> None:
    good = make("good.gcal")
    make("leakage.dcal", "D Jones")
    make("empty.gcal", mjd=())
    make(f"{GROUP}.3C48.B", "G Jones")
    make("old.gcal", mjd=(0.0,))
    torn = make("torn.gcal")
    (torn / "table.dat").write_bytes(b"torn")
    (good.parent / f"{GROUP}.3C48.G").write_text("a file")
    (good.parent / "notes").mkdir()
    tables, problems = discover_caltables(good.parent)
    assert [table.path for table in tables] == [good]
    told = "\n".join(map(str, problems))
    assert len(problems) == 6
    for words in ("D Jones", "no rows", "contradict", "without times", "torn.gcal", "not a directory"):
        assert words in told


def test_a_directory_that_is_none_or_has_none(tmp_path: Path) -> None:
    with pytest.raises(EmptyInputError, match="No calibration table"):
        discover_caltables(tmp_path)
    with pytest.raises(EmptyInputError, match="does not exist"):
        discover_caltables(tmp_path / "absent")
    (tmp_path / "file").write_text("")
    with pytest.raises(CorruptFileError, match="a file"):
        discover_caltables(tmp_path / "file")


def test_a_real_table_of_another_telescope(tmp_path: Path) -> None:
    source = load_settings().validation_data / "caltable" / "askap_bandpass.zip"
    if not source.is_file():
        pytest.skip(f"the validation data are not at {source}; DSA110_VALIDATION_DATA names the folder")
    with zipfile.ZipFile(source) as archive:
        archive.extractall(tmp_path)
    (table,), problems = discover_caltables(tmp_path)
    assert problems == []
    # phases alone, of a self-calibration, by ASKAP's own name
    assert (table.kind, table.group_id[:10], table.flagged_fraction) == ("GP", "2025-07-26", 0.0)
    assert table.valid_from < table.mjd < table.valid_to
