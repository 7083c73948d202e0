"""Back from a package: a graph that plain onnxruntime runs, and a directory that transformers loads."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper, parser

import bsexport_runtime
from bsexport.errors import OutputError
from bsexport.pipeline import pack, why_uncoded
from bsexport.recipe import Recipe
from bsexport.source import InMemory, Weight, open_source
from bsexport.unpack import unpack
from bsexport_runtime.errors import PackageError

RECIPE = Recipe(prune=0.5, step=2.0**-6)


def packed(model: Path, out: Path, recipe: Recipe = RECIPE, task: str | None = None) -> Path:
    pack(open_source(str(model), task=task), recipe, out)
    return out


def plain_run(model: Path, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    return ort.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, feed)


def test_the_onnx_file_stands_alone_and_computes_what_the_session_does(small: Path, tmp_path: Path) -> None:
    package = packed(small, tmp_path / "package")
    back = unpack(package, tmp_path / "back.onnx")
    onnx.checker.check_model(back, full_check=True)
    model = onnx.load(back)
    assert {node.domain for node in model.graph.node} == {""}
    assert [entry.domain for entry in model.opset_import] == [""]
    ids = np.random.default_rng(0).integers(0, 100, (3, 7))
    (got,), (expected,) = plain_run(back, {"ids": ids}), bsexport_runtime.load(package).run(None, {"ids": ids})
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)
    assert np.abs(expected).max() > 0.1
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for name, tensor in bsexport_runtime.read_tensors(package).items():
        np.testing.assert_array_equal(tensors[name], tensor)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_types_come_back_as_they_were(tmp_path: Path, dtype: str) -> None:
    code = {"float16": 10, "bfloat16": 16, "float64": 11}[dtype]
    model = parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 18]> g (int64[n] ids) => (float[n, 40] y) '
        "{ h = Gather (w, ids) y = Cast <to = 1> (h) }"
    )
    weights = np.random.default_rng(0).standard_normal((60, 40)).astype(onnx.helper.tensor_dtype_to_np_dtype(code))
    model.graph.initializer.append(numpy_helper.from_array(weights, "w"))
    onnx.save(model, tmp_path / "m.onnx")
    package = packed(tmp_path / "m.onnx", tmp_path / "package", Recipe(step=2.0**-10))
    back = unpack(package, tmp_path / "back.onnx")
    onnx.checker.check_model(back, full_check=True)
    (tensor,) = onnx.load(back).graph.initializer
    assert tensor.data_type == code
    steps = np.rint(weights.astype(np.float64) * 1024)
    expected = (steps / 1024).astype(weights.dtype)
    np.testing.assert_array_equal(numpy_helper.to_array(tensor).astype(np.float64), expected.astype(np.float64))
    (got,) = plain_run(back, {"ids": np.arange(60)})
    np.testing.assert_array_equal(got, expected.astype(np.float32))


def test_an_onnx_package_has_no_directory_to_go_back_to(small: Path, tmp_path: Path) -> None:
    package = packed(small, tmp_path / "package")
    with pytest.raises(OutputError, match=r"was made from an \.onnx file.*; give a file, -o .*back\.onnx"):
        unpack(package, tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_force_replaces_what_unpack_wrote_and_nothing_else(small: Path, tmp_path: Path) -> None:
    package = packed(small, tmp_path / "package")
    back = unpack(package, tmp_path / "back.onnx")
    first = back.read_bytes()
    with pytest.raises(OutputError, match="exists already"):
        unpack(package, back)
    unpack(packed(small, tmp_path / "other", Recipe(step=1e-3)), back, force=True)
    assert back.read_bytes() != first
    unpack(package, back, force=True)
    assert back.read_bytes() == first
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(OutputError, match="was not made by this command"):
        unpack(package, tmp_path / "folder.onnx", force=True)


def test_a_damaged_block_is_named_and_nothing_is_written(small: Path, tmp_path: Path) -> None:
    package = packed(small, tmp_path / "package")
    content = bytearray((package / "weights.bsx").read_bytes())
    content[-1] ^= 1
    (package / "weights.bsx").write_bytes(content)
    with pytest.raises(PackageError, match="tensor second"):
        unpack(package, tmp_path / "back.onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["package", "small.onnx"]


# A Hugging Face model


def session_and_transformers(package: Path, back: Path, task: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Every output of the session, and the same of the directory as transformers loads it."""
    import hf_models

    torch, transformers = hf_models.torch, hf_models.transformers
    model, info = getattr(transformers, hf_models.TASKS[task]).from_pretrained(back, output_loading_info=True)
    assert not any(info.values()), info  # no key missing, unexpected or of another shape
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    session = bsexport_runtime.load(package)
    random = np.random.default_rng(0)
    if task == "image-classification":
        feed = {"pixel_values": random.standard_normal((2, 3, 8, 8)).astype(np.float32)}
    else:
        feed = {"input_ids": random.integers(5, 17, (2, 9)), "attention_mask": np.ones((2, 9), np.int64)}
        feed["token_type_ids"] = random.integers(0, 2, (2, 9))
    with torch.no_grad():
        outputs = model.eval()(**{name: torch.from_numpy(array) for name, array in feed.items()})
    names = [output.name for output in session.get_outputs()]
    return [(got, outputs[name].numpy()) for name, got in zip(names, session.run(names, feed), strict=True)]


@pytest.mark.parametrize(
    ("task", "dtype"),
    [("text-classification", "float32"), ("fill-mask", "float32"), ("fill-mask", "float16"),
     ("feature-extraction", "bfloat16"), ("image-classification", "float32")],
)  # fmt: skip
def test_the_directory_is_what_transformers_loads(tmp_path: Path, task: str, dtype: str) -> None:
    import hf_models

    model = tmp_path / "model"
    if task == "image-classification":
        hf_models.save_vit(model)
    else:
        hf_models.save_bert(model, task, dtype=dtype)
    package = packed(model, tmp_path / "package")
    back = unpack(package, tmp_path / "back")
    for got, expected in session_and_transformers(package, back, task):
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4)
        assert np.abs(expected).max() > 0.1
    assert_checkpoint_of_the_decoded(package, back, model)
    assert {path.name for path in back.iterdir()} == {path.name for path in model.iterdir()}
    onnx.checker.check_model(unpack(package, tmp_path / "back.onnx"), full_check=True)


def assert_checkpoint_of_the_decoded(package: Path, back: Path, model: Path) -> None:
    """The names of the model's own checkpoint, biases of a few elements among them, with the decoded values."""
    from safetensors.numpy import load_file

    written, decoded = load_file(back / "model.safetensors"), bsexport_runtime.read_tensors(package)
    assert written.keys() == load_names(model)
    assert min(array.size for array in written.values()) < 64
    for name, array in written.items():
        np.testing.assert_array_equal(array, decoded[name], err_msg=name)


def load_names(model: Path) -> set[str]:
    content = (model / "model.safetensors").read_bytes()
    return json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")]).keys() - {"__metadata__"}


def test_large_tables_of_the_models_own_code_stay_out_of_the_checkpoint(tmp_path: Path) -> None:
    """1,100 position ids are no checkpoint tensor, but too many to stay inline: packed raw, and not unpacked."""
    import hf_models

    model = hf_models.save_bert(tmp_path / "model", "feature-extraction", max_position_embeddings=1100)
    package = packed(model, tmp_path / "package", Recipe(prune=0.9, step=1.0))
    manifest = json.loads((package / "bsexport.json").read_text())
    constants = [tensor["name"] for tensor in manifest["tensors"] if tensor["constant"]]
    assert constants and not load_names(model).intersection(constants)
    assert load_names(unpack(package, tmp_path / "back")) == load_names(model)


def test_tables_of_the_models_own_code_are_neither_pruned_nor_coded() -> None:
    table = Weight("table", (64, 64), np.dtype(np.float32), InMemory(np.ones((64, 64), np.float32)), constant=True)
    assert why_uncoded(table, Recipe(prune=0.5)) == "made by the model's code, not trained"


def test_force_replaces_an_unpacked_directory_and_no_other(tmp_path: Path) -> None:
    import hf_models

    model = hf_models.save_bert(tmp_path / "model", "text-classification", tokenizer=False)
    package = packed(model, tmp_path / "package")
    back = unpack(package, tmp_path / "back")
    with pytest.raises(OutputError, match="exists already"):
        unpack(package, back)
    assert unpack(package, back, force=True) == back
    (tmp_path / "mine").mkdir()
    with pytest.raises(OutputError, match="was not made by this command"):
        unpack(package, tmp_path / "mine", force=True)


def test_a_tensor_that_stands_in_the_graph_is_in_the_checkpoint_too(small: Path, tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.numpy", reason="NOT TESTED: pip install 'bsexport[hf]'")
    (tmp_path / "config.json").write_text("{}")
    source = replace(open_source(str(small)), task="text-classification", files=(tmp_path / "config.json",))
    assert source.inline == ("bias",)
    pack(source, RECIPE, tmp_path / "package")
    tensors = safetensors.load_file(unpack(tmp_path / "package", tmp_path / "back") / "model.safetensors")
    bias = next(tensor for tensor in onnx.load(small).graph.initializer if tensor.name == "bias")
    assert tensors.keys() == {"table", "first", "second", "bias"}
    assert tensors["bias"].tolist() == numpy_helper.to_array(bias).tolist()


def test_force_never_replaces_the_model_that_was_packed(small: Path, tmp_path: Path) -> None:
    package = packed(small, tmp_path / "package")
    before = small.read_bytes()
    with pytest.raises(OutputError, match="was not made by this command"):
        unpack(package, small, force=True)
    assert small.read_bytes() == before
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    (tmp_path / "config.json").write_text("{}")
    pack(
        replace(open_source(str(small)), task="text-classification", files=(tmp_path / "config.json",)),
        RECIPE,
        tmp_path / "hf",
    )
    with pytest.raises(OutputError, match="was not made by this command"):
        unpack(tmp_path / "hf", folder, force=True)
    assert [path.name for path in folder.iterdir()] == ["model.safetensors"]
