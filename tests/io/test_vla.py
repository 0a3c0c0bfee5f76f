"""The VLA list as SQLite: what the package carries is what its table says."""

import sqlite3
from contextlib import closing
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dsa110_contimg.exceptions import CatalogError, OutputError
from dsa110_contimg.io import vla

DATA = Path(str(files("dsa110_contimg") / "data"))
TABLE, PACKAGED = DATA / "vla_calibrators.csv", DATA / "vla_calibrators.sqlite"


def test_the_packaged_database_is_what_the_command_makes_of_the_packaged_table(tmp_path):
    assert vla.main([str(TABLE), str(tmp_path / "made.sqlite")]) == 0
    made, packaged = vla.read(tmp_path / "made.sqlite"), vla.read(PACKAGED)
    pd.testing.assert_frame_equal(made.sources, packaged.sources)
    pd.testing.assert_frame_equal(made.bands, packaged.bands)
    assert vla.provenance(tmp_path / "made.sqlite") == vla.provenance(PACKAGED)
    assert [path.name for path in tmp_path.iterdir()] == ["made.sqlite"]


def test_source_licence_and_size_are_in_the_database():
    said = vla.provenance(PACKAGED)
    assert "National Radio Astronomy Observatory" in said["source"]
    assert said["licence"]
    assert int(said["sources"]) == len(vla.read(PACKAGED).sources)


def test_every_flux_of_the_table_is_there_and_an_unknown_one_is_neither_zero_nor_left_out():
    rows = pd.read_csv(TABLE)
    bands = vla.read(PACKAGED).bands
    # 1914+166 is there twice at Q band, from two surveys (0.14 and 0.16 Jy)
    assert bands["flux_jy"].notna().sum() == (rows["flux_jy"] > 0).sum() - 1
    assert bands["flux_jy"].sum() == pytest.approx(rows["flux_jy"].sum() - 0.16)
    assert not (bands["flux_jy"] == 0).any()
    assert bands["flux_jy"].isna().sum() > 100
    assert len(bands) == rows["band"].notna().sum() - 1
    assert (bands["quality"].str.len() == 4).all()


def test_two_sources_of_one_name_stay_two():
    sources = vla.read(PACKAGED).sources.set_index("name")
    one, two = sources.loc["0632+159"], sources.loc["0632+159 (2)"]
    assert abs(one["dec_deg"] - two["dec_deg"]) > 0.05
    assert sources.index.is_unique
    assert [name for name in sources.index if name.endswith("(2)")] == ["0632+159 (2)", "1300+142 (2)"]


def test_one_source_that_two_surveys_name_is_one():
    sources = vla.read(PACKAGED).sources.set_index("name")
    assert sources.index.str.startswith(("0354+801", "1914+166")).sum() == 2


def test_it_is_read_where_nobody_may_write(tmp_path):
    copy = tmp_path / "list.sqlite"
    copy.write_bytes(PACKAGED.read_bytes())
    copy.chmod(0o444)
    tmp_path.chmod(0o555)
    try:
        assert len(vla.read(copy).sources) == len(vla.read(PACKAGED).sources)
        assert [path.name for path in tmp_path.iterdir()] == ["list.sqlite"]
    finally:
        tmp_path.chmod(0o755)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"columns": ["name"]}, "lacks the columns"),
        ({"dec_deg": 95.0}, "a position that is none"),
        ({"ra_deg": np.nan}, "a position that is none"),
    ],
)
def test_a_table_that_cannot_be_used_makes_no_database(tmp_path, change, said, capsys):
    rows = pd.read_csv(TABLE, nrows=5)
    rows = rows[change["columns"]] if "columns" in change else rows.assign(**change)
    rows.to_csv(tmp_path / "list.csv", index=False)
    with pytest.raises(CatalogError, match=said):
        vla.build(tmp_path / "list.csv", tmp_path / "list.sqlite")
    assert vla.main([str(tmp_path / "list.csv"), str(tmp_path / "list.sqlite")]) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "list.sqlite").exists()


def test_a_place_that_cannot_be_written_keeps_what_is_there(tmp_path):
    (tmp_path / "list.sqlite").mkdir()
    with pytest.raises(OutputError):
        vla.build(TABLE, tmp_path / "list.sqlite")
    assert [path.name for path in tmp_path.iterdir()] == ["list.sqlite"]


def test_a_damaged_database_is_an_error(tmp_path):
    bad = tmp_path / "bad.sqlite"
    bad.write_bytes(PACKAGED.read_bytes()[:100] + b"\xff" * 9000)
    with pytest.raises(CatalogError, match="cannot be read"):
        vla.read(bad)
    with closing(sqlite3.connect(tmp_path / "other.sqlite")) as connection:
        connection.execute("CREATE TABLE something (x REAL)")
    with pytest.raises(CatalogError, match="cannot be read"):
        vla.read(tmp_path / "other.sqlite")
