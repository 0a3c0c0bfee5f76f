"""Records survive JSON without loss, and say what they are."""

from __future__ import annotations

import dataclasses
import math
import pickle
import types
import typing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsa110_contimg import records, telescope

KINDS = sorted(
    (kind for kind in vars(records).values() if dataclasses.is_dataclass(kind) and isinstance(kind, type)),
    key=lambda kind: kind.__name__,
)
_WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)


def _values(hint: Any) -> st.SearchStrategy[Any]:
    """Values of a field's type."""
    if typing.get_origin(hint) is tuple:
        inner = typing.get_args(hint)
        if inner[-1] is Ellipsis:
            return st.lists(_values(inner[0]), max_size=3).map(tuple)
        return st.tuples(*(_values(item) for item in inner))
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return st.one_of(*(_values(item) for item in typing.get_args(hint)))
    if dataclasses.is_dataclass(hint):
        return _records(hint)
    simple: dict[Any, st.SearchStrategy[Any]] = {
        Path: _WORDS.map(lambda name: Path("/products") / name.strip("/")),
        bool: st.booleans(),
        float: st.floats(allow_nan=False),
        int: st.integers(-(2**62), 2**62),
        str: _WORDS,
        types.NoneType: st.none(),
    }
    return simple[hint]


def _records(kind: Any) -> st.SearchStrategy[Any]:
    hints = typing.get_type_hints(kind)
    return st.builds(kind, **{f.name: _values(hints[f.name]) for f in dataclasses.fields(kind)})


@given(data=st.data())
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_record_survives_json_and_pickling(kind: Any, data: st.DataObject) -> None:
    record = data.draw(_records(kind))
    assert kind.from_json(record.to_json()) == record
    assert records.from_dict(record.to_dict()) == record
    assert pickle.loads(pickle.dumps(record)) == record


def test_a_number_that_is_missing_stays_missing() -> None:
    photometry = records.Photometry(Path("p.ecsv"), "2026-01-25T22:26:05", Path("i.fits"), 0, 0, math.nan, math.nan)
    assert math.isnan(records.Photometry.from_json(photometry.to_json()).median_ratio)


def test_json_of_another_kind_is_refused() -> None:
    file = records.SubbandFile(Path("/data/a_sb00.hdf5"), 0, 61065.9, 145348600)
    with pytest.raises(TypeError, match=r"SubbandFile where MeasurementSet"):
        records.MeasurementSet.from_json(file.to_json())


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_record_cannot_be_changed(kind: Any) -> None:
    assert kind.__dataclass_params__.frozen


@given(seconds=st.integers(0, 86400 * 365), fraction=st.floats(-0.499, 0.499))
def test_a_group_is_named_after_the_start_of_its_first_integration(seconds: int, fraction: float) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    mjd = (start - datetime(1858, 11, 17, tzinfo=UTC)) / timedelta(days=1)
    center = mjd + (telescope.INTEGRATION_S / 2 + fraction) / 86400
    assert records.group_id(center) == f"{start:%Y-%m-%dT%H:%M:%S}"


def test_a_group_knows_what_it_misses_and_its_middle() -> None:
    present = [sb for sb in range(16) if sb not in (3, 11)]
    files = tuple(records.SubbandFile(Path(f"x_sb{sb:02d}.hdf5"), sb, 61065.9, 1) for sb in present)
    group = records.SubbandGroup("2026-01-25T21:36:00", 61065.9, 16.6, files)
    assert group.missing == (3, 11)
    # 23 of 24 integrations lie between the first and the last centre
    assert (group.mjd_mid - group.mjd_first) * 86400 == pytest.approx(23 / 2 * 12.884902, abs=1e-4)
