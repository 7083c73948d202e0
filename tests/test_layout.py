import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bsexport import codebook, layout
from bsexport_runtime import codec
from bsexport_runtime.format import DType, Layout


@pytest.mark.parametrize(("order", "lengths"), [(0, [1, 3, 3, 5, 5]), (1, [2, 2, 4, 4, 4]), (2, [3, 3, 3, 3, 5])])
def test_lengths_of_the_papers_table_2(order, lengths):
    for value, length in enumerate(lengths):
        assert layout.eg_bits(np.eye(5, dtype=np.int64)[value], order) == length


def test_the_longest_codeword():
    counts = np.zeros(65536, np.int64)
    counts[65535] = 1
    assert layout.eg_bits(counts, 0) == 33


def runs_by_hand(levels, zero):
    """Count runs block by block in plain Python, with the geometry of docs/format.md, section 5."""
    rows = levels.reshape(levels.shape[0], -1)
    cols = rows.shape[1]
    if cols <= 16384:
        together = 16384 // cols
        blocks = [rows[start : start + together].reshape(-1) for start in range(0, len(rows), together)]
    elif cols <= 65536:
        blocks = list(rows)
    else:
        blocks = [row[start : start + 16384] for row in rows for start in range(0, cols, 16384)]
    runs = []
    for block in blocks:
        run = 0
        for level in block.tolist():
            if level == zero:
                run += 1
            else:
                runs.append(run)
                run = 0
    return np.trim_zeros(np.bincount(np.array(runs, int), minlength=1), "b") if runs else np.zeros(0, int)


@pytest.mark.parametrize("shape", [(300, 100), (5, 16384), (3, 20000), (2, 70000), (40000,), (7, 3, 5, 11), (1, 1)])
@pytest.mark.parametrize("density", [0.0, 0.001, 0.2, 1.0])
def test_runs_end_at_blocks(shape, density, monkeypatch):
    monkeypatch.setattr(layout, "CHUNK", 20000)
    random = np.random.default_rng(3)
    levels = (random.random(shape) < density).astype(np.int32) * random.integers(1, 5, shape, np.int32)
    assert layout.count_runs(levels, 0).tolist() == runs_by_hand(levels, 0).tolist()


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.05, 0.4, 0.7, 0.95]), st.sampled_from([0.7, 3.0, 40.0]))
def test_the_cost_is_what_the_encoder_writes(seed, density, scale):
    """The bits that were counted, and not more than the padding of each block's streams on top."""
    random = np.random.default_rng(seed)
    levels = np.rint(random.laplace(0, scale, (40, 100)) * (random.random((40, 100)) < density)).astype(np.int32)
    symbols = codebook.rank(codebook.count(levels))
    coding = layout.choose(symbols.counts, levels, int(symbols.levels[0]), None)
    blob = codec.encode(
        levels,
        dtype=DType.FLOAT32,
        step=0.5,
        codebook=symbols.levels,
        layout=coding.layout,
        level_order=coding.level_order,
        run_order=coding.run_order,
    )
    head = codec.parse(blob)
    assert coding.bits <= 8 * head.payload_bytes <= coding.bits + 2 * 7 * head.blocks


def test_sparse_tensors_get_runs_dense_ones_do_not_and_an_order_forces_eg():
    random = np.random.default_rng(0)
    dense = random.integers(-20, 21, (64, 64)).astype(np.int32)
    sparse = dense * (random.random((64, 64)) < 0.1)
    for levels, order, expected in ((dense, None, Layout.EG), (sparse, None, Layout.RL), (sparse, 2, Layout.EG)):
        symbols = codebook.rank(codebook.count(levels))
        coding = layout.choose(symbols.counts, levels, int(symbols.levels[0]), order)
        assert coding.layout is expected
        assert order is None or coding.level_order == order
