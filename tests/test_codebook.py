import numpy as np
import pytest

from bsexport import codebook


def test_levels_are_ranked_by_frequency_then_magnitude_then_sign():
    levels = np.array([0, 0, 0, 5, -5, 5, -5, 2, -2, 9], np.int32)
    ranked = codebook.rank(codebook.count(levels))
    assert ranked.levels.tolist() == [0, 5, -5, 2, -2, 9]
    assert ranked.counts.tolist() == [3, 2, 2, 1, 1, 1]


@pytest.mark.parametrize("scale", [1, 1 << 21])  # counted in a table, and sorted
def test_count_and_merge_agree_with_unique(scale):
    parts = [np.random.default_rng(seed).integers(-8, 9, 500, np.int32) * np.int32(scale // 2 or 1) for seed in (0, 1)]
    merged = codebook.merge(codebook.count(part) for part in parts)
    values, counts = np.unique(np.concatenate(parts), return_counts=True)
    assert merged.levels.tolist() == values.tolist()
    assert merged.counts.tolist() == counts.tolist()
    assert merged.zeros == counts[values == 0]


def test_entropy_of_known_sources():
    assert codebook.count(np.array([0, 1, 2, 3], np.int32)).entropy() == 8
    assert codebook.count(np.array([7, 7, 7], np.int32)).entropy() == 0
    assert codebook.count(np.array([0, 0, 0, 1], np.int32)).entropy() == pytest.approx(4 * 0.8112781244591328)
