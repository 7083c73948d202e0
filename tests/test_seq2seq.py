"""Encoder-decoders in two graphs: every family of docs/models.md against transformers."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from command_line import bsexport
from hf_models import randomise, save_t5, torch, transformers
from test_causal import assert_close, feed, slots

import bsexport_runtime
from bsexport.errors import ExportError
from bsexport.graph.export import export
from bsexport.graph.seq2seq import CHECKED
from bsexport.pipeline import pack
from bsexport.recipe import Recipe
from bsexport.source import Source
from bsexport.unpack import unpack
from bsexport.verify import check
from bsexport_runtime.errors import BsexportRuntimeError
from bsexport_runtime.language import Language

Array = npt.NDArray[Any]

VOCABULARY = 99
START = 3
TOKENS = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2, "decoder_start_token_id": START}
RELATIVE = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
REACH = {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 12}  # the texts are longer
TABLE = {
    "d_model": 32,
    "max_position_embeddings": 64,
    **{"encoder_layers": 1, "encoder_ffn_dim": 48, "encoder_attention_heads": 4},
    **{"decoder_layers": 2, "decoder_ffn_dim": 40, "decoder_attention_heads": 4},
}


@dataclass(frozen=True)
class Family:
    """A row of docs/models.md. config: the name of transformers' class. settings: of a tiny model. generation: of its
    generation_config.json."""

    config: str
    settings: dict[str, Any] = field(default_factory=dict)
    task: str = "text2text-generation"
    generation: dict[str, Any] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        torch.manual_seed(0)
        config = getattr(transformers, self.config)(vocab_size=VOCABULARY, **TOKENS | self.settings)
        model = transformers.AutoModelForSeq2SeqLM.from_config(config)
        tables = {n: p.clone() for n, p in model.named_parameters() if not p.requires_grad}
        randomise(model)
        with torch.no_grad():  # tables of sines are no weights
            for name, values in tables.items():
                model.get_parameter(name).copy_(values)
        for name, buffer in model.named_buffers():
            if name == "final_logits_bias":
                buffer.normal_()
        model.generation_config.update(**self.generation)
        model.save_pretrained(folder)


FAMILIES = {
    "T5": Family("T5Config", RELATIVE | REACH),
    "Flan-T5, T5 1.1": Family("T5Config", RELATIVE | {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
    "mT5": Family("MT5Config", RELATIVE | REACH | {"tie_word_embeddings": False}),
    "UMT5": Family("UMT5Config", RELATIVE | REACH),
    "BART": Family("BartConfig", TABLE, generation={"forced_eos_token_id": 1}),
    "mBART": Family("MBartConfig", TABLE, generation={"forced_bos_token_id": 7}),
    "Marian": Family("MarianConfig", TABLE | {"scale_embedding": True}, "translation", {"bad_words_ids": [[0]]}),
    "Pegasus": Family("PegasusConfig", TABLE),
}


def sessions(source: Source) -> dict[str, onnxruntime.InferenceSession]:
    """Plain onnxruntime on the source's graphs, "" the decoder's, with the weights put in."""
    weights = {weight.name: weight for weight in source.weights}
    made = {}
    for prefix, graph in source.graphs.items():
        whole = onnx.ModelProto()
        whole.CopyFrom(graph)
        for tensor in whole.graph.initializer:
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                tensor.CopyFrom(onnx.numpy_helper.from_array(weights[tensor.name].read(), tensor.name))
        onnx.checker.check_model(whole)
        made[prefix] = onnxruntime.InferenceSession(whole.SerializeToString(), providers=["CPUExecutionProvider"])
    return made


def encoded(encoder: onnxruntime.InferenceSession, rows: list[Array], width: int) -> dict[str, Array]:
    """What the decoder takes of the encoder for sources padded on the right to `width`."""
    mask = (np.arange(width) < np.array([[len(row)] for row in rows])).astype(np.int64)
    ids = np.zeros_like(mask)
    for padded, row in zip(ids, rows, strict=True):
        padded[: len(row)] = row
    found = encoder.run(None, {"input_ids": ids, "attention_mask": mask})
    names = [output.name for output in encoder.get_outputs()]
    return dict(zip(names, found, strict=True)) | {"attention_mask": mask}


def expected_logits(model: Any, source: Array, target: Array) -> Array:
    """Of one pair of texts, what transformers has: [tokens, vocabulary]."""
    with torch.no_grad():
        outputs = model(input_ids=torch.from_numpy(source[None]), decoder_input_ids=torch.from_numpy(target[None]))
    return np.asarray(outputs.logits[0].numpy())


@pytest.fixture(scope="module", params=FAMILIES)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Source]:
    """The folder of a tiny model of each family, and what was exported."""
    folder = tmp_path_factory.mktemp("model")
    FAMILIES[request.param].save(folder)
    source = export(folder, None)
    assert source.task == FAMILIES[request.param].task
    return folder, source


def test_a_family_agrees_with_transformers(exported: tuple[Path, Source]) -> None:
    """Three pairs of texts in one batch, of several lengths: padded on the right, then on from where each ends."""
    folder, source = exported
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32).eval()
    stored = {weight.name for weight in source.weights if not weight.constant}
    assert stored <= set(model.state_dict())
    made = sessions(source)
    random = np.random.default_rng(0)
    sources = [random.integers(4, VOCABULARY, length) for length in (21, 3, 1)]
    texts = random.integers(4, VOCABULARY, (3, 24))
    expected = [expected_logits(model, *pair) for pair in zip(sources, texts, strict=True)]
    for width, capacity, lengths, chunks in (
        (21, 24, (24, 24, 24), ()),
        (21, 40, (9, 4, 1), (1, 1, 3, 1, 8, 1)),
        (30, 31, (1, 1, 1), (23,)),
    ):
        cross = encoded(made["encoder_"], sources, width)
        cache, ends, longest = slots(made[""], 3, capacity) | cross, np.array(lengths), max(lengths)
        ids = np.where(np.arange(longest) < ends[:, None], texts[:, :longest], 0)
        places = np.tile(np.arange(longest), (3, 1))
        logits = feed(made[""], cache, input_ids=ids, position_ids=places, logits_to_keep=places)
        for row, end in enumerate(lengths):
            assert_close(logits[row, :end], expected[row][:end], f"{width=} {capacity=} {row=}")
        for chunk in chunks:
            places = ends[:, None] + np.arange(chunk)
            last = np.full((3, 1), chunk - 1)
            ids = np.take_along_axis(texts, places, 1)
            logits = feed(made[""], cache, input_ids=ids, position_ids=places, logits_to_keep=last)
            ends = ends + chunk
            for row, end in enumerate(ends):
                assert_close(logits[row, 0], expected[row][end - 1], f"{width=} {capacity=} {row=} {end=}")


@pytest.fixture(scope="module")
def packed(exported: tuple[Path, Source], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("packed") / "package"
    pack(exported[1], Recipe(step=2.0**-5, prune=0.5), out, int8=True)
    return out


def test_greedy_texts_are_those_of_transformers(packed: Path, tmp_path: Path) -> None:
    """On the dequantised weights, of one source and of three of several lengths, float32 and coded."""
    unpack(packed, tmp_path / "back")
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "back").eval()
    sources = [[5, 9, 17, 40, 41, 8], [11, 3, 98], [60]]
    for mode in ("float32", "coded"):
        session = bsexport_runtime.load(packed, mode=mode)
        for rows in ([sources[0]], sources):
            ids = torch.tensor([row + [0] * (6 - len(row)) for row in rows])
            mask = torch.tensor([[1] * len(row) + [0] * (6 - len(row)) for row in rows])
            wanted = model.generate(ids, attention_mask=mask, max_new_tokens=64, do_sample=False, num_beams=1)
            got = bsexport_runtime.generate(session, rows, 64)
            assert got.tolist() == wanted[:, 1:].tolist(), mode
            assert got.shape[1] == 64 or 1 in got[:, -1]
            again = bsexport_runtime.generate(session, ids.numpy(), 64, attention_mask=mask.numpy())
            assert again.tolist() == got.tolist()


def test_a_package_is_verified_and_both_graphs_are_compared(
    exported: tuple[Path, Source], packed: Path, tmp_path: Path
) -> None:
    verdict = check(packed, lambda task: exported[1], lambda stage, share: None)
    assert verdict.wrong == ()
    assert verdict.comparison is not None
    assert verdict.comparison.why_no_outputs == ""
    assert {"logits", "present.1.value", "cross_key_values.0.key"} <= verdict.comparison.outputs.keys()
    int8 = bsexport_runtime.load(packed, mode="int8")
    assert bsexport_runtime.generate(int8, [[5, 9, 17]], 4, stop_tokens=()).shape == (1, 4)
    unpack(packed, tmp_path / "back.onnx")
    names = [value.name for value in onnx.load(tmp_path / "encoder_back.onnx").graph.output]
    assert "cross_key_values.1.value" in names


def test_run_makes_a_text_of_a_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = transformers.T5ForConditionalGeneration.from_pretrained(save_t5(tmp_path / "model"))
    torch.manual_seed(46)
    randomise(model)
    model.save_pretrained(tmp_path / "model")
    assert bsexport("pack", tmp_path / "model", "-o", tmp_path / "package", "--step", "2^-10").exit_code == 0
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    session = bsexport_runtime.load(tmp_path / "package")
    ids = bsexport_runtime.generate(session, tokenizer.encode("the film was fine"), 9)
    expected = tokenizer.decode(ids[0], skip_special_tokens=True)
    assert len(expected.split()) > 3
    command = ("run", tmp_path / "package", "--text", "the film was fine")
    result = bsexport(*command, "--max-new-tokens", 9)
    assert (result.exit_code, result.stdout) == (0, f"{expected}\n")
    assert re.fullmatch(r"prompt: 6 tokens, .* tokens/s; text: 9 tokens, .* tokens/s\n", result.stderr)
    refused = bsexport(*command, "--context", "the film")
    assert refused.exit_code == 2
    assert "--context is for question answering" in refused.stderr
    with pytest.raises(BsexportRuntimeError, match="the package names the token 17, expected 0 to 16"):
        language = replace(session.language, first_token=17)
        session.language = language
        bsexport_runtime.generate(session, [5], 2)
    session.language = Language()
    with monkeypatch.context() as patch:
        patch.setattr(session, "encoder", object())  # which is not run for what is refused
        with pytest.raises(BsexportRuntimeError, match="names no token that its decoder begins with"):
            bsexport_runtime.generate(session, [5], 2)
        session.language = Language(start_token=0)
        with pytest.raises(BsexportRuntimeError, match="2 seeds for 1 prompts"):
            bsexport_runtime.generate(session, [5], 2, temperature=1, seed=[1, 2])
    session.language = Language(positions=8, start_token=0)
    assert bsexport_runtime.generate(session, [5] * 8, 8, stop_tokens=()).shape == (1, 8)
    with pytest.raises(BsexportRuntimeError, match="a source of 9 tokens and 2 new ones: the model has 8 positions"):
        bsexport_runtime.generate(session, [5] * 9, 2)


def test_a_decoder_that_hides_its_positions_is_refused(tmp_path: Path) -> None:
    config = transformers.M2M100Config(vocab_size=VOCABULARY, **TOKENS | TABLE)
    torch.manual_seed(0)
    transformers.M2M100ForConditionalGeneration(config).save_pretrained(tmp_path)
    with pytest.raises(ExportError, match=r"M2M100Decoder has neither a table of positions .embed_positions. nor"):
        export(tmp_path, None)


def test_the_table_of_families_is_what_is_tested() -> None:
    page = Path(__file__).parents[1] / "docs" / "models.md"
    rows = [line.split("|")[1:3] for line in page.read_text().splitlines() if line.startswith("| ")]
    told = {name.strip(): model.strip().strip("`") for name, model in rows}
    classes = transformers.models.auto.modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES
    tested = {name: classes[getattr(transformers, each.config).model_type] for name, each in FAMILIES.items()}
    assert {name: told.get(name) for name in tested} == tested
    assert set(tested.values()) == CHECKED
