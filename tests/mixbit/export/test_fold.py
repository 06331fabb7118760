import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mixbit.export.fold import Affine, integers

CODES = np.array([[3, -4], [1, 2]], np.int8)
SCALE, STEP = np.array([0.1, 0.2], np.float32), np.float32(0.05)


@given(st.lists(st.floats(-3, 3).filter(lambda g: abs(g) > 1e-3), min_size=2, max_size=2))
def test_folded_integers_compute_layer_and_batchnorm(gamma):
    map_ = Affine(np.array(gamma), np.array([0.7, -0.3]))
    fixed, x = integers(CODES, SCALE, STEP, map_), np.array([5, 200])
    expected = map_.multiplier * SCALE * (CODES @ (x * STEP)) + map_.bias
    found = (fixed.codes.astype(int) @ x + fixed.bias) * fixed.bias_scale.astype(float)
    assert np.allclose(found, expected, atol=float(np.abs(fixed.bias_scale).max()), rtol=1e-5)


def test_negative_gamma_keeps_codes_and_turns_the_scale():
    fixed = integers(CODES, SCALE, STEP, Affine(np.array([-1.0, 1.0]), np.zeros(2)))
    assert (fixed.codes == CODES).all()
    assert np.sign(fixed.scale).tolist() == [-1, 1]


def test_zero_gamma_leaves_the_bias_alone():
    fixed = integers(CODES, SCALE, STEP, Affine(np.array([0.0, 1.0]), np.array([0.5, 0.5])))
    assert fixed.codes[0].tolist() == [0, 0]
    assert np.allclose(fixed.bias * fixed.bias_scale, 0.5, atol=0.01)
    assert (fixed.scale != 0).all()


def test_without_bias_and_batchnorm_there_is_no_bias():
    assert integers(CODES, SCALE, STEP, None).bias is None
