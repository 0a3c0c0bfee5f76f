"""Damage a subband file in a thousand ways, and say whether what is read of it is right. Run by `test_fuzz.py`.

A case is a number: it seeds the kind of damage and its place. This runs in a process of its own, because HDF5 may crash
on a damaged file; one line of JSON a case goes to standard output, before it (``begin``) and after it.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from dsa110_contimg.exceptions import ContimgError
from dsa110_contimg.io import ms, uvh5, uvh5_views
from dsa110_contimg.options import ConvertOptions
from dsa110_contimg.records import SubbandFile, SubbandGroup, group_id
from dsa110_contimg.science.coordinates import meridian_icrs
from dsa110_contimg.stages.convert import convert

COUNTS = ("Nants_telescope", "Nblts", "Nfreqs", "Npols", "Ntimes")
NUMBERS = (
    "latitude", "longitude", "altitude", "channel_width", "freq_array", "time_array", "integration_time", "uvw_array",
    "antenna_positions", "extra_keywords/phase_center_dec", "antenna_diameters",
)  # fmt: skip
ARRAYS = ("time_array", "ant_1_array", "ant_2_array", "freq_array", "uvw_array", "antenna_positions", "antenna_numbers",
          "antenna_names", "polarization_array", "integration_time")  # fmt: skip
DATA = ("visdata", "flags", "nsamples")
Damage = Callable[[Path, np.random.Generator], int]
"""Changes a file; returns how many values of its data may differ from the original's."""


def flip_bits(path: Path, rng: np.random.Generator) -> int:
    return _flip(path, rng, 0, path.stat().st_size, int(rng.integers(1, 9)))


def flip_bits_of_structure(path: Path, rng: np.random.Generator) -> int:
    """Where HDF5 keeps its own books, and the header: all that comes before the visibilities."""
    with h5py.File(path) as file:
        first = min(file["Data"][name].id.get_chunk_info(0).byte_offset for name in DATA)
    return _flip(path, rng, 0, first, int(rng.integers(1, 4)))


def flip_bits_between(path: Path, rng: np.random.Generator) -> int:
    """In what is neither visibilities nor flags nor samples, which includes the index of their chunks."""
    size = path.stat().st_size
    outside = np.ones(size, bool)
    with h5py.File(path) as file:
        for name in DATA:
            chunks: list[Any] = []
            file["Data"][name].id.chunk_iter(chunks.append)
            for chunk in chunks:
                outside[chunk.byte_offset : chunk.byte_offset + chunk.size] = False
    places = rng.choice(np.flatnonzero(outside), int(rng.integers(1, 5)))
    return _flip_at(path, rng, places)


def _flip(path: Path, rng: np.random.Generator, low: int, high: int, count: int) -> int:
    return _flip_at(path, rng, rng.integers(low, high, count))


def _flip_at(path: Path, rng: np.random.Generator, places: np.ndarray) -> int:
    with path.open("r+b") as stream:
        for place in places:
            stream.seek(int(place))
            byte = stream.read(1)[0]
            stream.seek(int(place))
            stream.write(bytes([byte ^ (1 << int(rng.integers(8)))]))
    return len(places)


def truncate(path: Path, rng: np.random.Generator) -> int:
    size = int(rng.integers(0, path.stat().st_size))
    with path.open("r+b") as stream:
        stream.truncate(size)
    return 0


def overwrite(path: Path, rng: np.random.Generator) -> int:
    """A run of bytes replaced: zeros, ones, noise, or another part of the file."""
    length = int(rng.choice([8, 64, 512, 4096]))
    size = path.stat().st_size
    at, other = (int(p) for p in rng.integers(0, size - length, 2))
    with path.open("r+b") as stream:
        stream.seek(other)
        copied = stream.read(length)
        fills = (bytes(length), b"\xff" * length, rng.bytes(length), copied)
        stream.seek(at)
        stream.write(fills[int(rng.integers(len(fills)))])
    return length


def not_a_number(path: Path, rng: np.random.Generator) -> int:
    with h5py.File(path, "r+") as file:
        data = file["Header"][rng.choice(NUMBERS)]
        values = np.asarray(data[()], np.float64)
        values.reshape(-1)[int(rng.integers(values.size))] = rng.choice([np.nan, np.inf, -np.inf, 0.0, -1.0, 1e300])
        with np.errstate(over="ignore"):
            data[...] = values.astype(data.dtype)
    return 0


def not_a_number_in_data(path: Path, rng: np.random.Generator) -> int:
    count = int(rng.integers(1, 20))
    with h5py.File(path, "r+") as file:
        data = file["Data"][rng.choice(["visdata", "nsamples"])]
        for _ in range(count):
            data[tuple(int(rng.integers(n)) for n in data.shape)] = rng.choice([np.nan, np.inf, -np.inf, -96.0, 1e30])
    return count


def wrong_units(path: Path, rng: np.random.Generator) -> int:
    with h5py.File(path, "r+") as file:
        data = file["Header"][rng.choice(NUMBERS)]
        factor = rng.choice([180 / np.pi, np.pi / 180, 1e6, 1e-6, 1e3, 1e-3, 86400.0, 1 / 15, 100.0, -1.0])
        with np.errstate(over="ignore"):
            data[...] = (np.asarray(data[()], np.float64) * factor).astype(data.dtype)
    return 0


def shifted(path: Path, rng: np.random.Generator) -> int:
    with h5py.File(path, "r+") as file:
        # not time_array: the same visibilities an hour later are a good file of another sky
        name = rng.choice(["freq_array", "uvw_array", "extra_keywords/phase_center_dec", "longitude"])
        data = file["Header"][name]
        scale = {"freq_array": 3e4, "uvw_array": 0.5}.get(str(name), 0.05)
        data[...] = data[()] + rng.normal() * scale
    return 0


def shuffled(path: Path, rng: np.random.Generator) -> int:
    """Rows in another order: labels alone, or labels and data; all rows, or those of one integration."""
    with h5py.File(path, "r+") as file:
        head = file["Header"]
        n, n_times = int(head["Nblts"][()]), int(head["Ntimes"][()])
        order = rng.permutation(n)
        if rng.random() < 0.5:
            order = np.arange(n)
            order[: n // n_times] = rng.permutation(n // n_times)
        names = [head[name] for name in ("time_array", "ant_1_array", "ant_2_array", "uvw_array")]
        together = rng.random() < 0.5
        for data in names[int(rng.integers(3)) if not together else 0 :]:
            data[...] = data[()][order]
        for data in (file["Data"][name] for name in DATA if together):
            data[...] = data[()][order]
    return 0


def duplicated(path: Path, rng: np.random.Generator) -> int:
    with h5py.File(path, "r+") as file:
        data = file["Header"][rng.choice(ARRAYS)]
        values = data[()]
        one, other = (int(i) for i in rng.integers(0, len(values), 2))
        values[one] = values[other]
        data[...] = values
    return 0


def missing(path: Path, rng: np.random.Generator) -> int:
    with h5py.File(path, "r+") as file:
        names: list[str] = []
        file.visit(names.append)
        del file[str(rng.choice(names))]
    return 0


def _replace(path: Path, name: str, value: Any) -> None:
    with h5py.File(path, "r+") as file:
        del file[name]
        file[name] = value


def wrong_shape(path: Path, rng: np.random.Generator) -> int:
    name = str(rng.choice([f"Header/{n}" for n in (*ARRAYS, *COUNTS)] + [f"Data/{n}" for n in DATA]))
    with h5py.File(path) as file:
        values = file[name][()]
    changes: list[Callable[[np.ndarray], Any]] = [
        lambda v: np.atleast_1d(v)[:-1],
        lambda v: np.atleast_1d(v)[:0],
        lambda v: np.concatenate([np.atleast_1d(v)] * 2),
        lambda v: np.asarray(v)[..., None],
        lambda v: np.asarray(v).T,
        lambda v: np.asarray(v).ravel(),
        lambda v: h5py.Empty(np.asarray(v).dtype),
    ]
    _replace(path, name, changes[int(rng.integers(len(changes)))](values))
    return 0


def wrong_type(path: Path, rng: np.random.Generator) -> int:
    name = str(rng.choice([f"Header/{n}" for n in (*ARRAYS, *NUMBERS, *COUNTS)] + [f"Data/{n}" for n in DATA]))
    with h5py.File(path) as file:
        values = np.asarray(file[name][()])
    kinds = [np.float16, np.float32, np.float64, np.int8, np.int64, np.uint16, np.complex128, "S8", "S1", bool]
    with np.errstate(all="ignore"):
        kind = kinds[int(rng.integers(len(kinds)))]
        plain = values.real if np.iscomplexobj(values) and not np.issubdtype(kind, np.complexfloating) else values
        try:
            cast = plain.astype(kind)
        except (ValueError, TypeError):  # the names of antennas as numbers, and the like
            cast = np.zeros(plain.shape, kind)
    lost = (
        np.count_nonzero(cast.astype(values.dtype) != values)
        if name.startswith("Data/") and cast.dtype.kind != "S"
        else 0
    )
    _replace(path, name, cast)
    return int(lost)


def odd_entry(path: Path, rng: np.random.Generator) -> int:
    """Text, a vector or a group where a number should be."""
    name = f"Header/{rng.choice([*COUNTS, *NUMBERS, 'telescope_name', 'extra_keywords', 'antenna_names'])}"
    odd = (b"twelve", "zwoelf", np.arange(3), {}, b"\xff\xfe", np.nan, h5py.Empty("f"), b"")[int(rng.integers(8))]
    with h5py.File(path, "r+") as file:
        del file[name]
        if isinstance(odd, dict):
            file.create_group(name)
        else:
            file[name] = odd
    return 0


def wrong_count(path: Path, rng: np.random.Generator) -> int:
    value = int(rng.choice([0, -1, 1, 2, 3, 47, 2**31, 2**62, -(2**62), 10**9]))
    _replace(path, f"Header/{rng.choice(COUNTS)}", value)
    return 0


def lost_chunks(path: Path, rng: np.random.Generator) -> int:
    """An array as long as it should be, of which a part was never written."""
    with h5py.File(path, "r+") as file:
        name = str(rng.choice(DATA))
        data = file["Data"][name]
        shape, chunks, dtype, values = data.shape, data.chunks, data.dtype, data[()]
        del file["Data"][name]
        new = file["Data"].create_dataset(name, shape, dtype, maxshape=(None, *shape[1:]), chunks=(64, *chunks[1:]))
        new[:64] = values[:64]
    return 0


KINDS: tuple[tuple[Damage, int], ...] = (
    (flip_bits, 20), (flip_bits_of_structure, 25), (flip_bits_between, 25), (truncate, 8), (overwrite, 12),
    (not_a_number, 8), (not_a_number_in_data, 6), (wrong_units, 8), (shifted, 6), (shuffled, 6), (duplicated, 6),
    (missing, 6), (wrong_shape, 12), (wrong_type, 12), (odd_entry, 10), (wrong_count, 6), (lost_chunks, 2),
)  # fmt: skip
"""Each kind of damage and its share of the cases."""


@dataclass(frozen=True)
class Truth:
    """An undamaged group, and what its first file holds."""

    group: SubbandGroup
    header: uvh5.Header
    data: tuple[np.ndarray, ...]
    converted: tuple[np.ndarray, ...] | None


def _group(records: list[SubbandFile], header: uvh5.Header) -> SubbandGroup:
    mjd = float(header.mjd[0])
    return SubbandGroup(group_id(mjd), mjd, float(np.degrees(header.pointing_dec)), tuple(records))


def _converted(group: SubbandGroup, folder: Path) -> tuple[np.ndarray, ...]:
    record = convert(group, ConvertOptions(smoke_test=False), folder)
    with ms.opened(record.path) as main:
        return tuple(main.getcol(c) for c in ("DATA", "FLAG", "WEIGHT_SPECTRUM", "UVW", "TIME"))


def _wrong_header(found: uvh5.Header, true: uvh5.Header) -> str:
    """What of a header is not what it was, beyond what can be told from rounding."""
    pairs = [
        ("mjd", found.mjd, true.mjd, 1e-3 / 86400),
        ("frequencies", np.sort(found.frequencies), np.sort(true.frequencies), 0.01 * true.channel_width),
        ("channel_width", found.channel_width, true.channel_width, 1.0),
        ("integration_s", found.integration_s, true.integration_s, 0.01 * true.integration_s),
        ("pointing_dec", found.pointing_dec, true.pointing_dec, 1e-3),
        ("longitude_deg", found.longitude_deg, true.longitude_deg, 0.01),
        ("diameters", found.diameters, true.diameters, 0.05),
    ]
    for name, one, two, tolerance in pairs:
        if np.shape(one) != np.shape(two) or not np.abs(np.asarray(one) - np.asarray(two)).max() <= tolerance:
            return name
    if (found.names, found.polarizations) != (true.names, true.polarizations):
        return "names or polarizations"
    if sorted(_labels(found)) != sorted(_labels(true)):
        return "baselines"
    order = [_labels(found).index(label) for label in _labels(true)]
    if not np.abs(uvh5.meridian_uvw(found)[order] - uvh5.meridian_uvw(true)).max() <= 4e-3:
        return "baseline vectors"
    return ""


def _labels(header: uvh5.Header) -> list[tuple[int, int]]:
    return list(zip(header.antenna1.tolist(), header.antenna2.tolist(), strict=True))


def _differing(found: np.ndarray, true: np.ndarray) -> int:
    if found.shape != true.shape:
        return true.size
    with np.errstate(invalid="ignore"):  # a flipped bit can make a signalling NaN
        return int(np.count_nonzero(~((found == true) | (np.isnan(found) & np.isnan(true)))))


def read_case(path: Path, truth: Truth, may_differ: int) -> str:
    """'' if what is read is right; raises `ContimgError` if it is refused."""
    record, header = uvh5.identify(path), uvh5.read_header(path)
    data = uvh5.read_visibilities(header)
    view = uvh5_views.open_group(_group([record], header), meridian_icrs).compute(scheduler="sync")
    if wrong := _wrong_header(header, truth.header):
        return f"{wrong} wrong"
    order = [_labels(header).index(label) for label in _labels(truth.header)]
    cubes = [d.reshape(header.mjd.size, -1, *d.shape[1:])[:, order] for d in data]
    count = sum(
        _differing(cube, true.reshape(cube.shape)) for cube, true in zip(cubes[:1], truth.data[:1], strict=True)
    )
    flags, samples = (
        _differing(cube, true.reshape(cube.shape)) for cube, true in zip(cubes[1:], truth.data[1:], strict=True)
    )
    # a sample that is no number is flagged: one datum, two differences
    if count + max(flags, samples) > may_differ:
        return f"{count} visibilities, {flags} flags, {samples} samples differ, of {may_differ} that may"
    raw = np.conj(cubes[0][:, :, :: -1 if header.frequencies[0] > header.frequencies[-1] else 1])
    if _differing(view["VISIBILITY"].to_numpy()[:, order], raw):
        return "the view differs from the file"
    return ""


def convert_case(path: Path, truth: Truth, may_differ: int, folder: Path) -> str:
    """As `read_case`, for the Measurement Set that `convert` makes of the group with this file in it."""
    record = uvh5.identify(path)
    files = tuple(record if f.subband == record.subband else f for f in truth.group.files)
    group = SubbandGroup(truth.group.group_id, truth.group.mjd_first, truth.group.pointing_dec_deg, files)
    columns = _converted(group, folder)
    assert truth.converted is not None
    limits = (may_differ, may_differ, may_differ, 0, 0)
    for name, one, two, limit in zip(
        ("DATA", "FLAG", "WEIGHT_SPECTRUM", "UVW", "TIME"), columns, truth.converted, limits, strict=True
    ):
        if name in ("UVW", "TIME"):
            if not np.abs(one - two).max() <= 4e-3:
                return f"{name} wrong"
        elif name == "WEIGHT_SPECTRUM" and not (np.isfinite(one) & (one >= 0)).all():
            return "weights that are none"
        elif name == "DATA" and not np.isfinite(one).all():
            return "visibilities that are none"
        elif _differing(one, two) > limit:
            return f"{_differing(one, two)} of {name} differ, of {limit} that may"
    return ""


def run_case(number: int, source: Path, truth: Truth, folder: Path, *, with_convert: bool) -> dict[str, str]:
    rng = np.random.default_rng([110, number])
    shares = np.array([share for _, share in KINDS], float)
    damage = KINDS[int(rng.choice(len(KINDS), p=shares / shares.sum()))][0]
    path = folder / f"{number}" / source.name
    path.parent.mkdir()
    shutil.copyfile(source, path)
    may_differ = damage(path, rng)
    outcome = {"case": str(number), "damage": damage.__name__}
    for what in ("read", "convert") if with_convert else ("read",):
        try:
            wrong = (
                read_case(path, truth, may_differ)
                if what == "read"
                else convert_case(path, truth, may_differ, path.parent / "ms")
            )
            outcome[what] = f"WRONG {wrong}" if wrong else "right"
        except ContimgError as error:
            outcome[what] = f"refused: {error}"
        except Exception as error:  # noqa: BLE001  # this is what the test is for
            outcome[what] = f"ESCAPED {type(error).__name__}: {error}"
    shutil.rmtree(path.parent)
    return outcome


def main(folder: Path, scratch: Path, first: int, last: int, convert_every: int) -> None:
    """Run cases ``first`` to ``last - 1`` on the group in ``folder``."""
    paths = sorted(folder.glob("*_sb??.hdf5"), key=lambda path: path.name[-7:])
    headers = [uvh5.read_header(path) for path in paths]
    group = _group([uvh5.record_of(header) for header in headers], headers[0])
    data = uvh5.read_visibilities(headers[3])
    converted = _converted(group, scratch / f"truth{first}") if convert_every else None
    truth = Truth(group, headers[3], data, converted)
    for number in range(first, last):
        _say({"begin": str(number)})
        every = bool(convert_every) and number % convert_every == 0
        _say(run_case(number, paths[3], truth, scratch, with_convert=every))


def _say(what: dict[str, str]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *(int(a) for a in sys.argv[3:6]))
