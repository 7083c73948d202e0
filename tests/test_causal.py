"""Causal language models over a cache of slots: every family of docs/models.md against transformers."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
from hf_models import randomise, torch, transformers
from test_export import filled

from bsexport.graph.export import export

VOCABULARY = 99
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), 0),
}
SHARED = {"num_key_value_heads": 2, "head_dim": 8}
WINDOW = 6  # of those whose attention slides: the texts are longer


@dataclass(frozen=True)
class Family:
    """A row of docs/models.md. config: the name of transformers' class. settings: of a tiny model."""

    config: str
    settings: dict[str, Any] = field(default_factory=dict)

    def save(self, folder: Path, dtype: str = "float32") -> None:
        torch.manual_seed(0)
        config = getattr(transformers, self.config)(**SIZES | self.settings)
        model = transformers.AutoModelForCausalLM.from_config(config)
        randomise(model)
        model.to(getattr(torch, dtype)).save_pretrained(folder)


FAMILIES = {
    "GPT-2": Family("GPT2Config"),
    "Llama": Family("LlamaConfig", SHARED),
}


def slots(session: onnxruntime.InferenceSession, batch: int, capacity: int) -> dict[str, npt.NDArray[Any]]:
    """An empty cache; what is not written to must not matter, so it is large numbers rather than zeros."""
    past = [value for value in session.get_inputs() if value.name.startswith("past_key_values.")]
    return {v.name: np.full((batch, v.shape[1], capacity, v.shape[3]), 9.0, np.float32) for v in past}


def feed(session: onnxruntime.InferenceSession, cache: dict[str, Any], **tokens: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The logits that follow tokens; the cache holds them then."""
    logits, *present = session.run(None, tokens | cache)
    names = [output.name.replace("present.", "past_key_values.") for output in session.get_outputs()[1:]]
    cache.update(zip(names, present, strict=True))
    return np.asarray(logits)


def expected_logits(model: Any, text: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Of one text, what transformers has: [tokens, vocabulary]."""
    with torch.no_grad():
        return np.asarray(model(torch.from_numpy(text[None])).logits[0].numpy())


def assert_close(got: npt.NDArray[Any], expected: npt.NDArray[Any], where: str) -> None:
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * np.abs(expected).max(), err_msg=where)


def assert_agrees_in_any_chunks(session: onnxruntime.InferenceSession, model: Any) -> None:
    """Three texts in one batch, of several lengths: padded on the right, then on from where each of them ends."""
    texts = np.random.default_rng(0).integers(1, VOCABULARY, (3, 24))
    expected = [expected_logits(model, text) for text in texts]
    for capacity, lengths, chunks in (
        (24, (24, 24, 24), ()),
        (40, (9, 4, 1), (1, 1, 3, 1, 8, 1)),
        (31, (1, 1, 1), (23,)),
    ):
        cache, ends, longest = slots(session, 3, capacity), np.array(lengths), max(lengths)
        ids = np.where(np.arange(longest) < ends[:, None], texts[:, :longest], 0)
        places = np.tile(np.arange(longest), (3, 1))
        logits = feed(session, cache, input_ids=ids, position_ids=places, logits_to_keep=places)
        for row, end in enumerate(lengths):
            assert_close(logits[row, :end], expected[row][:end], f"{capacity=} {row=} prompt")
        for chunk in chunks:
            places = ends[:, None] + np.arange(chunk)
            last = np.full((3, 1), chunk - 1)
            ids = np.take_along_axis(texts, places, 1)
            logits = feed(session, cache, input_ids=ids, position_ids=places, logits_to_keep=last)
            assert logits.shape == (3, 1, VOCABULARY)
            ends = ends + chunk
            for row, end in enumerate(ends):
                assert_close(logits[row, 0], expected[row][end - 1], f"{capacity=} {row=} {end=}")


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_agrees_with_transformers(tmp_path: Path, name: str) -> None:
    FAMILIES[name].save(tmp_path)
    source = export(tmp_path, None)
    assert source.task == "text-generation"
    stored = {weight.name for weight in source.weights if not weight.constant}
    assert stored <= set(transformers.AutoModelForCausalLM.from_pretrained(tmp_path).state_dict())
    session = onnxruntime.InferenceSession(filled(source).SerializeToString(), providers=["CPUExecutionProvider"])
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    assert_agrees_in_any_chunks(session, model)
