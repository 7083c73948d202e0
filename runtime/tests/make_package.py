"""Write the packages that the tests of loading use: `python runtime/tests/make_package.py` (needs bsexport).

Their weights follow formulas, so that the tests know every one of them without a decoder.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

PACKAGE = Path(__file__).with_name("package")
INT8_PACKAGE = Path(__file__).with_name("package-int8")
LANGUAGE_PACKAGE = Path(__file__).with_name("package-language")
STEP = 2.0**-6
MODEL = """
<ir_version: 8, opset_import: ["" : 17]>
fixture (int64[batch, sequence] ids) => (float[batch, sequence, 40] scores) {
  embedded = Gather (table, ids)
  inner = MatMul (embedded, first)
  biased = Add (inner, bias)
  active = Relu (biased)
  wide = Cast <to = 1> (second)
  scores = MatMul (active, wide)
}
"""


def weights() -> dict[str, npt.NDArray[Any]]:
    """The decoded tensors of the package by name, exactly."""
    return {
        "table": _levels(400, 48, every=11) * np.float32(STEP),  # RL, two blocks
        "first": _levels(48, 72, every=1) * np.float32(STEP),  # EG
        "bias": np.linspace(-1, 1, 72, dtype=np.float32),  # RAW
        "second": (_levels(72, 40, every=3) * np.float32(STEP)).astype(np.float16),  # decodes to float16
    }


def outputs(ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """What the model makes of ids [batch, sequence]: float32 [batch, sequence, 40], up to the order of summation."""
    w = weights()
    active = np.maximum(w["table"][ids] @ w["first"] + w["bias"], 0)
    scores: npt.NDArray[np.float32] = active @ w["second"].astype(np.float32)
    return scores


INT8_MODEL = """
<ir_version: 8, opset_import: ["" : 17]>
fixture (int64[batch, sequence] ids) => (float[batch, sequence, 400] scores) {
  embedded = Gather (table, ids)
  place = Gather (places, ids)
  sum = Add (embedded, place)
  inner = MatMul (sum, first)
  again = MatMul (inner, second)
  turned = Transpose <perm = [1, 0]> (table)
  product = MatMul (again, turned)
  scores = Add (product, bias)
}
"""


def int8_levels() -> dict[str, npt.NDArray[np.int64]]:
    """The levels of the package with an int8 form, exactly; "table" is read as an embedding and as an output layer."""
    levels = {
        "table": _levels(400, 48, every=11),
        "places": _levels(400, 48, every=3),  # row 3 goes beyond +-127
        "first": _levels(48, 72, every=1),  # column 5 does
        "second": _levels(72, 48, every=2),
    }
    levels["places"][3] *= 40
    levels["first"][:, 5] *= 100
    return {name: values.astype(np.int64) for name, values in levels.items()}


def int8_bias() -> npt.NDArray[np.float32]:
    """The tensor of that package that is not coded."""
    return np.linspace(-1, 1, 400, dtype=np.float32)


# One layer of causal attention, two heads of 16, with a cache of slots; "__" stands for the dots of names.
LANGUAGE_MODEL = """
<ir_version: 8, opset_import: ["" : 18]>
fixture (int64[batch, sequence] input_ids, int64[batch, sequence] position_ids, int64[batch, kept] logits_to_keep,
         float[batch, 2, capacity, 16] past_key_values__0__key, float[batch, 2, capacity, 16] past_key_values__0__value)
     => (float[batch, kept, 48] logits, float[batch, 2, capacity, 16] present__0__key,
         float[batch, 2, capacity, 16] present__0__value)
  <int64 zero = {0}, int64 one = {1}, int64[1] last = {-1}, int64[2] outer = {1, 3},
   int64[4] split = {0, 0, 2, 16}, int64[3] joined = {0, 0, 32},
   int64[4] rows = {-1, 1, 1, 1}, int64[1] one1 = {1}, int64[1, 2, 1, 1] head = {0, 1},
   float scale = {0.25}, float never = {-1e9}, float sharp = {64.0}> {
  word = Gather (table, input_ids)
  place = Gather (places, position_ids)
  x = Add (word, place)
  q0 = MatMul (x, query)
  q1 = Reshape (q0, split)
  q = Transpose <perm = [0, 2, 1, 3]> (q1)
  k0 = MatMul (x, key)
  k1 = Reshape (k0, split)
  k = Transpose <perm = [0, 2, 1, 3]> (k1)
  v0 = MatMul (x, value)
  v1 = Reshape (v0, split)
  v = Transpose <perm = [0, 2, 1, 3]> (v1)
  shape = Shape (past_key_values__0__key)
  batch = Gather (shape, zero)
  two = Add (one, one)
  capacity = Gather (shape, two)
  row0 = Range (zero, batch, one)
  row1 = Reshape (row0, rows)
  at = Unsqueeze (position_ids, outer)
  all = Shape <start = 0, end = 3> (k)
  whole = Concat <axis = 0> (all, one1)
  row = Expand (row1, whole)
  column = Expand (head, whole)
  slot = Expand (at, whole)
  places3 = Concat <axis = 3> (row, column, slot)
  present__0__key = ScatterND (past_key_values__0__key, places3, k)
  present__0__value = ScatterND (past_key_values__0__value, places3, v)
  turned = Transpose <perm = [0, 1, 3, 2]> (present__0__key)
  products = MatMul (q, turned)
  scaled = Mul (products, scale)
  slots = Range (zero, capacity, one)
  seen = LessOrEqual (slots, at)
  masked = Where (seen, scaled, never)
  attention = Softmax <axis = -1> (masked)
  mixed = MatMul (attention, present__0__value)
  back = Transpose <perm = [0, 2, 1, 3]> (mixed)
  context = Reshape (back, joined)
  inner = MatMul (context, out)
  y = Add (x, inner)
  index = Unsqueeze (logits_to_keep, last)
  kept_y = GatherND <batch_dims = 1> (y, index)
  plain = MatMul (kept_y, lm_head)
  logits = Mul (plain, sharp)
}
"""
LANGUAGE_CONFIG = {"n_positions": 150, "eos_token_id": 7, "pad_token_id": 3}
LANGUAGE_GENERATION_CONFIG = {"eos_token_id": [41, 13]}
# Bytes, as the byte-level alphabet writes them: Ġ is a space, the pieces of é are Ã©, those of € âĤ¬, of 😀 ðŁĺĢ.
ALPHABET = [*"abcdefghijklmnopqrstuvwxyzĠ.,Ã©âĤ¬ðŁĺĢ¼¶A"]
PAIRS = ["t h", "th e", "Ġ the", "a n", "i n", "o n"]
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


def tokenizer() -> dict[str, Any]:
    """The language model's tokenizer.json, for its 48 tokens."""
    end = {"id": 41, "content": "<end>", "special": True}
    end |= dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    tokens = [*ALPHABET, "<end>", *(pair.replace(" ", "") for pair in PAIRS)]
    model = {"type": "BPE", "vocab": {token: number for number, token in enumerate(tokens)}, "merges": PAIRS}
    return {"version": "1.0", "added_tokens": [end], "pre_tokenizer": BYTE_LEVEL, "decoder": BYTE_LEVEL, "model": model}


def language_weights() -> dict[str, npt.NDArray[Any]]:
    """The decoded tensors of the language model by name, exactly."""
    shapes = {"table": (48, 32), "places": (150, 32), "lm_head": (32, 48)}
    shapes |= dict.fromkeys(("query", "key", "value", "out"), (32, 32))
    each = enumerate(shapes.items(), 1)
    return {name: _levels(*shape, every=1, start=7919 * number) * np.float32(STEP) for number, (name, shape) in each}


def next_logits(ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """What the language model says after each of ids [sequence]: [sequence, 48], all at once, without a cache."""
    w = {name: array.astype(np.float64) for name, array in language_weights().items()}
    x = w["table"][ids] + w["places"][: len(ids)]
    q, k, v = ((x @ w[name]).reshape(len(ids), 2, 16).swapaxes(0, 1) for name in ("query", "key", "value"))
    scores = np.where(np.tri(len(ids), dtype=bool), q @ k.swapaxes(1, 2) * 0.25, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    context = (weights @ v).swapaxes(0, 1).reshape(len(ids), 32)
    logits: npt.NDArray[np.float64] = (x + context @ w["out"]) @ w["lm_head"] * 64
    return logits


def make(
    out: Path,
    text: str,
    arrays: dict[str, npt.NDArray[Any]],
    *,
    int8: bool = False,
    files: dict[str, dict[str, Any]] | None = None,
) -> None:
    """Pack a model of these weights to `out`, with these files beside it as JSON; without, a config.json."""
    import onnx
    from onnx import numpy_helper, parser

    from bsexport.pipeline import pack
    from bsexport.recipe import Recipe
    from bsexport.source import open_source

    model = parser.parse_model(text)
    _put_dots(model.graph)
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fixture.onnx"
        onnx.save(model, path)
        for name, content in (files or {"config.json": {"model_type": "fixture"}}).items():
            path.with_name(name).write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")
        pack(open_source(str(path)), Recipe(step=STEP), out, int8=int8, force=True)


def make_all(folder: Path) -> None:
    """Pack all models into a folder, each to the name of its package."""
    make(folder / PACKAGE.name, MODEL, weights())
    coded = {name: (levels * np.float32(STEP)).astype(np.float32) for name, levels in int8_levels().items()}
    make(folder / INT8_PACKAGE.name, INT8_MODEL, coded | {"bias": int8_bias()}, int8=True)
    files = {"config.json": {"model_type": "fixture"} | LANGUAGE_CONFIG}
    files |= {"generation_config.json": LANGUAGE_GENERATION_CONFIG, "tokenizer.json": tokenizer()}
    make(folder / LANGUAGE_PACKAGE.name, LANGUAGE_MODEL, language_weights(), int8=True, files=files)


def _put_dots(graph: Any) -> None:
    """Names of values as the language model has them, which the text form cannot say."""
    for value in (*graph.input, *graph.output):
        value.name = value.name.replace("__", ".")
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [name.replace("__", ".") for name in names]


def _levels(rows: int, cols: int, *, every: int, start: int = 0) -> npt.NDArray[np.float32]:
    """Levels from -9 to 9; about one in `every` is not 0. start: another gives others."""
    places = start + np.arange(rows * cols, dtype=np.int64).reshape(rows, cols)
    mixed = places * 40503 % 65521
    return np.where(mixed % every == 0, mixed // every % 19 - 9, 0).astype(np.float32)


if __name__ == "__main__":
    make_all(PACKAGE.parent)
