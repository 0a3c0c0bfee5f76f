"""How well a day is calibrated, against counting by hand and on real days."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from astropy.time import Time
from hypothesis import given, settings
from hypothesis import strategies as st

from dsa110_contimg import telescope
from dsa110_contimg.io import catalogs
from dsa110_contimg.science import calibrated, calibrators, coordinates
from dsa110_contimg.settings import load_settings

GROUP = telescope.GROUP_S / 86400
DAY = (61072.0, 61073.0)
FULLEST = "2026-02-25"
"""The recorded day with the most groups."""


@settings(max_examples=80, deadline=None)
@given(
    recorded=st.lists(st.integers(-300, 560), min_size=1, max_size=40, unique=True),
    crossed=st.lists(st.integers(-300, 560), max_size=6),
)
def test_counts_are_those_of_looking_at_each_group(recorded: list[int], crossed: list[int]) -> None:
    begins, transits = DAY[0] + np.array(recorded) * GROUP, DAY[0] + (np.array(crossed) + 0.3) * GROUP
    day = calibrated.calibrated_day(begins, transits, DAY, 12.0, 30.0)
    solved = sorted(set(recorded) & set(crossed))
    asked = [slot for slot in recorded if DAY[0] <= DAY[0] + slot * GROUP < DAY[1]]
    counted = {"bandpass": 0, "gains": 0, "bracketed": 0, "one_sided": 0, "none": 0}
    for slot in asked:
        away = min((abs(slot - other) for other in solved), default=1e9) * GROUP
        both = any(other < slot for other in solved) and any(other > slot for other in solved)
        counted["bandpass"] += away < 0.5
        kind = "gains" if away < 30 / 1440 else "bracketed" if both else "one_sided"
        counted[kind if away < 0.5 else "none"] += 1
    assert {name: getattr(day, name) for name in counted} == counted
    assert day.groups == len(asked) == day.gains + day.bracketed + day.one_sided + day.none
    assert day.calibrators == len(set(asked) & set(solved))
    assert tuple(day.by_origin()) == calibrated.ORIGINS
    assert sum(day.by_origin().values()) == day.groups


def test_names_of_one_group_are_counted_once() -> None:
    begins = DAY[0] + np.array([0.0, 1.0, 18.0, 309.2, 311.0, 618.0]) / 86400
    assert (calibrated.distinct_groups(begins) - DAY[0]) * 86400 == pytest.approx([0.0, 309.2, 618.0], abs=1e-4)


def transits(dec_deg: float) -> np.ndarray:
    """Transits of calibrators of at least 1 Jy within 1.5 deg of an apparent declination, over the inventory's time."""
    table = catalogs.packaged_calibrators()
    table = table[table["flux_jy"] >= 1.0]
    ra, dec = np.radians(table["ra_deg"].to_numpy()), np.radians(table["dec_deg"].to_numpy())
    _, of_date = coordinates.apparent_hadec(ra, dec, DAY[0])
    near = np.abs(np.degrees(of_date) - dec_deg) <= 1.5
    return calibrators.transit_times(ra[near], dec[near], DAY[0] - 50, DAY[0] + 30)[1]


@pytest.mark.parametrize(
    ("dec_deg", "n_transits", "gains", "gap_h"), [(16.6, 9, 91, 7.8), (30.0, 7, 60, 8.7), (54.6, 12, 103, 7.2)]
)
def test_a_day_without_pause_is_the_table_of_the_docs(dec_deg, n_transits, gains, gap_h) -> None:
    without_pause = DAY[0] + np.arange(-280, 560) * 309.23 / 86400
    day = calibrated.calibrated_day(without_pause, transits(dec_deg), DAY, 12.0, 30.0)
    assert (day.groups, day.none, day.one_sided) == (280, 0, 0)
    assert (day.calibrators, day.gains, day.bracketed) == (n_transits, gains, 280 - gains)
    assert day.longest_gap_h == pytest.approx(gap_h, abs=0.1)


def test_real_days_are_all_calibrated_and_most_groups_lie_between_calibrators() -> None:
    source = load_settings().validation_data.parent / "tables" / "observed_groups.csv.gz"
    if not source.is_file():
        pytest.skip(f"the inventory is not at {source}; DSA110_VALIDATION_DATA names the folder beside it")
    names = pd.read_csv(source)["timestamp"].to_list()
    begins = calibrated.distinct_groups(Time(names, scale="utc").mjd)
    # a group that two names more than 30 s apart belong to counts twice: a few in 2400
    assert len(begins) == pytest.approx(2431, rel=0.01)
    for dec_deg, date, counts in (
        (16.6, "2026-02-14", (8, 68, 167, 0, 0)),
        (16.6, FULLEST, (8, 66, 176, 0, 0)),
        (54.573, FULLEST, (11, 81, 158, 0, 0)),
    ):
        begin = float(Time(date, scale="utc").mjd)
        day = calibrated.calibrated_day(begins, transits(dec_deg), (begin, begin + 1), 12.0, 30.0)
        assert tuple(day.by_origin().values()) == counts, (dec_deg, date)
        assert day.bandpass == day.groups == sum(counts)
    per_day = np.unique(np.floor(begins), return_counts=True)[1]
    assert per_day.max() == 250, "no recorded day has all 279"
