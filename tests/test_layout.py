import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bsexport import codebook, layout
from bsexport.layout import Allowed
from bsexport_runtime import codec
from bsexport_runtime.codes import Family
from bsexport_runtime.format import DType, Layout

RICE = 16


@pytest.mark.parametrize(
    ("code", "lengths"),
    [
        (0, [1, 3, 3, 5, 5]),
        (1, [2, 2, 4, 4, 4]),
        (2, [3, 3, 3, 3, 5]),
        (RICE, [1, 2, 3, 4, 5]),
        (RICE + 1, [2, 2, 3, 3, 4]),
    ],
)
def test_lengths_of_the_papers_table_2_and_of_golomb_rice(code, lengths):
    for value, length in enumerate(lengths):
        assert layout.code_bits(np.eye(5, dtype=np.int64)[value], code) == length


@pytest.mark.parametrize(("code", "length"), [(0, 33), (RICE, 47), (RICE + 15, 17)])
def test_the_longest_codeword(code, length):
    counts = np.zeros(65536, np.int64)
    counts[65535] = 1
    assert layout.code_bits(counts, code) == length


def test_the_best_code_of_a_geometric_source_is_golomb_rice():
    counts = (1e6 * 0.8 ** np.arange(60)).astype(np.int64)  # a mean of 4
    assert layout.best_code(counts, (Family.EXP_GOLOMB, Family.GOLOMB_RICE))[0] == RICE + 2
    assert layout.best_code(counts) == min((layout.code_bits(counts, k), k) for k in range(16))[::-1]
    assert layout.best_code(counts, order=0)[0] == 0


def blocks_by_hand(levels):
    """The blocks of docs/format.md, section 5, in plain Python."""
    rows = levels.reshape(levels.shape[0], -1)
    cols = rows.shape[1]
    if cols <= 16384:
        together = 16384 // cols
        return [rows[start : start + together].reshape(-1) for start in range(0, len(rows), together)]
    if cols <= 65536:
        return list(rows)
    return [row[start : start + 16384] for row in rows for start in range(0, cols, 16384)]


def runs_by_hand(levels, zero):
    runs = []
    for block in blocks_by_hand(levels):
        run = 0
        for level in block.tolist():
            if level == zero:
                run += 1
            else:
                runs.append(run)
                run = 0
    return np.trim_zeros(np.bincount(np.array(runs, int), minlength=1), "b") if runs else np.zeros(0, int)


def pairs_by_hand(levels, symbols):
    symbol = {level: place for place, level in enumerate(symbols.levels.tolist())}
    alphabet = len(symbol) - 1
    counts = np.zeros((alphabet, alphabet), int)
    for block in blocks_by_hand(levels):
        coded = [symbol[level] - 1 for level in block.tolist() if symbol[level]]
        coded += [0] * (len(coded) % 2)
        for a, b in zip(coded[::2], coded[1::2], strict=True):
            counts[a, b] += 1
    return counts.ravel()


@pytest.mark.parametrize("shape", [(300, 100), (5, 16384), (3, 20000), (2, 70000), (40000,), (7, 3, 5, 11), (1, 1)])
@pytest.mark.parametrize("density", [0.0, 0.001, 0.2, 1.0])
def test_runs_and_pairs_end_at_blocks(shape, density, monkeypatch):
    monkeypatch.setattr(layout, "CHUNK", 20000)
    random = np.random.default_rng(3)
    levels = (random.random(shape) < density).astype(np.int32) * random.integers(1, 5, shape, np.int32)
    symbols = codebook.rank(codebook.count(levels))
    streams = layout.count_streams(levels, symbols)
    assert streams.runs.tolist() == runs_by_hand(levels, symbols.levels[0]).tolist()
    expected = pairs_by_hand(levels, symbols).tolist() if symbols.levels.size >= 3 else []
    assert streams.pairs.tolist() == expected


def test_classes_are_half_bits_of_surprise():
    counts = np.array([900, 64, 45, 32, 31, 16, 1], np.int64)
    assert layout.pair_classes(counts).tolist() == [0, 1, 2, 2, 4, 12]
    assert layout.pair_classes(np.array([2**41, 2**40, 1], np.int64)).tolist() == [0, 63]


def candidates(symbols, levels, limits):
    return layout._candidates(symbols, levels.shape, lambda: layout.count_streams(levels, symbols), limits)


def encoded(levels, symbols, coding):
    return codec.encode(
        levels,
        dtype=DType.FLOAT32,
        step=0.5,
        codebook=symbols.levels,
        layout=coding.layout,
        level_code=coding.level_code,
        run_code=coding.run_code,
        pair_classes=coding.pair_classes,
    )


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.02, 0.05, 0.4, 0.7, 0.95]),
    st.sampled_from([0.7, 3.0, 40.0]),
    st.sampled_from([None, *layout.LAYOUTS]),
    st.sampled_from([None, *layout.FAMILIES]),
)
def test_the_cost_is_what_the_encoder_writes(seed, density, scale, only, family):
    """The bits that were counted, and not more than the padding of each block's streams on top."""
    random = np.random.default_rng(seed)
    levels = np.rint(random.laplace(0, scale, (400, 100)) * (random.random((400, 100)) < density)).astype(np.int32)
    symbols = codebook.rank(codebook.count(levels))
    for coding in layout._candidates(
        symbols, levels.shape, lambda: layout.count_streams(levels, symbols), layout.allowed(only, family, None)
    ):
        blob = encoded(levels, symbols, coding)
        head = codec.parse(blob)
        streams = 2 if coding.layout is Layout.RL else 1
        assert coding.bits <= 8 * head.payload_bytes <= coding.bits + 7 * streams * head.blocks
        assert abs(8 * len(blob) - coding.cost) <= 3.5 * streams * head.blocks
        assert np.array_equal(codec.decode_levels(blob), levels)


def test_dense_tensors_get_codewords_half_empty_ones_a_bitmap_and_sparse_ones_runs():
    random = np.random.default_rng(0)
    for zeros, expected in ((0.05, Layout.EG), (0.5, Layout.BM), (0.9, Layout.RL)):
        levels = np.rint(random.laplace(0, 6, (256, 256)) * (random.random((256, 256)) >= zeros)).astype(np.int32)
        symbols = codebook.rank(codebook.count(levels))
        assert layout.choose(symbols, levels, Allowed()).layout is expected


def test_small_alphabets_get_pairs_where_these_pay():
    random = np.random.default_rng(0)
    levels = np.rint(random.laplace(0, 0.6, (256, 256))).astype(np.int32)
    symbols = codebook.rank(codebook.count(levels))
    chosen = layout.choose(symbols, levels, Allowed((Layout.RL,)))
    assert chosen.pair_classes is not None
    others = layout._candidates(
        symbols, levels.shape, lambda: layout.count_streams(levels, symbols), Allowed((Layout.RL,))
    )
    assert len(encoded(levels, symbols, chosen)) == min(len(encoded(levels, symbols, other)) for other in others)


def test_what_is_asked_for_is_chosen():
    random = np.random.default_rng(0)
    levels = (random.integers(-20, 21, (64, 64)) * (random.random((64, 64)) < 0.1)).astype(np.int32)
    symbols = codebook.rank(codebook.count(levels))
    for only, family, order, expected in (
        ("eg", None, None, Layout.EG),
        ("bm", None, None, Layout.BM),
        ("rl", "eg", None, Layout.RL),
        (None, "rice", None, Layout.RL),
        (None, None, 2, Layout.EG),
    ):
        coding = layout.choose(symbols, levels, layout.allowed(only, family, order))
        assert coding.layout is expected
        if order is not None:
            assert coding.level_code == order
        for code in (coding.level_code, coding.run_code) if expected is Layout.RL else (coding.level_code,):
            assert family is None or code >> 4 == layout.FAMILIES[family]


def test_a_tensor_of_one_level_can_have_any_layout():
    levels = np.full((30, 40), 7, np.int32)
    symbols = codebook.rank(codebook.count(levels))
    for only in layout.LAYOUTS:
        coding = layout.choose(symbols, levels, layout.allowed(only, None, None))
        assert np.array_equal(codec.decode_levels(encoded(levels, symbols, coding)), levels)
