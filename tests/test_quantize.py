import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bsexport.quantize import dequantize, quantize


def test_halves_round_to_even():
    weights = np.array([0.5, 1.5, 2.5, -0.5, -1.5, 0.49999997, 0.50000006], np.float32)
    assert quantize(weights, 1.0).tolist() == [0, 2, 2, 0, -2, 0, 1]


def test_the_quotient_is_taken_in_float64():
    step = float(np.float32(1e-3))
    weights = np.array([0.0125], np.float32)
    assert np.float32(weights[0]) / np.float32(step) == np.float32(12.5)  # in float32 it would be a tie
    assert float(weights[0]) / step < 12.5
    assert quantize(weights, step).tolist() == [12]


@pytest.mark.parametrize("step", [2.0**-8, 2.0**3, 2.0**-149, 2.0**127])
def test_a_power_of_two_rounds_no_quotient(step):
    weights = np.random.default_rng(0).integers(0, 1 << 32, 100_000, dtype=np.uint32).view(np.float32)
    with np.errstate(over="ignore", under="ignore"):
        halves = np.float32([0.5, 1.5, -2.5]) * np.float32(step)
    weights = np.append(weights[np.isfinite(weights)], halves[np.isfinite(halves)])
    expected = np.rint(weights.astype(np.float64) / step)
    levels = quantize(weights, step)
    small = np.abs(expected) <= 1 << 24
    assert np.array_equal(levels[small], expected[small])
    assert (np.abs(levels[~small]) > 1 << 24).all()


def test_the_value_is_one_float32_product():
    values = dequantize(np.array([3, -3, 0, 1 << 24], np.int32), float(np.float32(0.1)))
    assert values.dtype == np.float32
    expected = [
        np.float32(3) * np.float32(0.1),
        np.float32(-3) * np.float32(0.1),
        0,
        np.float32(1 << 24) * np.float32(0.1),
    ]
    assert values.tolist() == [float(value) for value in expected]


@given(st.floats(-1e3, 1e3, width=32), st.floats(2.0**-12, 1, width=32))
def test_the_error_is_at_most_half_a_step_up_to_float32_rounding(weight, step):
    level = quantize(np.array([weight], np.float32), step)
    value = dequantize(level.astype(np.int32), step)
    assert abs(float(value[0]) - weight) <= step / 2 + abs(weight) * 2.0**-23
