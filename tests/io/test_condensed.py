"""The small Measurement Set that stands for a group's normal equations: CASA must come to the least-squares gains."""

import numpy as np
import pytest

from dsa110_contimg import telescope
from dsa110_contimg.io import casa, condensed, ms
from dsa110_contimg.io.caltable import open_caltable
from dsa110_contimg.science import stefcal
from dsa110_contimg.science.condense import Normal

N_ANTENNAS, N_CHANNELS = 10, 8
MJD = 61066.3


@pytest.fixture(scope="module")
def layout():
    table = telescope.stations()
    chosen = np.flatnonzero(table.active)[:N_ANTENNAS]
    positions = table.itrf[chosen]
    i, j = np.triu_indices(N_ANTENNAS, 1)
    return ms.Layout(
        mjd=np.array([MJD]),
        antenna1=i,
        antenna2=j,
        uvw=(positions[i] - positions[j])[None],
        positions=positions,
        names=tuple(str(n + 1) for n in chosen),
        diameters=np.full(N_ANTENNAS, 4.65),
        frequencies=1.32e9 + 11.7e6 * np.arange(N_CHANNELS),
        channel_width=11.7e6,
        integration_s=309.0,
        polarizations=("XX", "YY"),
        centers=np.radians([[80.0, 16.6]]),
        pointing_ra=np.radians([80.0]),
        pointing_dec=np.radians([16.6]),
        group_id="2026-01-26T04:51:13",
        history="",
    )


@pytest.fixture(scope="module")
def normal(layout):
    """Sums of data whose model varies by a factor of ten between channels of a baseline, as a crowded field's does."""
    random = np.random.default_rng(5)
    shape = 1, layout.antenna1.size, N_CHANNELS, 2
    gain = 1 + 0.2 * (random.normal(size=(N_ANTENNAS, N_CHANNELS, 2)) + 1j * random.normal(size=(N_ANTENNAS, 8, 2)))
    model = 10 ** random.uniform(-0.5, 0.5, shape)
    true = (gain[layout.antenna1] * gain[layout.antenna2].conj())[None] * model
    data = true + 0.2 * (random.normal(size=shape) + 1j * random.normal(size=shape))
    number = np.ones(shape)
    number[:, 3] = 0
    return Normal(data * model * number, model**2 * number, np.abs(data) ** 2 * number, number)


@pytest.fixture(scope="module")
def solved(layout, normal, tmp_path_factory):
    """CASA's bandpass of it."""
    folder = tmp_path_factory.mktemp("condensed")
    axes = layout.mjd, layout.frequencies
    condensed.write_condensed(folder / "small.ms", layout, normal.cross, normal.power, axes, (309.0, 11.7e6))
    arguments = {"vis": folder / "small.ms", "caltable": folder / "B", "refant": layout.names[0], "solint": "inf"}
    arguments |= {"combine": "scan,field", "bandtype": "B", "parang": False, "minsnr": 0.0}
    task = casa.CasaTask("bandpass", arguments, "caltable")
    casa.run_tasks([task], workdir=folder, measures_cache=folder / "measures")
    return open_caltable(folder / "B").load()


def test_casa_finds_the_least_squares_gains_whatever_the_weights_of_channels(layout, normal, solved):
    antennas = np.stack([layout.antenna1, layout.antenna2], axis=-1)
    ours = stefcal.solve_normal(normal, antennas, N_ANTENNAS)
    coords = {
        "time": layout.mjd,
        "frequency": layout.frequencies,
        "antenna_name": np.array(layout.names),
        "polarization": np.array(["X", "Y"]),
    }
    found = stefcal.agreement(stefcal.as_caltable(ours, coords, "B Jones", layout.names[0], 0.0), solved)
    assert found.compared == N_ANTENNAS * N_CHANNELS * 2
    # CASA stops when chi-square falls by less than a thousandth of its N (N - 1) degrees of freedom, and each of the
    # 2 N parameters that is off by one standard error adds one
    assert found.rms_sigma < np.sqrt(1e-3 * (N_ANTENNAS - 1) / 2)


def test_cells_that_hold_nothing_are_flagged(layout, normal, tmp_path):
    axes = layout.mjd, layout.frequencies
    condensed.write_condensed(tmp_path / "s.ms", layout, normal.cross, normal.power, axes, (309.0, 11.7e6))
    data, flags = ms.read_channels(tmp_path / "s.ms", "DATA", 0, N_CHANNELS)
    np.testing.assert_array_equal(flags.reshape(normal.number.shape[1:]), normal.number[0] == 0)
    model, _ = ms.read_channels(tmp_path / "s.ms", "MODEL_DATA", 0, N_CHANNELS)
    good = normal.number[0] > 0
    got = (data * model.conj()).reshape(good.shape)[good]
    np.testing.assert_allclose(got, normal.cross[0][good], rtol=1e-6)
