"""Drawing tokens, against transformers' own logits processors."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from hf_models import torch, transformers

from bsexport_runtime.sampling import Sampler

VOCABULARY = 300


@functools.cache
def tiny_model() -> Any:
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=VOCABULARY, n_embd=4, n_layer=1, n_head=1))


def expected_scores(logits: np.ndarray, prompts: np.ndarray, settings: dict[str, Any]) -> np.ndarray:
    """What transformers' generate makes of logits before it draws: -inf for what it cannot draw."""
    config = transformers.GenerationConfig(do_sample=True, **settings)
    model = tiny_model()
    ids = torch.from_numpy(prompts)
    model._prepare_special_tokens(config, device="cpu")
    processors = model._get_logits_processor(config, prompts.shape[1], ids, None, [], device="cpu")
    return np.asarray(processors(ids, torch.from_numpy(logits.copy())).numpy())


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("top_k", [None, 1, 40, 10**6])
@pytest.mark.parametrize("top_p", [None, 0.001, 0.7, 1.0])
@pytest.mark.parametrize("penalty", [1.0, 1.5, 0.5])
def test_the_processors_of_transformers(
    temperature: float, top_k: int | None, top_p: float | None, penalty: float
) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (4, VOCABULARY)).astype(np.float32)
    prompts = rng.integers(0, VOCABULARY, (4, 30))
    # transformers has top_k=50 for what is not told
    settings = {"temperature": temperature, "top_k": top_k or 0, "top_p": top_p or 1.0, "repetition_penalty": penalty}
    expected = torch.from_numpy(expected_scores(logits, prompts, settings)).double().softmax(-1).numpy()
    sampler = Sampler(temperature=temperature, top_k=top_k, top_p=top_p, repetition_penalty=penalty, seed=0)
    sampler.begin(list(prompts), VOCABULARY)
    drawn = sampler.choose(logits)  # penalises them in place
    for row in range(4):
        tokens, weights = sampler.probabilities(logits[row])
        assert tokens.tolist() == np.flatnonzero(expected[row]).tolist()
        np.testing.assert_allclose(weights, expected[row, tokens], rtol=1e-5)
        assert drawn[row] in tokens


def test_equals_of_the_last_of_top_k_stay() -> None:
    sampler = Sampler(temperature=1, top_k=2, seed=0)
    tokens, weights = sampler.probabilities(np.array([1, 3, 2, 2, 0], np.float32))
    assert tokens.tolist() == [1, 2, 3]
    np.testing.assert_allclose(weights, np.exp([3, 2, 2]) / np.exp([3, 2, 2]).sum(), rtol=1e-6)


def test_top_p_takes_in_the_one_that_reaches_it() -> None:
    logits = np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float32))
    for top_p, expected in ((0.4, [0]), (0.6, [0, 1]), (0.79, [0, 1]), (0.81, [0, 1, 2]), (0.99, [0, 1, 2, 3])):
        tokens, weights = Sampler(temperature=1, top_p=top_p).probabilities(logits)
        assert tokens.tolist() == expected
        assert weights.sum() == pytest.approx(1)


def test_of_equal_logits_the_first_is_taken() -> None:
    sampler = Sampler()
    sampler.begin([np.array([0])], 4)
    assert sampler.choose(np.array([[1, 2, 2, -np.inf]], np.float32)).tolist() == [1]
