"""An Image view as a figure: noise and sources on one scale, the beam, the catalogue; and at a glance, as HTML."""

from __future__ import annotations

import html
from typing import Any

import dask
import numpy as np
import pandas as pd
import xarray as xr
from astropy.io import fits
from astropy.time import Time
from astropy.wcs import WCS
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from numpy.typing import NDArray

from dsa110_contimg.exceptions import InputError
from dsa110_contimg.science.deconvolution import robust_rms
from dsa110_contimg.views import style
from dsa110_contimg.views.image import Plane, asinh_ticks, label_sky, overlay
from dsa110_contimg.views.summary import STYLE

NON_SCIENCE = "NON-SCIENCE"
_BRIGHTNESS = ("JY/BEAM", "JY BEAM-1")
_LEAST_SIGMA = 5.0
"""Apparent flux over the noise from which a catalogue source is drawn."""


def sky_plane(img: xr.Dataset, variable: str = "SKY", frequency: int = 0, polarization: int = 0) -> Plane:
    """One plane ``[y, x]`` of an Image view with its coordinates.

    Raises
    ------
    InputError
        There is no such plane.
    """
    if variable not in img:
        raise InputError("The image has no such plane", found=variable, expected=sorted(map(str, img.data_vars)))
    array = img[variable]
    for name, number in (("frequency", frequency), ("polarization", polarization)):
        if not -array.sizes[name] <= number < array.sizes[name]:
            raise InputError(f"The image has no such {name}", found=number, expected=f"below {array.sizes[name]}")
    values = np.asarray(array.isel(time=0, frequency=frequency, polarization=polarization).values.T, np.float32)
    header = fits.Header.fromstring(img.attrs["wcs"])
    wcs = WCS(header).celestial
    wcs.pixel_shape = values.shape[::-1]
    return Plane(values, wcs, header)


def noise_of(img: xr.Dataset, values: NDArray[np.float32]) -> float:
    """What the header says of the residual, or the robust rms of the image itself."""
    told = float(img.attrs.get("noise_jy", float("nan")))
    if np.isfinite(told) and told > 0:
        return told
    good = values[np.isfinite(values)]
    return float(robust_rms(good)) if good.size else float("nan")


def in_image(img: xr.Dataset, plane: Plane, sources: pd.DataFrame) -> pd.DataFrame:
    """Catalogue sources that should be seen: inside, and above 5 sigma through the primary beam where it is known.

    Parameters
    ----------
    sources : DataFrame
        A catalogue (``name``, ``ra_deg``, ``dec_deg``, ``flux_jy``) or photometry (``source``, ``catalog_flux_jy``).

    Returns
    -------
    DataFrame with ``source``, ``ra_deg``, ``dec_deg``, ``catalog_flux_jy``, ``x``, ``y`` (pixels from 0) besides.
    """
    names = {"name": "source", "flux_jy": "catalog_flux_jy"} if "catalog_flux_jy" not in sources else {}
    table = sources.rename(columns=names)
    x, y = plane.wcs.wcs_world2pix(table["ra_deg"].to_numpy(), table["dec_deg"].to_numpy(), 0)
    n_y, n_x = plane.values.shape
    inside = np.isfinite(x) & np.isfinite(y) & (x > -0.5) & (x < n_x - 0.5) & (y > -0.5) & (y < n_y - 0.5)
    near = plane.wcs.celestial.wcs_pix2world(np.where(inside, x, 0), np.where(inside, y, 0), 0)
    # directions behind the tangent plane project into the image too
    inside &= np.hypot(_turn(near[0] - table["ra_deg"]), near[1] - table["dec_deg"]) < 1e-3
    chosen = table[inside].assign(x=x[inside], y=y[inside])
    if "PRIMARY_BEAM" not in img:
        return chosen
    response = sky_plane(img, "PRIMARY_BEAM").values
    at = response[np.rint(chosen["y"]).astype(int), np.rint(chosen["x"]).astype(int)]
    return chosen[chosen["catalog_flux_jy"] * at >= _LEAST_SIGMA * noise_of(img, plane.values)]


def _turn(degrees: Any) -> Any:
    return (degrees + 180.0) % 360.0 - 180.0


@style.styled
def sky(
    img: xr.Dataset,
    sources: pd.DataFrame | None = None,
    *,
    variable: str = "SKY",
    frequency: int = 0,
    polarization: int = 0,
) -> Figure:
    """The image, linear within twice its noise and logarithmic above, so that both noise and sources show.

    Dashed, the half-power contour of the primary beam where it is known; circles, catalogue sources that should be
    seen; lower left, the restoring beam, enlarged where it would be too small to see. An image of the tier
    ``development`` is stamped.

    Parameters
    ----------
    img : Image view
    sources : DataFrame, optional
        As `in_image` takes it.
    variable, frequency, polarization : which plane.

    Raises
    ------
    InputError
        There is no such plane.
    """
    plane = sky_plane(img, variable, frequency, polarization)
    unit, scale = _unit(img, variable)
    figure = style.new_figure(8.0, 8.4)
    axes: Any = figure.add_subplot(projection=plane.wcs)
    values = plane.values * scale
    sigma = noise_of(img, plane.values) * scale if variable in ("SKY", "RESIDUAL") else robust_rms(plane.values) * scale
    if not np.isfinite(values).any():
        style.say_nothing_to_show(axes, "every pixel is blank")
        return figure
    norm = style.sky_norm(sigma, float(np.nanmax(values)))
    axes.set_facecolor(style.INK)  # blank pixels, on which beam and names are still to be read
    shown = axes.imshow(_blocks(values), cmap=style.SKY_MAP, norm=norm, extent=_extent(values))
    label_sky(axes, _title(img, frequency, polarization), str(img.attrs.get("frame") or "frame not known").upper())
    if "PRIMARY_BEAM" in img:
        _half_power(axes, sky_plane(img, "PRIMARY_BEAM").values)
    if sources is not None:
        overlay(axes, plane.wcs, in_image(img, plane, sources))
    _draw_beam(axes, img, plane)
    bar = figure.colorbar(shown, ax=axes, location="bottom", shrink=0.8, pad=0.02, aspect=40, extend="max", label=unit)
    ticks = asinh_ticks(float(norm.vmin or 0.0), float(norm.vmax or 0.0))
    bar.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    bar.minorticks_off()
    if img.attrs.get("tier") == "development":
        _stamp(axes)
    return figure


def _unit(img: xr.Dataset, variable: str) -> tuple[str, float]:
    unit = str(img[variable].attrs.get("units", ""))
    if unit.upper().replace(" ", "") in {name.replace(" ", "") for name in _BRIGHTNESS}:
        return "brightness (mJy/beam)", 1e3
    return (f"brightness ({unit})" if unit else "pixel value (unit not known)"), 1.0


def _blocks(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """All of an image in about a thousand pixels, blocks averaged."""
    n_y, n_x = values.shape
    block = max(1, min(n_y, n_x) // 1000)
    cut = values[: n_y // block * block, : n_x // block * block]
    if block == 1:
        return cut
    return np.asarray(cut.reshape(n_y // block, block, n_x // block, block).mean(axis=(1, 3)))


def _extent(values: NDArray[np.float32]) -> tuple[float, float, float, float]:
    n_y, n_x = values.shape
    block = max(1, min(n_y, n_x) // 1000)
    return (-0.5, n_x // block * block - 0.5, -0.5, n_y // block * block - 0.5)


def _title(img: xr.Dataset, frequency: int, polarization: int) -> str:
    """Who, when, at what frequency, as far as it is known."""
    mjd = float(img["time"].values[0])
    when = str(img.attrs.get("group_id") or "")
    if not when and np.isfinite(mjd):
        when = Time(mjd, format="mjd").strftime("%Y-%m-%dT%H:%M:%S")
    hertz = float(img["frequency"].values[frequency])
    parts = [
        when,
        f"{hertz / 1e9:.3f} GHz" if np.isfinite(hertz) else "",
        str(img["polarization"].values[polarization]),
    ]
    return ", ".join(part for part in parts if part)


def _half_power(axes: Any, response: NDArray[np.float32]) -> None:
    step = max(1, min(response.shape) // 200)
    x, y = (np.arange(0, n, step) for n in response.shape[::-1])
    small = response[::step, ::step]
    if np.nanmin(small) < 0.5 < np.nanmax(small):
        axes.contour(x, y, small, levels=[0.5], colors="white", linestyles="dashed", linewidths=1.0)


def _draw_beam(axes: Any, img: xr.Dataset, plane: Plane) -> None:
    """The restoring beam in the lower left corner, as large as it is or a whole number of times larger."""
    major, minor, angle = img.attrs["beam_deg"]
    if not (np.isfinite(major) and np.isfinite(minor) and np.isfinite(angle)):
        return
    n_y, n_x = plane.values.shape
    cell = float(np.sqrt(np.abs(np.linalg.det(plane.wcs.pixel_scale_matrix))))
    times = max(1, int(np.ceil(0.03 * min(n_x, n_y) / (major / cell))))
    size = times * np.array([minor, major]) / cell
    at = 0.03 * min(n_x, n_y) + size.max() / 2
    # position angle runs from north through east, and east is to the left
    axes.add_patch(Ellipse((at, at), *size, angle=angle, fc="white", ec="none", alpha=0.85))
    text = f"beam {major * 3600:.1f}″ × {minor * 3600:.1f}″, PA {angle:.0f}°" + (f" (× {times})" if times > 1 else "")
    axes.text(at + size.max() / 2 + 0.015 * n_x, at, text, color="white", fontsize=8, va="center")


def _stamp(axes: Any) -> None:
    words = f"{NON_SCIENCE}\ntier development"
    axes.text(
        0.5, 0.5, words, transform=axes.transAxes, ha="center", va="center", rotation=30, fontsize=44, color="white",
        alpha=0.35, weight="bold",
    )  # fmt: skip


# ---- at a glance ----------------------------------------------------------------------------------------------------


def image_glance(img: xr.Dataset) -> str:
    """HTML of what an image is, from its header alone; pixels are looked at where they are in memory."""
    sky_values = img["SKY"]
    noise = float(img.attrs.get("noise_jy", float("nan")))
    told = f"{noise * 1e3:.3g} mJy/beam <small>(residual, robust)</small>" if np.isfinite(noise) else ""
    if not told and not dask.is_dask_collection(sky_values.data):
        told = f"{noise_of(img, sky_values.values.ravel()):.3g} <small>(unit of the image, robust)</small>"
    rows = [
        ("Time (UTC)", _span(img)),
        ("Centre", _centre(img)),
        ("Frequency", _frequency(img)),
        ("Polarisations", ", ".join(filter(None, map(str, img["polarization"].values)))),
        ("Beam", _beam(img)),
        ("Noise", told),
        ("Tier", _tier(img)),
        ("Planes", ", ".join(map(str, img.data_vars))),
        ("Size", f"{img.sizes['l']:,} × {img.sizes['m']:,} pixels <small>of {_cell(img)}</small>"),
    ]
    body = "".join(f"<dt>{name}</dt><dd>{value or 'not known'}</dd>" for name, value in rows)
    head = html.escape(str(img.attrs.get("group_id") or "Image"))
    name = html.escape(str(img.attrs.get("telescope_name") or ""))
    return f'{STYLE}<div class="dsa-glance"><h4>{head}<span>{name}</span></h4><dl>{body}</dl></div>'


def _span(img: xr.Dataset) -> str:
    begin, end = float(img.attrs["mjd_start"]), float(img.attrs["mjd_end"])
    if not np.isfinite(begin):
        return ""
    first = Time(begin, format="mjd").strftime("%Y-%m-%d %H:%M:%S")
    return f"{first} <small>({(end - begin) * 86400:.0f} s)</small>" if np.isfinite(end) else first


def _centre(img: xr.Dataset) -> str:
    wcs = WCS(fits.Header.fromstring(img.attrs["wcs"])).celestial
    place = wcs.pixel_to_world(img.sizes["l"] / 2, img.sizes["m"] / 2)
    frame = html.escape(str(img.attrs["frame"] or "frame not known"))
    return f"{html.escape(place.to_string('hmsdms', precision=0))} <small>({frame})</small>"


def _frequency(img: xr.Dataset) -> str:
    hertz = img["frequency"].values
    if not np.isfinite(hertz).any():
        return ""
    if hertz.size == 1:
        width = float(img.attrs.get("bandwidth_hz", float("nan")))
        about = f" <small>(band of {width / 1e6:.1f} MHz)</small>" if np.isfinite(width) else ""
        return f"{hertz[0] / 1e6:.2f} MHz{about}"
    return f"{hertz.min() / 1e6:.2f} to {hertz.max() / 1e6:.2f} MHz <small>({hertz.size} planes)</small>"


def _beam(img: xr.Dataset) -> str:
    major, minor, angle = img.attrs["beam_deg"]
    if not np.isfinite(major):
        return ""
    return f"{major * 3600:.2f}″ × {minor * 3600:.2f}″, {angle:.1f}° <small>(north through east)</small>"


def _tier(img: xr.Dataset) -> str:
    tier = str(img.attrs.get("tier") or "")
    stamp = f" <b>{NON_SCIENCE}</b>" if tier == "development" else ""
    return html.escape(" by ".join(filter(None, (tier, str(img.attrs.get("imager") or ""))))) + stamp


def _cell(img: xr.Dataset) -> str:
    step = abs(float(img["m"].values[1] - img["m"].values[0])) if img.sizes["m"] > 1 else float("nan")
    return f"{np.degrees(step) * 3600:.4g}″"
