"""Tables of measured beams: what is written is read, and what is not a beam is refused."""

import numpy as np
import pytest
from astropy.io import fits

from dsa110_contimg.exceptions import CorruptFileError, InputError
from dsa110_contimg.io.beams import EXTENSION, beam_of_image, beam_table, read_beam, write_beam
from dsa110_contimg.science.beam import AiryBeam, TabulatedBeam, primary_beam

ANGLE = np.linspace(0.0, 2.5, 26)
FREQUENCY = np.array([1.32e9, 1.48e9])


def table(diameter=4.65):
    power = AiryBeam(diameter).power(np.radians(ANGLE), FREQUENCY[:, None])
    return beam_table(ANGLE, FREQUENCY, power, np.full(power.shape, 0.01))


def test_a_beam_survives_its_file(tmp_path):
    path = tmp_path / "beam.ecsv"
    shuffled = table()[np.random.default_rng(0).permutation(52)]
    write_beam(path, shuffled)
    read = read_beam(path)
    for name in ("angle_deg", "frequency_hz", "power", "error"):
        np.testing.assert_array_equal(read[name], table()[name])
    assert read["angle_deg"].unit == "deg"
    beam = primary_beam(read)
    assert isinstance(beam, TabulatedBeam)
    assert beam.power(np.radians(1.0), 1.4e9) == pytest.approx(AiryBeam().power(np.radians(1.0), 1.4e9), rel=1e-4)


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (lambda t: t.remove_column("power"), "lacks columns"),
        (lambda t: t.remove_row(3), "different angles"),
        (lambda t: t["power"].__setitem__(5, np.nan), "not finite"),
        (lambda t: t["power"].__setitem__(5, -0.1), "0 to 1.1"),
        (lambda t: t["power"].__setitem__(0, 0.5), "on axis"),
        (lambda t: t["angle_deg"].__setitem__(slice(None), t["angle_deg"] + 0.1), "begin at 0"),
        (lambda t: t["power"].__setitem__(slice(None), 1.0), "does not fall"),
        (lambda t: t["frequency_hz"].__setitem__(slice(None), t["frequency_hz"] / 1e6), "L band"),
    ],
)
def test_what_is_not_a_beam_is_neither_written_nor_read(tmp_path, spoil, what):
    spoilt = table()
    spoil(spoilt)
    with pytest.raises(InputError, match=what):
        write_beam(tmp_path / "beam.ecsv", spoilt)
    assert not list(tmp_path.iterdir())
    spoilt.write(tmp_path / "other.ecsv", format="ascii.ecsv")
    with pytest.raises(CorruptFileError, match=what):
        read_beam(tmp_path / "other.ecsv")


def test_a_file_that_is_no_table_or_absent_says_so(tmp_path):
    (tmp_path / "text.ecsv").write_text("not a table\n")
    for name in ("text.ecsv", "absent.ecsv"):
        with pytest.raises(CorruptFileError, match="cannot be read"):
            read_beam(tmp_path / name)


def test_an_image_carries_its_beam_or_none(tmp_path):
    plain, own = tmp_path / "a.pb.fits", tmp_path / "b.pb.fits"
    fits.PrimaryHDU(np.zeros((4, 4))).writeto(plain)
    hdu = fits.table_to_hdu(table())
    hdu.name = EXTENSION
    fits.HDUList([fits.PrimaryHDU(np.zeros((4, 4))), hdu]).writeto(own)
    assert beam_of_image(plain) is None
    np.testing.assert_array_equal(beam_of_image(own)["power"], table()["power"])
    with pytest.raises(CorruptFileError):
        beam_of_image(tmp_path / "absent.fits")
