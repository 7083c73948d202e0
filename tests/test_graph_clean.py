"""What each cleaning pass removes, renames and leaves alone, on graphs written as ONNX text."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx.checker
import onnx.parser
import onnxruntime
import pytest
from onnx import TensorProto, helper

from bsexport.graph import walk
from bsexport.graph.clean import clean, is_weight
from bsexport.graph.skeleton import declare


def parse(text: str, **weights: list[int]) -> onnx.ModelProto:
    """A model of opset 17 with declared float32 weights of the given shapes."""
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17, "ai.onnx.ml" : 3]>\n{text}')
    for name, dims in weights.items():
        model.graph.initializer.append(declare(name, TensorProto.FLOAT, dims))
    return model


def lines(graph: onnx.GraphProto) -> list[str]:
    """Each node, nested ones after their own, as OUTPUTS=OP(INPUTS)."""
    return [f"{','.join(node.output)}={node.op_type}({','.join(node.input)})" for node in walk.nodes(graph)]


@pytest.mark.parametrize(
    ("data_type", "dims", "weight"),
    [
        (TensorProto.FLOAT, [64], False),
        (TensorProto.FLOAT, [65], True),
        (TensorProto.FLOAT, [8, 9], True),
        (TensorProto.FLOAT, [], False),
        (TensorProto.FLOAT, [0, 1000], False),
        (TensorProto.FLOAT16, [65], True),
        (TensorProto.BFLOAT16, [65], True),
        (TensorProto.DOUBLE, [65], True),
        (TensorProto.FLOAT8E4M3FN, [65], True),
        (TensorProto.COMPLEX64, [65], True),
        (TensorProto.INT64, [1024], False),
        (TensorProto.INT64, [1025], True),
        (TensorProto.INT8, [32, 32], False),
        (TensorProto.UINT8, [33, 32], True),
        (TensorProto.BOOL, [1024], False),
        (TensorProto.BOOL, [1025], True),
        (TensorProto.STRING, [5000], False),
        (TensorProto.INT4, [5000], False),
        (TensorProto.UINT4, [5000], False),
        (TensorProto.FLOAT4E2M1, [5000], False),
        (TensorProto.FLOAT, [2**40, 2**40], True),
        (TensorProto.FLOAT, [2, 2, 2, 2, 2, 2, 2, 2], True),
        (TensorProto.FLOAT, [2, 2, 2, 2, 2, 2, 2, 2, 2], False),
        (TensorProto.FLOAT8E5M2FNUZ, [65], True),
        (TensorProto.FLOAT8E8M0, [5000], False),
    ],
)
def test_what_is_a_weight(data_type: int, dims: list[int], weight: bool) -> None:
    assert is_weight(data_type, dims) is weight


def test_noise_is_gone_and_the_interface_stays() -> None:
    model = parse("g (float[batch,8] x) => (float[batch,12] y) { h = MatMul(x, W) y = Relu(h) }", W=[8, 12])
    bare = clean(model).SerializeToString(deterministic=True)
    model.producer_name, model.producer_version, model.domain = "pytorch", "2.13", "org"
    model.doc_string, model.model_version = "text", 3
    model.graph.doc_string, model.graph.name = "text", "main_graph"
    model.graph.node[0].name, model.graph.node[0].doc_string = "/encoder/MatMul", "text"
    for owner in (model, model.graph, model.graph.node[0], model.graph.input[0], model.graph.initializer[0]):
        owner.metadata_props.add(key="pkg.torch.onnx.stack_trace", value="File ...")
    model.graph.input[0].doc_string = model.graph.initializer[0].doc_string = "text"
    model.graph.value_info.append(helper.make_tensor_value_info("h", TensorProto.FLOAT, ["batch", 12]))
    model.graph.quantization_annotation.add(tensor_name="W")
    before = model.SerializeToString(deterministic=True)
    cleaned = clean(model)
    assert cleaned.SerializeToString(deterministic=True) == bare
    assert model.SerializeToString(deterministic=True) == before
    assert [value.name for value in cleaned.graph.input] == ["x"]
    assert cleaned.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert [tensor.name for tensor in cleaned.graph.initializer] == ["W"]
    assert {each.domain: each.version for each in cleaned.opset_import} == {"": 17}


def test_the_models_own_metadata_stays() -> None:
    model = parse("g (float[8] x) => (float[8] y) { y = Relu(x) }")
    for key, value in (("names", "{0: 'cat'}"), ("pkg.torch.export.graph_signature", "..."), ("stride", "32")):
        model.metadata_props.add(key=key, value=value)
    assert [(each.key, each.value) for each in clean(model).metadata_props] == [
        ("names", "{0: 'cat'}"),
        ("stride", "32"),
    ]


def test_names_are_short_and_never_those_of_the_interface() -> None:
    model = parse(
        "g (float[8,8] t0) => (float[8,8] t2) { long_name = Neg(t0) other = Add(long_name, t3) t2 = Relu(other) }",
        t3=[8, 8],
    )
    assert lines(clean(model).graph) == ["t1=Neg(t0)", "t4=Add(t1,t3)", "t2=Relu(t4)"]


def test_dead_nodes_and_initializers_go_on_every_level() -> None:
    model = parse(
        """g (bool c, float[8] x, float[8] unused) => (float[8] y) {
            a = Neg(x)
            dead = Add(a, V)
            deader = Relu(dead)
            only_nested = Exp(x)
            y = If (c) <
                then_branch = t () => (float[8] z) { u = Neg(only_nested) z = Add(only_nested, W) },
                else_branch = e () => (float[8] w) <float[1] k = {1}> { w = Identity(x) }
            >
        }""",
        V=[8],
        W=[8],
    )
    cleaned = clean(model)
    assert lines(cleaned.graph) == ["t0=Exp(x)", "y=If(c)", "t1=Add(t0,W)", "t2=Identity(x)"]
    assert [tensor.name for tensor in cleaned.graph.initializer] == ["W"]
    assert [len(graph.initializer) for graph in walk.graphs(cleaned.graph)] == [1, 0, 0]
    assert [value.name for value in cleaned.graph.input] == ["c", "x", "unused"]


def test_an_output_of_several_keeps_its_node() -> None:
    model = parse("g (float[8] x) => (int64[1] i) { v, i = TopK(x, k) }")
    model.graph.initializer.append(helper.make_tensor("k", TensorProto.INT64, [1], [1]))
    assert lines(clean(model).graph) == ["t0,i=TopK(x,k)"]


def test_identities_fold_but_not_before_an_output() -> None:
    model = parse(
        """g (bool c, float[8] x) => (float[8] y, float[8] w) {
            tied = Identity(W)
            again = Identity(tied)
            w = Identity(again)
            y = If (c) <
                then_branch = t () => (float[8] z) { z = Identity(again) },
                else_branch = e () => (float[8] v) { i = Identity(x) v = Add(i, tied) }
            >
        }""",
        W=[8],
    )
    assert lines(clean(model).graph) == ["w=Identity(W)", "y=If(c)", "t0=Identity(W)", "t1=Add(x,W)"]


def test_identity_follows_a_name_that_a_loop_hides() -> None:
    """`alias` is the outer W, while W inside is the loop's own state: folding must not mix them up."""
    model = parse(
        """g (int64 n, bool c, float[8] x) => (float[8] y) {
            alias = Identity(W)
            y = Loop (n, c, x) <body = b (int64 i, bool k, float[8] W) => (bool k2, float[8] z) {
                k2 = Not(k)
                z = Add(W, alias)
            }>
        }""",
        W=[8],
    )
    cleaned = clean(model)
    body = next(walk.subgraphs(cleaned.graph.node[0]))
    state = body.input[2].name
    assert state != "W"
    assert list(body.node[1].input) == [state, "W"]


def test_equal_constants_of_one_graph_are_shared() -> None:
    model = parse(
        """g (bool c, float[8] x) => (float[8] y, float[1] z) {
            a = Constant <value = float[1] {2}> ()
            b = Constant <value = float[1] {2}> ()
            two = Constant <value_floats = [2.0]> ()
            z = Constant <value = float[1] {2}> ()
            p = Mul(x, a)
            q = Mul(p, b)
            r = Mul(q, two)
            y = If (c) <
                then_branch = t () => (float[8] u) { d = Constant <value = float[1] {2}> () u = Mul(r, d) },
                else_branch = e () => (float[8] v) { v = Mul(r, b) }
            >
        }"""
    )
    assert lines(clean(model).graph) == [
        *("t0=Constant()", "t1=Constant()", "z=Constant()", "t2=Mul(x,t0)", "t3=Mul(t2,t0)", "t4=Mul(t3,t1)"),
        *("y=If(c)", "t5=Constant()", "t6=Mul(t4,t5)", "t7=Mul(t4,t0)"),
    ]


def test_shapes_stay_where_onnxruntime_needs_them_to_fuse(tmp_path: Path) -> None:
    """Behind a computed Reshape only the exporter's note tells that the sum's operands have one shape."""
    model = parse(
        """g (float[b,s,8] x, int64[3] to, float[8] scale) => (float[b,s,8] y) {
            u = Neg(x)
            r = Reshape(u, to)
            a = Add(r, x)
            n = LayerNormalization <axis = -1> (a, scale)
            y = Relu(n)
        }"""
    )
    for name in ("u", "r", "a", "n"):
        model.graph.value_info.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["b", "s", 8]))
    cleaned = clean(model)
    assert [value.name for value in cleaned.graph.value_info] == ["t1"]
    assert cleaned.graph.node[1].output[0] == "t1"
    del model.graph.value_info[:]
    for graph, fused in ((cleaned, True), (clean(model), False)):
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
        options.log_severity_level = 3
        onnxruntime.InferenceSession(graph.SerializeToString(), options)
        operators = {node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node}
        assert ("SkipLayerNormalization" in operators) is fused


def test_product_with_a_transposed_weight() -> None:
    model = parse(
        """g (float[N,8] x, float[8,20] a) => (float[N,20] y, float[N,20] z, float[20,20] w) {
            t = Transpose <perm = [1, 0]> (W)
            y = MatMul(x, t)
            b = Transpose(W)
            z = MatMul(x, b)
            w = MatMul(W, a)
        }""",
        W=[20, 8],
    )
    cleaned = clean(model)
    assert lines(cleaned.graph) == ["y=FusedMatMul(x,W)", "z=FusedMatMul(x,W)", "w=MatMul(W,a)"]
    fused = cleaned.graph.node[0]
    assert fused.domain == "com.microsoft"
    assert {each.name: helper.get_attribute_value(each) for each in fused.attribute} == {"transB": 1}
    assert {each.domain: each.version for each in cleaned.opset_import} == {"": 17, "com.microsoft": 1}


@pytest.mark.parametrize(
    ("dims", "data_type", "perm"),
    [
        ([8, 8], TensorProto.FLOAT, "[0, 1]"),
        ([8, 8], TensorProto.DOUBLE, "[1, 0]"),
        ([8, 8], TensorProto.FLOAT16, "[1, 0]"),
        ([2, 8, 8], TensorProto.FLOAT, "[0, 2, 1]"),
    ],
)
def test_other_transposes_stay(dims: list[int], data_type: int, perm: str) -> None:
    model = parse(f"g (float[2,8,8] x) => (float[2,8,8] y) {{ t = Transpose <perm = {perm}> (W) y = MatMul(x, t) }}")
    model.graph.initializer.append(declare("W", data_type, dims))
    assert lines(clean(model).graph) == ["t0=Transpose(W)", "y=MatMul(x,t0)"]


def test_transpose_of_what_is_computed_stays() -> None:
    model = parse("g (float[8,8] x) => (float[8,8] y) { n = Neg(x) t = Transpose(n) y = MatMul(x, t) }")
    assert lines(clean(model).graph) == ["t0=Neg(x)", "t1=Transpose(t0)", "y=MatMul(x,t1)"]


def test_operators_of_the_same_name_from_elsewhere_stay() -> None:
    model = parse("g (float[8,8] x) => (float[8,8] y) { i = ai.onnx.ml.Identity(W) y = Add(x, i) }", W=[8, 8])
    cleaned = clean(model)
    assert lines(cleaned.graph) == ["t0=Identity(W)", "y=Add(x,t0)"]
    assert {each.domain for each in cleaned.opset_import} == {"", "ai.onnx.ml"}


def test_functions_survive() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17, "local" : 1, "spare" : 1]>
        g (float[8] x) => (float[8] y) { y = local.twice(x) }
        <domain: "local", opset_import: ["" : 17]> twice (a) => (b) { mid = Identity(a) b = Add(mid, a) }"""
    )
    model.functions[0].node[0].name, model.functions[0].doc_string = "noise", "noise"
    cleaned = clean(model)
    onnx.checker.check_model(cleaned)
    assert [(node.op_type, node.name) for node in cleaned.functions[0].node] == [("Identity", ""), ("Add", "")]
    assert cleaned.functions[0].doc_string == ""
    assert {each.domain for each in cleaned.opset_import} == {"", "local"}


def test_cleaning_twice_changes_nothing() -> None:
    model = parse(
        "g (float[N,8] x) => (float[N,20] y) { t = Transpose(W) p = MatMul(x, t) q = Identity(p) y = Relu(q) }",
        W=[20, 8],
    )
    once = clean(model)
    assert clean(once).SerializeToString(deterministic=True) == once.SerializeToString(deterministic=True)


def test_unique_names_keep_the_first() -> None:
    model = parse(
        """g (bool c, float[8] x) => (float[8] y) {
            y = If (c) <
                then_branch = t () => (float[8] z) { m = Neg(x) z = Neg(m) },
                else_branch = e () => (float[8] z) { m = Abs(x) z = Abs(m) }
            >
        }"""
    )
    walk.unique_names(model.graph)
    assert lines(model.graph) == ["y=If(c)", "m=Neg(x)", "z=Neg(m)", "m_0=Abs(x)", "z_0=Abs(m_0)"]
    assert [graph.output[0].name for graph in walk.graphs(model.graph)] == ["y", "z", "z_0"]
