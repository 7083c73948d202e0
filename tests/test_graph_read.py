"""Reading .onnx files: what becomes a weight and what stays inline, and one clear line for every damaged file."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.defs
import onnx.parser
import pytest
from onnx import TensorProto, helper, numpy_helper

from bsexport.errors import SourceError
from bsexport.graph import walk
from bsexport.graph.read import read_onnx
from bsexport.source import Source

W = np.arange(96, dtype=np.float32).reshape(8, 12)
TEXT = "g (float[N,8] x) => (float[N,12] y) { y = MatMul(x, W) }"


def parse(text: str = TEXT, *tensors: TensorProto, ir: int = 8, opset: int = 17) -> onnx.ModelProto:
    model = onnx.parser.parse_model(f'<ir_version: {ir}, opset_import: ["" : {opset}]>\n{text}')
    model.graph.initializer.extend(tensors)
    return model


def tensor(name: str = "W", values: np.ndarray = W) -> TensorProto:
    return numpy_helper.from_array(values, name)


def external(name: str = "W", dims: tuple[int, ...] = (8, 12), **entries: Any) -> TensorProto:
    proto = TensorProto(name=name, dims=dims, data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    for key, value in entries.items():
        proto.external_data.add(key=key, value=str(value))
    return proto


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.onnx"


def save(path: Path, model: onnx.ModelProto) -> Path:
    """Write the protobuf as it is: onnx.save would look at external data."""
    path.write_bytes(model.SerializeToString())
    return path


def read(path: Path, model: onnx.ModelProto) -> Source:
    return read_onnx(save(path, model))


def refusal(path: Path) -> str:
    """The one line that reading `path` must fail with, after the path."""
    with pytest.raises(SourceError) as caught:
        read_onnx(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


def refused(path: Path, model: onnx.ModelProto) -> str:
    return refusal(save(path, model))


# What comes out of a good file


def test_source_of_a_small_model(path: Path) -> None:
    source = read(path, parse(TEXT, tensor()))
    assert (source.name, source.task, source.files) == ("model", None, ())
    (weight,) = source.weights
    assert (weight.name, weight.shape, weight.dtype, weight.ties, weight.head) == ("W", (8, 12), np.float32, (), False)
    np.testing.assert_array_equal(weight.read(), W, strict=True)
    np.testing.assert_array_equal(weight.read(), W, strict=True)
    (declared,) = source.graph.graph.initializer
    assert declared == TensorProto(name="W", dims=[8, 12], data_type=1, data_location=TensorProto.EXTERNAL)
    assert source.graph.ByteSize() < 100


DTYPES = [
    *("FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE", "COMPLEX64", "COMPLEX128", "BOOL"),
    *("INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"),
    *("FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ"),
]


@pytest.mark.parametrize("storage", ["raw", "typed", "external"])
@pytest.mark.parametrize("name", DTYPES)
def test_every_type_of_whole_bytes_is_read_exactly(path: Path, name: str, storage: str) -> None:
    data_type = TensorProto.DataType.Value(name)
    values = (np.arange(1200) % 13 - 6 * (not name.startswith("U"))).astype(helper.tensor_dtype_to_np_dtype(data_type))
    if storage == "typed":
        plain = values.astype(complex if name.startswith("COMPLEX") else float).tolist()
        proto = helper.make_tensor("W", data_type, [1200], plain)
        assert not proto.HasField("raw_data")
    elif storage == "raw":
        proto = tensor("W", values)
    else:
        proto = external("W", (1200,), location="w.bin", offset=5, length=values.nbytes)
        proto.data_type = data_type
        (path.parent / "w.bin").write_bytes(b"12345" + values.tobytes() + b"6")
    (weight,) = read(path, parse("g (float x) => (float x, float W) { }", proto)).weights
    assert weight.dtype == values.dtype
    assert weight.read().tobytes() == values.tobytes()


def test_what_stays_inline_is_untouched(path: Path) -> None:
    small = [
        tensor("bias", W.ravel()[:64]),
        tensor("shape", np.arange(1024)),
        tensor("empty", np.zeros((0, 100), np.float32)),
        tensor("scalar", np.float32(3).reshape(())),
        helper.make_tensor("words", TensorProto.STRING, [70], [b"a"] * 70),
        helper.make_tensor("nibbles", TensorProto.INT4, [3001], np.arange(3001) % 7),
    ]
    names = ", ".join(f"float {proto.name}" for proto in small)
    source = read(path, parse(f"g (float x) => (float x, {names}) {{ }}", *small))
    assert source.weights == ()
    assert list(source.graph.graph.initializer) == small


def test_small_external_tensors_become_inline(path: Path) -> None:
    (path.parent / "w.bin").write_bytes(W.tobytes())
    source = read(path, parse("g (float x) => (float x, float W) { }", external(dims=(3,), location="w.bin", offset=8)))
    (inline,) = source.graph.graph.initializer
    assert inline == numpy_helper.from_array(W.ravel()[2:5], "W")


def test_length_may_be_left_out_and_the_file_may_be_a_link_within_the_folder(path: Path) -> None:
    (path.parent / "data").mkdir()
    (path.parent / "data" / "real.bin").write_bytes(bytes(64) + W.tobytes() + b"more")
    (path.parent / "link.bin").symlink_to(path.parent / "data" / "real.bin")
    (weight,) = read(path, parse(TEXT, external(location="link.bin", offset=64))).weights
    np.testing.assert_array_equal(weight.read(), W, strict=True)


def test_external_weights_are_not_loaded(path: Path) -> None:
    """A tensor of 2 TB is declared and present (as a hole in a file): only what is asked for is ever read."""
    with (path.parent / "w.bin").open("wb") as stream:
        stream.truncate(3 * 10**12)
        stream.seek(2 * 10**12)
        stream.write(W.tobytes())
    huge = external("H", (10**6, 5 * 10**5), location="w.bin", length=2 * 10**12)
    proto = external(location="w.bin", offset=2 * 10**12, length=384)
    source = read(path, parse("g (float x) => (float x, float H, float W) { }", huge, proto))
    assert [weight.shape for weight in source.weights] == [(10**6, 5 * 10**5), (8, 12)]
    np.testing.assert_array_equal(source.weights[1].read(), W, strict=True)


def test_external_file_that_changes_after_opening(path: Path) -> None:
    data = path.parent / "w.bin"
    data.write_bytes(W.tobytes())
    (weight,) = read(path, parse(TEXT, external(location="w.bin"))).weights
    os.truncate(data, 383)
    with pytest.raises(SourceError, match=r"w\.bin shrank while it was being read"):
        weight.read()
    data.unlink()
    with pytest.raises(SourceError, match=r"cannot read .*w\.bin: No such file or directory"):
        weight.read()


def test_constants_of_every_form(path: Path) -> None:
    floats = ", ".join(f"{value}.5" for value in range(65))
    ints = ", ".join(map(str, range(1025)))
    text = f"""g (float x) => (float a, float b, int64 c, int64 d, float e, float f) {{
        a = Constant <value_float = 1.5> ()
        b = Constant <value_floats = [{floats}]> ()
        c = Constant <value_int = 7> ()
        d = Constant <value_ints = [{ints}]> ()
        e = Constant <value = float[2] {{1, 2}}> ()
        f = Constant <value_strings = ["a", "b"]> ()
    }}"""
    source = read(path, parse(text))
    weights = {weight.name: weight.read() for weight in source.weights}
    assert weights.keys() == {"b", "d"}
    np.testing.assert_array_equal(weights["b"], np.arange(65, dtype=np.float32) + np.float32(0.5), strict=True)
    np.testing.assert_array_equal(weights["d"], np.arange(1025), strict=True)
    assert [node.output[0] for node in source.graph.graph.node] == ["a", "c", "e", "f"]


def test_hoisted_names(path: Path) -> None:
    values = ", ".join(["1"] * 96)
    text = f"""g (bool c, float[N,8] x) => (float[N,12] y) {{
        y = If (c) <
            then_branch = a () => (float[N,12] z) <float[8,12] W = {{{values}}}> {{ z = MatMul(x, W) }},
            else_branch = b () => (float[N,12] z) {{
                W = Constant <value = float[8,12] {{{values}}}> ()
                V = Constant <value = float[8,12] {{{values}}}> ()
                p = MatMul(x, W)
                q = MatMul(x, V)
                z = Add(p, q)
            }}
        >
    }}"""
    source = read(path, parse(text))
    assert [weight.name for weight in source.weights] == ["W", "W_0", "V"]
    assert [list(node.input) for node in walk.nodes(source.graph.graph) if node.op_type == "MatMul"] == [
        *(["x", "W"], ["x", "W_0"], ["x", "V"]),
    ]


def test_weights_stand_in_the_order_of_the_file_without_unused_ones(path: Path) -> None:
    tensors = [tensor(name) for name in ("b", "unused", "a")]
    source = read(path, parse("g (float[8,12] x) => (float[8,12] y) { p = Add(x, a) y = Add(p, b) }", *tensors))
    assert [weight.name for weight in source.weights] == ["b", "a"]
    assert [proto.name for proto in source.graph.graph.initializer] == ["b", "a"]


@pytest.mark.parametrize(("ir", "left"), [(3, ["x"]), (4, ["x", "b"])])
def test_initializers_that_are_inputs(path: Path, ir: int, left: list[str]) -> None:
    text = "g (float[N,8] x, float[8,12] W, float[12] b) => (float[N,12] y) { p = MatMul(x, W) y = Add(p, b) }"
    source = read(path, parse(text, tensor(), tensor("b", W[0]), ir=ir, opset=9))
    assert [value.name for value in source.graph.graph.input] == left
    assert [proto.name for proto in source.graph.graph.initializer] == ["b", "W"]
    assert source.graph.ir_version == 4


def test_what_no_blob_can_hold_stays_inline(path: Path) -> None:
    deep = tensor("deep", np.arange(512, dtype=np.float32).reshape((2,) * 9))
    scales = helper.make_tensor("scales", TensorProto.FLOAT8E8M0, [100], bytes(range(100)), raw=True)
    names = ("float deep", "float8e8m0 scales")
    source = read(path, parse(f"g (float x) => (float x, {', '.join(names)}) {{ }}", deep, scales))
    assert source.weights == ()
    assert source.inline == ("deep",)
    assert list(source.graph.graph.initializer) == [deep, scales]


def test_name_of_the_file(path: Path) -> None:
    save(path.with_name("a.onnx"), parse(TEXT, tensor()))
    link, odd = path.with_name("Latest.ONNX"), path.with_name("m\udcff.onnx")
    link.symlink_to("a.onnx")
    odd.symlink_to("a.onnx")
    assert read_onnx(link).name == "Latest"
    assert read_onnx(odd).name == "m_"


def test_sparse_tensors_pass_through_and_are_named(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = parse("g (float[N,8] x) => (float[N,12] y) { y = MatMul(x, S) }")
    values, indices = tensor("S", np.ones(70, np.float32)), tensor("i", np.arange(70))
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [8, 12]))
    before = model.graph.sparse_initializer[0].SerializeToString()
    with caplog.at_level(logging.WARNING):
        source = read(path, model)
    assert source.weights == ()
    assert source.graph.graph.sparse_initializer[0].SerializeToString() == before
    assert caplog.messages == [f"{path}: sparse tensors stay as they are, neither pruned nor coded: S"]


def test_functions_keep_their_constants_and_they_are_named(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    numbers = ", ".join(["2"] * 96)
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17, "local" : 1]>
        g (float[N,8] x) => (float[N,12] y) {{ y = local.lin(x) }}
        <domain: "local", opset_import: ["" : 17]> lin (a) => (c) {{
            k = Constant <value = float[8,12] {{{numbers}}}> ()
            c = MatMul(a, k)
        }}"""
    )
    with caplog.at_level(logging.WARNING):
        source = read(path, model)
    assert [node.op_type for node in source.graph.functions[0].node] == ["Constant", "MatMul"]
    assert "constants of model functions stay as they are, neither pruned nor coded: k in lin" in caplog.text


def test_files_beside_the_model(path: Path) -> None:
    wanted = ["config.json", "tokenizer.json", "vocab.txt", "spm.model", "sentencepiece.model"]
    wanted += ["modules.json", "sentence_bert_config.json"]
    for name in (*reversed(wanted), "README.md"):
        (path.parent / name).write_text("{}")
    source = read(path, parse(TEXT, tensor()))
    assert [file.name for file in source.files] == wanted


# Files that are not what they should be


def test_no_such_file(path: Path) -> None:
    assert refusal(path) == "no such file"
    path.mkdir()
    assert refusal(path).startswith("not a file")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "an empty file, not an ONNX model"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "not an ONNX model"),
        (b"PK\x03\x04" + bytes(100), "not an ONNX model"),
        (b'{"model_type": "bert"}', "not an ONNX model"),
        (b"plain text\n", "not an ONNX model"),
        (bytes(1000), "not an ONNX model"),
        (b"\x08\x08", "not an ONNX model"),  # an IR version and nothing else
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "a Git LFS pointer, not the model"),
    ],
)
def test_foreign_files(path: Path, content: bytes, expected: str) -> None:
    path.write_bytes(content)
    assert refusal(path).startswith(expected)


def test_every_truncation_is_refused(path: Path) -> None:
    whole = parse(TEXT, tensor()).SerializeToString()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        refusal(path)
    path.write_bytes(whole[:200])
    assert refusal(path).startswith("truncated: it has 200 bytes and goes on to byte ")


def test_damage_anywhere_is_refused_or_harmless(path: Path) -> None:
    """Each byte of a model in turn becomes each of a few values: a Source or a SourceError, nothing else."""
    values = ", ".join(["1"] * 66)
    text = f"""g (bool c, float[N,8] x) => (float[N,12] y) {{
        k = Constant <value = float[66] {{{values}}}> ()
        y = If (c) <
            then_branch = a () => (float[N,12] z) {{ z = MatMul(x, W) }},
            else_branch = b () => (float[66] u) {{ u = Identity(k) }}
        >
    }}"""
    (path.parent / "w").write_bytes(W.tobytes())
    whole = parse(text, external(location="w", offset=0, length=384)).SerializeToString()
    read_onnx(save(path, parse(text, external(location="w", offset=0, length=384))))
    refusals = 0
    for at in range(len(whole)):
        for value in {0, 0xFF, whole[at] ^ 1, whole[at] ^ 8} - {whole[at]}:
            path.write_bytes(whole[:at] + bytes([value]) + whole[at + 1 :])
            try:
                for weight in read_onnx(path).weights:
                    weight.read()
            except SourceError as error:
                assert "\n" not in str(error)
                refusals += 1
    assert refusals > len(whole)


@pytest.mark.parametrize(
    ("ir", "opset", "expected"),
    [
        (8, 8, "opset 8, at least 9 is needed; convert it with `import onnx.version_converter; onnx.save("),
        (8, 1, "opset 1, at least 9 is needed"),
        (
            8,
            99,
            f"opset 99, the installed onnx {onnx.__version__} knows up to {onnx.defs.onnx_opset_version()}; upgrade",
        ),
        (99, 17, f"IR version 99, the installed onnx {onnx.__version__} knows up to {onnx.IR_VERSION}; upgrade"),
    ],
)
def test_versions_out_of_range(path: Path, ir: int, opset: int, expected: str) -> None:
    assert refused(path, parse(TEXT, tensor(), ir=ir, opset=opset)).startswith(expected)


def test_no_opset_at_all(path: Path) -> None:
    model = parse(TEXT, tensor())
    del model.opset_import[:]
    assert refused(path, model).startswith("opset not declared, at least 9")


def test_the_advice_for_an_old_opset_works(path: Path) -> None:
    import onnx.version_converter

    old = parse("g (float[2,8] x) => (float[2,8] y) { y = Relu(x) }", opset=8)
    assert "convert_version(onnx.load('model.onnx'), 17)" in refused(path, old)
    read(path, onnx.version_converter.convert_version(onnx.load(path), 17))


def test_a_packages_own_graph(path: Path) -> None:
    model = parse(TEXT, tensor())
    model.opset_import.append(helper.make_opsetid("bsexport", 1))
    assert refused(path, model) == "already the coded graph of a package; give the original model"


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ({}, "external data location '' names no file"),
        ({"location": "gone.bin"}, "is missing; it must lie beside the model"),
        ({"location": "/etc/passwd"}, "external data location '/etc/passwd' leaves the model's folder"),
        ({"location": "../w.bin"}, "external data location '../w.bin' leaves the model's folder"),
        ({"location": "sub/../../w.bin"}, "leaves the model's folder"),
        ({"location": "..\\w.bin"}, "leaves the model's folder"),
        ({"location": "C:\\w.bin"}, "leaves the model's folder"),
        ({"location": "C:w.bin"}, "leaves the model's folder"),
        ({"location": "\\\\host\\share\\w.bin"}, "leaves the model's folder"),
        ({"location": "a\0b"}, "names no file"),
        ({"location": "."}, "names no file"),
        ({"location": "sub"}, "is not a regular file"),
        ({"location": "out.bin"}, "is a link out of the model's folder"),
        ({"location": "dangling.bin"}, "is missing"),
        ({"location": "x" * 300}, "is missing"),
        ({"location": "w.bin", "offset": "1"}, "external data ends at byte 385"),
        ({"location": "w.bin", "offset": "9223372036854775807"}, "external data ends at byte 9223372036854776191"),
        ({"location": "w.bin", "offset": "-8"}, "external data offset '-8' is not a number of bytes"),
        ({"location": "w.bin", "offset": "1e2"}, "external data offset '1e2' is not a number"),
        ({"location": "w.bin", "offset": "9" * 5000}, "is not a number of bytes"),
        ({"location": "w.bin", "offset": "٣"}, "external data offset '٣' is not a number"),
        ({"location": "w.bin", "offset": ""}, "external data offset '' is not a number"),
        ({"location": "w.bin", "length": "-1"}, "external data length '-1' is not a number"),
        ({"location": "w.bin", "length": "383"}, "shape [8, 12] needs 384 bytes, its external data is 383 bytes long"),
        ({"location": "w.bin", "length": "385"}, "its external data is 385 bytes long"),
        ({"location": "short.bin"}, "external data ends at byte 384"),
    ],
)
def test_external_data_that_lies(path: Path, entries: dict[str, str], expected: str) -> None:
    folder = path.parent / "model"
    (folder / "sub").mkdir(parents=True)
    for file in (path.parent / "w.bin", folder / "w.bin"):
        file.write_bytes(W.tobytes())
    (folder / "short.bin").write_bytes(W.tobytes()[:383])
    (folder / "out.bin").symlink_to(path.parent / "w.bin")
    (folder / "dangling.bin").symlink_to(folder / "gone.bin")
    message = refused(folder / "model.onnx", parse(TEXT, external(**entries)))
    assert message.startswith("tensor 'W': ")
    assert expected in message


@pytest.mark.parametrize("dims", [(2**31, 2**31), (2**62, 4, 4), (2**63 - 1,)])
def test_declared_sizes_are_claims(path: Path, dims: tuple[int, ...]) -> None:
    (path.parent / "w.bin").write_bytes(W.tobytes())
    assert "external data ends at byte" in refused(path, parse(TEXT, external(dims=dims, location="w.bin")))
    lying = tensor()
    lying.dims[:] = dims
    assert "the file holds 384; it is damaged" in refused(path, parse(TEXT, lying))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"dims": [8, 13]}, "shape [8, 13] needs 416 bytes, the file holds 384; it is damaged"),
        ({"dims": [-8, -12]}, "shape [-8, -12] has a negative dimension"),
        ({"dims": [2]}, "shape [2] needs 8 bytes, the file holds 384"),
        ({"raw_data": None}, "shape [8, 12] needs 96 values, the file holds 0"),
        ({"raw_data": None, "float_data": [1.0] * 95}, "needs 96 values, the file holds 95"),
        ({"data_type": TensorProto.DOUBLE}, "needs 768 bytes, the file holds 384"),
        ({"data_type": TensorProto.STRING}, "needs 0 bytes, the file holds 384"),
        ({"data_type": TensorProto.INT4}, "needs 48 bytes, the file holds 384"),
        ({"data_type": 0}, "data type 0 is unknown"),
        ({"data_type": 999}, "data type 999 is unknown"),
    ],
)
def test_inline_data_that_lies(path: Path, change: dict[str, Any], expected: str) -> None:
    proto = tensor()
    for field, value in change.items():
        proto.ClearField(field)
        if value is not None:
            proto.MergeFrom(TensorProto(**{field: value}))
    message = refused(path, parse(TEXT, proto))
    assert message.startswith("tensor 'W': ")
    assert expected in message


def test_names_defined_twice(path: Path) -> None:
    assert refused(path, parse(TEXT, tensor(), tensor())).startswith("value 'W' is defined twice")
    assert refused(path, parse(TEXT, tensor(), tensor("y"))).startswith("value 'y' is defined twice")
    assert refused(path, parse(TEXT, tensor(), tensor(""))).startswith("an input or initializer has no name")


@pytest.mark.parametrize("body", ["<float[1] W = {2}> { z = Mul(x, W) }", "{ W = Neg(x) z = Mul(x, W) }"])
def test_nested_values_that_hide_outer_ones(path: Path, body: str) -> None:
    """onnxruntime reads the outer initializer in the first, against the scopes as written, and refuses the second."""
    text = f"""g (bool c, float[8,12] x) => (float[8,12] y) {{
        y = If (c) <
            then_branch = a () => (float[8,12] z) {body},
            else_branch = b () => (float[8,12] u) {{ u = Add(x, W) }}
        >
    }}"""
    assert refused(path, parse(text, tensor())).startswith("value 'W' of a nested graph hides an outer one")


def test_nodes_with_too_few_or_too_many_operands(path: Path) -> None:
    assert refused(path, parse("g (float x) => (float y) { y = MatMul(x) }")).startswith(
        "node 'y': MatMul with 1 inputs"
    )
    assert refused(path, parse("g (float x) => (float y) { y = Identity(x, x) }")).startswith(
        "node 'y': Identity with 2"
    )
    assert refused(path, parse("g () => (float y) { y, z = Constant <value_int = 1> () }")).startswith(
        "node 'y': Constant"
    )


def test_names_that_are_not_text(path: Path) -> None:
    whole = parse("g (float x) => (float y) { odd = Neg(x) y = Neg(odd) }").SerializeToString()
    path.write_bytes(whole.replace(b"odd", b"o\xffd"))
    assert refusal(path) == "output b'o\\xffd' is not UTF-8; the file is damaged"


def test_identities_in_a_circle_do_not_hang(path: Path) -> None:
    read(path, parse("g (float x) => (float y) { a = Identity(b) b = Identity(a) c = Identity(c) y = Sum(a, c) }"))


def test_file_that_cannot_be_opened(path: Path) -> None:
    save(path, parse(TEXT, tensor())).chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user reads every file (root): permissions cannot be tested")
    assert refusal(path).startswith("cannot be read: Permission denied")
