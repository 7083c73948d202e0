"""Made-up inputs fit the graphs they are made for."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper, parser

from bsexport.errors import VerifyError
from bsexport.inputs import complete, index_limits, sample_inputs

MANY = """
<ir_version: 8, opset_import: ["" : 17]>
g (int64[batch, sequence] ids, int32[batch, sequence] types, int64[sequence, 3] plain, float16[batch, 5, other] half,
   bool[other] flag, int64[batch, sequence] attention_mask, float[2, unknown] given)
  => (float[batch, sequence, 4] y, int64[sequence, 3] p, float16[batch, 5, other] h, bool[other] f,
      int64[batch, sequence] m, float[2, unknown] g2)
{
  a = Gather (large, ids)
  b = Gather (small, ids)
  wide = Cast <to = 7> (types)
  c = Gather (two, wide)
  ab = Add (a, b)
  y = Add (ab, c)
  p = Identity (plain)
  h = Identity (half)
  f = Identity (flag)
  m = Identity (attention_mask)
  g2 = Identity (given)
}
"""


def session_of(text: str, **weights: np.ndarray) -> tuple[ort.InferenceSession, object]:
    model = parser.parse_model(text)
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]), model.graph


def test_shapes_types_and_ranges() -> None:
    tables = {name: np.ones((rows, 4), np.float32) for name, rows in (("large", 99), ("small", 7), ("two", 2))}
    session, graph = session_of(MANY, **tables)
    assert index_limits(graph) == {"ids": 7, "types": 2}
    inputs = sample_inputs(session, graph)
    found = {name: (array.dtype.name, array.shape) for name, array in inputs.items()}
    assert found == {
        "ids": ("int64", (2, 16)),
        "types": ("int32", (2, 16)),
        "plain": ("int64", (16, 3)),
        "half": ("float16", (2, 5, 16)),
        "flag": ("bool", (16,)),
        "attention_mask": ("int64", (2, 16)),
        "given": ("float32", (2, 16)),
    }
    assert set(np.unique(inputs["ids"])) == set(range(7))
    assert set(np.unique(inputs["types"])) == {0, 1}
    assert (inputs["attention_mask"] == 1).all() and inputs["flag"].all() and (inputs["plain"] == 0).all()
    session.run(None, inputs)


def test_the_seed_decides() -> None:
    session, graph = session_of(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[n] x) => (float[n] y) { y = Abs (x) }'
    )
    same, again, other = (sample_inputs(session, graph, seed)["x"] for seed in (0, 0, 1))
    assert same.tobytes() == again.tobytes() != other.tobytes()


def test_a_lookup_on_another_axis_says_nothing_of_the_rows() -> None:
    text = '<ir_version: 8, opset_import: ["" : 17]> g (int64[n] x) => (float[9, n] y) { y = Gather <axis = 1> (t, x) }'
    _, graph = session_of(text, t=np.ones((9, 4), np.float32))
    assert index_limits(graph) == {}


def test_a_type_without_numbers_is_refused() -> None:
    session, graph = session_of(
        '<ir_version: 8, opset_import: ["" : 17]> g (string[n] x) => (string[n] y) { y = Identity (x) }'
    )
    with pytest.raises(VerifyError, match=r"input x is a tensor\(string\), for which no input can be made up"):
        sample_inputs(session, graph)


CAUSAL = """
<ir_version: 8, opset_import: ["" : 17]>
g (int64[batch, sequence] input_ids, int64[batch, sequence] position_ids, int64[batch, kept] logits_to_keep,
   float[batch, 3, capacity, 8] keys, float[batch, 2, capacity, 4] values)
  => (float[batch, sequence, 4] logits)
{
  a = Gather (words, input_ids)
  b = Gather (places, position_ids)
  logits = Add (a, b)
}
"""


def causal_session() -> tuple[ort.InferenceSession, onnx.GraphProto]:
    """Its cache gets the names that it has, which no text of a graph can hold."""
    model = parser.parse_model(CAUSAL)
    for name, rows in (("words", 9), ("places", 50)):
        model.graph.initializer.append(numpy_helper.from_array(np.ones((rows, 4), np.float32), name))
    for value, name in zip(model.graph.input[-2:], ("key", "value"), strict=True):
        value.name = f"past_key_values.0.{name}"
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]), model.graph


def test_a_cache_is_empty_and_has_a_slot_for_each_token() -> None:
    session, graph = causal_session()
    inputs = sample_inputs(session, graph, length=5)
    expected = [[0, 1, 2, 3, 4]] * 2
    assert inputs["position_ids"].tolist() == inputs["logits_to_keep"].tolist() == expected
    assert inputs["past_key_values.0.key"].shape == (2, 3, 5, 8)
    assert inputs["past_key_values.0.value"].shape == (2, 2, 5, 4)
    assert not inputs["past_key_values.0.key"].any() and inputs["past_key_values.0.key"].dtype == np.float32
    session.run(None, inputs)


def test_texts_are_completed_to_what_a_causal_graph_takes() -> None:
    session, _ = causal_session()
    feeds = complete(session, {"input_ids": [[1, 2, 3]], "attention_mask": [[1, 1, 1]], "logits_to_keep": [[2]]})
    assert feeds["position_ids"].tolist() == [[0, 1, 2]] and feeds["logits_to_keep"] == [[2]]
    assert feeds["past_key_values.0.value"].shape == (1, 2, 3, 4)
    other = session_of(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        g (int64[batch, sequence] input_ids) => (float[batch, sequence, 4] y) { y = Gather (words, input_ids) }
    """,
        words=np.ones((9, 4), np.float32),
    )[0]
    assert complete(other, {"input_ids": [[1]]}) == {"input_ids": [[1]]}
