"""The predictor against a brute force that averages in time and frequency by summing."""

import numpy as np

from dsa110_contimg import telescope
from dsa110_contimg.science import coordinates, predict

C = 299_792_458.0


def brute_force(baseline, centre, source, pointing_mjd, mjd_offsets, frequencies, apparent):
    """Mean over fine steps of exp(2 pi i [b.(s - p(t)) - b.(s0 - p(t))...]) with earth-fixed geometry at each step.

    The correlator follows the meridian point p of mid-integration; the converter then turns the phase from p to the
    phase centre with the geometry of mid-integration. The sense is that of our Measurement Sets.
    """
    mid = np.array([pointing_mjd])

    def directions(where, mjd):
        return coordinates.earth_fixed(*coordinates.apparent_hadec(*where, mjd))

    point = coordinates.meridian_icrs(mid, np.radians(16.6))
    point = (point[0][0], point[1][0])
    fine = pointing_mjd + mjd_offsets
    path = -(directions(source, fine) - directions(point, fine)) @ baseline
    turn = -(directions(point, mid) - directions(centre, mid)) @ baseline
    phase = 2j * np.pi * (path[:, None] + turn) * frequencies / C
    return apparent * np.exp(-phase).mean()


def test_prediction_agrees_with_summing_over_integration_and_channel():
    stations = telescope.stations()
    p = stations.itrf[stations.active]
    mjd = np.array([61065.5])
    ra, dec = coordinates.meridian_icrs(mjd, np.radians(16.6))
    centre = (ra[0] + 0.009, dec[0])
    source = (ra[0] - 0.028, dec[0] + 0.012)
    _, v, w = coordinates.uvw_frame(*centre, mjd).uvw(p - p[0])[0].T
    baseline = (p - p[0])[np.argmax(np.abs(np.sin(dec[0]) * v - np.cos(dec[0]) * w))]  # the fastest fringe
    width, middle = telescope.CHANNEL_WIDTH_HZ, 1.4e9
    frequencies = middle + width * np.arange(2)
    # position(antenna 1) - position(antenna 2) is the sense of UVW
    uvw = coordinates.uvw_frame(*centre, mjd).uvw(baseline[None])[0]
    geometry = predict.source_geometry(np.array([source[0]]), np.array([source[1]]), centre, (ra, dec), mjd[0])
    apparent = np.full((1, 2, 1), 1.0, np.float32)
    found = predict.predict(
        uvw,
        np.zeros(1, np.int64),
        frequencies,
        *geometry,
        apparent,
        predict.pole(centre[1]),
        telescope.INTEGRATION_S,
        width,
    )[0, 0]
    steps = (np.arange(96) + 0.5) / 96 - 0.5
    fine_f = middle + width * ((np.arange(8) + 0.5) / 8 - 0.5)
    truth = brute_force(baseline, centre, source, mjd[0], steps * telescope.INTEGRATION_S / 86400, fine_f, 1.0)
    assert abs(truth) < 0.98  # smearing matters here, or the test says nothing
    # the fringe rate is taken at mid-run and the pole is ICRS's, not of date: 26 years turn it by 0.15 deg
    assert abs(abs(found) - abs(truth)) < 2e-3
    # what is left of aberration, after the scale of the field, is the earth's rotation (1.5e-6): 1e-3 turns on 2.6 km
    assert abs(np.angle(found / truth)) < 2 * np.pi * 0.003
