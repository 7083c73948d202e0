"""Greedy text of every family of docs/models.md, in every exact mode, as transformers' generate has it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hf_models import torch, transformers
from test_causal import FAMILIES, VOCABULARY

from bsexport.pipeline import pack
from bsexport.recipe import Recipe
from bsexport.source import open_source
from bsexport.unpack import unpack
from bsexport_runtime import generate, load

NEW = 64
LENGTHS = (9, 3, 6)
POSITIONS = 80


def expected_tokens(directory: Path, prompts: list[list[int]]) -> list[list[int]]:
    """What transformers' generate makes of the prompts, padded on the left, on the dequantised weights."""
    model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    longest = max(map(len, prompts))
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    tokens = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=NEW, do_sample=False)
    return tokens[:, longest:].tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", FAMILIES)
def test_greedy_text_is_that_of_transformers(tmp_path: Path, name: str) -> None:
    family = FAMILIES[name]
    replace(family, settings=family.settings | {"max_position_embeddings": POSITIONS}).save(tmp_path / "model")
    pack(open_source(str(tmp_path / "model")), Recipe(prune=0.3, step=2**-8), tmp_path / "package")
    unpack(tmp_path / "package", tmp_path / "back")
    rng = np.random.default_rng(1)
    prompts = [rng.integers(1, VOCABULARY, length).tolist() for length in LENGTHS]
    one, three = (expected_tokens(tmp_path / "back", batch) for batch in (prompts[:1], prompts))
    assert len({tuple(row) for row in three}) == 3
    for mode in ("float32", "coded"):
        session = load(tmp_path / "package", mode=mode, threads=1)
        assert generate(session, prompts[0], NEW, stop_tokens=()).tolist() == one, mode
        assert generate(session, prompts, NEW, stop_tokens=(), chunk=4).tolist() == three, mode
