"""Causal language models over a cache of slots: every family of docs/models.md, packed, against transformers."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from families import FAMILIES, GROUPED, OTHERS, VOCABULARY, Family
from hf_models import torch, transformers
from safetensors.numpy import load_file

from bsexport.errors import ExportError
from bsexport.graph.causal import CHECKED, _grouped_attention, tell_if_unchecked
from bsexport.graph.export import export
from bsexport.pipeline import pack
from bsexport.recipe import Recipe
from bsexport.unpack import unpack
from bsexport.verify import dense_session
from bsexport_runtime import Session, generate, load
from bsexport_runtime.cache import PAST, PRESENT

PAGE = Path(__file__).parents[1] / "docs" / "models.md"
NEW = 64  # tokens generated
ALL = "BSEXPORT_FAMILIES"
"""The environment variable that also runs the families of the second table."""


def slots(session: Session, batch: int, capacity: int) -> dict[str, npt.NDArray[Any]]:
    """An empty cache. What is not written to must not matter, so it is no zeros."""
    past = [value for value in session.get_inputs() if value.name.startswith(PAST)]
    return {v.name: np.full((batch, v.shape[1], capacity, v.shape[3]), 9.0, np.float32) for v in past}


def feed(session: Session, cache: dict[str, Any], **tokens: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The logits that follow tokens; the cache holds them then."""
    logits, *present = session.run(None, tokens | cache)
    names = [output.name.replace(PRESENT, PAST) for output in session.get_outputs()[1:]]
    cache.update(zip(names, present, strict=True))
    return np.asarray(logits)


def expected_logits(model: Any, text: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Of one text, what transformers has: [tokens, vocabulary]."""
    with torch.no_grad():
        return np.asarray(model(torch.from_numpy(text[None])).logits[0].numpy())


def assert_close(got: npt.NDArray[Any], expected: npt.NDArray[Any], where: str) -> None:
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * np.abs(expected).max(), err_msg=where)


def assert_agrees_in_any_chunks(session: Session, model: Any) -> None:
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


def expected_tokens(model: Any, prompts: list[list[int]]) -> list[list[int]]:
    """What transformers' generate makes of the prompts, padded on the left."""
    longest = max(map(len, prompts))
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
    model.generation_config.pad_token_id = 0
    tokens = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=NEW, do_sample=False)
    return tokens[:, longest:].tolist()  # type: ignore[no-any-return]


def assert_generates_alike(package: Path, model: Any) -> None:
    """Greedy text of one prompt and of three in a batch, with the weights decoded and coded."""
    prompts = [[5, 17, 80, 3, 44, 9, 71, 2, 61], [33, 12, 60], [90, 1, 28, 55, 7, 40]]
    one, three = (expected_tokens(model, batch) for batch in (prompts[:1], prompts))
    assert len({tuple(row) for row in three}) == 3
    for mode in ("float32", "coded"):
        session = load(package, mode=mode, threads=1)
        assert generate(session, prompts[0], NEW, stop_tokens=()).tolist() == one, mode
        assert generate(session, prompts, NEW, stop_tokens=(), chunk=4).tolist() == three, mode


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_agrees_with_transformers(tmp_path: Path, name: str) -> None:
    FAMILIES[name].save(tmp_path / "model")
    source = export(tmp_path / "model", None)
    assert source.task == "text-generation"
    pack(source, Recipe(prune=0.3, step=2**-8), tmp_path / "package")
    unpack(tmp_path / "package", tmp_path / "decoded")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "decoded", dtype=torch.float32).eval()
    stored = load_file(tmp_path / "model" / "model.safetensors")
    assert {weight.name for weight in source.weights if not weight.constant} <= set(stored)
    assert_no_cache_is_copied(source.graph.graph)
    assert_agrees_in_any_chunks(load(tmp_path / "package", threads=1), model)
    assert_generates_alike(tmp_path / "package", model)


@pytest.mark.skipif(ALL not in os.environ, reason=f"NOT TESTED: the other families of docs/models.md; set {ALL}")
@pytest.mark.parametrize("name", OTHERS if ALL in os.environ else [None])
def test_another_family_agrees_with_transformers(tmp_path: Path, name: str) -> None:
    OTHERS[name].save(tmp_path)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    assert_agrees_in_any_chunks(dense_session(export(tmp_path, None)), model)


def assert_no_cache_is_copied(graph: onnx.GraphProto) -> None:
    """Between a cache and the products that read it stands nothing but transpositions, which onnxruntime fuses."""
    reading = {output.name for output in graph.output if output.name.startswith(PRESENT)}
    assert len(reading) == 4
    products = 0
    for node in graph.node:
        if reading.intersection(node.input):
            assert node.op_type in ("MatMul", "Transpose"), node
            products += node.op_type == "MatMul"
            reading.update(node.output if node.op_type == "Transpose" else ())
    assert products == 4


def test_the_table_of_families_is_what_is_tested() -> None:
    rows = [line.split("|")[1:3] for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    told = {(name.strip(), model.strip().strip("`")) for name, model in rows}
    assert {(name, family.model) for name, family in (FAMILIES | OTHERS).items()} <= told
    assert {family.model for family in (FAMILIES | OTHERS).values()} == CHECKED


@pytest.mark.parametrize(
    ("config", "settings", "reason"),
    [
        ("MambaConfig", {}, "MambaForCausalLM takes no position_ids, so nothing tells it where tokens stand"),
        ("RwkvConfig", {"attention_hidden_size": 32}, "RwkvForCausalLM takes no cache of keys and values"),
        (
            "MixtralConfig",
            GROUPED | {"num_local_experts": 2},
            "transformers converts 'model.layers.0.block_sparse_moe.",
        ),
        ("GPTNeoConfig", {"attention_types": [[["local"], 2]]}, "GPTNeoForCausalLM masks by the number of tokens"),
        (
            "Lfm2Config",
            GROUPED | {"layer_types": ["conv", "full_attention"]},
            "torch cannot export Lfm2ForCausalLM (IndexError: list index out of range, in model.layers.0.conv, a ",
        ),
    ],
)
def test_models_that_no_cache_of_slots_suits(
    tmp_path: Path, config: str, settings: dict[str, Any], reason: str
) -> None:
    Family("", config, settings).save(tmp_path)
    with pytest.raises(ExportError) as caught:
        export(tmp_path, None)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}: {reason}")
    assert message.endswith("; export the model to ONNX yourself and give the .onnx file")
    assert "\n" not in message


def test_sums_in_a_type_that_onnxruntime_lacks(tmp_path: Path) -> None:
    """Falcon's ALiBi; without that it is in the second table."""
    Family("FalconForCausalLM", "FalconConfig", {"alibi": True, "multi_query": False}).save(tmp_path)
    with pytest.raises(
        ExportError, match="FalconForCausalLM computes Mul in bfloat16, whatever its weights are, which "
    ):
        export(tmp_path, None)


def test_a_model_outside_the_tables_is_packed_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="bsexport"):
        for model, folder in ((transformers.CTRLLMHeadModel, "models/ctrl"), (transformers.LlamaForCausalLM, "llama")):
            tell_if_unchecked(object.__new__(model), folder)
    assert [record.getMessage() for record in caplog.records] == [
        "CTRLLMHeadModel is none of the classes that were checked (docs/models.md); when it is packed, run "
        "bsexport verify PACKAGE --against models/ctrl"
    ]


def test_code_that_cannot_be_traced_is_named_with_its_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlp = transformers.models.llama.modeling_llama.LlamaMLP
    forward = mlp.forward
    monkeypatch.setattr(mlp, "forward", lambda self, x: forward(self, x) if x.sum() > 0 else x)
    FAMILIES["Llama"].save(tmp_path)
    with pytest.raises(
        ExportError,
        match=r"torch cannot export LlamaForCausalLM \(aten\._local_scalar_dense\.default, in model\.layers\.0\.mlp, "
        r"a LlamaMLP\); .* give the .onnx file",
    ):
        export(tmp_path, None)


def test_each_layer_has_its_own_mask() -> None:
    """Also one that is made for a layer and let go behind it, so that the next may lie at the same place."""
    queries, keys = torch.zeros(2, 4, 3, 8), torch.zeros(2, 2, 5, 8)
    seen: list[Any] = []

    def own(module: Any, query: Any, key: Any, value: Any, mask: Any) -> tuple[Any, None]:
        seen.append(mask)
        return query.transpose(1, 2), None

    masks: dict[tuple[int, int], Any] = {}
    for layer in range(8):
        mask = torch.full((2, 1, 3, 5), float(layer))
        _grouped_attention(own, masks, object(), queries, keys, keys, mask)
        del mask
    assert [float(each.max()) for each in seen] == list(range(8))
