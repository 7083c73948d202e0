import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bsexport import prune
from bsexport.errors import SourceError


def reference(tensors, ratio):
    """Sort all magnitudes stably and zero the first: what pruning means, without histograms."""
    flat = np.concatenate([tensor.reshape(-1) for tensor in tensors])
    count = round(flat.size * ratio)
    drop = np.argsort(np.abs(flat.astype(np.float32)), kind="stable")[:count]
    flat = flat.copy()
    flat[drop] = 0
    cuts = np.cumsum([tensor.size for tensor in tensors])[:-1]
    return [part.reshape(tensor.shape) for part, tensor in zip(np.split(flat, cuts), tensors, strict=True)]


def prune_all(tensors, ratio):
    left = prune.threshold([(str(i), lambda tensor=tensor: tensor) for i, tensor in enumerate(tensors)], ratio)
    result = []
    for tensor in tensors:
        pruned, used = prune.prune(tensor, left)
        left = prune.Threshold(left.bits, left.ties - used)
        result.append(pruned)
    assert left.ties == 0
    return result


def test_ties_go_in_order_of_storage():
    tensors = [np.array([[3, -1], [1, 2]], np.float32), np.array([[1, -1], [0, 5]], np.float32)]
    assert [tensor.tolist() for tensor in prune_all(tensors, 0.375)] == [[[3, 0], [0, 2]], [[1, -1], [0, 5]]]


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=4), st.floats(0, 0.999), st.integers(0, 2**32 - 1), st.booleans()
)
def test_global_pruning_is_exact_to_one_weight(sizes, ratio, seed, coarse):
    random = np.random.default_rng(seed)
    tensors = [random.standard_normal((size, 7)).astype(np.float32) for size in sizes]
    if coarse:
        tensors = [np.round(tensor, 1) for tensor in tensors]  # many ties, some zeros
    for got, expected in zip(prune_all(tensors, ratio), reference(tensors, ratio), strict=True):
        np.testing.assert_array_equal(got, expected)


@given(st.integers(1, 9), st.integers(1, 30), st.floats(0, 0.999), st.integers(0, 2**32 - 1))
def test_row_pruning_prunes_each_row_alone(rows, cols, ratio, seed):
    weights = np.round(np.random.default_rng(seed).standard_normal((rows, cols)), 1).astype(np.float32)
    expected = np.concatenate([reference([row], ratio)[0][None] for row in weights])
    np.testing.assert_array_equal(prune.prune_rows("w", weights, ratio), expected)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_other_float_types_keep_their_type_and_values(dtype):
    weights = np.random.default_rng(0).standard_normal((20, 30)).astype(dtype)
    (pruned,) = prune_all([weights], 0.5)
    assert pruned.dtype == dtype
    assert np.count_nonzero(pruned) == 300
    kept = pruned != 0
    np.testing.assert_array_equal(pruned[kept], weights[kept])


def test_across_the_chunks_that_tensors_are_cut_into(monkeypatch):
    monkeypatch.setattr(prune, "CHUNK", 16)
    tensors = [np.round(np.random.default_rng(1).standard_normal((9, 11)), 1).astype(np.float32)]
    np.testing.assert_array_equal(prune_all(tensors, 0.7)[0], reference(tensors, 0.7)[0])


def test_the_source_is_left_alone():
    weights = np.arange(10, dtype=np.float32)
    weights.flags.writeable = False
    prune_all([weights], 0.5)
    prune.prune_rows("w", weights.reshape(2, 5), 0.5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("scope", ["global", "row"])
def test_nan_and_infinity_are_refused_by_name(bad, scope):
    weights = np.ones((3, 4), np.float32)
    weights[1, 2] = bad
    what = "NaN" if np.isnan(bad) else "infinities"
    with pytest.raises(SourceError, match=f"tensor layer.weight: holds {what} .1 of 12 weights"):
        if scope == "row":
            prune.prune_rows("layer.weight", weights, 0.5)
        else:
            prune.threshold([("layer.weight", lambda: weights)], 0.5)
