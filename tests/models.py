"""Small ONNX models made in code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper, parser

SMALL = """
<ir_version: 8, opset_import: ["" : 17]>
small (int64[batch, sequence] ids) => (float[batch, sequence, 40] scores) {
  embedded = Gather (table, ids)
  inner = MatMul (embedded, first)
  biased = Add (inner, bias)
  active = Relu (biased)
  scores = MatMul (active, second)
}
"""


CLASSIFIER = """
<ir_version: 8, opset_import: ["" : 17]>
classifier (int64[batch, sequence] input_ids, int64[batch, sequence] attention_mask) => (float[batch, 3] logits)
<int64[1] last = {2}, int64[1] middle = {1}> {
  states = Gather (table, input_ids)
  mask = Cast <to = 1> (attention_mask)
  column = Unsqueeze (mask, last)
  kept = Mul (states, column)
  text = ReduceSum <keepdims = 0> (kept, middle)
  inner = MatMul (text, first)
  active = Tanh (inner)
  logits = MatMul (active, second)
}
"""


def save_classifier(path: Path, words: int, seed: int = 0) -> None:
    """Write a graph that tells three classes of a text from the sum of its words' vectors, all weights random."""
    random = np.random.default_rng(seed)
    shapes = {"table": (words, 64), "first": (64, 48), "second": (48, 3)}
    model = parser.parse_model(CLASSIFIER)
    for name, shape in shapes.items():
        weights = random.normal(0, 0.2, shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(weights, name))
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)


def save_small(path: Path, seed: int = 0, scale: float = 0.1) -> dict[str, np.ndarray]:
    """Write a graph of three matrices (100 x 64, 64 x 48, 48 x 40) and one bias; returns its weights."""
    random = np.random.default_rng(seed)
    shapes = {"table": (100, 64), "first": (64, 48), "bias": (48,), "second": (48, 40)}
    weights = {name: (scale * random.standard_t(3, shape)).astype(np.float32) for name, shape in shapes.items()}
    model = parser.parse_model(SMALL)
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    onnx.save(model, path)
    return weights
