"""Generated tokens, against a recomputation in numpy without a cache."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from make_package import LANGUAGE_PACKAGE, PACKAGE, next_logits
from test_package import rewrite

import bsexport_runtime
from bsexport_runtime import BsexportRuntimeError, PackageError, Session, generate, load, stream
from bsexport_runtime.language import Language
from bsexport_runtime.residency import MODES

PROMPTS = [[5, 6, 7, 8, 9], [11, 12, 13], [1] * 20]
NEW = 100  # beyond two steps of the cache's growth

MISSING = MODES["coded"].missing()
MODE = [
    "float32",
    pytest.param("coded", marks=pytest.mark.skipif(MISSING is not None, reason=f"NOT TESTED: {MISSING}")),
]


@pytest.fixture(scope="module")
def session() -> Session:
    return load(LANGUAGE_PACKAGE, threads=1)


def greedy(prompt: list[int], new: int) -> list[int]:
    ids = list(prompt)
    for _ in range(new):
        ids.append(int(next_logits(np.array(ids))[-1].argmax()))
    return ids[len(prompt) :]


@pytest.mark.parametrize("mode", MODE)
@pytest.mark.parametrize("chunk", [1, 3, 128])
def test_a_batch_of_prompts_of_several_lengths(mode: str, chunk: int) -> None:
    tokens = generate(load(LANGUAGE_PACKAGE, mode=mode, threads=1), PROMPTS, NEW, stop_tokens=(), chunk=chunk)
    assert (tokens.dtype, tokens.shape) == (np.int64, (3, NEW))
    assert tokens.tolist() == [greedy(prompt, NEW) for prompt in PROMPTS]


def test_int8_generates_too(session: Session) -> None:
    tokens = generate(load(LANGUAGE_PACKAGE, mode="int8", threads=1), PROMPTS, 3, stop_tokens=())
    assert tokens.tolist() == [greedy(prompt, 3) for prompt in PROMPTS]  # whose logits lie far apart


def test_every_form_of_a_prompt(session: Session) -> None:
    expected = greedy([11, 12, 13], 8)
    for ids in ([11, 12, 13], np.array([11, 12, 13], np.int32), [[11, 12, 13]], np.array([[11, 12, 13]])):
        assert generate(session, ids, 8, stop_tokens=()).tolist() == [expected], ids
    padded = np.array([[0, 0, 11, 12, 13], [11, 12, 13, 0, 0], [5, 6, 7, 8, 9]])
    mask = np.array([[0, 0, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    tokens = generate(session, padded, 8, attention_mask=mask, stop_tokens=())
    assert tokens.tolist() == [expected, expected, greedy([5, 6, 7, 8, 9], 8)]


def test_a_row_ends_with_a_stop_token_and_is_padded(session: Session) -> None:
    """[11, 12, 13] goes on with 37 0 26 4 31 36, [5, ...] with 45 1 2 8 47."""
    assert greedy([11, 12, 13], 6) == [37, 0, 26, 4, 31, 36]
    stopped = generate(session, PROMPTS[:2], 20, stop_tokens=[26, 2], pad_token=40)
    assert stopped.tolist() == [[45, 1, 2], [37, 0, 26]]
    assert generate(session, PROMPTS[:2], 5, stop_tokens=26).tolist() == [[45, 1, 2, 8, 47], [37, 0, 26, 3, 3]]
    one = generate(session, [11, 12, 13], 64)  # the package's own stop tokens are 41 and 13, its pad token is 3
    assert one.tolist() == [greedy([11, 12, 13], 16)]
    assert one[0, -1] == 41


@pytest.mark.parametrize("pad", [48, -100])
def test_a_pad_token_need_not_be_the_model_s(session: Session, pad: int) -> None:
    """Such as one that a tokenizer has and the model's table has no row for."""
    tokens = generate(session, PROMPTS[:2], 5, stop_tokens=26, pad_token=pad)
    assert tokens.tolist() == [[45, 1, 2, 8, 47], [37, 0, 26, pad, pad]]


def test_tokens_come_as_they_are_made(session: Session) -> None:
    seen: list[list[int]] = []
    tokens = generate(session, PROMPTS, 6, stop_tokens=(), callback=lambda tokens: seen.append(tokens.tolist()))
    assert np.array(seen).T.tolist() == tokens.tolist()
    coming = stream(session, PROMPTS, 10**2, stop_tokens=())
    assert [next(coming).tolist() for _ in range(6)] == seen


def test_draws_depend_on_the_seed_and_on_nothing_else(session: Session) -> None:
    options: dict[str, Any] = {"temperature": 20.0, "stop_tokens": ()}
    tokens = generate(session, [PROMPTS[1], PROMPTS[0], PROMPTS[1]], 30, seed=5, **options)
    assert tokens[0].tolist() == tokens[2].tolist() != greedy(PROMPTS[1], 30)
    assert tokens[0].tolist() == generate(session, PROMPTS[1], 30, seed=5, **options)[0].tolist()
    each = generate(session, [PROMPTS[1]] * 3, 30, seed=[5, 6, 5], **options).tolist()
    assert each[0] == each[2] == tokens[0].tolist() != each[1]
    first, second = (generate(session, PROMPTS[1], 30, **options).tolist() for _ in range(2))
    assert first != second
    if MISSING is None:
        coded = generate(load(LANGUAGE_PACKAGE, mode="coded"), PROMPTS[1], 30, seed=5, **options)
        assert coded[0].tolist() == tokens[0].tolist()


def test_draws_follow_the_model_s_probabilities(session: Session) -> None:
    """Of 4000 draws, each token is as frequent as its probability says, within five standard deviations."""
    logits = next_logits(np.array([11, 12, 13]))[-1] / 8
    expected = np.exp(logits - logits.max())
    expected /= expected.sum()
    draws = generate(session, [[11, 12, 13]] * 4000, 1, temperature=8, seed=range(4000), stop_tokens=())
    found = np.bincount(draws[:, 0], minlength=48) / 4000
    assert (abs(found - expected) <= 5 * np.sqrt(expected * (1 - expected) / 4000) + 1e-9).all()


def test_a_repeated_token_is_penalised(session: Session) -> None:
    ids = [11, 12, 13]
    for _ in range(40):
        logits = next_logits(np.array(ids))[-1]
        seen = np.unique(ids)
        logits[seen] = np.where(logits[seen] < 0, logits[seen] * 1.3, logits[seen] / 1.3)
        ids.append(int(logits.argmax()))
    tokens = generate(session, [PROMPTS[0], [11, 12, 13]], 40, repetition_penalty=1.3, stop_tokens=())
    assert tokens[1].tolist() == ids[3:] != greedy([11, 12, 13], 40)


def test_any_session_of_such_a_graph_will_do(session: Session) -> None:
    """Without what a package says: there is no stop token and no limit but the graph's own."""
    graph = LANGUAGE_PACKAGE / "model.onnx"
    if MISSING is not None:
        pytest.skip(f"NOT TESTED: {MISSING}")
    options = ort.SessionOptions()
    options.register_custom_ops_library(bsexport_runtime.ops_library())
    plain = ort.InferenceSession(graph, options)
    assert generate(plain, [11, 12, 13], 20).tolist() == [greedy([11, 12, 13], 20)]


def refusal(session: Any, ids: Any, new: Any, **options: Any) -> str:
    with pytest.raises(BsexportRuntimeError) as caught:
        stream(session, ids, new, **options)  # before the first token is asked for
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("ids", "new", "options", "message"),
    [
        ([], 1, {}, "there is no prompt, expected at least one"),
        ([[1], []], 1, {}, "prompt 1 has the shape [0], expected at least one token"),
        ([[[1]]], 1, {}, "prompt 0 has the shape [1, 1], expected at least one token"),
        ([1, 48], 1, {}, "prompt 0 has the token 48, expected 0 to 47; the tokenizer may be another model's"),
        ([[1], [2, -1]], 1, {}, "prompt 1 has the token -1, expected 0 to 47"),
        ([0.5], 1, {}, "prompt 0 is float64, expected the numbers of tokens"),
        (5, 1, {}, "ids is no prompt and no batch of them, expected numbers of tokens or rows of them"),
        ([[1], [2, [3]]], 1, {}, "ids is no prompt and no batch of them"),
        ([[1], [2, 3]], 1, {"attention_mask": [[1, 1], [1, 1]]}, "ids is no prompt and no batch of them"),
        ([1], 0, {}, "max_new_tokens is 0, expected a number of tokens above 0"),
        ([1], 2.0, {}, "max_new_tokens is 2.0, expected"),
        ([1], 1, {"chunk": -1}, "chunk is -1, expected"),
        (
            [1] * 100,
            51,
            {},
            "a prompt of 100 tokens and 51 new ones are 151, the model has 150 positions",
        ),
        ([1], 1, {"temperature": -1}, "temperature is -1, expected 0 (the likeliest token), or 1e-30 to 1e+30"),
        ([1], 1, {"temperature": 1e-46}, "temperature is 1e-46, expected 0 (the likeliest token), or 1e-30 to 1e+30"),
        ([1], 1, {"temperature": 1e39}, "temperature is 1e+39, expected 0"),
        ([1], 1, {"temperature": np.nan}, "temperature is nan, expected a number"),
        ([1], 1, {"temperature": "hot"}, "temperature is 'hot', expected a number"),
        ([1], 1, {"temperature": 1, "top_k": -2}, "top_k is -2, expected a number of tokens, or None"),
        ([1], 1, {"temperature": 1, "top_p": 1.5}, "top_p is 1.5, expected a probability above 0, up to 1"),
        ([1], 1, {"top_k": 5}, "top_k and top_p are for drawing tokens: give a temperature above 0, such as 1"),
        ([1], 1, {"repetition_penalty": 0}, "repetition_penalty is 0, expected above 0; 1 is none"),
        ([1], 1, {"temperature": 1, "seed": -1}, "seed is -1, expected a whole number, 0 or above"),
        ([1], 1, {"temperature": 1, "seed": 0.5}, "seed is 0.5, expected a whole number"),
        ([[1], [2]], 1, {"temperature": 1, "seed": [3, "four"]}, "seed is 'four', expected a whole number"),
        ([1], 1, {"temperature": 1, "seed": [1, 2]}, "2 seeds for 1 prompts: give one for each, or one for all"),
        ([[1, 2]], 1, {"attention_mask": [[1]]}, "attention_mask has the shape [1, 1], expected that of ids, [1, 2]"),
    ],
)
def test_bad_input_is_one_line(session: Session, ids: Any, new: Any, options: dict[str, Any], message: str) -> None:
    assert message in refusal(session, ids, new, **options)


def test_what_is_no_language_model(session: Session) -> None:
    message = refusal(load(PACKAGE), [1], 1)
    assert message.startswith("the session is of no language model with a cache: it takes ids, expected input_ids, ")


def test_logits_that_are_no_numbers(tmp_path: Path) -> None:
    arena = np.array(load(LANGUAGE_PACKAGE).arena)
    broken = bsexport_runtime.Package(LANGUAGE_PACKAGE)
    (table,) = (tensor for tensor in broken.tensors if tensor.name == "table")
    arena[table.arena_offset + 5 * 32 * 4 :][:128].view(np.float32)[:] = np.nan
    session = Session(str(LANGUAGE_PACKAGE / "decoded.onnx"), arena)
    with pytest.raises(BsexportRuntimeError, match=r"row 1: the logit of token 0 is nan, expected a number; .*damaged"):
        generate(session, [[1], [5]], 1)


@pytest.mark.parametrize(
    ("config", "generation_config", "expected"),
    [
        ({}, {}, Language()),
        ({"max_position_embeddings": 9, "eos_token_id": 2}, {"pad_token_id": 1}, Language(9, None, (2,), 1)),
        ({"text_config": {"max_position_embeddings": 9}, "pad_token_id": -1}, {}, Language(9)),
        (
            {"n_positions": 512, "relative_attention_num_buckets": 32, "decoder_start_token_id": 0},
            {},
            Language(None, 0),
        ),
        ({"eos_token_id": 2}, {"eos_token_id": [4, 5]}, Language(None, None, (4, 5))),
        ({"eos_token_id": 2}, {"eos_token_id": None}, Language(None, None, (2,))),
    ],
)
def test_what_a_package_says(
    config: dict[str, Any], generation_config: dict[str, Any], expected: Language, tmp_path: Path
) -> None:
    files = {"config.json": config, "generation_config.json": generation_config}
    assert load(package_with(tmp_path, files)).language == expected


def test_a_package_that_says_nonsense_is_one_line(tmp_path: Path) -> None:
    for file, name in (("config.json", "n_positions"), ("generation_config.json", "pad_token_id")):
        with pytest.raises(
            PackageError,
            match=rf"{name} in config\.json or generation_config\.json is 'many', expected a whole",
        ):
            load(package_with(tmp_path / name, {file: {name: "many"}}))
    assert load(PACKAGE).language is None


def package_with(folder: Path, files: dict[str, dict[str, Any]]) -> Path:
    """The package with other files of these names."""
    path = Path(shutil.copytree(LANGUAGE_PACKAGE, folder / "package"))
    entries = {}
    for name, content in files.items():
        data = json.dumps(content).encode()
        (path / name).write_bytes(data)
        entries[name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    rewrite(path, lambda manifest: manifest["files"].update(entries))
    return path
