"""Tiers and thresholds of imaging: what is given wins, and another tier takes all of the first away."""

from __future__ import annotations

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dsa110_contimg.commands.options import chosen
from dsa110_contimg.exceptions import SettingsError
from dsa110_contimg.options import ImageOptions
from dsa110_contimg.options_image import IMAGE_TIERS
from dsa110_contimg.settings import load_settings

TIERS = sorted(IMAGE_TIERS)


def test_a_tier_yields_to_what_is_given() -> None:
    assert ImageOptions(tier="high_precision").averaging_loss == 0.001
    assert ImageOptions(tier="high_precision", averaging_loss=0.01).averaging_loss == 0.01
    assert ImageOptions(tier="development").accuracy > ImageOptions().accuracy


@pytest.mark.parametrize("first", TIERS)
@pytest.mark.parametrize("second", TIERS)
def test_another_tier_takes_all_of_the_first_away(first: str, second: str) -> None:
    configured = ImageOptions.model_validate({"tier": first, "robust": 0.0})
    assert chosen(configured, {"tier": second}) == ImageOptions.model_validate({"tier": second, "robust": 0.0})


@pytest.mark.parametrize("scales", [(), (0.0, 60.0)])
def test_another_deconvolver_takes_the_terms_of_mtmfs_away(scales: tuple[float, ...]) -> None:
    configured = ImageOptions(deconvolver="mtmfs", scales_arcsec=scales)
    kept = chosen(configured, {"robust": 0.0})
    assert (kept.deconvolver, kept.spectral_terms) == (configured.deconvolver, 2)
    assert ImageOptions.model_validate(configured.model_dump()) == configured
    assert chosen(configured, {"deconvolver": "clean"}) == ImageOptions(scales_arcsec=scales)
    # terms that were asked for by themselves stay
    asked = ImageOptions(deconvolver="mtmfs", spectral_terms=3)
    assert chosen(asked, {"deconvolver": "hogbom"}) == ImageOptions(deconvolver="hogbom", spectral_terms=3)


def test_mtmfs_of_the_environment_is_two_terms_until_another_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPELINE_OPTIONS__IMAGE__DECONVOLVER", "mtmfs")
    configured = load_settings(options={"calibrate": {"beam_table": "beam.ecsv"}}).options.image
    assert (configured.deconvolver, configured.spectral_terms) == ("clean", 2)
    assert chosen(configured, {"deconvolver": "clean"}).spectral_terms == 1
    monkeypatch.setenv("PIPELINE_OPTIONS__IMAGE__SPECTRAL_TERMS", "1")
    with pytest.raises(SettingsError, match="2 spectral_terms or more, not 1"):
        load_settings()


def test_mtmfs_of_one_term_is_refused() -> None:
    with pytest.raises(ValidationError, match="mtmfs is for 2 spectral_terms or more, not 1"):
        ImageOptions(deconvolver="mtmfs", spectral_terms=1)
    with pytest.raises(typer.BadParameter, match="mtmfs is for 2 spectral_terms or more"):
        chosen(ImageOptions(spectral_terms=1), {"deconvolver": "mtmfs"})


@pytest.mark.parametrize("n_pixels", [-2, 64, 126, 129])
def test_a_size_is_even_and_enough_or_left_to_the_data(n_pixels: int) -> None:
    with pytest.raises(ValidationError, match="n_pixels"):
        ImageOptions(n_pixels=n_pixels)
    assert ImageOptions(quick=True).n_pixels == ImageOptions().n_pixels == 0


@given(st.integers(64, 3000).map(lambda n: 2 * n), st.integers(0, 60_000), st.sampled_from(TIERS))
def test_a_quick_image_is_small_whatever_else_is_said(n_pixels: int, iterations: int, tier: str) -> None:
    made = ImageOptions.model_validate(
        {"quick": True, "n_pixels": n_pixels, "max_iterations": iterations, "tier": tier}
    )
    assert made.n_pixels == min(n_pixels, 512)
    assert made.max_iterations == min(iterations, 300)
    assert ImageOptions.model_validate_json(made.model_dump_json()) == made


@pytest.mark.parametrize(
    ("text", "sigma", "jansky"), [("4", 4.0, 0.0), ("0.5mJy", 3.0, 5e-4), ("2e-3 Jy", 3.0, 2e-3), ("80uJy", 3.0, 8e-5)]
)
def test_a_threshold_with_a_unit_is_absolute(
    monkeypatch: pytest.MonkeyPatch, text: str, sigma: float, jansky: float
) -> None:
    monkeypatch.setenv("IMG_THRESHOLD", text)
    made = load_settings().options.image
    assert (made.threshold_sigma, made.threshold_jy) == pytest.approx((sigma, jansky))
