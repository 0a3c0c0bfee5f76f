"""``ds.dsa``: what an astronomer does with a Visibilities Dataset or an image, within reach of it.

Thin: each method calls one function of `science` or `views`, whose documentation holds.

>>> vis = dc.open_group("2026-01-25T22:26:05")  # doctest: +SKIP
>>> vis.dsa.plot.waterfall(antenna="25")  # doctest: +SKIP
>>> vis.dsa.select(uvrange=(100, None)).dsa.stokes_i().dsa.plot.amplitude(backend="bokeh")  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import xarray as xr

from dsa110_contimg import views
from dsa110_contimg.exceptions import ExternalToolError, InputError
from dsa110_contimg.io import catalogs, netcdf, rfi
from dsa110_contimg.options import FlagOptions
from dsa110_contimg.science import gains, masking, phasing, reduction, selection, stokes, visfit

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from dsa110_contimg.views.columns import Against
    from dsa110_contimg.views.explore_image import ImageExplorer
    from dsa110_contimg.views.interactive import Interactive

Backend = Literal["matplotlib", "bokeh"]
_NEEDED = ("VISIBILITY", "FLAG", "UVW")


class Plot:
    """Figures of every unflagged visibility.

    ``backend="matplotlib"`` gives a Figure for reports, ``"bokeh"`` one to zoom and point at in a notebook.
    """

    def __init__(self, dataset: xr.Dataset) -> None:
        self._dataset = dataset

    def uv(self, backend: Backend = "matplotlib") -> Figure | Interactive:
        """uv coverage: `views.uv_coverage`."""
        return self._draw(backend, "uv_coverage", "interactive_uv")

    def amplitude(self, x: Against = "uvdist", backend: Backend = "matplotlib") -> Figure | Interactive:
        """Amplitude against ``uvdist``, ``time`` or ``frequency``: `views.amplitude`."""
        return self._draw(backend, "amplitude", "interactive_amplitude", x)

    def phase(self, x: Against = "uvdist", backend: Backend = "matplotlib") -> Figure | Interactive:
        """Phase against ``uvdist``, ``time`` or ``frequency``: `views.phase`."""
        return self._draw(backend, "phase", "interactive_phase", x)

    def waterfall(
        self,
        antenna: str | int | None = None,
        baseline: str | tuple[str, str] | None = None,
        backend: Backend = "matplotlib",
    ) -> Figure | Interactive:
        """Amplitude and phase against time and frequency, of an antenna, a baseline or all: `views.waterfall`."""
        return self._draw(backend, "waterfall", "interactive_waterfall", antenna, baseline)

    def flags(self) -> Figure:
        """Flagged fractions by channel, antenna and time: `views.flags`."""
        return views.flags(self._dataset, self._dataset.dsa.flags())

    def _draw(self, backend: str, still: str, interactive: str, *arguments: Any) -> Any:
        if backend not in ("matplotlib", "bokeh"):
            raise InputError("There is no such backend", found=backend, expected="matplotlib or bokeh")
        try:
            draw = getattr(views, still if backend == "matplotlib" else interactive)
        except ModuleNotFoundError as error:
            raise ExternalToolError(
                "What draws this figure is not installed",
                found=f"no {error.name}",
                expected="dsa110_contimg[pipeline] for matplotlib, dsa110_contimg[notebooks] for bokeh",
            ) from error
        return draw(self._dataset, *arguments)


class ImagePlot:
    """Figures of an image: called, the image itself."""

    def __init__(self, dataset: xr.Dataset) -> None:
        self._dataset = dataset

    def __call__(
        self,
        catalog: pd.DataFrame | str | Path | bool = False,
        *,
        variable: str = "SKY",
        frequency: int = 0,
        polarization: int = 0,
    ) -> Figure:
        """The image on a scale that shows noise and sources: `views.sky`.

        Parameters
        ----------
        catalog : sources to draw on it: True the packaged catalogue, a DataFrame, or the path of a source list.
        """
        sources = catalogue(catalog)
        return views.sky(self._dataset, sources, variable=variable, frequency=frequency, polarization=polarization)

    def explore(self, catalog: pd.DataFrame | str | Path | bool = True) -> ImageExplorer:
        """The image to zoom, pan and click in, in a notebook: `views.image_explorer`."""
        return views.image_explorer(self._dataset, catalogue(catalog))


def catalogue(given: pd.DataFrame | str | Path | bool) -> pd.DataFrame | None:
    """The packaged catalogue (True), none (False), a table as it is, or the source list at a path."""
    if isinstance(given, bool):
        return catalogs.packaged_catalog() if given else None
    return catalogs.read_catalog(Path(given)) if isinstance(given, (str, Path)) else given


@xr.register_dataset_accessor("dsa")
class Dsa:
    """What can be done with a Visibilities Dataset; shows itself as the observation at a glance.

    Of an image (`open_image`) there are ``plot()``, ``plot.explore()`` and the same glance.

    Raises
    ------
    InputError
        By every method: the Dataset does not hold visibilities.
    """

    def __init__(self, dataset: xr.Dataset) -> None:
        self._dataset = dataset
        self._flags: xr.Dataset | None = None

    @property
    def _vis(self) -> xr.Dataset:
        missing = [name for name in _NEEDED if name not in self._dataset]
        if missing:
            raise InputError("The Dataset does not hold visibilities", found=f"no {', '.join(missing)}")
        return self._dataset

    @property
    def plot(self) -> Any:
        """`Plot`: ``uv``, ``amplitude``, ``phase``, ``waterfall``, ``flags``; of an image `ImagePlot`, to be called."""
        return ImagePlot(self._dataset) if self._is_image else Plot(self._vis)

    @property
    def _is_image(self) -> bool:
        return "SKY" in self._dataset and "wcs" in self._dataset.attrs

    def flags(self) -> xr.Dataset:
        """Flagged fractions by channel, antenna and time (`views.flag_fractions`); of lazy data read once and kept."""
        if self._flags is None or self._vis.chunks.get("time") is None:
            self._flags = views.flag_fractions(self._vis)
        return self._flags

    def phase_to(self, direction: phasing.Direction) -> xr.Dataset:
        """Turned to another phase centre: `science.phasing.phase_to`."""
        return phasing.phase_to(self._vis, direction)

    def select(
        self,
        *,
        antenna: str | int | Sequence[str | int] | None = None,
        baseline: selection.Pair | Sequence[selection.Pair] | None = None,
        uvrange: selection.Range | None = None,
        time: tuple[float | str | None, float | str | None] | None = None,
        frequency: selection.Range | None = None,
        autocorrelations: bool = True,
    ) -> xr.Dataset:
        """The part that meets all conditions: `science.selection.select`."""
        return selection.select(
            self._vis,
            antenna=antenna,
            baseline=baseline,
            uvrange=uvrange,
            time=time,
            frequency=frequency,
            autocorrelations=autocorrelations,
        )

    def average(self, channels: int = 1, integrations: int = 1) -> xr.Dataset:
        """Averaged over neighbouring channels and integrations: `science.reduction.average`."""
        return reduction.average(self._vis, channels, integrations)

    def stokes_i(self) -> xr.Dataset:
        """Stokes I of the parallel hands: `science.stokes.stokes_i`."""
        return stokes.stokes_i(self._vis)

    def flag(self, method: Literal["builtin", "aoflagger", "none"] = "builtin", **options: Any) -> xr.Dataset:
        """Raw visibilities flagged, by the options of `options.FlagOptions`: `science.masking.flag_visibilities`."""
        chosen = FlagOptions(rfi=method, **options)
        detector = rfi.AOFlagger(chosen.aoflagger_threshold).detect if method == "aoflagger" else None
        return masking.flag_visibilities(self._vis, chosen, detector)

    def apply_gains(self, *caltables: xr.Dataset, scale_weights: bool = True) -> xr.Dataset:
        """Divided by the gains of calibration tables: `science.gains.apply_gains`."""
        for table in caltables:
            if not (isinstance(table, xr.Dataset) and "GAIN" in table):
                found = "a Dataset without GAIN" if isinstance(table, xr.Dataset) else type(table).__name__
                raise InputError("Not a calibration table", found=found, expected="what open_caltable gives")
        return gains.apply_gains(self._vis, *caltables, scale_weights=scale_weights)

    def fit_fluxes(self, positions: pd.DataFrame, *, others: pd.DataFrame | None = None) -> visfit.FluxFits:
        """Fluxes at given positions, fitted to these corrected visibilities: `science.visfit.fit_fluxes`."""
        return visfit.fit_fluxes(self._vis, positions, others=others)

    def to_netcdf(self, path: str | Path) -> Path:
        """Written to one netCDF-4 file, attributes, complex numbers and flags included, which `dc.open` opens lazily.

        `xarray.Dataset.to_netcdf` cannot hold these: `io.netcdf.write` says how they are kept.
        """
        return netcdf.write(self._vis, Path(path))

    def __repr__(self) -> str:
        if self._is_image:
            sizes = ", ".join(f"{name} {size}" for name, size in self._dataset["SKY"].sizes.items())
            return f"<dsa: image of {self._dataset.attrs.get('group_id') or 'no group'}: {sizes}>"
        if not all(name in self._dataset for name in _NEEDED):
            return "<dsa: not a Visibilities Dataset>"
        sizes = ", ".join(f"{name} {size}" for name, size in self._dataset["VISIBILITY"].sizes.items())
        return f"<dsa: visibilities of {self._dataset.attrs.get('group_id', 'no group')}: {sizes}>"

    def _repr_html_(self) -> str:
        if self._is_image:
            return views.image_glance(self._dataset)
        return views.glance(self._vis, self._flags)
