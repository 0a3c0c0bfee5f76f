"""Pages of antennas: a panel each, the odd one visible, flagged ones said to be so."""

from io import BytesIO

import numpy as np
import pandas as pd
import pytest

from dsa110_contimg import views
from dsa110_contimg.views.calibration import _FLAGGED


def panels(figure):
    figure.savefig(BytesIO(), dpi=40)
    return [axes for axes in figure.axes if axes.get_visible()]


@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.parametrize("draw", [views.antenna_amplitudes, views.antenna_phases])
def test_every_antenna_has_a_panel_with_its_name(tables, draw, which):
    figure = draw(tables[which])
    found = panels(figure)
    titles = [axes.get_title(loc="left") for axes in found]
    assert titles == ["1", "2", "3*", "4", "5", "6", "7", "8"]
    assert figure.get_supxlabel() and figure.get_supylabel() in ("amplitude", "phase (deg)")
    # the fourth is flagged
    assert found[3].get_facecolor() != found[0].get_facecolor() and not found[3].lines
    assert _FLAGGED == "#9aa5af"


def test_what_is_drawn_are_the_solutions(tables):
    bandpass = tables[0]
    axes = panels(views.antenna_amplitudes(bandpass))[5]
    for receptor, line in enumerate(axes.lines):
        np.testing.assert_allclose(line.get_xdata(), bandpass.frequency / 1e6)
        np.testing.assert_allclose(line.get_ydata(), np.abs(bandpass.GAIN[0, 5, :, receptor]))


def test_a_page_without_solutions_says_so(tables):
    empty = tables[2].assign(FLAG=tables[2].FLAG | True)
    figure = views.antenna_phases(empty)
    assert "no solutions" in [text.get_text() for text in figure.axes[0].texts]
    assert panels(views.solution_snr([empty]))
    assert "no solutions" in [text.get_text() for text in views.solution_snr([]).axes[0].texts]


def test_snr_is_the_median_of_each_receptor(tables):
    figure = views.solution_snr(tables)
    assert len(panels(figure)) == 3
    for axes in figure.axes:
        assert axes.get_xlabel() and axes.get_ylabel() == "S/N"
        points = axes.containers[0].lines[0].get_ydata()
        # one of eight antennas is flagged
        np.testing.assert_allclose(points, np.full(7, 50.0))


def test_the_ranking_shows_the_best_and_why_others_are_out():
    ranking = pd.DataFrame(
        {
            "name": [str(k) for k in range(20)],
            "share": np.linspace(1, 0, 20),
            "baselines": 19,
            "distance_m": 100.0,
            "against": [""] * 18 + ["no data in sb03"] * 2,
        }
    )
    shown = views.refant_ranking(ranking, 5)
    assert shown["antenna"].tolist() == ["0", "1", "2", "3", "4", "18", "19"]
    assert shown["against it"].tolist()[-1] == "no data in sb03" and shown["unflagged"].iloc[0] == "100.0%"
