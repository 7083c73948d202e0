"""The real all-MiniLM-L6-v2: how small it gets, and that what it computes is what its decoded weights compute."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench import cases, embeddings

import bsexport_runtime
from bsexport.recipe import Recipe
from bsexport.source import Source, open_source
from bsexport.unpack import unpack

pytest.importorskip("torch", reason="NOT TESTED on a real model: pip install 'bsexport[hf]'")


@pytest.fixture(scope="module")
def source(minilm: Path) -> Source:
    return open_source(str(minilm))


@pytest.fixture(scope="module")
def inputs(minilm: Path) -> embeddings.Inputs:
    return embeddings.tokenize(minilm)


@pytest.mark.parametrize(
    ("recipe", "largest_share", "smallest_cosine"),
    [(cases.FINE, 0.265, 0.9998), (cases.COARSE, 0.205, 0.9975), (cases.PRUNED, 0.096, -1)],
    ids=["step 1e-3", "step 4e-3", "pruned 80 %, step 1e-3"],
)
def test_size_and_fidelity(
    minilm: Path,
    source: Source,
    inputs: embeddings.Inputs,
    tmp_path: Path,
    recipe: Recipe,
    largest_share: float,
    smallest_cosine: float,
) -> None:
    packed = cases.packed(cases.MINILM, source, recipe, tmp_path)
    assert packed.report.summary()["fp32_bytes"] == 4 * 22_713_216
    assert packed.path.joinpath("weights.bsx").stat().st_size <= largest_share * 4 * 22_713_216
    hidden = embeddings.session_outputs(bsexport_runtime.load(packed.path), inputs)
    plain = embeddings.session_outputs(embeddings.plain_session(packed.path), inputs)
    assert hidden.tobytes() == plain.tobytes()
    mask = inputs["attention_mask"]
    decoded = unpack(packed.path, tmp_path / "decoded")
    assert embeddings.largest_deviation(hidden, embeddings.torch_outputs(decoded, inputs), mask) <= 1e-4
    assert embeddings.cosines(hidden, embeddings.torch_outputs(minilm, inputs), mask).mean() >= smallest_cosine
