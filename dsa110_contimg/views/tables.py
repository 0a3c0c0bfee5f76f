"""Tables for readers: units in the head of every column, sexagesimal positions, the brightest first."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from dsa110_contimg.science.photometry import Quality


def brightest_sources(photometry: pd.DataFrame, n_sources: int = 15) -> pd.DataFrame:
    """The brightest measured sources, for a report.

    Parameters
    ----------
    photometry : DataFrame
        Photometry table of one image.

    Returns
    -------
    DataFrame of text, a row a source, brightest first.
    """
    chosen = photometry.sort_values("flux_jy", ascending=False).head(n_sources)
    ratio_error = chosen["flux_error_jy"] / chosen["catalog_flux_jy"]
    shown = pd.DataFrame(
        {
            "source": chosen["source"].astype(str),
            "RA (ICRS)": [_sexagesimal(value / 15.0, 1) for value in chosen["ra_deg"]],
            "Dec (ICRS)": [_sexagesimal(value, 0, sign=True) for value in chosen["dec_deg"]],
            "flux (mJy)": _with_error(chosen["flux_jy"] * 1e3, chosen["flux_error_jy"] * 1e3, 1),
            "catalogue (mJy)": _text(chosen["catalog_flux_jy"] * 1e3, 1),
            "ratio": _with_error(chosen["ratio"], ratio_error, 3),
            "S/N": _text(chosen["flux_raw_jy"] / chosen["local_noise_jy"], 0),
            "beam": _text(chosen["beam_response"], 3),
            "offset E, N (arcsec)": [
                f"{east:+.2f}, {north:+.2f}" if np.isfinite(east) and np.isfinite(north) else "–"
                for east, north in zip(chosen["offset_ra_arcsec"], chosen["offset_dec_arcsec"], strict=True)
            ],
            "quality": [Quality(int(bits)).in_words() or "–" for bits in chosen["quality"]],
        }
    )
    return shown.set_index("source")


@dataclass(frozen=True)
class Markup:
    """HTML that a notebook shows as it is, whole, with the plain text of the same."""

    text: str
    body: str

    def _repr_html_(self) -> str:
        return self.body

    def __repr__(self) -> str:
        return self.text


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], empty: str = "nothing") -> Markup:
    """A table whose cells are HTML already; escape what is not.

    Parameters
    ----------
    heads : column heads; none makes a table without a head
    rows : cells
    empty : said instead when there are no rows
    """
    if not rows:
        return Markup(empty, f"<p>{html.escape(empty)}</p>")
    head = "".join(f"<th>{html.escape(name)}</th>" for name in heads)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>" for cells in rows)
    top = f"<thead><tr>{head}</tr></thead>" if heads else ""
    text = "\n".join("  ".join(html.unescape(re.sub("<[^>]*>", "", cell)) for cell in cells) for cells in rows)
    return Markup(text, f"<table>{top}<tbody>{body}</tbody></table>")


def key_values(values: Mapping[str, object]) -> Markup:
    """A mapping as a table of two columns, in its own order, nothing cut short."""
    return table((), [(f"<b>{html.escape(str(key))}</b>", html.escape(str(value))) for key, value in values.items()])


def _text(values: pd.Series, digits: int) -> list[str]:
    return [f"{value:.{digits}f}" if np.isfinite(value) else "–" for value in values]


def _with_error(values: pd.Series, errors: pd.Series, digits: int) -> list[str]:
    return [
        f"{value:.{digits}f} ± {error:.{digits}f}" if np.isfinite(value) else "–"
        for value, error in zip(values, errors, strict=True)
    ]


def _sexagesimal(value: float, digits: int, *, sign: bool = False) -> str:
    """Hours or degrees as ``HH:MM:SS.S``, rounded once so that no field reaches 60."""
    scale = 10**digits
    ticks = round(abs(value) * 3600 * scale)
    seconds, fraction = divmod(ticks, scale)
    whole = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    mark = ("-" if value < 0 else "+") if sign else ""
    return mark + (f"{whole}.{fraction:0{digits}d}" if digits else whole)
