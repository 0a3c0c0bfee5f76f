"""What to simulate: the options of a night, and the night that the demonstration uses."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

import numpy as np
from astropy.time import Time
from pydantic import Field, field_validator, model_validator

from dsa110_contimg import telescope
from dsa110_contimg.options import Options
from dsa110_contimg.science import coordinates
from dsa110_contimg.simulate import array
from dsa110_contimg.simulate.faults import GroupFaults, Subband
from dsa110_contimg.simulate.sky import EARTH_ROTATION_RAD_S


class NightOptions(Options):
    """What to simulate."""

    start: datetime = Field(description="UTC start of the first integration.")
    n_groups: Annotated[int, Field(ge=1, le=280)] = Field(6, description="Groups of 309 s, one after the other.")
    n_antennas: Annotated[int, Field(ge=2, le=96)] = Field(96, description="Antennas; fewer keep the arms' shares.")
    dec_deg: Annotated[float, Field(ge=-40, le=90)] = Field(16.6, description="Apparent declination of the pointing.")
    seed: Annotated[int, Field(ge=0)] = Field(1, description="Seed of everything random.")
    radius_deg: Annotated[float, Field(gt=0, le=10)] = Field(5.0, description="Radius of the sky about the pointing.")
    min_apparent_jy: Annotated[float, Field(ge=0)] = Field(
        0.001, description="Sources that never reach this apparent flux (Jy) in a group are left out of its sky."
    )
    min_flux_jy: Annotated[float, Field(gt=0)] = Field(0.05, description="Faintest source (Jy at 1.4 GHz).")
    noise: bool = Field(default=True, description="Thermal noise of the system equivalent flux density.")
    gains: bool = Field(default=True, description="Bandpass and drifting gains; else the raw scale alone.")
    gain_amplitude_rms: Annotated[float, Field(ge=0, lt=0.3)] = Field(0.01, description="Drift of gain amplitudes.")
    gain_phase_rms_deg: Annotated[float, Field(ge=0, lt=180)] = Field(15.0, description="Drift of gain phases (deg).")
    n_polarizations: Literal[2, 4] = Field(2, description="2: XX, YY; 4: XX, XY, YX, YY.")
    subbands: tuple[Subband, ...] = Field(tuple(range(telescope.N_SUBBANDS)), description="Subbands to write.")
    faults: dict[int, GroupFaults] = Field({}, description="Faults by group, the first being 0.")
    threads: Annotated[int, Field(ge=1)] = Field(2, description="Threads; they do not change the result.")

    @field_validator("start")
    @classmethod
    def _as_utc(cls, value: datetime) -> datetime:
        """A time without a zone is UTC."""
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)

    @model_validator(mode="after")
    def _faults_fit(self) -> NightOptions:
        stations = set(array.choose_stations(self.n_antennas).tolist())
        for number, fault in self.faults.items():
            if not 0 <= number < self.n_groups:
                raise ValueError(f"faults are given for group {number}; there are groups 0 to {self.n_groups - 1}")
            if absent := set(fault.dead_antennas) - stations:
                raise ValueError(f"dead antennas {sorted(absent)} do not take part; these do: {sorted(stations)}")
        return self


def transit_start(ra_deg: float, dec_deg: float, after: datetime, group: int) -> datetime:
    """Start of a night (UTC, whole second) such that a source crosses the meridian in the middle of a group.

    Parameters
    ----------
    ra_deg, dec_deg : float
        ICRS.
    after : datetime
        The first transit after this is taken.
    group : int
        The group in whose middle it transits, the first being 0.
    """

    def hour_angle(mjd: float) -> float:
        return float(coordinates.apparent_hadec(np.radians(ra_deg), np.radians(dec_deg), mjd)[0])

    turn = 2 * np.pi
    per_day = EARTH_ROTATION_RAD_S * 86400
    mjd = float(Time(after).mjd)
    mjd += (-hour_angle(mjd) % turn) / per_day
    # the apparent place moves a little during the day: correct by what is left, of either sign
    mjd -= ((hour_angle(mjd) + np.pi) % turn - np.pi) / per_day
    transit: datetime = Time(mjd, format="mjd", scale="utc").to_datetime(timezone=UTC)
    first = transit - timedelta(seconds=(group + 0.5) * telescope.GROUP_S)
    return first.replace(microsecond=0)


def demo_night_options(seed: int = 1, n_antennas: int = 48, n_groups: int = 6) -> NightOptions:
    """The night of the demonstration, at declination 16.6 deg.

    3C138 transits in the middle of the third group, the fourth lacks a subband, and the fifth has interference and a
    dead antenna (as far as there are so many groups).
    """
    dead = int(array.choose_stations(n_antennas)[n_antennas // 3])
    planned = {3: GroupFaults(missing_subbands=(9,)), 4: GroupFaults(rfi=True, dead_antennas=(dead,))}
    return NightOptions(
        start=transit_start(80.29119, 16.63946, datetime(2026, 1, 26, tzinfo=UTC), min(2, n_groups - 1)),
        n_groups=n_groups,
        n_antennas=n_antennas,
        dec_deg=16.6,
        seed=seed,
        faults={number: fault for number, fault in planned.items() if number < n_groups},
    )
