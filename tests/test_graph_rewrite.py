"""The rewritten graphs, literally: names, attributes, places and order; and what must not be rewritten."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import TensorProto, helper, numpy_helper

from bsexport.errors import ExportError
from bsexport.graph.rewrite import BlobPlace, coded, inline_constants, plain
from bsexport.graph.skeleton import declare
from bsexport.graph.standard import standard, write_standard

HEADER = '<ir_version: 8, opset_import: ["" : 17]>'
W = np.arange(96, dtype=np.float32).reshape(8, 12)


def one_weight() -> onnx.ModelProto:
    model = onnx.parser.parse_model(HEADER + "g (float[N,8] x) => (float[N,12] y) { y = MatMul(x, W) }")
    model.graph.initializer.append(declare("W", TensorProto.FLOAT, [8, 12]))
    return model


def test_plain_graph_literally() -> None:
    (tensor,) = plain(one_weight(), {"W": (128, 384)}).graph.initializer
    places = {entry.key: entry.value for entry in tensor.external_data}
    assert places == {"location": "arena.bin", "offset": "128", "length": "384"}
    assert (tensor.name, list(tensor.dims), tensor.data_type) == ("W", [8, 12], TensorProto.FLOAT)


def test_the_models_own_metadata_is_in_every_graph() -> None:
    """Code around a detector reads its class names from the session."""
    model = one_weight()
    model.metadata_props.add(key="names", value="{0: 'cat'}")
    place = BlobPlace(offset=64, nbytes=100, payload_offset=96, payload_nbytes=68, coded=True)
    for graph in (plain(model, {"W": (128, 384)}), coded(model, {"W": place}), standard(model)[0]):
        assert [(each.key, each.value) for each in graph.metadata_props] == [("names", "{0: 'cat'}")]


def test_coded_graph_literally() -> None:
    model = coded(one_weight(), {"W": BlobPlace(64, 100, 96, 68, coded=True)})
    (blob,) = model.graph.initializer
    assert {entry.key: entry.value for entry in blob.external_data} == {
        "location": "weights.bsx",
        "offset": "64",
        "length": "100",
    }
    assert (blob.name, list(blob.dims), blob.data_type) == ("W.bsx", [100], TensorProto.UINT8)
    (node,) = model.graph.node
    assert (node.op_type, node.domain, list(node.input), list(node.output)) == (
        *("EGMatMul", "bsexport"),
        *(["x", "W.bsx"], ["y"]),
    )
    assert {each.name: helper.get_attribute_value(each) for each in node.attribute} == {"shape": [8, 12], "transB": 0}
    assert {each.domain: each.version for each in model.opset_import} == {"": 17, "bsexport": 1}


def test_raw_weight_is_external_at_its_payload() -> None:
    model = coded(one_weight(), {"W": BlobPlace(64, 416, 96, 384, coded=False)})
    (tensor,) = model.graph.initializer
    assert {entry.key: entry.value for entry in tensor.external_data} == {
        "location": "weights.bsx",
        "offset": "96",
        "length": "384",
    }
    assert [node.op_type for node in model.graph.node] == ["MatMul"]
    assert {each.domain for each in model.opset_import} == {""}


def test_rewriting_leaves_its_argument_alone() -> None:
    model = one_weight()
    before = model.SerializeToString(deterministic=True)
    plain(model, {"W": (0, 384)})
    coded(model, {"W": BlobPlace(0, 10, 0, 10, coded=True)})
    standard(model)
    assert model.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("arena", [{}, {"V": (0, 384)}, {"W": (0, 383)}, {"W": (0, 384), "V": (0, 4)}])
def test_places_must_fit_the_weights(arena: Mapping[str, tuple[int, int]]) -> None:
    with pytest.raises(ValueError, match=r"'[WV]'"):
        plain(one_weight(), arena)
    raw = {name: BlobPlace(0, nbytes + 32, 32, nbytes, coded=False) for name, (_, nbytes) in arena.items()}
    with pytest.raises(ValueError, match=r"'[WV]'"):
        coded(one_weight(), raw)


def test_blob_name_that_is_taken() -> None:
    model = one_weight()
    model.graph.node[0].output[0] = model.graph.output[0].name = "W.bsx"
    with pytest.raises(ExportError, match=r"tensor 'W': its blob would be called 'W.bsx', which the model uses"):
        coded(model, {"W": BlobPlace(0, 10, 0, 10, coded=True)})


def test_product_that_does_more_is_not_fused() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
        g (float[N,8] x, float[8,N] u) => (float[N,12] y, float[N,12] z, float[N,12] v) {
            y = com.microsoft.FusedMatMul <alpha = 0.5> (x, W)
            z = com.microsoft.FusedMatMul <transA = 1> (u, W)
            v = com.microsoft.FusedMatMul (x, W)
        }"""
    )
    model.graph.initializer.append(declare("W", TensorProto.FLOAT, [8, 12]))
    blobs = coded(model, {"W": BlobPlace(0, 10, 0, 10, coded=True)})
    assert [(node.op_type, *node.input) for node in blobs.graph.node] == [
        ("EGDecode", "W.bsx"),
        ("FusedMatMul", "x", "W"),
        ("FusedMatMul", "u", "W"),
        ("EGMatMul", "x", "W.bsx"),
    ]


def test_decode_stands_before_the_nested_graph_that_reads_it() -> None:
    model = onnx.parser.parse_model(
        HEADER
        + """g (bool c, float[8,12] x) => (float[8,12] y) {
            n = Neg(x)
            y = If (c) <
                then_branch = a () => (float[8,12] z) { z = Identity(W) },
                else_branch = b () => (float[8,12] u) { u = Add(W, n) }
            >
        }"""
    )
    model.graph.initializer.append(declare("W", TensorProto.FLOAT, [8, 12]))
    rewritten = coded(model, {"W": BlobPlace(0, 10, 0, 10, coded=True)})
    assert [(node.op_type, *node.output) for node in rewritten.graph.node] == [
        *(("EGDecode", "W"), ("Neg", "n"), ("If", "y")),
    ]
    assert {each.name: helper.get_attribute_value(each) for each in rewritten.graph.node[0].attribute} == {
        "shape": [8, 12],
        "dtype": TensorProto.FLOAT,
    }


def test_inline_constants_are_the_small_floats() -> None:
    model = one_weight()
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(64, np.float32), "b"))
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(64, np.int64), "axes"))
    assert inline_constants(model) == ["b"]


def standard_of(body: str) -> tuple[list[str], frozenset[str], list[int]]:
    """Operators, transposed weights and dims of the weight W, 20 by 8, after `standard`."""
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>'
        f"g (float[N,8] x, int64[S] ids) => (float[N,20] y) {{ {body} }}"
    )
    model.graph.initializer.append(declare("W", TensorProto.FLOAT, [20, 8]))
    rewritten, transposed = standard(model)
    assert {each.domain for each in rewritten.opset_import} == {""}
    return [node.op_type for node in rewritten.graph.node], transposed, list(rewritten.graph.initializer[0].dims)


def test_standard_turns_a_weight_where_it_can() -> None:
    product = "com.microsoft.FusedMatMul <transB = 1>"
    assert standard_of(f"y = {product}(x, W)") == (["MatMul"], frozenset({"W"}), [8, 20])
    assert standard_of(f"y = {product}(x, W) z = {product}(x, W)") == (["MatMul"] * 2, frozenset({"W"}), [8, 20])
    tied = f"e = Gather(W, ids) y = {product}(e, W) z = {product}(x, W)"
    assert standard_of(tied) == (["Transpose", "Gather", "MatMul", "MatMul"], frozenset(), [20, 8])


def test_standard_writes_nothing_over_and_leaves_nothing_behind(tmp_path: Path) -> None:
    model, path = one_weight(), tmp_path / "m.onnx"
    with pytest.raises(ValueError, match=r"weight 'W': read float32 \(12, 8\), declared float32 \(8, 12\)"):
        write_standard(model, path, lambda _: W.T, external=True)
    assert list(tmp_path.iterdir()) == []
    path.write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        write_standard(model, path, lambda _: W, external=True)
    assert [file.name for file in tmp_path.iterdir()] == ["m.onnx"]
    assert path.read_bytes() == b"mine"
    with pytest.raises(FileNotFoundError):
        write_standard(model, tmp_path / "no" / "m.onnx", lambda _: W)


def test_standard_goes_external_above_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bsexport.graph.standard.INLINE_BYTES", 383)
    write_standard(one_weight(), tmp_path / "m.onnx", lambda _: W)
    assert (tmp_path / "m.onnx.data").read_bytes() == W.tobytes()
