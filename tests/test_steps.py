"""A language model whose answers depend on how its texts are cut is found out."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
from onnx import numpy_helper, parser

from bsexport.inputs import sample_inputs
from bsexport.steps import disagreement

GRAPH = """
<ir_version: 8, opset_import: ["" : 17]>
g (int64[batch, sequence] input_ids, int64[batch, sequence] position_ids, int64[batch, kept] logits_to_keep,
   float[batch, 1, capacity, 2] past) => (float[batch, sequence, 3] logits, float[batch, 1, capacity, 2] same)
<int64 zero = {0}, int64 one = {1}>
{
  length = Shape <start = 1, end = 2> (input_ids)
  end = Squeeze (length)
  index = Range (zero, end, one)
  word = Gather (words, input_ids)
  place = Gather (places, PLACE)
  logits = Add (word, place)
  same = Identity (past)
}
"""


def found(place: str) -> str | None:
    """Of a model that tells a token's place by its position or by its index in what is given."""
    model = parser.parse_model(GRAPH.replace("PLACE", place))
    for name, rows in (("words", 5), ("places", 16)):
        table = np.arange(rows, dtype=np.float32)[:, None] * np.ones((1, 3), np.float32)
        model.graph.initializer.append(numpy_helper.from_array(table, name))
    model.graph.input[3].name = model.graph.node[-1].input[0] = "past_key_values.0.key"
    model.graph.output[1].name = model.graph.node[-1].output[0] = "present.0.key"
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return disagreement(session, sample_inputs(session, model.graph))


def test_places_by_position_are_right_however_texts_are_cut() -> None:
    assert found("position_ids") is None


def test_places_by_index_are_found_out() -> None:
    """The last of 16 tokens comes in a part of 7: its place is taken for 6 rather than 15."""
    line = found("index")
    assert line is not None and line.startswith("output logits: is off by up to 9, where the largest is 1")
    assert line.endswith("export it to ONNX yourself and give the .onnx file")
