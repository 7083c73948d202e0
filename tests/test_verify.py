"""verify finds what is wrong with a package, alone and against its model, and nothing where nothing is wrong."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from command_line import bsexport, refused
from models import save_small
from onnx import numpy_helper, parser

from bsexport.errors import SourceError
from bsexport.pipeline import pack
from bsexport.recipe import Recipe
from bsexport.source import InMemory, Source, open_source
from bsexport.verify import Verdict, check
from bsexport_runtime.errors import BsexportRuntimeError
from bsexport_runtime.package import MANIFEST, seal

Arrays = dict[str, np.ndarray]
STEP = 2.0**-7
RECIPE = Recipe(prune=0.6, step=STEP)


def verified(package: Path, model: Path | None = None) -> Verdict:
    opened = None if model is None else (lambda task: open_source(str(model), task=task))
    return check(package, opened, lambda stage, share: None)


def changed(source: Source, name: str, change: Callable[[np.ndarray], np.ndarray]) -> Source:
    """The model with one tensor changed: what a packer with a bug would have coded."""
    weights = tuple(
        dataclasses.replace(weight, read_part=InMemory(change(weight.read().copy()))) if weight.name == name else weight
        for weight in source.weights
    )
    return dataclasses.replace(source, weights=weights)


def set_at(place: tuple[int, int], value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        array[place] = value
        return array

    return change


# Alone


def test_a_sound_package_is_sound(small: Path, tmp_path: Path) -> None:
    pack(open_source(str(small)), RECIPE, tmp_path / "out")
    verdict = verified(tmp_path / "out")
    assert verdict.wrong == ()
    assert (verdict.tensors, verdict.files) == (3, 3)
    assert verdict.to_text() == f"{tmp_path / 'out'}: sound, 3 tensors and 3 files checked"


@pytest.mark.parametrize("file", ["weights.bsx", "model.onnx", "decoded.onnx", MANIFEST, "config.json"])
def test_every_flipped_bit_is_found(small: Path, tmp_path: Path, file: str) -> None:
    """Two hundred bits, spread over the file and shifting through the byte, one after the other."""
    (tmp_path / "config.json").write_text('{"id2label": {"0": "no", "1": "yes"}}')
    pack(open_source(str(small)), RECIPE, tmp_path / "out")
    path = tmp_path / "out" / file
    content = path.read_bytes()
    for place in np.linspace(0, 8 * len(content) - 1, 200, dtype=int):
        damaged = bytearray(content)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        try:
            wrong = verified(tmp_path / "out").wrong
        except BsexportRuntimeError as error:
            wrong = (str(error),)
        assert wrong and file in wrong[0], (place, wrong)
    path.write_bytes(content)
    assert verified(tmp_path / "out").wrong == ()


def test_faults_are_lines_on_stderr_and_exit_code_1(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    pack(open_source(str(small)), RECIPE, out)
    content = bytearray((out / "weights.bsx").read_bytes())
    content[-1] ^= 1
    (out / "weights.bsx").write_bytes(content)
    (out / "model.onnx").write_bytes(b"")
    result = bsexport("verify", out, "--against", small)
    assert result.exit_code == 1
    assert all(line.startswith("Error: ") for line in result.stderr.splitlines())
    assert "model.onnx" in result.stderr and "tensor second" in result.stderr
    assert "faults" in result.stdout and "weight" not in result.stdout  # a damaged package is not compared
    printed = bsexport("verify", out, "--json")
    assert printed.exit_code == 1
    assert len(json.loads(printed.stdout)["wrong"]) == len(printed.stderr.splitlines())
    assert bsexport("verify", out, "--quiet").stdout == ""


# Against the model


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(),
        RECIPE,
        dataclasses.replace(RECIPE, scope="tensor"),
        dataclasses.replace(RECIPE, scope="row"),
        dataclasses.replace(RECIPE, order=0),
        dataclasses.replace(RECIPE, keep=("first",), protect=("tab*",)),
        Recipe(prune=0.3, step=1e-9),
        Recipe(prune=0.99, step=0.05),
    ],
    ids=str,
)
def test_what_pack_makes_is_right(small: Path, tmp_path: Path, recipe: Recipe) -> None:
    pack(open_source(str(small)), recipe, tmp_path / "out")
    verdict = verified(tmp_path / "out", small)
    assert verdict.wrong == ()
    assert verdict.comparison is not None and verdict.comparison.why_no_outputs == ""
    assert verdict.comparison.weight_error <= 1 + 1e-3


def test_the_outputs_deviation_is_that_of_the_two_models(small: Path, tmp_path: Path) -> None:
    """The same by hand, in numpy, on the same made-up inputs."""
    from bsexport.inputs import sample_inputs
    from bsexport_runtime import load, read_tensors

    weights = save_small(small)
    source = open_source(str(small))
    pack(source, RECIPE, tmp_path / "out")
    found = verified(tmp_path / "out", small).comparison
    assert found is not None
    ids = sample_inputs(load(tmp_path / "out"), source.graph.graph)["ids"]

    def by_hand(w: Arrays) -> np.ndarray:
        return np.maximum(w["table"][ids] @ w["first"] + weights["bias"], 0) @ w["second"]

    dense, packed = by_hand(weights), by_hand(read_tensors(tmp_path / "out"))
    output = found.outputs["scores"]
    assert output.deviation == pytest.approx(np.abs(dense - packed).max(), rel=1e-3)
    assert output.scale == pytest.approx(np.abs(dense).max(), rel=1e-3)
    assert output.deviation > 0.01
    text = bsexport("verify", tmp_path / "out", "--against", small).stdout
    assert f"output scores: deviates by at most {output.deviation:.3g} from the model's on made-up inputs" in text


def test_a_weight_that_moved_by_more_than_half_a_step_is_found(small: Path, tmp_path: Path) -> None:
    source = open_source(str(small))
    largest = np.unravel_index(np.argmax(np.abs(save_small(small)["first"])), (64, 48))
    value = float(save_small(small)["first"][largest])
    pack(changed(source, "first", set_at(largest, value + 1.01 * STEP)), RECIPE, tmp_path / "out")
    verdict = verified(tmp_path / "out", small)
    assert verdict.wrong == ("tensor first: 1 weights are further than step/2 from the model's, pruned",)
    assert verdict.comparison is not None and verdict.comparison.weight_error > 1
    result = bsexport("verify", tmp_path / "out", "--against", small)
    assert (result.exit_code, result.stderr) == (1, f"Error: {verdict.wrong[0]}\n")


def test_a_weight_that_was_wrongly_pruned_is_found(small: Path, tmp_path: Path) -> None:
    pack(open_source(str(small)), Recipe(prune=0.0, step=STEP), tmp_path / "out")
    weights = save_small(small)["first"]
    above = np.argwhere(np.abs(weights) > 0.6 * STEP)
    pack(changed(open_source(str(small)), "first", set_at(tuple(above[0]), 0.0)), Recipe(step=STEP), tmp_path / "wrong")
    assert verified(tmp_path / "out", small).wrong == ()
    assert verified(tmp_path / "wrong", small).wrong == (
        "tensor first: 1 weights are further than step/2 from the model's, pruned",
    )


def test_a_weight_that_should_have_been_pruned_is_found(small: Path, tmp_path: Path) -> None:
    """Packed with less pruning than the manifest says; its threshold alone is made to fit."""
    limit = pack(open_source(str(small)), RECIPE, None).threshold.magnitude
    pack(open_source(str(small)), dataclasses.replace(RECIPE, prune=0.1), tmp_path / "out")
    edit(tmp_path / "out", lambda manifest: manifest["recipe"].update(prune=0.6))
    assert "threshold is" in verified(tmp_path / "out", small).wrong[0]
    edit(tmp_path / "out", lambda manifest: manifest.update(threshold=limit))
    wrong = verified(tmp_path / "out", small).wrong
    assert len(wrong) == 3 and all("further than step/2" in line for line in wrong)


def edit(package: Path, change: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((package / MANIFEST).read_bytes())
    del manifest["sha256"]
    change(manifest)
    (package / MANIFEST).write_bytes(seal(manifest))


def test_a_raw_tensor_that_changed_in_its_last_bit_is_found(small: Path, tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, keep=("second",))
    value = np.nextafter(save_small(small)["second"][3, 4], np.float32(1))
    pack(changed(open_source(str(small)), "second", set_at((3, 4), value)), recipe, tmp_path / "out")
    assert verified(tmp_path / "out", small).wrong == (
        "tensor second: is stored as it is, but differs from the model's",
    )


def test_another_model_of_the_same_shapes_is_not_the_model(small: Path, tmp_path: Path) -> None:
    pack(open_source(str(small)), RECIPE, tmp_path / "out")
    save_small(small, seed=1)
    wrong = verified(tmp_path / "out", small).wrong
    assert "threshold is" in wrong[0]
    assert [line.split(":")[0] for line in wrong[1:]] == ["tensor table", "tensor first", "tensor second"]


def test_a_model_of_other_tensors_is_named(small: Path, tmp_path: Path) -> None:
    pack(open_source(str(small)), RECIPE, tmp_path / "out")
    model = onnx.load(small)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.ones((90, 64), np.float32), "table"))
    onnx.save(model, small)
    with pytest.raises(SourceError, match=r"1 tensors differ, such as table \(90 x 64 in the model, 100 x 64 in"):
        verified(tmp_path / "out", small)
    assert "give the model that was packed" in refused("verify", tmp_path / "out", "--against", small)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64], ids=lambda dtype: np.dtype(dtype).name)
def test_types_that_round_the_product_are_not_taken_for_errors(tmp_path: Path, dtype: type) -> None:
    """Values up to 8 at a step of 1e-3: bfloat16 rounds them by up to 16 steps, float16 by 2."""
    code = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    model = parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 18]> g (int64[n] ids) => (float[n, 40] y) '
        "{ h = Gather (w, ids) y = Cast <to = 1> (h) }"
    )
    weights = np.random.default_rng(0).uniform(-8, 8, (60, 40)).astype(dtype)
    model.graph.initializer.append(numpy_helper.from_array(weights, "w"))
    assert model.graph.initializer[0].data_type == code
    onnx.save(model, tmp_path / "m.onnx")
    source = open_source(str(tmp_path / "m.onnx"))
    recipe = Recipe(prune=0.5, step=1e-3)
    pack(source, recipe, tmp_path / "out")
    assert verified(tmp_path / "out", tmp_path / "m.onnx").wrong == ()
    place = tuple(np.argwhere(np.abs(weights.astype(np.float64)) > 7)[0])
    pack(changed(source, "w", set_at(place, 6.5 * np.sign(float(weights[place])))), recipe, tmp_path / "bad")
    wrong = verified(tmp_path / "bad", tmp_path / "m.onnx").wrong
    assert len(wrong) == 1 and wrong[0].startswith("tensor w: ")


def test_inputs_that_cannot_be_made_up_are_said_so(tmp_path: Path) -> None:
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[n, k] x) => (float[n, 50] y) { y = MatMul (x, w) }'
    )
    weights = np.random.default_rng(0).standard_normal((40, 50)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weights, "w"))
    onnx.save(model, tmp_path / "m.onnx")
    pack(open_source(str(tmp_path / "m.onnx")), RECIPE, tmp_path / "out")
    verdict = verified(tmp_path / "out", tmp_path / "m.onnx")
    assert verdict.wrong == ()
    assert verdict.comparison is not None
    assert verdict.comparison.outputs == {}
    assert verdict.comparison.why_no_outputs.startswith("the graph does not take the made-up inputs: ")
    assert "outputs were not compared: the graph does not take" in verdict.to_text()


def test_a_hugging_face_model(tmp_path: Path) -> None:
    import hf_models

    model = hf_models.save_bert(tmp_path / "model", "fill-mask", dtype="float16")
    recipe = dataclasses.replace(RECIPE, scope="tensor", protect=("*query*",))
    pack(open_source(str(model)), recipe, tmp_path / "out")
    verdict = verified(tmp_path / "out", model)
    assert verdict.wrong == ()
    assert verdict.comparison is not None and verdict.comparison.outputs.keys() == {"logits"}
