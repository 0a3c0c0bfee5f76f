"""Our Airy pattern beside EveryBeam's analytic beam of a dish: python everybeam_airy.py MS

EveryBeam (PyPI, 144 MB installed) is no dependency: it knows no DSA-110 dish, and of dishes its Python only SKA-MID's,
an unblocked Airy pattern of 15 m. That one is compared, from the axis to the second sidelobe. It goes by the name of
the telescope, so any Measurement Set (with one field, say of `../shared/data/real/vla`) is copied and renamed.

    python -m venv beside && beside/bin/pip install everybeam==0.9.1 -e . && beside/bin/python everybeam_airy.py MS
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

import everybeam
import numpy as np
from casacore.tables import table

from dsa110_contimg.science.beam import airy_power

PIXELS, WIDTH_DEG = 64, 4.0
FREQUENCIES_HZ = (1.3125e9, 1.405e9, 1.49875e9)


def main(path: Path) -> None:
    """Print the largest difference of power, over all and within the main lobe, for each frequency."""
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copytree(path, Path(folder) / "mid.ms")
        with table(str(copy / "OBSERVATION"), readonly=False, ack=False) as observation:
            observation.putcol("TELESCOPE_NAME", ["MID"] * observation.nrows())
        with table(str(copy / "FIELD"), ack=False) as field, table(str(copy), ack=False) as rows:
            centre = np.asarray(field.getcell("PHASE_DIR", 0)).ravel()
            time = float(rows.getcell("TIME", 0))
        telescope = everybeam.load_telescope(str(copy), element_response_model="skamid_analytical")
        grid = everybeam.GridSettings()
        grid.width = grid.height = PIXELS
        grid.dl = grid.dm = np.radians(WIDTH_DEG) / PIXELS
        grid.ra, grid.dec = (float(value) for value in centre)
        grid.l_shift = grid.m_shift = 0.0
        y, x = np.mgrid[:PIXELS, :PIXELS] - PIXELS // 2
        angle = np.arcsin(np.hypot(x, y) * grid.dl)
        found = {"diameter_m": telescope.diameter, "blockage_m": telescope.blockage}
        for frequency in FREQUENCIES_HZ:
            theirs = np.abs(telescope.gridded_response(grid, time, frequency, 0)[..., 0, 0]) ** 2
            ours = airy_power(angle, frequency, telescope.diameter)
            lobe = ours > 0.1
            found[f"{frequency / 1e6:.2f} MHz"] = {
                "largest difference": float(np.abs(ours - theirs).max()),
                "largest ratio above 0.1, less 1": float(np.abs(ours / theirs - 1)[lobe].max()),
            }
    sys.stdout.write(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
