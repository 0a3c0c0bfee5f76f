"""Tables for readers: units in the head of every column, sexagesimal positions, the brightest first."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd


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
    table = photometry.sort_values("flux_jy", ascending=False).head(n_sources)
    ratio_error = table["flux_error_jy"] / table["catalog_flux_jy"]
    shown = pd.DataFrame(
        {
            "source": table["source"].astype(str),
            "RA (ICRS)": [_sexagesimal(value / 15.0, 1) for value in table["ra_deg"]],
            "Dec (ICRS)": [_sexagesimal(value, 0, sign=True) for value in table["dec_deg"]],
            "flux (mJy)": _with_error(table["flux_jy"] * 1e3, table["flux_error_jy"] * 1e3, 1),
            "catalogue (mJy)": _text(table["catalog_flux_jy"] * 1e3, 1),
            "ratio": _with_error(table["ratio"], ratio_error, 3),
            "S/N": _text(table["flux_raw_jy"] / table["local_noise_jy"], 0),
            "beam": _text(table["beam_response"], 3),
            "offset E, N (arcsec)": [
                f"{east:+.2f}, {north:+.2f}" if np.isfinite(east) and np.isfinite(north) else "–"
                for east, north in zip(table["offset_ra_arcsec"], table["offset_dec_arcsec"], strict=True)
            ],
            "quality": table["quality"].astype(int),
        }
    )
    return shown.set_index("source")


def key_values(values: Mapping[str, object]) -> pd.DataFrame:
    """A mapping as a table of two columns, in its own order."""
    with_text = {str(key): str(value) for key, value in values.items()}
    return pd.DataFrame({"value": with_text.values()}, index=pd.Index(with_text.keys(), name=""))


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
