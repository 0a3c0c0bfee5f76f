"""The reference antenna has data in every subband, on most baselines, and stands in the middle."""

import numpy as np
import pytest

from dsa110_contimg.exceptions import CalibrationError
from dsa110_contimg.science import refants

NAMES = ("1", "2", "3", "4", "5")
POSITIONS = np.array([[x, 0.0, 0.0] for x in (-200.0, -50.0, 0.0, 60.0, 900.0)])


def ranking(share=None, baselines=(4, 4, 4, 4, 4)):
    share = np.full((5, 3), 0.9) if share is None else share
    return refants.rank(NAMES, share, np.array(baselines), POSITIONS)


def test_the_middle_is_first_among_equals():
    assert [antenna.name for antenna in ranking()] == ["3", "2", "4", "1", "5"]


def test_more_data_wins_over_the_middle():
    share = np.full((5, 3), 0.8)
    share[4] = 0.95
    assert ranking(share)[0].name == "5"


def test_an_antenna_flagged_in_a_subband_is_last_and_the_reason_is_told():
    share = np.full((5, 3), 0.9)
    share[2, 1] = 0.0
    last = ranking(share)[-1]
    assert last.name == "3"
    assert "fully flagged in 1 of 3 subbands" in last.reasons


def test_a_missing_subband_is_no_antennas_fault():
    share = np.full((5, 3), 0.9)
    share[:, 1] = 0.0
    assert ranking(share)[0].against == ()
    assert ranking(share)[0].share == pytest.approx(0.9)


def test_a_badly_connected_antenna_is_refused():
    assert ranking(baselines=(4, 4, 1, 4, 4))[-1].name == "3"


def test_wanted_antennas_are_taken_if_they_can_be_and_refused_if_not():
    share = np.full((5, 3), 0.9)
    share[2, 1] = 0.0
    assert refants.chosen(ranking(share), "5, 1") == ("5", "1")
    assert refants.chosen(ranking(share), None, most=2) == ("2", "4")
    with pytest.raises(CalibrationError, match=r"Antenna 3 cannot.*1 of 3 subbands"):
        refants.chosen(ranking(share), "3")
    with pytest.raises(CalibrationError, match="not in the data"):
        refants.chosen(ranking(share), "ea01")


def test_nothing_left_is_an_error():
    with pytest.raises(CalibrationError, match="No antenna has unflagged data"):
        ranking(np.zeros((5, 3)))
    with pytest.raises(CalibrationError, match="No antenna can be the reference"):
        refants.chosen(ranking(np.eye(5, 3) + np.eye(5, 3, -3)), None)
