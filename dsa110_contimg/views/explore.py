"""Choosing what to look at: a panel of selectors over one interactive figure, for notebooks."""

from __future__ import annotations

import uuid
from typing import Any

import xarray as xr
from IPython.display import display, update_display
from ipywidgets import Dropdown, HBox, Layout  # type: ignore[import-untyped]

from dsa110_contimg.exceptions import ContimgError
from dsa110_contimg.science.selection import select
from dsa110_contimg.views.columns import AGAINST, Against
from dsa110_contimg.views.interactive import (
    Interactive,
    interactive_amplitude,
    interactive_phase,
    interactive_uv,
    interactive_waterfall,
)

FIGURES = ("amplitude", "phase", "waterfall", "uv coverage")
_ALL = "all"


class Explorer:
    """Selectors of figure, antenna, polarisation and x axis, over the figure they ask for.

    The figure is drawn anew from every visibility of the choice when a selector changes; only those are read. It is an
    output of its own and no widget, so that it stays in a page where no kernel answers.

    Attributes
    ----------
    selectors : the Dropdowns by name: ``figure``, ``antenna``, ``polarization``, ``x``.
    page : what is shown, by MIME type.
    """

    def __init__(self, vis: xr.Dataset) -> None:
        one, two = (vis[f"baseline_antenna{i}_name"].values.astype(str) for i in (1, 2))
        names = sorted(set(one) | set(two), key=lambda name: (len(name), name))
        hands = [str(name) for name in vis["polarization"].values]
        choices = {
            "figure": ("Figure", FIGURES),
            "antenna": ("Antenna", [_ALL, *names]),
            "polarization": ("Hand", [_ALL, *hands]),
            "x": ("Against", AGAINST),
        }
        self._vis = vis
        self._name = uuid.uuid4().hex
        self.page: dict[str, str] = {}
        self.selectors = {
            name: Dropdown(options=options, description=label, layout=Layout(width="200px"))
            for name, (label, options) in choices.items()
        }
        for selector in self.selectors.values():
            selector.style.description_width = "60px"
            selector.observe(self._redraw, names="value")
        self._choose()

    def _choose(self) -> None:
        choice = {name: selector.value for name, selector in self.selectors.items()}
        self.selectors["x"].disabled = choice["figure"] not in ("amplitude", "phase")
        try:
            figure = draw(self._vis, **choice)
        except ContimgError as error:
            self.page = {"text/plain": str(error)}
        else:
            self.page = {"text/html": figure.to_frame(), "text/plain": figure.title}

    def _redraw(self, _change: Any) -> None:
        self._choose()
        update_display(self.page, display_id=self._name, raw=True)

    def _ipython_display_(self) -> None:
        display(HBox(list(self.selectors.values()), layout=Layout(flex_flow="row wrap")))
        display(self.page, display_id=self._name, raw=True)


def explorer(vis: xr.Dataset) -> Explorer:
    """A panel to look through an observation with.

    Parameters
    ----------
    vis : Visibilities view
        May be lazy.
    """
    return Explorer(vis)


def draw(
    vis: xr.Dataset, figure: str = "amplitude", antenna: str = _ALL, polarization: str = _ALL, x: Against = "uvdist"
) -> Interactive:
    """The figure of a choice.

    Parameters
    ----------
    vis : Visibilities view
    figure : one of `FIGURES`
    antenna : station number, or ``all``
    polarization : hand, or ``all``
    x : ``uvdist``, ``time`` or ``frequency``, for amplitude and phase

    Raises
    ------
    InputError
        Something that is not there.
    """
    chosen = vis if polarization == _ALL else vis.sel(polarization=[polarization])
    if figure == "waterfall":
        return interactive_waterfall(chosen, antenna=None if antenna == _ALL else antenna)
    if antenna != _ALL:
        chosen = select(chosen, antenna=antenna, autocorrelations=False)
    if figure == "uv coverage":
        return interactive_uv(chosen)
    return (interactive_phase if figure == "phase" else interactive_amplitude)(chosen, x)
