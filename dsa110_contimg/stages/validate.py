"""validate: look at a Measurement Set after writing, with what did not write it.

The uvw are computed again by ERFA alone, antennas are held against the station table, some visibilities of every
subband are turned again from the files in plain double precision, and CASA, in its child process, opens the whole and
solves a gain on one integration. All checks are made and reported, not only the first that fails.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsa110_contimg import telescope
from dsa110_contimg.exceptions import ContimgError, CorruptFileError, ExternalToolError
from dsa110_contimg.io import casa, files, ms, uvh5
from dsa110_contimg.io.uvh5_storage import SubbandReader, as_complex
from dsa110_contimg.records import MeasurementSet, SubbandGroup, Validation
from dsa110_contimg.science import coordinates, uvwcheck

UVW_TOLERANCE_M = 1e-3
POSITION_TOLERANCE_M = 1e-2
"""The station table is rounded to 1e-6 deg in places, which is centimetres only in the files' own rounding."""
CENTER_TOLERANCE_ARCSEC = 0.01
DATA_TOLERANCE = 1e-5
_COLUMNS = ("DATA", "FLAG", "UVW", "TIME", "ANTENNA1", "ANTENNA2", "WEIGHT", "SIGMA", "FIELD_ID", "DATA_DESC_ID")
_SAMPLED_BASELINES = 7
_SPEED_OF_LIGHT = 299_792_458.0


@dataclass
class _Checks:
    """Findings as they come."""

    made: list[tuple[str, str, str, str]] = field(default_factory=list)

    def add(self, name: str, ok: bool | np.bool_, found: object, expected: object) -> None:
        self.made.append((name, "ok" if ok else "failed", str(found), str(expected)))


def validate(
    product: MeasurementSet | Path,
    group: SubbandGroup | None = None,
    *,
    workdir: Path,
    casa_too: bool = True,
    measures_cache: Path | None = None,
) -> Validation:
    """Check a Measurement Set that `convert` made.

    Parameters
    ----------
    product : MeasurementSet or Path
    group : SubbandGroup, optional
        The files that it was made from; with them some visibilities of each subband are checked too.
    workdir : Path
        For CASA's scratch.
    casa_too : bool
        Whether CASA opens it and solves a gain on one integration, which takes some seconds.
    measures_cache : Path, optional
        As `io.casa.run_tasks`.

    Returns
    -------
    Validation
        Every check, failed or not. A Measurement Set that cannot be read at all is one failed check.
    """
    path = product.path if isinstance(product, MeasurementSet) else product
    checks = _Checks()
    try:
        _columns(path, checks)
        layout = ms.read_layout(path, several=True)
    except ContimgError as error:
        checks.add("readable", ok=False, found=error, expected="a Measurement Set of ours")
        return Validation(path, tuple(checks.made))
    checks.add("readable", ok=True, found=f"{layout.n_rows} rows", expected="times x windows x baselines")
    _frequencies(layout, checks)
    _antennas(layout, checks)
    _uvw(layout, checks)
    _centers(layout, checks)
    try:
        _data(path, layout, group, checks)
    except ContimgError as error:
        checks.add("visibilities", ok=False, found=error, expected="those of the files")
    if casa_too:
        _casa(path, layout, checks, files.make_directory(workdir), measures_cache)
    return Validation(path, tuple(checks.made))


def set_aside(validation: Validation, failed_dir: Path) -> Path:
    """Move a Measurement Set that did not pass out of the way, with what was found beside it.

    Returns
    -------
    Path
        Where it is now; an earlier one of the same name is replaced.

    Raises
    ------
    OutputError
        It cannot be moved.
    """
    target = files.make_directory(failed_dir) / validation.path.name
    with files.beside(target.with_suffix(".validation.json")) as partial:
        partial.write_text(validation.to_json())
    with files.beside(target) as partial:
        validation.path.rename(partial)
    return target


def require_valid(validation: Validation, failed_dir: Path) -> None:
    """Set aside a Measurement Set that failed, and raise.

    Raises
    ------
    CorruptFileError
        A check failed: which, and where the Measurement Set is now.
    """
    if validation.ok:
        return
    moved = set_aside(validation, failed_dir) if validation.path.exists() else validation.path
    raise CorruptFileError(
        "The Measurement Set did not pass its validation; it was set aside and is not registered",
        path=moved,
        found="; ".join(f"{name}: {found}" for name, _, found, _ in validation.failed),
        expected="; ".join(f"{name}: {expected}" for name, _, _, expected in validation.failed),
    )


def _columns(path: Path, checks: _Checks) -> None:
    with ms.opened(path) as main:
        there = main.colnames()
        absent = [name for name in _COLUMNS if name not in there]
        checks.add("columns", not absent, f"without {', '.join(absent)}" if absent else "all there", "all there")
        if absent or not main.nrows():
            raise CorruptFileError("The Measurement Set is not whole", path=path, found=f"{main.nrows()} rows")
        cubes = [name for name in ("DATA", "FLAG", "WEIGHT_SPECTRUM", *ms.FLAG_VERSIONS) if name in there]
        shapes = {name: tuple(main.getcell(name, main.nrows() - 1).shape) for name in cubes}
        checks.add("shapes", len(set(shapes.values())) == 1, shapes, "one shape")


def _frequencies(layout: ms.Layout, checks: _Checks) -> None:
    steps = np.diff(layout.frequencies)
    even = bool(np.abs(steps - layout.channel_width).max() < 1.0)
    found = f"{steps.min():.3f} to {steps.max():.3f} Hz between channels"
    checks.add("frequency order", even, found, f"ascending by {layout.channel_width:.3f} Hz")
    ours = np.sort(np.concatenate([telescope.subband_frequencies(n) for n in range(telescope.N_SUBBANDS)]))
    same = ours.shape == layout.frequencies.shape and bool(np.abs(ours - layout.frequencies).max() < 1.0)
    checks.add("band", same, f"{layout.frequencies.size} channels from {layout.frequencies[0]:.1f} Hz", "16 subbands")


def _antennas(layout: ms.Layout, checks: _Checks) -> None:
    stations = telescope.stations()
    numbers = [int(name) for name in layout.names if name.isdigit()]
    named = len(numbers) == len(layout.names) and set(numbers) <= set(range(1, len(stations.itrf) + 1))
    checks.add("antenna names", named, ", ".join(layout.names[:4]) + " ...", "station numbers")
    if named:
        away = float(np.abs(layout.positions - stations.itrf[np.array(numbers) - 1]).max())
        checks.add("antenna positions", away < POSITION_TOLERANCE_M, f"{away:.4f} m off", "the station table")


def _uvw(layout: ms.Layout, checks: _Checks) -> None:
    centers = np.broadcast_to(layout.centers, (layout.mjd.size, 2))
    baselines = layout.positions[layout.antenna1] - layout.positions[layout.antenna2]
    independent = uvwcheck.uvw(centers[:, 0], centers[:, 1], layout.mjd, baselines)
    off = float(np.abs(independent - layout.uvw).max())
    checks.add("uvw", off < UVW_TOLERANCE_M, f"{off * 1e3:.6f} mm off", "below 1 mm of ERFA's")


def _centers(layout: ms.Layout, checks: _Checks) -> None:
    """One centre in the middle of the pointings, or one at each."""
    if len(layout.centers) == 1:
        middle = coordinates.circular_mean(layout.pointing_ra), float(layout.pointing_dec.mean())
        # the meridian's track is curved by precession and nutation only: arcseconds over a group
        expected, tolerance = np.array([middle]), 60.0
    else:
        expected = np.stack([layout.pointing_ra, layout.pointing_dec], axis=-1)
        tolerance = CENTER_TOLERANCE_ARCSEC
    apart = coordinates.direction_cosines(*layout.centers.T, *expected.T)[..., :2]
    worst = float(np.degrees(np.hypot(apart[..., 0], apart[..., 1]).max()) * 3600)
    checks.add("phase centre", worst < tolerance, f"{worst:.4f} arcsec from the pointings", f"below {tolerance} arcsec")


def _data(path: Path, layout: ms.Layout, group: SubbandGroup | None, checks: _Checks) -> None:
    """Not all flagged, numbers, missing subbands flagged; and, with the files, the right visibility in each place."""
    time = layout.mjd.size // 2
    per_time = layout.n_windows * layout.antenna1.size
    with ms.opened(path) as main:
        data, flags = (np.asarray(main.getcol(name, time * per_time, per_time)) for name in ("DATA", "FLAG"))
    n_baselines, n_pols = layout.antenna1.size, layout.cell[1]
    shape = layout.n_windows, n_baselines, -1, n_pols
    data, flags = (np.moveaxis(a.reshape(shape), 0, 1).reshape(n_baselines, -1, n_pols) for a in (data, flags))
    checks.add("flags", not flags.all(), f"{flags.mean():.1%} of one integration flagged", "less than all")
    checks.add("finite", np.isfinite(data[~flags]).all(), "an integration", "numbers where not flagged")
    if group is None:
        return
    for subband in group.missing:
        gone = flags[:, _channels(subband)].all()
        checks.add(f"missing sb{subband:02d}", gone, "flagged" if gone else "not flagged", "flagged")
    cross = layout.antenna1 != layout.antenna2
    worst, scale = 0.0, float(np.abs(data[cross][~flags[cross]]).max(initial=0.0))
    for subband, rows, expected in _turned_again(layout, group, time):
        there = data[rows, _channels(subband)]
        worst = max(worst, float(np.abs(there - expected)[cross[rows]].max(initial=0.0)))
    good = worst <= DATA_TOLERANCE * scale
    checks.add("visibilities", good, f"{worst:.2e} off, of {scale:.2e}", f"{DATA_TOLERANCE:.0e} of the largest")


def _channels(subband: int) -> slice:
    first = (telescope.N_SUBBANDS - 1 - subband) * telescope.N_CHANNELS_PER_SUBBAND
    return slice(first, first + telescope.N_CHANNELS_PER_SUBBAND)


def _turned_again(
    layout: ms.Layout, group: SubbandGroup, time: int
) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.complex128]]]:
    """Some baselines of each subband, from the files: (subband, rows of a time, (row, channel, polarization))."""
    names = {name: number for number, name in enumerate(layout.names)}
    where = {pair: row for row, pair in enumerate(zip(layout.antenna1.tolist(), layout.antenna2.tolist(), strict=True))}
    for file in group.files:
        header = uvh5.read_header(file.path)
        chosen = np.unique(np.linspace(0, header.antenna1.size - 1, _SAMPLED_BASELINES).astype(np.int64))
        one, two = ([names[header.names[a]] for a in slots[chosen]] for slots in (header.antenna1, header.antenna2))
        rows = np.array([where[min(a, b), max(a, b)] for a, b in zip(one, two, strict=True)])
        swapped = np.array([a > b for a, b in zip(one, two, strict=True)])
        with SubbandReader(file.path) as reader:
            begin = time * header.antenna1.size
            raw = as_complex(reader.rows("visdata", begin, begin + header.antenna1.size)[chosen]).astype(np.complex128)
        raw = np.where(np.isfinite(raw), raw, 0)
        # the file's w is towards the meridian; the Measurement Set's, of the opposite sense, towards the centre
        sense = np.where(swapped, 1.0, -1.0)
        delta = uvh5.meridian_uvw(header)[chosen, 2] - sense * layout.uvw[time, rows, 2]
        turned = raw * np.exp(2j * np.pi * delta[:, None] * header.frequencies / _SPEED_OF_LIGHT)[..., None]
        order = [header.polarizations.index(p) for p in layout.polarizations]
        crossed = [header.polarizations.index(p[::-1]) for p in layout.polarizations]
        sensed = np.where(swapped[:, None, None], turned[..., crossed], np.conj(turned[..., order]))
        yield file.subband, rows, sensed[:, np.argsort(header.frequencies)]


def _casa(path: Path, layout: ms.Layout, checks: _Checks, workdir: Path, measures_cache: Path | None) -> None:
    """CASA opens it, and solves a gain on one integration of one subband."""
    middle = layout.mjd.size // 2
    with tempfile.TemporaryDirectory(dir=workdir, prefix=".smoke-") as folder:
        part = Path(folder) / "smoke.ms"
        chosen: dict[str, Any] = {
            "field": str(middle if len(layout.centers) > 1 else 0),
            "spw": _busy_channels(path, layout, middle),
            "timerange": _around(layout, middle),
        }
        solve = {"solint": "int", "minsnr": 0.0, "minblperant": 1, "calmode": "p"}
        tasks = [
            casa.CasaTask("msmetadata.summary", {"vis": path}),
            # a copy: MODEL_DATA may have been allocated, and holds nothing that could be solved for
            casa.CasaTask("split", {"vis": path, "outputvis": part, "datacolumn": "data", **chosen}, "outputvis"),
            casa.CasaTask("gaincal", {"vis": part, "caltable": Path(folder) / "smoke.G", **solve}, "caltable"),
        ]
        try:
            summary, *_ = casa.run_tasks(tasks, workdir=Path(folder), timeout_s=300.0, measures_cache=measures_cache)
        except ExternalToolError as error:
            if "not installed" in str(error):
                raise
            checks.add("casa", ok=False, found=error, expected="msmetadata opens it, gaincal solves")
            return
    sizes = (summary["rows"], len(summary["fields"]), len(summary["frequencies_hz"]))
    ours = (layout.n_rows, len(layout.centers), layout.n_windows)
    checks.add("msmetadata", sizes == ours, f"{sizes} rows, fields, windows", ours)
    checks.add("gaincal", ok=True, found="a gain table", expected="a gain table")


def _busy_channels(path: Path, layout: ms.Layout, time: int) -> str:
    """The first subband that is not wholly flagged, in CASA's syntax."""
    per_time = layout.n_windows * layout.antenna1.size
    with ms.opened(path) as main:
        flags = np.asarray(main.getcol("FLAG", time * per_time, per_time))
    width = telescope.N_CHANNELS_PER_SUBBAND
    by_window = flags.reshape(layout.n_windows, layout.antenna1.size, -1, width, layout.cell[1])
    busy = np.argwhere(~by_window.all(axis=(1, 3, 4)))
    window, part = busy[0] if len(busy) else (0, 0)
    return f"{window}:{part * width}~{part * width + width - 1}"


def _around(layout: ms.Layout, time: int) -> str:
    """A time range, in CASA's syntax, that holds one integration."""
    half = layout.integration_s / 86400 / 4
    return "~".join(_casa_time(layout.mjd[time] + step) for step in (-half, half))


def _casa_time(mjd: float) -> str:
    return (
        str(np.datetime64("1858-11-17T00:00:00.000") + np.timedelta64(round(mjd * 86_400_000), "ms"))
        .replace("-", "/")
        .replace("T", "/")
    )
