"""Which calibrator crosses the beam, when, and what it is worth. Only sources with a catalogued flux are considered.

The dishes stand still: a calibrator is seen when it crosses the meridian within the beam of the pointing *declination*,
once a sidereal day, for minutes. Catalogues are in ICRS; the pointing declination is apparent, so candidates are
compared with it in places of date (precession alone moves some by 0.15 deg since 2000).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dsa110_contimg import telescope
from dsa110_contimg.exceptions import CalibrationError, CatalogError
from dsa110_contimg.options import SearchOptions
from dsa110_contimg.records import SubbandGroup
from dsa110_contimg.science import beam, coordinates

SIDEREAL_DAY = 86164.0905 / 86400
"""Mean sidereal day (days of UT)."""

STRUCTURE_ERROR = {"P": 0.03, "S": 0.1, "W": 0.2, "X": 0.5, "?": 0.2}
"""Error of a point model by the VLA list's quality code.

P and S as the list states them: closure errors below 3 %, and 3-10 %. The steep sources among them, which hardly vary,
agree with NVSS to 4 and 8 % (spread, robust), both catalogues' errors included, so neither is optimistic. X (not to be
used): the ten steep sources that are W or X at best depart from NVSS by 0.56 rms, three of them by more than 30 %. W
(above 10 %) and no code are assumed: there are too few. How much VLBI sees of a source says nothing of this: half of
the flux of a steep P source is resolved there, and not here."""
VARIABLE_ERROR = 0.23
"""How far a source that may vary is from its catalogued flux, years after: spread (robust) of VLA list over NVSS at
1.4 GHz for the 316 above 0.5 Jy that are flat or inverted, 0.235, less the 0.05 of the 89 steep ones. A third depart by
more. It is 0.20-0.28 from index -0.3 up, wherever one looks, 0.10 from -0.4 to -0.3 and 0.05 below. Over four years
only, the eight flat-spectrum AGN of the Green Bank monitoring vary by 6-36 % at 2.25 GHz (median 13 %), and 3C287,
which is steep, by 0.6 %."""

BLAZARS = {
    "0238+166": "AO 0235+164",
    "0319+415": "3C84",
    "0423-013": "PKS 0420-01",
    "0433+053": "3C120",
    "0510+180": "PKS 0507+17",
    "0530+135": "PKS 0528+134",
    "0721+713": "S5 0716+71",
    "0730-116": "PKS 0727-11",
    "0854+201": "OJ 287",
    "1058+015": "B1055+018",
    "1159+292": "B1156+295",
    "1229+020": "3C273",
    "1256-057": "3C279",
    "1512-090": "PKS 1510-08",
    "1635+381": "B1633+382",
    "1642+398": "3C345",
    "1733-130": "B1730-130",
    "1751+096": "OT 081",
    "1806+698": "3C371",
    "2148+069": "B2145+067",
    "2202+422": "BL Lac",
    "2225-049": "3C446",
    "2232+117": "B2230+114",
    "2253+161": "3C454.3",
}
"""Well-known blazars and variable radio galaxies among the VLA calibrators, by their names there, with a common name
that the list confirms (its alias, its B1950 name or its position). They depart from NVSS by 0.26 (spread, robust)."""


@dataclass(frozen=True)
class Transit:
    """A calibrator that crosses the meridian within a group.

    Attributes
    ----------
    flux_jy : at 1.4 GHz.
    apparent_flux_jy : flux times the mean beam response over the group at 1.4 GHz.
    offset_deg : declination minus pointing.
    """

    name: str
    ra_deg: float
    dec_deg: float
    flux_jy: float
    apparent_flux_jy: float
    offset_deg: float


@dataclass(frozen=True)
class Coverage:
    """How well the transits of calibrators cover a span of time.

    Attributes
    ----------
    n_transits : in the span.
    longest_gap_h : longest time without a transit; the span's ends count as such.
    fraction_near : of the span, within ``near_minutes`` of a transit.
    """

    n_transits: int
    longest_gap_h: float
    fraction_near: float
    near_minutes: float


def transits(
    candidates: pd.DataFrame,
    pointing_ra: NDArray[np.float64],
    pointing_dec: NDArray[np.float64],
    min_flux_jy: float,
    max_offset_deg: float,
) -> list[Transit]:
    """Calibrators that cross the meridian while a group is recorded, strongest apparent flux first.

    Parameters
    ----------
    candidates : DataFrame
        ``name``, ``ra_deg``, ``dec_deg``, ``flux_jy``.
    pointing_ra, pointing_dec : (time,)
        Meridian at the centre of each integration (rad, ICRS).
    min_flux_jy, max_offset_deg : float
        Least flux and largest declination offset.
    """
    bright = candidates[candidates["flux_jy"] >= min_flux_jy]
    ra, dec = np.radians(bright["ra_deg"].to_numpy(float)), np.radians(bright["dec_deg"].to_numpy(float))
    # hour angle at the first and last integration, each widened by half an integration: groups tile the sky
    half = 0.5 * telescope.INTEGRATION_S * 2 * np.pi / 86164.09
    since_first = np.angle(np.exp(1j * (ra - pointing_ra[0]))) + half
    to_last = np.angle(np.exp(1j * (pointing_ra[-1] - ra))) + half
    offset = np.degrees(dec - pointing_dec.mean())
    inside = (since_first >= 0) & (to_last > 0) & (np.abs(offset) <= max_offset_deg)
    weights = np.ones((len(pointing_ra), 1))
    found = []
    for index in np.flatnonzero(inside):
        response = beam.drift_averaged(
            ra[index], dec[index], pointing_ra, pointing_dec, np.array([telescope.REFERENCE_FREQUENCY_HZ]), weights
        )
        row = bright.iloc[index]
        found.append(
            Transit(
                name=str(row["name"]),
                ra_deg=float(row["ra_deg"]),
                dec_deg=float(row["dec_deg"]),
                flux_jy=float(row["flux_jy"]),
                apparent_flux_jy=float(row["flux_jy"] * response),
                offset_deg=float(offset[index]),
            )
        )
    return sorted(found, key=lambda transit: -transit.apparent_flux_jy)


# ---- candidates ---------------------------------------------------------------------------------------------------


def find_calibrators(catalog: pd.DataFrame, dec_rad: float, options: SearchOptions, *, mjd: float) -> pd.DataFrame:
    """Calibrators that cross the beam of a pointing declination, the best first.

    Parameters
    ----------
    catalog : DataFrame
        ``name``, ``ra_deg``, ``dec_deg`` (ICRS), ``flux_jy`` at 1.4 GHz (NaN where not known), ``flux_error_jy``, and,
        where the list gives them, ``codes``, ``index_lc`` and ``alt_name`` (`io.catalogs.calibrators`).
    dec_rad : float
        Apparent pointing declination (rad).
    options : SearchOptions
    mjd : float
        When (UTC); to a month or so, for places of date.

    Returns
    -------
    DataFrame
        The rows of the catalogue, with ``offset_deg`` (declination of date minus pointing), ``elevation_deg`` at
        transit (without refraction), ``beam_response`` there at 1.4 GHz, ``apparent_flux_jy`` (flux times response),
        ``variability`` (what speaks for it, or that nothing is known; empty if nothing speaks for it),
        ``expected_error`` and ``score`` (see `score`).

    Raises
    ------
    CalibrationError
        The pointing is below the horizon, or there is no such calibrator; what there is instead is told.
    """
    _require_above_horizon(dec_rad)
    placed = _placed(catalog, dec_rad, mjd)
    near = placed[placed["offset_deg"].abs() <= options.radius_deg]
    bright = near[near["flux_jy"] >= options.min_flux_jy]  # not so where the flux is not known
    if bright.empty:
        unknown = int(near["flux_jy"].isna().sum())
        faint = near["flux_jy"].max()
        raise CalibrationError(
            f"No calibrator crosses the beam at declination {np.degrees(dec_rad):.2f}",
            found=f"{len(near)} of the list within {options.radius_deg:g} deg"
            + (f", the brightest {faint:.2f} Jy" if np.isfinite(faint) else "")
            + (f", {unknown} without a flux" if unknown else ""),
            expected=f"one of at least {options.min_flux_jy:g} Jy",
        )
    return _judged(bright, options).head(options.top_n)


def require_calibrator(
    catalog: pd.DataFrame, name: str, dec_rad: float, options: SearchOptions, *, mjd: float
) -> pd.Series:
    """One calibrator that a person names, with the columns of `find_calibrators`, however faint.

    Parameters
    ----------
    name : as in the list, with or without ``J``, or its other name (``3C286``).

    Raises
    ------
    CatalogError
        It is not in the catalogue, or several are called so.
    CalibrationError
        It has no flux, it never rises, or it does not cross the beam.
    """
    _require_above_horizon(dec_rad)
    wanted = _plain(name)
    named = catalog["name"].map(_plain) == wanted
    if "alt_name" in catalog:
        named |= catalog["alt_name"].map(_plain) == wanted
    if named.sum() != 1:
        found = ", ".join(catalog.loc[named, "name"].astype(str)[:10]) or "none of that name"
        raise CatalogError(f"The calibrator {name} is not told by its name", found=found, expected="one source")
    row = _placed(catalog[named], dec_rad, mjd).iloc[0]
    if not np.isfinite(row["flux_jy"]):
        raise CalibrationError(
            f"The flux of {name} at 1.4 GHz is not known", found="none", expected="a catalogued flux"
        )
    if row["elevation_deg"] <= 0:
        raise CalibrationError(
            f"{name} is below the horizon even at transit", found=f"elevation {row['elevation_deg']:.1f} deg"
        )
    if abs(row["offset_deg"]) > options.radius_deg:
        raise CalibrationError(
            f"{name} does not cross the beam at declination {np.degrees(dec_rad):.2f}",
            found=f"{row['offset_deg']:+.2f} deg from it, response {row['beam_response']:.3f}",
            expected=f"within {options.radius_deg:g} deg",
        )
    return _judged(row.to_frame().T.infer_objects(), options).iloc[0]


def score(table: pd.DataFrame, n_antennas: int = 96) -> pd.DataFrame:
    """What calibrators are worth: one over the error that is to be expected of a bandpass solved on one group.

    The relative errors that add in quadrature are those of the catalogued flux, of one channel's gain of one antenna
    from thermal noise (sigma / (S sqrt(N - 1)), S through the beam), of a point model (`STRUCTURE_ERROR`, the best
    at L band) and, where there is a warning, of variability (`VARIABLE_ERROR`).

    Parameters
    ----------
    table : DataFrame
        ``flux_jy``, ``flux_error_jy``, ``variability`` and ``group_flux_jy``, else ``apparent_flux_jy``; ``codes``
        where known.

    Returns
    -------
    DataFrame: ``expected_error`` (relative) and ``score``, with the table's index.
    """
    seen = table["group_flux_jy" if "group_flux_jy" in table else "apparent_flux_jy"]
    noise = telescope.visibility_noise(telescope.CHANNEL_WIDTH_HZ, telescope.GROUP_S) / np.sqrt(n_antennas - 1)
    codes = table["codes"] if "codes" in table else pd.Series("", index=table.index)
    structure = codes.map(_l_band_code).map(STRUCTURE_ERROR).astype(float)
    variable = np.where(table["variability"].map(is_warning), VARIABLE_ERROR, 0.0)
    squares = (table["flux_error_jy"] / table["flux_jy"]) ** 2 + (noise / seen) ** 2 + structure**2 + variable**2
    error = np.sqrt(squares.astype(float))
    return pd.DataFrame({"expected_error": error, "score": 1.0 / error})


def is_warning(variability: str) -> bool:
    """Whether what is said of a source's variability is a reason to doubt its flux; not to know is none."""
    return bool(variability) and not variability.startswith(_NOT_KNOWN)


_NOT_KNOWN = "not known"


def _variability(row: pd.Series, options: SearchOptions) -> str:
    said = []
    name = _plain(str(row["name"]))
    if name in BLAZARS:
        said.append(f"known to vary: {BLAZARS[name]}")
    index = row.get("index_lc", np.nan)
    if np.isfinite(index) and index > -options.flat_index:
        shape = "flat" if index < options.flat_index else "inverted"
        said.append(f"{shape} spectrum, index {index:+.2f} from L to C band")
    if not said and not np.isfinite(index):
        return f"{_NOT_KNOWN}: no spectrum above L band"
    return "; ".join(said)


def _judged(table: pd.DataFrame, options: SearchOptions) -> pd.DataFrame:
    table = table.assign(variability=[_variability(row, options) for _, row in table.iterrows()])
    return table.join(score(table)).sort_values("score", ascending=False, ignore_index=True)


def _placed(catalog: pd.DataFrame, dec_rad: float, mjd: float) -> pd.DataFrame:
    """Where the sources cross the meridian, at any response."""
    ra, dec = np.radians(catalog["ra_deg"].to_numpy(float)), np.radians(catalog["dec_deg"].to_numpy(float))
    _, of_date = coordinates.apparent_hadec(ra, dec, mjd)
    response = beam.airy_power(np.abs(of_date - dec_rad), telescope.REFERENCE_FREQUENCY_HZ)
    return catalog.assign(
        offset_deg=np.degrees(of_date - dec_rad),
        elevation_deg=np.degrees(altitude(np.zeros(len(of_date)), of_date)),
        beam_response=response,
        apparent_flux_jy=catalog["flux_jy"] * response,
    )


def _require_above_horizon(dec_rad: float) -> None:
    if not np.isfinite(dec_rad) or abs(dec_rad) > np.pi / 2:
        raise CalibrationError("Not a declination", found=np.degrees(dec_rad), expected="-90 to 90 deg")
    highest = float(np.degrees(altitude(np.zeros(1), np.array([dec_rad]))[0]))
    if highest <= 0:
        raise CalibrationError(
            f"The declination {np.degrees(dec_rad):.2f} is below the horizon",
            found=f"elevation {highest:.1f} deg",
            expected=f"above {telescope.LATITUDE_DEG - 90:.2f} deg",
        )


def _plain(name: str) -> str:
    return name.strip().upper().replace(" ", "").removeprefix("J")


def _l_band_code(codes: str) -> str:
    """Best quality code at L band, ``?`` where there is none.

    A source that is compact in a longer array than ours is so in ours; where the list then warns of a shorter one,
    other sources confuse it, and those are in the field model.
    """
    by_band = dict(entry.partition(":")[::2] for entry in codes.split())
    known = [code for code in by_band.get("L", "") if code in STRUCTURE_ERROR]
    return min(known, key=lambda code: STRUCTURE_ERROR[code], default="?")


# ---- times --------------------------------------------------------------------------------------------------------


def altitude(ha_rad: NDArray[np.float64], dec_rad: NDArray[np.float64]) -> NDArray[np.float64]:
    """Altitude (rad, without refraction) of apparent hour angles and declinations."""
    latitude = np.radians(telescope.LATITUDE_DEG)
    sine = np.sin(latitude) * np.sin(dec_rad) + np.cos(latitude) * np.cos(dec_rad) * np.cos(ha_rad)
    return np.asarray(np.arcsin(np.clip(sine, -1.0, 1.0)))


def transit_times(
    ra_rad: NDArray[np.float64], dec_rad: NDArray[np.float64], mjd_start: float, mjd_end: float
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """When sources cross the upper meridian within ``[mjd_start, mjd_end)``.

    Parameters
    ----------
    ra_rad, dec_rad : (source,) rad, ICRS

    Returns
    -------
    index : (transit,) which source; times ascend.
    mjd : (transit,) UTC, to 0.01 s.
    """
    n_turns = int(np.ceil((mjd_end - mjd_start) / SIDEREAL_DAY)) + 2
    ha, _ = coordinates.apparent_hadec(ra_rad, dec_rad, mjd_start)
    # one turn early: refining may move a transit that seemed to be before the start into the span
    since = np.mod(-ha, 2 * np.pi) / (2 * np.pi) - 1.0
    mjd = (mjd_start + (since + np.arange(n_turns)[:, None]) * SIDEREAL_DAY).ravel()
    source = np.tile(np.arange(len(ra_rad)), n_turns)
    for _ in range(2):
        ha, _ = coordinates.apparent_hadec(ra_rad[source], dec_rad[source], mjd)
        mjd = mjd - ha / (2 * np.pi) * SIDEREAL_DAY
    order = np.argsort(mjd, kind="stable")
    order = order[(mjd[order] >= mjd_start) & (mjd[order] < mjd_end)]
    return source[order], mjd[order]


def find_transits(
    candidates: pd.DataFrame,
    dec_rad: float,
    mjd_start: float,
    mjd_end: float,
    groups: Sequence[SubbandGroup] = (),
) -> pd.DataFrame:
    """Every transit of candidates within a span of time, and the group that holds it.

    Parameters
    ----------
    candidates : DataFrame
        From `find_calibrators`.
    dec_rad : float
        Apparent pointing declination (rad).
    mjd_start, mjd_end : float
        Half-open (UTC).
    groups : sequence of SubbandGroup
        What was recorded. When groups begin is not known ahead; a transit that none holds is averaged over a group of
        309 s centred on it, which is the best that a group can be.

    Returns
    -------
    DataFrame
        In order of time, the candidates' columns and ``mjd``, ``utc``, ``group`` (its id, empty if none holds the
        transit), ``group_response`` (beam at 1.4 GHz, mean over the group), ``group_flux_jy`` (flux times that);
        ``expected_error`` and ``score`` by these.
    """
    ra, dec = np.radians(candidates["ra_deg"].to_numpy(float)), np.radians(candidates["dec_deg"].to_numpy(float))
    index, mjd = transit_times(ra, dec, mjd_start, mjd_end)
    held = [_holding(groups, when) for when in mjd]
    table = candidates.iloc[index].reset_index(drop=True)
    response = [
        _group_response(ra[i], dec[i], when, dec_rad, group) for i, when, group in zip(index, mjd, held, strict=True)
    ]
    table["mjd"], table["utc"] = mjd, [_utc(when) for when in mjd]
    table["group"] = ["" if group is None else group.group_id for group in held]
    table["group_response"] = np.array(response, dtype=float)
    table["group_flux_jy"] = table["flux_jy"] * table["group_response"]
    return table.assign(**score(table)) if len(table) else table


def _holding(groups: Sequence[SubbandGroup], mjd: float) -> SubbandGroup | None:
    for group in groups:
        begin = group.mjd_first - telescope.INTEGRATION_S / 2 / 86400
        if begin <= mjd < begin + group.n_integrations * telescope.INTEGRATION_S / 86400:
            return group
    return None


def _group_response(ra: float, dec: float, transit: float, dec_rad: float, group: SubbandGroup | None) -> float:
    """Mean response at 1.4 GHz over the integrations of a group, by default of one centred on the transit."""
    count = telescope.N_INTEGRATIONS if group is None else group.n_integrations
    step = telescope.INTEGRATION_S / 86400
    first = transit - (count - 1) / 2 * step if group is None else group.mjd_first
    pointing = dec_rad if group is None else np.radians(group.pointing_dec_deg)
    # in a group of minutes a fixed sky turns evenly: hour angles from the transit need no more of astropy
    ha = (first + step * np.arange(count) - transit) / SIDEREAL_DAY * 2 * np.pi
    _, of_date = coordinates.apparent_hadec(ra, dec, transit)
    theta = beam.separation(ha, of_date, 0.0, pointing)
    return float(beam.airy_power(theta, telescope.REFERENCE_FREQUENCY_HZ).mean())


def _utc(mjd: float) -> str:
    moment = np.datetime64("1858-11-17T00:00:00", "ms") + np.timedelta64(round(mjd * 86_400_000), "ms")
    return str((moment + np.timedelta64(500, "ms")).astype("datetime64[s]"))


def coverage(mjd: NDArray[np.float64], mjd_start: float, mjd_end: float, near_minutes: float = 30.0) -> Coverage:
    """How well transits at times (MJD) cover a span: their longest gap, and how much of it is near one."""
    inside = np.sort(mjd[(mjd >= mjd_start) & (mjd < mjd_end)])
    gaps = np.diff(np.concatenate([[mjd_start], inside, [mjd_end]]))
    near = near_minutes / 1440
    # the transits before and after the span count for its ends, too
    begin, end = np.sort(mjd) - near, np.sort(mjd) + near
    begin, end = np.clip(begin, mjd_start, mjd_end), np.clip(end, mjd_start, mjd_end)
    covered = np.sum(np.maximum(end - np.maximum(begin, np.concatenate([[mjd_start], end[:-1]])), 0.0))
    return Coverage(len(inside), float(gaps.max() * 24), float(covered / (mjd_end - mjd_start)), near_minutes)


def tracks(
    candidates: pd.DataFrame, dec_rad: float, mjd: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How sources move over the sky, and through the beam of a pointing declination.

    Parameters
    ----------
    candidates : DataFrame
        ``ra_deg``, ``dec_deg`` (ICRS).
    dec_rad : float
        Apparent pointing declination (rad).
    mjd : (time,) UTC, a day at most

    Returns
    -------
    altitude_deg : (source, time), without refraction; negative below the horizon.
    response : (source, time) of the beam at 1.4 GHz.
    """
    ra, dec = np.radians(candidates["ra_deg"].to_numpy(float)), np.radians(candidates["dec_deg"].to_numpy(float))
    # places of date hold for a day to 0.2 arcsec, and the sky turns evenly
    middle = float(mjd.mean())
    at_middle, of_date = coordinates.apparent_hadec(ra, dec, middle)
    ha = at_middle[:, None] + (mjd - middle) / SIDEREAL_DAY * 2 * np.pi
    of_date = np.broadcast_to(of_date[:, None], ha.shape)
    theta = beam.separation(ha, of_date, 0.0, dec_rad)
    response = beam.airy_power(theta, telescope.REFERENCE_FREQUENCY_HZ)
    # the Airy formula has the sine of the angle: it knows no difference between ahead and behind
    return np.degrees(altitude(ha, of_date)), np.where(theta < np.pi / 2, response, 0.0)
