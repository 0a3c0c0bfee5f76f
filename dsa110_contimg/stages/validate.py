"""validate: look at a Measurement Set after writing, with what did not write it.

The uvw are computed again by ERFA alone, antennas are held against the station table, some visibilities of every
subband are turned again from the files in plain double precision, and CASA, in its child process, opens the whole and
solves a gain on one integration. All checks are made and reported, not only the first that fails.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.constants import speed_of_light

from dsa110_contimg import telescope
from dsa110_contimg.exceptions import ContimgError, CorruptFileError, ExternalToolError
from dsa110_contimg.io import casa, files, ms, uvh5
from dsa110_contimg.io.uvh5_storage import SubbandReader, as_complex
from dsa110_contimg.records import MeasurementSet, SubbandGroup, Validation
from dsa110_contimg.science import coordinates, uvwcheck
from dsa110_contimg.science.assembly import count_strange
from dsa110_contimg.science.threads import ahead

UVW_TOLERANCE_M = 1e-3
POSITION_TOLERANCE_M = 1e-2
"""The station table is rounded to 1e-6 deg in places, which is centimetres only in the files' own rounding."""
CENTER_TOLERANCE_ARCSEC = 0.01
DATA_TOLERANCE = 1e-5
_COLUMNS = ("DATA", "FLAG", "UVW", "TIME", "ANTENNA1", "ANTENNA2", "WEIGHT", "SIGMA", "FIELD_ID", "DATA_DESC_ID")
_SAMPLED_BASELINES = 6


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


def set_aside(validation: Validation, failed_dir: Path, name: str) -> Path:
    """Move a Measurement Set that did not pass out of the way, under a name, with what was found beside it.

    Returns
    -------
    Path
        Where it is now; an earlier one of the same name is replaced.

    Raises
    ------
    OutputError
        It cannot be moved.
    """
    target = files.make_directory(failed_dir) / name
    with files.beside(target.with_suffix(".validation.json")) as partial:
        partial.write_text(validation.to_json())
    with files.beside(target) as partial:
        shutil.move(validation.path, partial)
    return target


def require_valid(validation: Validation, failed_dir: Path, name: str) -> None:
    """Set aside a Measurement Set that failed, under its final name, and raise.

    Raises
    ------
    CorruptFileError
        A check failed: which, and where the Measurement Set is now.
    """
    if validation.ok:
        return
    moved = set_aside(validation, failed_dir, name) if validation.path.exists() else validation.path
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
    """Numbers wherever nothing is flagged, missing subbands flagged; with the files, the right visibility in its place.

    Every integration is read, once. Of each subband and integration some baselines are turned again from the file.
    """
    chosen = np.unique(np.linspace(0, layout.antenna1.size - 1, _SAMPLED_BASELINES).astype(np.int64))
    n_channels, n_pols = layout.frequencies.size, layout.cell[1]
    there = np.empty((layout.mjd.size, chosen.size, n_channels, n_pols), np.complex64)
    hidden = np.empty(there.shape, bool)
    flagged, strange, gone = 0, 0, dict.fromkeys(group.missing, True) if group is not None else {}
    for time, (data, flags) in enumerate(ahead(_integrations(path, layout))):
        counted = count_strange(data.reshape(-1), flags.reshape(-1))
        flagged, strange = flagged + counted[0], strange + counted[1]
        for subband in gone:
            gone[subband] = gone[subband] and bool(flags[:, _channels(subband)].all())
        there[time], hidden[time] = data[chosen], flags[chosen]
    total = layout.mjd.size * layout.antenna1.size * n_channels * n_pols
    checks.add("flags", flagged < total, f"{flagged / total:.1%} flagged", "less than all")
    checks.add("finite", strange == 0, f"{strange} that are no numbers and not flagged", "none")
    for subband, whole in gone.items():
        checks.add(f"missing sb{subband:02d}", whole, "flagged" if whole else "not flagged", "flagged")
    if group is None:
        return
    wrong, worst = 0, 0.0
    for subband, expected in _turned_again(layout, group, chosen):
        usual = float(np.median(np.abs(expected)))
        here = there[:, :, _channels(subband)]
        off = np.abs(here - expected) / np.maximum(np.abs(expected), usual)
        # what is flagged may have been zeroed, and what is no number has been
        looked = np.isfinite(expected) & ~hidden[:, :, _channels(subband)]
        wrong += int((looked & ~(off <= DATA_TOLERANCE)).sum())
        worst = max(worst, float(np.nan_to_num(off[looked], nan=np.inf).max(initial=0.0)))
    checks.add("visibilities", wrong == 0, f"{wrong} off, by up to {worst:.2e} of themselves", f"{DATA_TOLERANCE:.0e}")


def _integrations(path: Path, layout: ms.Layout) -> Iterator[tuple[NDArray[np.complex64], NDArray[np.bool_]]]:
    """DATA and FLAG of one integration after another: (baseline, channel, polarization).

    Memory is used again: an integration stays valid until the second one after it is asked for.
    """
    n_windows, n_baselines, (n_channels, n_pols) = layout.n_windows, layout.antenna1.size, layout.cell
    shape = n_windows, n_baselines, n_channels, n_pols
    buffers = [(np.empty(shape, np.complex64), np.empty(shape, np.bool_)) for _ in range(2)]
    rows = n_windows * n_baselines
    with ms.opened(path) as main:
        for time in range(layout.mjd.size):
            data, flags = buffers[time % 2]
            for name, memory in (("DATA", data), ("FLAG", flags)):
                main.getcolnp(name, memory.reshape(rows, n_channels, n_pols), time * rows, rows)
            whole = n_baselines, n_windows * n_channels, n_pols
            yield np.moveaxis(data, 0, 1).reshape(whole), np.moveaxis(flags, 0, 1).reshape(whole)


def _channels(subband: int) -> slice:
    first = (telescope.N_SUBBANDS - 1 - subband) * telescope.N_CHANNELS_PER_SUBBAND
    return slice(first, first + telescope.N_CHANNELS_PER_SUBBAND)


def _turned_again(
    layout: ms.Layout, group: SubbandGroup, chosen: NDArray[np.int64]
) -> Iterator[tuple[int, NDArray[np.complex128]]]:
    """Some baselines of each subband, from the files: (subband, (time, baseline, channel, polarization)).

    The phase is that of ERFA's w, not of the Measurement Set's, which may be a rounding of it.
    """
    centers = np.broadcast_to(layout.centers, (layout.mjd.size, 2))
    baselines = (layout.positions[layout.antenna1] - layout.positions[layout.antenna2])[chosen]
    w = uvwcheck.uvw(centers[:, 0], centers[:, 1], layout.mjd, baselines)[..., 2]
    for file in group.files:
        header = uvh5.read_header(file.path)
        rows, swapped = _rows_in_file(layout, header, chosen)
        raw = np.empty((layout.mjd.size, chosen.size, *header.shape[1:]), np.complex128)
        with SubbandReader(file.path) as reader:
            for time, row in itertools.product(range(layout.mjd.size), range(chosen.size)):
                begin = time * header.antenna1.size + int(rows[row])
                raw[time, row] = as_complex(reader.rows("visdata", begin, begin + 1))[0]
        # the file's w is towards the meridian; the Measurement Set's, of the opposite sense, towards the centre
        delta = uvh5.meridian_uvw(header)[rows, 2] - np.where(swapped, 1.0, -1.0) * w
        turned = raw * np.exp(2j * np.pi * delta[..., None] * header.frequencies / speed_of_light)[..., None]
        order = [header.polarizations.index(p) for p in layout.polarizations]
        crossed = [header.polarizations.index(p[::-1]) for p in layout.polarizations]
        sensed = np.where(swapped[:, None, None], turned[..., crossed], np.conj(turned[..., order]))
        yield file.subband, sensed[:, :, np.argsort(header.frequencies)]


def _rows_in_file(
    layout: ms.Layout, header: uvh5.Header, chosen: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Where baselines of the Measurement Set stand among a file's, and whether their antennas change places."""
    names = np.array(header.names)
    ends = zip(names[header.antenna1].tolist(), names[header.antenna2].tolist(), strict=True)
    where = {pair: row for row, pair in enumerate(ends)}
    wanted = [(layout.names[layout.antenna1[b]], layout.names[layout.antenna2[b]]) for b in chosen]
    swapped = np.array([pair not in where for pair in wanted])
    rows = np.array([where[pair[::-1] if turned else pair] for pair, turned in zip(wanted, swapped, strict=True)])
    return rows, swapped


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
