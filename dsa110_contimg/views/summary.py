"""An observation at a glance, as HTML that follows the light or dark of the page it is on.

Only headers are read. Flags are shown where they are in memory or few, or have been counted already.
"""

from __future__ import annotations

import html

import dask
import numpy as np
import xarray as xr
from astropy import units as u
from astropy.coordinates import Angle, EarthLocation, Longitude
from astropy.time import Time
from numpy.typing import NDArray

from dsa110_contimg import telescope
from dsa110_contimg.views.planes import flag_fractions

_CHEAP_FLAGS = 4_000_000
"""So many flags are read to be shown: a small file, a tenth of a second."""
_SUBBAND_HZ = telescope.CHANNEL_WIDTH_HZ * telescope.N_CHANNELS_PER_SUBBAND
_LINE = "rgba(128,128,128,.35)"
STYLE = f"""<style>
.dsa-glance {{ border:1px solid {_LINE}; border-radius:8px; padding:.7em 1em; max-width:760px; line-height:1.45;
  font-size:13px; background:rgba(128,128,128,.05); color:var(--jp-content-font-color1, inherit); }}
.dsa-glance h4 {{ margin:0 0 .35em; font-size:15px; font-weight:650; }}
.dsa-glance h4 span {{ font-weight:400; opacity:.65; margin-left:.6em; font-size:13px; }}
.dsa-glance dl {{ display:grid; grid-template-columns:max-content 1fr; gap:.12em 1.1em; margin:0; }}
.dsa-glance dt {{ opacity:.65; font-weight:400; margin:0; width:auto; white-space:nowrap; }}
.dsa-glance dd {{ margin:0; width:auto; font-variant-numeric:tabular-nums; overflow-wrap:anywhere; }}
.dsa-glance code {{ font-size:12px; }} .dsa-glance small {{ opacity:.65; }}
.dsa-glance .bars {{ display:inline-flex; align-items:flex-end; gap:2px; height:22px; vertical-align:bottom;
  border-bottom:1px solid {_LINE}; }}
.dsa-glance .bars i {{ display:block; width:9px; background:#c8501e; }}
.dsa-glance .bars i.gone {{ height:22px; border:1px dashed {_LINE}; background:none; box-sizing:border-box; }}
</style>"""


def glance(vis: xr.Dataset, fractions: xr.Dataset | None = None) -> str:
    """HTML of what an observation is: when, where, with what, and how much of it is flagged.

    Parameters
    ----------
    vis : Visibilities view
    fractions : of `planes.flag_fractions`, where they are known already.
    """
    known = flag_fractions(vis) if fractions is None and _flags_are_cheap(vis) else fractions
    rows = [
        ("Time (UTC)", _time(vis)),
        ("Sidereal time", _sidereal(vis)),
        ("Pointing", _pointing(vis)),
        ("Phase centre", _phase_centre(vis)),
        ("Antennas", _antennas(vis)),
        ("Band", _band(vis)),
        ("Polarisations", html.escape(", ".join(str(name) for name in vis["polarization"].values))),
        ("Flagged", _flags(known)),
        ("Size", _size(vis)),
    ]
    body = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in rows if value)
    head = html.escape(str(vis.attrs.get("group_id", "Visibilities")))
    name = html.escape(str(vis.attrs.get("telescope_name", "")))
    return f'{STYLE}<div class="dsa-glance"><h4>{head}<span>{name}</span></h4><dl>{body}</dl></div>'


def _flags_are_cheap(vis: xr.Dataset) -> bool:
    return not dask.is_dask_collection(vis["FLAG"].data) or vis["FLAG"].size <= _CHEAP_FLAGS


def _span(vis: xr.Dataset) -> Time:
    """Begin of the first integration and end of the last."""
    half = float(vis.attrs.get("integration_time", 0.0)) / 2 / 86400
    mjd = vis["time"].values
    return Time([mjd[0] - half, mjd[-1] + half], format="mjd", scale="utc")


def _time(vis: xr.Dataset) -> str:
    start, stop = _span(vis)
    length = (stop - start).to_value("s")
    number, each = vis.sizes["time"], float(vis.attrs.get("integration_time", np.nan))
    end = stop.iso[11:19] if start.iso[:10] == stop.iso[:10] else stop.iso[:19]
    long = f"{length:.0f} s" if length < 3600 else f"{length / 3600:.2f} h"
    return f"{start.iso[:19]} to {end} <small>({long}: {number} × {each:.4g} s)</small>"


def _sidereal(vis: xr.Dataset) -> str:
    """Mean sidereal time, to the second: UT1 is taken for UTC, at most 0.9 s off."""
    if "antenna_position" in vis.coords:
        x, y, z = vis["antenna_position"].values.mean(axis=0) * u.m
        longitude = EarthLocation.from_geocentric(x, y, z).lon
    elif vis.attrs.get("telescope_name") == telescope.TELESCOPE_NAME:
        longitude = Longitude(telescope.LONGITUDE_DEG * u.deg)
    else:
        return ""
    when = _span(vis)
    when.delta_ut1_utc = 0.0
    start, stop = when.sidereal_time("mean", longitude)
    return f"{_hours(start)} to {_hours(stop)}"


def _hours(angle: Angle) -> str:
    return str(Angle(angle).to_string(unit=u.hourangle, sep=":", precision=0, pad=True))


def _degrees(value: float) -> str:
    return str(Angle(value * u.rad).to_string(unit=u.deg, sep=":", precision=0, pad=True, alwayssign=True))


def _direction(ra: float, dec: float) -> str:
    return f"{_hours(Longitude(ra * u.rad))} {_degrees(dec)}"


def _pointing(vis: xr.Dataset) -> str:
    """Declination, and the right ascensions that the beam passed."""
    if "pointing_ra" not in vis.coords:
        return ""
    ra, dec = vis["pointing_ra"].values, vis["pointing_dec"].values
    turned = np.unwrap(ra)
    if np.ptp(turned) < 1e-6:
        return f"{_direction(ra[0], dec[0])} <small>(ICRS)</small>"
    ends = " to ".join(_hours(Longitude(value * u.rad)) for value in ra[[0, -1]])
    drift = f"drifts {np.degrees(abs(turned[-1] - turned[0])):.2f}° of right ascension"
    return f"declination {_degrees(float(dec.mean()))}, {ends} <small>(ICRS; {drift})</small>"


def _phase_centre(vis: xr.Dataset) -> str:
    if "phase_center_ra" in vis.coords:
        return "the meridian of each integration <small>(one centre: <code>.dsa.phase_to(direction)</code>)</small>"
    ra, dec = vis.attrs.get("phase_center_ra"), vis.attrs.get("phase_center_dec")
    return "" if ra is None or dec is None else f"{_direction(float(ra), float(dec))} <small>(ICRS)</small>"


def _antennas(vis: xr.Dataset) -> str:
    one, two = (vis[f"baseline_antenna{i}_name"].values.astype(str) for i in (1, 2))
    names = set(one) | set(two)
    cross = one != two
    text = f"{len(names)}, {int(cross.sum()):,} baselines"
    if (~cross).any():
        text += f" and {int((~cross).sum())} autocorrelations"
    uvw = vis["UVW"].values[:, cross]
    length = np.sqrt((uvw**2).sum(axis=-1))
    good = length[np.isfinite(length) & (length > 0)]
    return f"{text} <small>({good.min():.3g} to {good.max():.4g} m)</small>" if good.size else text


def _band(vis: xr.Dataset) -> str:
    frequency, width = vis["frequency"].values, float(vis.attrs.get("channel_width", 0.0))
    low, high = (frequency.min() - width / 2) / 1e6, (frequency.max() + width / 2) / 1e6
    text = f"{low:.2f} to {high:.2f} MHz <small>({frequency.size} channels of {width / 1e3:.4g} kHz)</small>"
    missing = vis.attrs.get("missing_subbands")
    if missing is None or not len(missing):
        return text
    return f"{text}<br>missing: {', '.join(f'sb{int(number):02d}' for number in missing)}"


def _flags(known: xr.Dataset | None) -> str:
    """Fraction of all, bars by subband, and the antennas that are flagged most."""
    if known is None:
        return "not read yet <small>(<code>.dsa.flags()</code> reads and keeps them)</small>"
    text = f"{known.attrs['flagged']:.1%} <small>of the cross-correlations</small>"
    if known.attrs["flagged"] == 0:
        return text
    by_antenna = known["by_antenna"].mean("polarization")
    order = np.argsort(-by_antenna.values, kind="stable")[:5]
    middle = float(np.median(by_antenna.values))
    worst = [i for i in order if by_antenna.values[i] > max(1.5 * middle, middle + 0.02)]
    if worst:
        names = (
            f"{html.escape(str(by_antenna['antenna_name'].values[i]))} ({by_antenna.values[i]:.0%})" for i in worst
        )
        text += f"<br><small>antennas above the others:</small> {', '.join(names)}"
    return f"{text}<br><small>by subband, low to high frequency:</small> {_bars(known)}"


def _bars(known: xr.Dataset) -> str:
    """A bar for each subband's width of the band, dashed where there is none."""
    frequency, flagged = known["frequency"].values, known["by_frequency"].mean("polarization").values
    bins = _subbands(frequency)
    fractions = [float(flagged[bins == i].mean()) if (bins == i).any() else None for i in range(int(bins.max()) + 1)]
    return f'<span class="bars">{"".join(_bar(value) for value in fractions)}</span>'


def _bar(fraction: float | None) -> str:
    if fraction is None:
        return '<i class="gone" title="no data"></i>'
    return f'<i style="height:{max(1, round(22 * fraction))}px" title="{fraction:.1%}"></i>'


def _subbands(frequency: NDArray[np.float64]) -> NDArray[np.int64]:
    """Subband's width of band that each channel lies in, at most 32 of them, from the lowest frequency up."""
    extent = float(np.ptp(frequency))
    width = max(_SUBBAND_HZ, extent / 31) if extent > 4 * _SUBBAND_HZ else max(extent / 15.99, 1.0)
    return np.asarray((frequency - frequency.min() + 1.0) // width, np.int64)


def _size(vis: xr.Dataset) -> str:
    numbers = " × ".join(f"{vis.sizes[name]:,}" for name in vis["VISIBILITY"].dims)
    bytes_ = sum(array.nbytes for array in vis.data_vars.values())
    where = "on disk, read when used" if dask.is_dask_collection(vis["VISIBILITY"].data) else "in memory"
    return f"{numbers} <small>(time × baseline × channel × polarisation; {_bytes(bytes_)}, {where})</small>"


def _bytes(number: int) -> str:
    power = min(4, max(0, len(str(number)) - 1) // 3)
    return f"{number / 1000**power:.3g} {('B', 'kB', 'MB', 'GB', 'TB')[power]}"
