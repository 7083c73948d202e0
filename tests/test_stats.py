"""What stats finds out about weights, against figures worked out by hand, scipy's distributions and pack's report."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

torch = pytest.importorskip("torch", reason="NOT TESTED: the statistics of weights need torch")
distributions = pytest.importorskip("scipy.stats", reason="NOT TESTED: the statistics of weights need scipy")
safetensors = pytest.importorskip("safetensors.numpy", reason="NOT TESTED: the statistics of weights need safetensors")

from bsexport import codebook  # noqa: E402
from bsexport.codebook import Histogram  # noqa: E402
from bsexport.errors import ExportError, SourceError  # noqa: E402
from bsexport.pipeline import pack  # noqa: E402
from bsexport.recipe import Recipe  # noqa: E402
from bsexport.source import open_source  # noqa: E402
from bsexport.stats.codes import codes_of, fixed_bits, huffman_bits  # noqa: E402
from bsexport.stats.figures import Bars, Stats  # noqa: E402
from bsexport.stats.fit import Magnitudes, divergence, fits  # noqa: E402
from bsexport.stats.plot import by_kind  # noqa: E402
from bsexport.stats.run import stats  # noqa: E402
from bsexport.stats.source import Weights, open_weights  # noqa: E402
from bsexport.stats.table import stats_text  # noqa: E402

STEP = 2.0**-8


def save_one(path: Path, weights: np.ndarray) -> Path:
    """An .onnx file of one matrix, "w"."""
    rows, columns = weights.shape
    text = f'<ir_version: 8, opset_import: ["" : 17]> g (float[n, {rows}] x) => (float[n, {columns}] y)'
    model = parser.parse_model(text + " { y = MatMul (x, w) }")
    model.graph.initializer.append(numpy_helper.from_array(weights.astype(np.float32), "w"))
    onnx.save(model, path)
    return path


def of_one(path: Path, weights: np.ndarray, step: float = STEP) -> Stats:
    return stats(open_weights(str(save_one(path, weights))), Recipe(step=step))


def histogram(counts: dict[int, int]) -> Histogram:
    return Histogram(np.array(list(counts), np.int32), np.array(list(counts.values()), np.int64))


# codes


def test_the_bits_of_five_levels_by_hand() -> None:
    """Ranks 0 to 4, 16, 8, 4, 2 and 2 of 32 weights: a Huffman code of 1, 2, 3, 4 and 4 bits, which is the entropy."""
    found = codes_of(histogram({-2: 2, -1: 4, 0: 16, 1: 8, 2: 2}))
    assert found.bits == {
        "entropy": pytest.approx(16 * 1 + 8 * 2 + 4 * 3 + 2 * 4 + 2 * 4),
        "fixed": 32 * 3,
        "huffman": 60,
        "eg0": 16 * 1 + 12 * 3 + 4 * 5,  # ranks 1 and 2: 010 and 011
        "eg1": 24 * 2 + 8 * 4,
        "eg2": 30 * 3 + 2 * 5,
        "eg3": 32 * 4,
        "eg4": 32 * 5,
        "eg5": 32 * 6,
        "eg": 72,
        "rice": 16 * 1 + 8 * 2 + 4 * 3 + 2 * 4 + 2 * 5,  # order 0 is unary
    }
    assert (found.eg_order, found.rice_order) == (0, 0)


@pytest.mark.parametrize(
    ("counts", "fixed", "huffman"),
    [
        ([7], 0, 0),
        ([1, 6], 7, 7),
        ([1, 1, 1], 6, 5),
        ([1, 1, 1, 1], 8, 8),
        ([1, 1, 1, 1, 1], 15, 12),
        ([8, 5, 4], 34, 26),
    ],
)
def test_fixed_length_and_huffman_by_hand(counts: list[int], fixed: int, huffman: int) -> None:
    assert fixed_bits(np.array(counts)) == fixed
    assert huffman_bits(np.array(counts)) == huffman


def test_huffman_lies_between_the_entropy_and_one_bit_more() -> None:
    random = np.random.default_rng(0)
    for size in (2, 3, 17, 1000):
        counts = random.geometric(0.01, size)
        weights = int(counts.sum())
        entropy = -float(counts @ np.log2(counts / weights))
        assert entropy <= huffman_bits(counts) < entropy + weights


# fits


@pytest.mark.parametrize("shape", [0.4, 1.0, 1.41, 2.0])
def test_the_shape_and_scale_of_a_sample_are_found(shape: float) -> None:
    sample = distributions.gennorm(shape, scale=0.05).rvs(400_000, random_state=3)
    levels = codebook.count(np.rint(sample / 0.1).astype(np.int32))
    found = fits(Magnitudes.of(sample.astype(np.float32)), levels, 0.1)
    for name in ("moments", "likelihood"):
        assert found[name].shape == pytest.approx(shape, rel=0.02)
        assert found[name].scale == pytest.approx(0.05, rel=0.03)
        assert found[name].divergence < 0.002
    assert found["laplace"].scale == pytest.approx(float(distributions.laplace.fit(sample, floc=0)[1]), rel=1e-5)
    assert found["gaussian"].sigma == pytest.approx(math.sqrt(float((sample**2).mean())), rel=1e-5)


def test_the_histogram_of_magnitudes_gives_the_likelihood_of_the_weights_themselves() -> None:
    from bsexport.backslash import gaussian

    sample = distributions.gennorm(0.7, scale=0.01).rvs(30_000, random_state=4).astype(np.float32)
    means, counts = map(torch.from_numpy, Magnitudes.of(sample).means())
    for fit in (gaussian.fit, gaussian.fit_likelihood):
        assert fit(means, counts) == pytest.approx(fit(torch.from_numpy(sample)), rel=1e-4)


def test_histograms_of_magnitudes_add_up() -> None:
    first, second = np.array([0.0, -0.5, 3.0], np.float32), np.array([0.5, 1e-30], np.float32)
    both = Magnitudes.of(np.concatenate([first, second]))
    added = Magnitudes.of(first) + Magnitudes.of(second)
    assert np.array_equal(both.counts, added.counts) and np.array_equal(both.sums, added.sums)
    assert both.means()[1].tolist() == [1, 1, 2, 1]
    assert both.mean == pytest.approx(4 / 5)
    assert both.rms == pytest.approx(math.sqrt(9.5 / 5))


@pytest.mark.parametrize("shape", [0.3, 1.0, 2.0])
def test_the_divergence_is_that_from_scipys_distribution(shape: float) -> None:
    levels = histogram({-3: 1, -1: 10, 0: 50, 1: 12, 2: 3})
    distribution = distributions.gennorm(shape, scale=1 / torch_scale(shape, 0.7))
    edges = np.array([-3.5, -2.5, -1.5, -0.5, 0.5, 1.5, 2.5]) * 0.5
    mass = np.diff(distribution.cdf(edges))[[0, 2, 3, 4, 5]]
    shares = levels.counts / 76
    assert divergence(levels, shape, 0.7, 0.5) == pytest.approx(float(shares @ np.log2(shares / mass)), rel=1e-9)


def torch_scale(shape: float, sigma: float) -> float:
    """gamma of the paper's equation 2."""
    return math.sqrt(math.gamma(3 / shape) / math.gamma(1 / shape)) / sigma


def test_the_divergence_of_an_outlier_is_finite() -> None:
    """500 standard deviations out, where a Gaussian's share has no float64: two in a million of those are 0.36 bits."""
    levels = histogram({-1: 500_000, 1: 499_998, 500: 2})
    found = divergence(levels, 2.0, 1.0, 1.0)
    tail = 2e-6 * 499.5**2 / 2 / math.log(2)
    near = math.log2(0.5 / (distributions.norm.cdf(1.5) - distributions.norm.cdf(0.5)))
    assert found == pytest.approx(near + tail, rel=1e-3)


# bars


def test_bars_by_hand() -> None:
    bars = Bars.of(histogram({-2: 1, 0: 5, 1: 2, 3: 4}), 0.5, rms=1.0)
    assert (bars.width, bars.counts.tolist(), bars.outside) == (1, [0, 1, 0, 5, 2, 0, 4], 0)
    assert bars.edges.tolist() == [-1.75, -1.25, -0.75, -0.25, 0.25, 0.75, 1.25, 1.75]
    assert bars.density.tolist() == pytest.approx([0, 1 / 6, 0, 5 / 6, 1 / 3, 0, 2 / 3])


@pytest.mark.parametrize("largest", [0, 1, 100, 101, 200, 301, 302, 1000, 16_777_216])
def test_bars_cover_every_level_or_count_it_as_outside(largest: int) -> None:
    levels = histogram({-largest: 1, 0: 10, largest: 2} if largest else {0: 13})
    bars = Bars.of(levels, 1.0, rms=float(largest))
    assert (int(bars.counts.sum()), bars.outside) == (13, 0)
    assert bars.counts.size % 2 == bars.width % 2 == 1
    assert bars.counts.size <= 201
    assert bars.edges[0] == -bars.edges[-1] <= -largest
    assert bars.counts[0] == (1 if largest else 13)
    assert Bars.of(levels, 1.0, rms=largest / 100).outside == (3 if largest >= 100 else 0)


# the line, from a model to figures


def test_the_figures_are_those_that_pack_reports(small: Path, tmp_path: Path) -> None:
    for recipe in (Recipe(step=1e-3), Recipe(step=2.0**-6, prune=0.8)):
        total = pack(open_source(str(small)), recipe, tmp_path / "out", force=True).summary()
        found = stats(open_weights(str(small)), recipe)
        figures = found.to_json()
        assert found.weights == total["coded_weights"] == 11392
        per_tensor = figures["per_tensor_bits"]
        assert {name: per_tensor[name] for name in ("entropy", "eg0", "eg")} == {
            name: pytest.approx(total[f"{name}_bits"], rel=1e-12) for name in ("entropy", "eg0", "eg")
        }
        assert figures["whole"]["bits"]["eg0"] == total["paper_bits"]
        assert per_tensor["packed"] == total["coded_bits"]
        assert figures["whole"]["zeros"] == sum(tensor.figures.zeros for tensor in found.tensors)
        assert figures["threshold"] == (0 if not recipe.prune else pytest.approx(0.15, abs=0.03))
        # A package of the same recipe holds the same levels; its own recipe is what it is looked at with.
        packed = open_weights(str(tmp_path / "out"))
        assert packed.recipe == replace(recipe, prune=0.0)
        again = stats(packed, packed.recipe)
        assert again.bits == found.bits
        assert again.whole is not None and found.whole is not None
        assert again.whole.codes == found.whole.codes


def test_pack_chooses_the_layout_of_least_bits(small: Path) -> None:
    for prune in (0.0, 0.5, 0.9):
        for tensor in stats(open_weights(str(small)), Recipe(step=4e-3, prune=prune)).tensors:
            layouts = {name: tensor.bits[f"layout_{name}"] for name in ("eg", "bm", "rl")}
            assert tensor.layout.lower() == min(layouts, key=lambda name: layouts[name])
            assert tensor.bits["packed"] == pytest.approx(min(layouts.values()), abs=8)


def test_a_model_of_one_codebook_by_hand(tmp_path: Path) -> None:
    """1024 weights, half of them 0, a quarter a step up, an eighth a step down and an eighth three steps up."""
    weights = STEP * np.repeat([0, 1, -1, 3], [512, 256, 128, 128]).reshape(32, 32)
    found = of_one(tmp_path / "one.onnx", weights)
    figures = found.to_json()
    (tensor,) = figures["tensors"]
    whole = figures["whole"]
    assert (whole["weights"], whole["zeros"], whole["distinct"]) == (1024, 512, 4)
    assert {name: whole["bits"][name] for name in ("entropy", "fixed", "huffman", "eg0", "eg1", "rice")} == {
        "entropy": 1.75, "fixed": 2, "huffman": 1.75, "eg0": 0.5 + 3 / 4 + 3 / 8 + 5 / 8, "eg1": 2.5, "rice": 1.875
    }  # fmt: skip
    assert whole["rms"] == pytest.approx(STEP * math.sqrt((256 + 128 + 9 * 128) / 1024))
    assert whole["fits"]["laplace"]["scale"] == pytest.approx(STEP * (256 + 128 + 3 * 128) / 1024)
    assert (tensor["name"], tensor["dims"]) == ("w", (32, 32))
    assert whole["histogram"]["counts"] == [0, 0, 128, 512, 256, 0, 128]


def test_a_tensor_of_zeros_has_no_distribution_and_costs_nothing(tmp_path: Path) -> None:
    found = of_one(tmp_path / "zeros.onnx", np.zeros((32, 64)))
    assert found.whole is not None
    assert (found.whole.fits, found.whole.zeros, found.whole.distinct, found.whole.rms) == ({}, 2048, 1, 0)
    bits = found.whole.to_json()["bits"]
    assert {name: bits[name] for name in ("entropy", "fixed", "huffman", "eg0")} == {
        "entropy": 0, "fixed": 0, "huffman": 0, "eg0": 1
    }  # fmt: skip
    assert "every weight is zero: no distribution fits" in stats_text(found)


def test_a_constant_tensor_is_as_flat_as_a_fit_can_be(tmp_path: Path) -> None:
    found = of_one(tmp_path / "constant.onnx", np.full((32, 64), -5 * STEP))
    assert found.whole is not None
    assert found.whole.fits["moments"].shape == pytest.approx(10)
    assert found.whole.fits["moments"].sigma == pytest.approx(5 * STEP)
    assert found.whole.codes.bits["entropy"] == 0
    assert all(math.isfinite(fit.divergence) for fit in found.whole.fits.values())


def test_weights_that_are_mostly_zero_have_no_likelihood(tmp_path: Path) -> None:
    weights = np.random.default_rng(0).standard_normal((64, 64)) * (np.arange(4096).reshape(64, 64) % 5 == 0)
    found = of_one(tmp_path / "sparse.onnx", weights)
    assert found.whole is not None
    assert list(found.whole.fits) == ["moments", "laplace", "gaussian"]
    assert "none above a shape of 0.05: too many weights are exactly zero" in stats_text(found)


def test_weights_that_are_no_numbers_are_named(tmp_path: Path) -> None:
    weights = np.ones((32, 64))
    weights[1, 2] = np.nan
    with pytest.raises(SourceError, match=r"^tensor w: holds NaN \(1 of 2048 weights looked at\); repair the model$"):
        of_one(tmp_path / "nan.onnx", weights)


def test_a_model_without_a_tensor_to_code(tmp_path: Path) -> None:
    found = of_one(tmp_path / "tiny.onnx", np.ones((3, 4)))
    assert (found.whole, found.tensors, found.rows()) == (None, (), [])
    assert found.to_json()["per_tensor_bits"] == {}
    assert "no tensor would be coded" in stats_text(found)


# checkpoints


def save_checkpoint(folder: Path, weights: dict[str, np.ndarray]) -> Weights:
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "bert"}')
    safetensors.save_file(weights, folder / "model.safetensors")
    return open_weights(str(folder))


def test_a_checkpoint_is_read_without_its_model(tmp_path: Path) -> None:
    """Half precision, too; the head is not pruned, and what pack does not code is left out."""
    random = np.random.default_rng(0)
    weights = {
        "classifier.weight": random.standard_normal((32, 40)).astype(np.float16),
        "layer.0.weight": random.standard_normal((64, 64)).astype(np.float16),
        "layer.0.bias": np.zeros(64, np.float16),
        "ids": np.zeros((64, 64), np.int64),
    }
    model = save_checkpoint(tmp_path / "half", weights)
    found = stats(model, Recipe(step=1e-2, prune=0.5))
    head, layer = found.tensors
    assert (model.name, head.name, head.pruned, layer.pruned) == ("half", "classifier.weight", False, True)
    assert layer.figures.zeros >= 2048 > 1000 > head.figures.zeros
    assert found.uncoded == {"layer.0.bias": "1-D", "ids": "int64, not a floating-point weight"}
    text = stats_text(found)
    assert text.partition("left out, as pack does not code them\n")[2].splitlines() == [
        "  int64, not a floating-point weight (1)", "    ids", "  1-D (1)", "    layer.0.bias"
    ]  # fmt: skip
    floats = {name: array.astype(np.float32) for name, array in weights.items() if name != "ids"}
    wide = save_checkpoint(tmp_path / "wide", floats)
    assert stats(wide, Recipe(step=1e-2, prune=0.5)).bits == found.bits


def test_a_checkpoint_and_the_graph_of_its_task_give_the_same(tmp_path: Path) -> None:
    from hf_models import save_bert

    folder = save_bert(tmp_path / "bert", "text-classification", tokenizer=False)
    recipe = Recipe(step=2.0**-6, prune=0.5)
    found = stats(open_weights(str(folder)), recipe)
    exported = stats(open_weights(str(folder), task="text-classification"), recipe)
    assert found.bits == exported.bits
    assert [tensor.pruned for tensor in found.tensors] == [tensor.pruned for tensor in exported.tensors]
    assert found.to_json()["whole"] == exported.to_json()["whole"]


def test_a_model_that_cannot_be_packed_has_statistics_all_the_same(tmp_path: Path) -> None:
    from hf_models import save_t5

    found = stats(open_weights(str(save_t5(tmp_path / "t5"))), Recipe())
    assert found.weights > 0
    with pytest.raises(ExportError, match="encoder-decoder"):
        open_weights(str(tmp_path / "t5"), task="text-classification")


def test_the_step_that_a_model_was_trained_for_is_its_own(tmp_path: Path) -> None:
    weights = {"w": np.ones((64, 64), np.float32)}
    assert save_checkpoint(tmp_path / "plain", weights).recipe == Recipe(step=2.0**-8)
    record = '{"format": "bsexport training record", "rate": {"step": 0.03125}}'
    (tmp_path / "plain" / "backslash.json").write_text(record)
    assert open_weights(str(tmp_path / "plain")).recipe == Recipe(step=2.0**-5)


def test_tensors_of_one_kind_go_by_their_depth(tmp_path: Path) -> None:
    ones = np.ones((32, 32), np.float32)
    names = ("layer.10.a", "layer.2.a", "embedding", "layer.2.b")
    found = stats(save_checkpoint(tmp_path / "m", dict.fromkeys(names, ones)), Recipe())
    kinds = {kind: [depth for depth, _ in members] for kind, members in by_kind(found.tensors).items()}
    assert kinds == {"embedding": [-1], "layer.N.a": [2, 10], "layer.N.b": [2]}


def test_the_real_minilm(minilm: Path) -> None:
    """What `bsexport pack --dry-run` reports of it, and the shape of a model that was trained as usual."""
    model = open_weights(str(minilm))
    found = stats(model, model.recipe)
    assert found.whole is not None
    assert (found.weights, len(found.tensors), found.whole.distinct) == (22_681_344, 39, 394)
    assert found.whole.fits["moments"].shape == pytest.approx(1.4066, abs=1e-3)
    assert found.whole.fits["likelihood"].shape == pytest.approx(1.4165, abs=1e-3)
    assert found.whole.fits["moments"].divergence < 0.002 < 0.02 < found.whole.fits["laplace"].divergence
    bits = found.to_json()["per_tensor_bits"]
    assert [bits[name] for name in ("entropy", "eg0", "packed")] == pytest.approx(
        [5.863448, 8.037190, 5.940509], abs=5e-6
    )
    assert found.whole.to_json()["bits"]["eg0"] == pytest.approx(8.037761, abs=5e-6)
