"""Figures of an image of the sky, its noise, and what the catalogue says should be there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from astropy.io import fits
from astropy.wcs import WCS
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from numpy.typing import NDArray

from dsa110_contimg.exceptions import CorruptFileError
from dsa110_contimg.records import ImageProduct
from dsa110_contimg.views import style

_LABELLED = 6


@dataclass(frozen=True)
class Plane:
    """One plane of a FITS image: values (y, x), celestial WCS and header."""

    values: NDArray[np.float32]
    wcs: WCS
    header: fits.Header


def read_plane(path: Path) -> Plane:
    """The sky plane of a FITS image, native byte order.

    Raises
    ------
    CorruptFileError
        If the file is not FITS, or holds no two-dimensional image.
    """
    try:
        with fits.open(path) as hdus:
            header, data = hdus[0].header, hdus[0].data
            if data is None:
                raise CorruptFileError("The file holds no image", path=path, expected="an image in the first HDU")
            values = np.asarray(data, dtype=np.float32).reshape(data.shape[-2:])
    except (OSError, ValueError) as error:
        raise CorruptFileError("The image cannot be read", path=path, found=error, expected="one plane") from error
    return Plane(values, WCS(header).celestial, header)


@style.styled
def image_view(image: ImageProduct, sources: pd.DataFrame | None = None) -> Figure:
    """The restored image with the catalogue on it, its brightest source at full resolution, and its noise.

    Left: the whole image; dashed, the half-power contour of the drift-averaged beam; circles, catalogue sources that
    were measured (area grows with flux; the brightest are named). Upper right: the pixels about the brightest source
    with the restoring beam. Lower right: pixels inside the half-power contour against the Gaussian of the noise.

    Parameters
    ----------
    image : ImageProduct
    sources : DataFrame, optional
        Photometry table: ``source``, ``ra_deg``, ``dec_deg``, ``catalog_flux_jy``.
    """
    sky, response = read_plane(image.path), read_plane(image.pb_path).values
    figure = style.new_figure(11.0, 7.0)
    grid = figure.add_gridspec(2, 3, width_ratios=(1, 1, 0.92))
    whole = figure.add_subplot(grid[:, :2], projection=sky.wcs)
    norm = style.sky_norm(image.noise_jy * 1e3, float(np.nanmax(sky.values)) * 1e3)
    shown = _overview(whole, sky.values * 1e3, response, norm)
    label_sky(whole, f"{image.group_id} UTC, {image.frequency_hz / 1e9:.3f} GHz")
    if sources is not None and len(sources):
        overlay(whole, sky.wcs, sources)
    bar = figure.colorbar(
        shown, ax=whole, location="bottom", shrink=0.8, pad=0.02, aspect=40, extend="max", label="brightness (mJy/beam)"
    )
    ticks = asinh_ticks(float(norm.vmin or 0.0), float(norm.vmax or 0.0))
    bar.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    bar.minorticks_off()
    _zoom(figure, grid[0, 2], sky, image)
    _noise(figure.add_subplot(grid[1, 2]), sky.values[response > 0.5], image)
    return figure


def _overview(axes: Any, values: NDArray[np.float32], response: NDArray[np.float32], norm: Any) -> Any:
    """All of an image in about a thousand pixels, blocks averaged, with the half-power contour."""
    ny, nx = values.shape
    block = max(1, min(ny, nx) // 1000)
    rows, columns = ny // block * block, nx // block * block
    small = values[:rows, :columns].reshape(rows // block, block, columns // block, block).mean(axis=(1, 3))
    extent = (-0.5, columns - 0.5, -0.5, rows - 0.5)
    shown = axes.imshow(small, cmap=style.SKY_MAP, norm=norm, interpolation="antialiased", extent=extent)
    step = max(1, min(ny, nx) // 200)
    grid = (np.arange(0, nx, step), np.arange(0, ny, step))
    axes.contour(*grid, response[::step, ::step], levels=[0.5], colors="white", linestyles="dashed", linewidths=1.0)
    return shown


def label_sky(axes: Any, title: str, frame: str = "ICRS") -> None:
    axes.coords[0].set_axislabel(f"right ascension ({frame})")
    axes.coords[1].set_axislabel(f"declination ({frame})")
    axes.coords[0].set_major_formatter("hh:mm")
    axes.coords[1].set_major_formatter("dd:mm")
    axes.coords.grid(color="white", alpha=0.18, linestyle="solid", linewidth=0.6)
    axes.set_title(title)


def overlay(axes: Any, wcs: WCS, sources: pd.DataFrame) -> None:
    x, y = wcs.world_to_pixel_values(sources["ra_deg"].to_numpy(), sources["dec_deg"].to_numpy())
    flux = sources["catalog_flux_jy"].fillna(0.0).clip(lower=0.0).to_numpy()
    axes.scatter(x, y, s=30 + 160 * np.sqrt(flux), facecolors="none", edgecolors=style.SKY, linewidths=0.9, alpha=0.9)
    named: list[tuple[float, float]] = []
    width = wcs.pixel_shape[0] if wcs.pixel_shape else float(np.max(x))
    for i in np.argsort(flux)[::-1]:
        # names must not cover each other
        near = any(abs(x[i] - a) < 0.3 * width and abs(y[i] - b) < 0.04 * width for a, b in named)
        if near or len(named) == _LABELLED:
            continue
        named.append((float(x[i]), float(y[i])))
        right = x[i] > 0.7 * width
        axes.annotate(
            str(sources["source"].iloc[i]), (x[i], y[i]), xytext=(-9 if right else 9, 7), textcoords="offset points",
            ha="right" if right else "left", fontsize=7.5, color="white", annotation_clip=True,
        )  # fmt: skip


def asinh_ticks(low: float, high: float) -> list[float]:
    """Zero and steps of about three on an asinh scale, far enough from zero to be read."""
    steps = [m * 10.0**e for e in range(-3, 5) for m in (1, 3)]
    return [0.0, *(step for step in steps if abs(low) < step <= high)]


def _zoom(figure: Figure, place: Any, sky: Plane, image: ImageProduct) -> None:
    """The brightest source at full resolution, on a scale up to its peak, with the restoring beam."""
    cell = image.cell_arcsec
    half = max(int(4.0 * image.bmaj_deg * 3600 / cell), 12)
    peak_y, peak_x = np.unravel_index(int(np.nanargmax(sky.values)), sky.values.shape)
    ny, nx = sky.values.shape
    rows = slice(max(int(peak_y) - half, 0), min(int(peak_y) + half + 1, ny))
    columns = slice(max(int(peak_x) - half, 0), min(int(peak_x) + half + 1, nx))
    axes = figure.add_subplot(place, projection=sky.wcs[rows, columns])
    norm = style.sky_norm(image.noise_jy * 1e3, float(sky.values[peak_y, peak_x]) * 1e3, saturation=np.inf)
    axes.imshow(sky.values[rows, columns] * 1e3, cmap=style.SKY_MAP, norm=norm, interpolation="nearest")
    label_sky(axes, f"Brightest, {float(sky.values[peak_y, peak_x]) * 1e3:.0f} mJy/beam")
    axes.coords[0].set_major_formatter("hh:mm:ss")
    axes.coords[0].set_ticks(number=3)
    major, minor = image.bmaj_deg * 3600 / cell, image.bmin_deg * 3600 / cell
    # position angle runs from north through east, and east is to the left
    beam = Ellipse(
        (0.8 * major + 1, 0.8 * major + 1), minor, major, angle=image.bpa_deg, fc="white", ec="none", alpha=0.85
    )
    axes.add_patch(beam)
    text = f"beam {image.bmaj_deg * 3600:.1f}″ × {image.bmin_deg * 3600:.1f}″, PA {image.bpa_deg:.0f}°"
    axes.text(0.97, 0.03, text, transform=axes.transAxes, ha="right", va="bottom", color="white", fontsize=8)


def _noise(axes: Axes, pixels: NDArray[np.float32], image: ImageProduct) -> None:
    """Histogram of pixels in units of the noise; the negative side shows what is noise and what is not."""
    axes.set(xlabel=r"pixel / noise $\sigma$", ylabel="pixels", yscale="log")
    sigma = image.noise_jy
    if not (np.isfinite(sigma) and sigma > 0 and np.isfinite(pixels).any()):
        style.say_nothing_to_show(axes, "noise not known")
        return
    edges = np.arange(-8, 12.01, 0.25)
    scaled = pixels[np.isfinite(pixels)] / sigma
    count = np.histogram(scaled, bins=edges)[0]
    axes.stairs(count, edges, fill=True, color=style.SKY, alpha=0.75)
    gauss = scaled.size * 0.25 / np.sqrt(2 * np.pi) * np.exp(-0.5 * edges**2)
    axes.plot(edges, gauss, color=style.INK, lw=1.2, label=f"noise {sigma * 1e3:.2f} mJy/beam")
    if np.isfinite(image.thermal_noise_jy) and image.thermal_noise_jy > 0:
        ratio = image.thermal_noise_jy / sigma
        thermal = scaled.size * 0.25 / np.sqrt(2 * np.pi) / ratio * np.exp(-0.5 * (edges / ratio) ** 2)
        label = f"thermal limit {image.thermal_noise_jy * 1e3:.2f}"
        axes.plot(edges, thermal, color=style.VERMILION, lw=1.2, ls="--", label=label)
    axes.set(ylim=(0.6, max(count.max() * 8, 10)), xlim=(-8, 12))
    axes.set_title("Inside half power")
    axes.legend(loc="upper right", fontsize=8)


def thumbnail(image: ImageProduct, pixels: int = 168) -> bytes:
    """A small JPEG of the image, for an index: the peak of each block of pixels, so that no source is lost.

    Parameters
    ----------
    image : ImageProduct
    pixels : int
        Size on a side.
    """
    import io

    from PIL import Image as Bitmap  # comes with matplotlib

    values = read_plane(image.path).values
    block = max(1, min(values.shape) // pixels)
    side = min(values.shape) // block * block
    peaks = values[:side, :side].reshape(side // block, block, side // block, block)
    peaks = np.nan_to_num(peaks, nan=0.0).max(axis=(1, 3))
    # the largest of block^2 noise pixels stands about 2-3 sigma high: subtract it to keep the sky dark
    floor = float(np.median(peaks))
    scaled = np.asarray(style.sky_norm(image.noise_jy, float(peaks.max()))(peaks - floor))
    colours = (style.SKY_MAP(np.clip(scaled, 0, 1))[::-1, :, :3] * 255).astype(np.uint8)
    buffer = io.BytesIO()
    Bitmap.fromarray(colours).resize((pixels, pixels), Bitmap.Resampling.LANCZOS).save(buffer, "JPEG", quality=82)
    return buffer.getvalue()
