"""Detectors of interference that others wrote: AOFlagger in this process, CASA's tfcrop and rflag in a child.

Each finds what one baseline sees alone; the spectrogram of `science.flagging`, which averages over baselines, finds
weaker signals that all of them see, and is faster. They are here to compare with, and for interference that is not
common to the array.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsa110_contimg.exceptions import ExternalToolError, InputError
from dsa110_contimg.io.casa import CasaTask, run_tasks

_THRESHOLD = re.compile(r"^(\s*local base_threshold = )[\d.]+", re.MULTILINE)
_RANK = re.compile(r"^\s*aoflagger\.scale_invariant_rank_operator(_masked)?\(.*\)$", re.MULTILINE)
CASA_CUTOFF = 5.0
"""Threshold of tfcrop and rflag (their standard deviations of an amplitude)."""


class AOFlagger:
    """AOFlagger's generic strategy (SumThreshold, Offringa et al. 2010) for one baseline at a time.

    Its last step, the scale-invariant rank operator (Offringa et al. 2012), is left out: it flags a fifth of the width
    of what was found on either side of it, in time and in frequency. That is made for weak wings of interference; ours
    is extended by `science.flagging.extend`. Measured on 40 baselines of 24 integrations and 768 channels, with six
    carriers, two bursts of 144 channels, six drifting and six intermittent lines at once, each of so many sigma a
    visibility (of the real part); share found of carriers / drifting lines, and share of clean samples flagged:

    ==================  ====================  ====================  ===================  ===========
    threshold           3 sigma               5 sigma               10 sigma             noise alone
    ==================  ====================  ====================  ===================  ===========
    1.0                 0.83 / 0.51, 0.0061   1.00 / 0.99, 0.0145   1.00 / 1.00, 0.0078  2.4e-3
    **1.2**             0.77 / 0.26, 0.0021   1.00 / 0.97, 0.0094   1.00 / 1.00, 0.0031  2.7e-4
    1.4                 0.66 / 0.10, 0.0013   0.99 / 0.88, 0.0080   1.00 / 1.00, 0.0057  2e-5
    1.6                 0.50 / 0.03, 0.0010   0.98 / 0.69, 0.0048   1.00 / 1.00, 0.0100  < 1e-5
    2.0                 0.21 / 0.00, 0.0011   0.94 / 0.19, 0.0010   1.00 / 1.00, 0.0072  < 1e-5
    1.2, with the rank  0.86 / 0.27, 0.0197   1.00 / 0.97, 0.0342   1.00 / 1.00, 0.0223  2.8e-4
    ==================  ====================  ====================  ===================  ===========

    Bursts are found whole (0.999 and more) by all. A threshold of 1.2 is the default: 1.0 flags nine times as much
    noise, 1.4 loses a tenth of the lines of 5 sigma, and neither gains much on the other side.

    Parameters
    ----------
    threshold : float
        Factor on its thresholds (``base_threshold`` of the strategy); lower finds more.

    Raises
    ------
    ExternalToolError
        It is not installed, or its strategy is of a kind that is not known.
    """

    def __init__(self, threshold: float) -> None:
        try:
            import aoflagger
        except ImportError as error:
            raise ExternalToolError(
                "AOFlagger is not installed", found=error, expected="pip install 'dsa110_contimg[rfi]'"
            ) from error
        self._flagger = aoflagger.AOFlagger()
        source = Path(self._flagger.find_strategy_file(aoflagger.TelescopeId.Generic))
        text, thresholds = _THRESHOLD.subn(rf"\g<1>{threshold:.6g}", source.read_text())
        text, ranks = _RANK.subn("", text)
        if thresholds != 1 or ranks == 0:
            raise ExternalToolError(
                "AOFlagger's strategy is not the one that is known",
                path=source,
                found=f"{thresholds} base_threshold, {ranks} scale_invariant_rank_operator",
                expected="1 and at least 1",
            )
        with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
            file.write(text)
            file.flush()
            self._strategy = self._flagger.load_strategy_file(file.name)

    def detect(self, visibilities: NDArray[np.complex64], flags: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """What is interference and not yet flagged; one polarisation flags all.

        Parameters
        ----------
        visibilities, flags : (time, baseline, channel, polarization)
            1, 2 or 4 polarisations. Samples flagged in any are left out.

        Returns
        -------
        (time, baseline, channel, polarization) bool

        Raises
        ------
        InputError
            Another number of polarisations.
        """
        n_times, n_baselines, n_channels, n_pols = visibilities.shape
        if n_pols not in (1, 2, 4):
            raise InputError("AOFlagger cannot take these polarisations", found=n_pols, expected="1, 2 or 4")
        found = np.zeros(visibilities.shape, bool)
        images = self._flagger.make_image_set(n_times, n_channels, 2 * n_pols)
        mask = self._flagger.make_flag_mask(n_times, n_channels, False)  # noqa: FBT003  # the flags to begin with
        known = np.asarray(flags.any(axis=-1))
        for baseline in range(n_baselines):
            if known[:, baseline].all():
                continue
            here = np.where(known[:, baseline, :, None], 0, visibilities[:, baseline]).transpose(2, 1, 0)
            for pol in range(n_pols):
                images.set_image_buffer(2 * pol, np.ascontiguousarray(here[pol].real, np.float32))
                images.set_image_buffer(2 * pol + 1, np.ascontiguousarray(here[pol].imag, np.float32))
            mask.set_buffer(np.ascontiguousarray(known[:, baseline].T))
            found[:, baseline] = self._strategy.run(images, mask).get_buffer().T[:, :, None]
        return found & ~flags


def casa_flag(path: Path, *, workdir: Path, measures_cache: Path | None = None, threads: int = 1) -> None:
    """Add to FLAG of a Measurement Set what CASA's tfcrop, then rflag, find in DATA.

    Raises
    ------
    ContimgError
        As `io.casa.run_tasks`.
    """
    same: dict[str, Any] = {
        "vis": path,
        "datacolumn": "data",
        "action": "apply",
        "flagbackup": False,
        "display": "",
        "extendflags": False,
        "ntime": "scan",
    }
    crop = {"timecutoff": CASA_CUTOFF, "freqcutoff": CASA_CUTOFF}
    dev = {"timedevscale": CASA_CUTOFF, "freqdevscale": CASA_CUTOFF}
    tasks = [
        CasaTask("flagdata", {**same, "mode": "tfcrop", **crop}),
        CasaTask("flagdata", {**same, "mode": "rflag", **dev}),
    ]
    run_tasks(tasks, workdir=workdir, measures_cache=measures_cache, threads=threads)
