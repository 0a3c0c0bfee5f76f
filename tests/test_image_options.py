"""Tiers and thresholds of imaging: what is given wins, and another tier takes all of the first away."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dsa110_contimg.commands.options import chosen
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
