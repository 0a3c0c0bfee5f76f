"""Selections mean what they mean in CASA."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsa110_contimg.exceptions import InputError
from dsa110_contimg.science.casasyntax import parse_fields, parse_uvrange

NAMES = [f"meridian_t{k}" for k in range(24)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", range(24)),
        ("3", [3]),
        ("0~15", range(16)),
        ("0, 2,5~7", [0, 2, 5, 6, 7]),
        ("<3", [0, 1, 2]),
        (">21", [22, 23]),
        ("meridian_t4", [4]),
        ("*_t1?", range(10, 20)),
        ("*_t2*,0", [0, 2, 20, 21, 22, 23]),
        ("5,5,4~6", [4, 5, 6]),
    ],
)
def test_fields(text, expected):
    assert parse_fields(text, NAMES) == tuple(expected)


@pytest.mark.parametrize("text", ["24", "20~30", "7~3", "3C286", "0,nobody", "-1", "1~", "*_x"])
def test_what_names_no_field_is_an_error(text):
    with pytest.raises(InputError, match="names nothing"):
        parse_fields(text, NAMES)


def test_a_name_that_looks_like_a_number_is_a_name():
    assert parse_fields("7", ["0", "7", "x"]) == (1,)


@given(st.lists(st.integers(0, 23), min_size=1))
def test_any_list_of_numbers_selects_just_these(numbers):
    assert parse_fields(",".join(map(str, numbers)), NAMES) == tuple(sorted(set(numbers)))


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        ("", [True] * 4),
        (">1klambda", [False, False, True, True]),
        (">1000lambda", [False, False, True, True]),
        ("<250m", [True, True, False, False]),
        ("<0.25km", [True, True, False, False]),
        ("0.1~2klambda", [False, True, True, False]),
        ("150~400", [False, True, True, False]),
    ],
)
def test_uv_ranges_at_a_wavelength_of_0_3_m(text, inside):
    lengths = np.array([20.0, 200.0, 350.0, 2000.0])
    frequency = 299_792_458.0 / 0.3
    assert parse_uvrange(text).holds(lengths, frequency).tolist() == inside


@pytest.mark.parametrize("text", ["1klambda", ">", "5~2m", "> 1 parsec", "all"])
def test_other_words_are_no_uv_range(text):
    with pytest.raises(InputError, match="Not a range"):
        parse_uvrange(text)
