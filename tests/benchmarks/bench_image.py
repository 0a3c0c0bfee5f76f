"""A calibrated full-size group imaged by the native imager and by WSClean, at two sizes, with one stopping rule.

Both clean the same Measurement Set down to 3 sigma in an automatic mask of 5, Briggs 0.5, in the same minutes; WSClean
with the command that a user would write. Catalogue sources beyond the edge of the smaller image, which neither can
clean, are out of that Measurement Set, so that both come down to the thermal noise. Besides, the native imager images
the whole group as the pipeline does, with the catalogue subtracted first (standard). Beside them the floor, one
gridding and one degridding for each major cycle, and what averaging costs a source at the half-power radius.

Run as ``python tests/benchmarks/bench_image.py [--json] [--raw DIRECTORY] [--place DIRECTORY]``; what is in the
directories is used again.
"""

import resource
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import fullsize
import numpy as np
import reporting

SIZES = ((2400, 6.0), (4096, 4.0))
RECORD = "record.json"
WITHIN = "within.ms"


def record_of(place, *, within=False):
    """The calibrated group, or its copy without the sources beyond the edge."""
    import dataclasses

    from dsa110_contimg.records import MeasurementSet

    record = MeasurementSet.from_json((place / RECORD).read_text())
    return dataclasses.replace(record, path=place / WITHIN) if within else record


def prepare(raw, place):
    run = fullsize.run_of(raw / "calibrator", place)
    for step in ("convert", "flag", "calibrate"):
        run.step(step)
    run = fullsize.run_of(raw / "target", place)
    for step in ("convert", "flag", "calibrate", "apply"):
        run.step(step)
    run.field_catalog.to_csv(place / "field.csv", index=False)
    without_beyond(run.records["convert"].path, run.field_catalog, place / WITHIN)
    (place / RECORD).write_text(run.records["convert"].to_json())
    return {}


def without_beyond(path, field, copy):
    """A copy of the Measurement Set whose CORRECTED_DATA lacks the sources outside the smaller image."""
    from casacore.tables import table

    from dsa110_contimg.io import ms
    from dsa110_contimg.options import ImageOptions
    from dsa110_contimg.science import subtraction

    view = ms.open_ms(path, "CORRECTED_DATA")
    ra, dec = np.degrees(view.attrs["phase_center_ra"]), np.degrees(view.attrs["phase_center_dec"])
    east = ((field["ra_deg"] - ra + 180) % 360 - 180) * np.cos(np.radians(dec))
    half = SIZES[0][0] * SIZES[0][1] / 3600 / 2
    beyond = field[(np.abs(east) > half) | (np.abs(field["dec_deg"] - dec) > half)]
    sources = subtraction.known_sources(view, beyond, ImageOptions().known_min_jy)
    shutil.copytree(path, copy, dirs_exist_ok=True)
    with table(str(copy), readonly=False, ack=False) as handle:
        n_times, n_baselines = view["VISIBILITY"].shape[:2]
        rows = np.arange(n_times * n_baselines).reshape(n_times, n_baselines)
        for time_, of in enumerate(rows):
            here = view["VISIBILITY"].isel(time=[time_]).to_numpy()[0]
            np.testing.assert_array_equal(handle.getcol("CORRECTED_DATA", of[0], len(of)), here)
            less = subtraction.subtract(view.isel(time=[time_]), sources)["VISIBILITY"].to_numpy()[0]
            handle.putcol("CORRECTED_DATA", less, of[0], len(of))


def native(size, cell, *, standard):
    def timed(_, place):
        import pandas as pd
        from astropy.io import fits

        from dsa110_contimg.options import ImageOptions
        from dsa110_contimg.stages.image import image

        options = ImageOptions(n_pixels=size, cell_arcsec=cell, imager="native")
        record = record_of(place, within=not standard)
        known = pd.read_csv(place / "field.csv") if standard else None
        image(record, options.model_copy(update={"max_iterations": 0, "n_pixels": 512}), place / "warm")
        begun = time.perf_counter()
        made = image(record, options, place / f"native{size}{'standard' if standard else ''}", known=known)
        seconds = time.perf_counter() - begun
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        return {
            "seconds": seconds,
            "memory_gb": memory,
            "image": str(made.path),
            "noise_over_thermal": made.noise_jy / made.thermal_noise_jy,
            "cycles": fits.getheader(made.path)["NMAJOR"],
        }

    return timed


def data_of(place, size, cell):
    """The averaged visibilities as the native imager has them, and their weights."""
    from dsa110_contimg.io import ms
    from dsa110_contimg.options import ImageOptions
    from dsa110_contimg.science.averaging import from_dataset
    from dsa110_contimg.science.beam import half_power_radius
    from dsa110_contimg.science.weighting import imaging_weights, row_importance

    view, options = ms.open_ms(record_of(place).path, "CORRECTED_DATA"), ImageOptions()
    radius, scale = half_power_radius(float(view.frequency.mean())), np.radians(cell / 3600)
    how = size, scale, options.weighting, options.robust
    rows = np.asarray(view["UVW"]).reshape(-1, 3)
    worth = row_importance(rows, np.asarray(view["frequency"]), *how)
    data = from_dataset(view, options.averaging_loss, radius, worth)
    return data, imaging_weights(data, *how), radius, scale


def floor(size, cell):
    def timed(_, place):
        from dsa110_contimg.science.coordinates import direction_cosines
        from dsa110_contimg.science.gridding import Gridder
        from dsa110_contimg.science.smearing import surviving_fraction

        data, weights, radius, scale = data_of(place, size, cell)
        gridder = Gridder(data, weights, size, scale, 1e-3, 2)
        begun = time.perf_counter()
        plane = gridder.dirty(data.visibilities)
        gridder.predict(plane)
        seconds = time.perf_counter() - begun
        angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        dec = data.phase_center_dec + radius * np.cos(angle)
        ra = data.phase_center_ra + radius * np.sin(angle) / np.cos(dec)
        both = [surviving_fraction(ra, dec, data, weights, averaged=averaged) for averaged in (True, False)]
        away = np.arccos(direction_cosines(ra, dec, data.phase_center_ra, data.phase_center_dec)[:, 2])
        loss = float((1 - both[0] / both[1]).max())
        return {"seconds": seconds, "loss": loss, "samples": len(weights), "radius_deg": float(np.degrees(away.mean()))}

    return timed


def wsclean(size, cell):
    def timed(_, place):
        from astropy.io import fits

        from dsa110_contimg.science.deconvolution import robust_rms

        folder = place / f"wsclean{size}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        command = ["wsclean", "-use-wgridder", "-name", str(folder / "w"), "-size", str(size), str(size)]
        command += ["-scale", f"{cell}asec", "-weight", "briggs", "0.5", "-niter", "50000", "-mgain", "0.8"]
        command += ["-auto-mask", "5", "-auto-threshold", "3", "-data-column", "CORRECTED_DATA", "-pol", "I", "-j", "2"]
        command += ["-no-update-model-required", "-temp-dir", str(folder), str(record_of(place, within=True).path)]
        begun = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        seconds = time.perf_counter() - begun
        residual = fits.getdata(folder / "w-residual.fits").squeeze()
        return {"seconds": seconds, "image": str(folder / "w-image.fits"), "noise": robust_rms(residual)}

    return timed


CHILDREN = {"prepare": prepare}
for pixels, arcsec in SIZES:
    CHILDREN[f"native{pixels}"] = native(pixels, arcsec, standard=False)
    CHILDREN[f"standard{pixels}"] = native(pixels, arcsec, standard=True)
    CHILDREN[f"floor{pixels}"] = floor(pixels, arcsec)
    CHILDREN[f"wsclean{pixels}"] = wsclean(pixels, arcsec)


def fluxes(path, field):
    """Flux (Jy/beam) of each source at its catalogue position with the image's own beam; NaN outside.

    The programs fit different beams to one point spread function (it stands on a plateau of a half), so that peaks,
    which fall between pixels, cannot be compared.
    """
    from astropy.io import fits
    from astropy.stats import gaussian_fwhm_to_sigma
    from astropy.wcs import WCS

    header, plane = fits.getheader(path), fits.getdata(path).squeeze()
    major, minor = (header[key] / header["CDELT2"] * gaussian_fwhm_to_sigma for key in ("BMAJ", "BMIN"))
    angle, found = np.radians(header["BPA"]), np.full(len(field), np.nan)
    x, y = WCS(header).celestial.world_to_pixel_values(field["ra_deg"], field["dec_deg"])
    inside = (x > 20) & (x < len(plane) - 21) & (y > 20) & (y < len(plane) - 21)
    for k in np.flatnonzero(inside):
        rows, columns = (slice(round(at) - 4, round(at) + 5) for at in (float(y[k]), float(x[k])))
        north, west = np.mgrid[rows, columns] - np.array([y[k], x[k]])[:, None, None]
        along, across = north * np.cos(angle) - west * np.sin(angle), north * np.sin(angle) + west * np.cos(angle)
        beam = np.exp(-0.5 * ((along / major) ** 2 + (across / minor) ** 2))
        found[k] = (plane[rows, columns] * beam).sum() / (beam**2).sum()
    return found


def difference(one, other, place):
    """Median and scatter of the ratio of fluxes of bright catalogue sources in two images, and their number."""
    import pandas as pd

    field = pd.read_csv(place / "field.csv")
    these, those = fluxes(one, field), fluxes(other, field)
    ratio = (these / those)[those > 0.03]
    return float(np.median(ratio) - 1), float(1.4826 * np.median(np.abs(ratio - np.median(ratio)))), len(ratio)


def measure(raw, place):
    fullsize.simulate(raw)
    ask = {"raw": raw, "place": place}
    if not (place / RECORD).exists():
        fullsize.in_child(__file__, "prepare", **ask)
    figures = {}
    for size, _ in SIZES:
        found = {way: fullsize.in_child(__file__, f"{way}{size}", **ask) for way in ("native", "standard", "floor")}
        peer, floor_seconds = fullsize.in_child(__file__, f"wsclean{size}", **ask), found["floor"]["seconds"]
        figures |= {f"{name}_{size}_seconds": one["seconds"] for name, one in {**found, "wsclean": peer}.items()}
        for name in ("native", "standard"):
            one, how = found[name], "" if name == "native" else "standard_"
            figures[f"{how}faster_than_wsclean_{size}"] = peer["seconds"] / one["seconds"]
            figures[f"{how}noise_over_thermal_{size}"] = one["noise_over_thermal"]
            figures[f"{how}over_floor_{size}"] = one["seconds"] / floor_seconds / one["cycles"]
            figures[f"{how}memory_{size}_gb"] = one["memory_gb"]
        figures[f"wsclean_noise_{size}_mjy"] = peer["noise"] * 1e3
        figures[f"averaging_loss_{size}"] = found["floor"]["loss"]
        names = ("fluxes_differ", "fluxes_scatter", "fluxes_compared")
        told = difference(found["native"]["image"], peer["image"], place)
        figures |= {f"{name}_{size}": value for name, value in zip(names, told, strict=True)}
    return figures


if __name__ == "__main__":
    parser = reporting.options(__doc__)
    fullsize.add_child_options(parser, CHILDREN)
    given = parser.parse_args()
    fullsize.run_child(given, CHILDREN)
    with tempfile.TemporaryDirectory() as folder:
        places = [
            Path(folder) / name if path is None else path for name, path in (("raw", given.raw), ("p", given.place))
        ]
        for path in places:
            path.mkdir(parents=True, exist_ok=True)
        result = measure(*places)
    limits = reporting.bars(
        result,
        below=(
            ("standard_2400_seconds", 20.0),
            *((f"{how}memory_{size}_gb", 4.0) for size, _ in SIZES for how in ("", "standard_")),
            *((f"averaging_loss_{size}", 0.003) for size, _ in SIZES),
        ),
        at_least=[(f"{how}faster_than_wsclean_{size}", 5.0) for size, _ in SIZES for how in ("", "standard_")],
    )
    reporting.tell(result, limits, as_json=given.json)
