"""The command line on Hugging Face model folders that are incomplete, foreign or damaged, and on a good one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import hf_models
import numpy as np
import pytest
from command_line import bsexport, names, refused
from safetensors.numpy import load_file, save_file

from bsexport_runtime.package import MANIFEST

RECIPE = ("--prune", "0.8", "--step", "1e-3")


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hf_models.save_bert(tmp_path_factory.mktemp("models") / "tiny", "text-classification")


@pytest.fixture
def model(good: Path, tmp_path: Path) -> Path:
    return shutil.copytree(good, tmp_path / "model")


def drop_config(model: Path) -> None:
    (model / "config.json").unlink()


def drop_weights(model: Path) -> None:
    (model / "model.safetensors").unlink()


def truncate(model: Path) -> None:
    content = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(content[:-100])


def leave_a_pickle(model: Path) -> None:
    """Whoever unpickles it runs its code, which here writes a file."""
    code = f"cposix\nsystem\n(S'touch {model.parent / 'unpickled'}'\ntR."
    (model / "model.safetensors").unlink()
    (model / "pytorch_model.bin").write_bytes(code.encode())


def config(**changes: object) -> Callable[[Path], None]:
    def change(model: Path) -> None:
        path = model / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def tensors(change: Callable[[dict[str, np.ndarray]], object]) -> Callable[[Path], None]:
    def rewrite(model: Path) -> None:
        arrays = load_file(model / "model.safetensors")
        change(arrays)
        save_file(arrays, model / "model.safetensors")

    return rewrite


def spoil(arrays: dict[str, np.ndarray]) -> None:
    arrays["bert.embeddings.word_embeddings.weight"][1, 2] = np.nan


BAD = {
    "no config": (drop_config, "no config.json; expected a folder that save_pretrained wrote"),
    "no weights": (drop_weights, "no weights; expected model.safetensors"),
    "truncated weights": (truncate, "model.safetensors: truncated or damaged"),
    "pickle": (leave_a_pickle, "pytorch_model.bin: is a pickle, which bsexport does not open; convert it once"),
    "weights of another size": (config(intermediate_size=48), "config.json and the weights must be of one model"),
    "a tensor missing": (
        tensors(lambda arrays: arrays.pop("classifier.weight")),
        "lacks 'classifier.weight', which text-classification needs",
    ),
    "unknown architecture": (config(model_type="zebra"), "model type 'zebra'"),
    "NaN": (tensors(spoil), "tensor bert.embeddings.word_embeddings.weight: holds NaN (1 of "),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_model_folder_is_one_line_and_nothing_is_written(model: Path, tmp_path: Path, case: str) -> None:
    damage, message = BAD[case]
    damage(model)
    assert message in refused("pack", model, *RECIPE, "-o", tmp_path / "out")
    assert names(tmp_path) == ["model"]


def test_what_to_do_about_an_unknown_architecture(model: Path) -> None:
    config(model_type="zebra")(model)
    assert "give the .onnx file" in refused("pack", model, "--dry-run")


def test_an_unknown_task_lists_the_known(model: Path) -> None:
    line = refused("pack", model, "--dry-run", "--task", "summarization")
    assert "--task summarization: not a task, expected one of feature-extraction, text-classification" in line


def test_pack_says_nothing_on_stderr_and_takes_the_files_that_a_device_needs(model: Path, tmp_path: Path) -> None:
    result = bsexport("pack", model, *RECIPE, "-o", tmp_path / "out")
    assert (result.exit_code, result.stderr) == (0, "")
    files = json.loads((tmp_path / "out" / MANIFEST).read_text())["files"]
    assert {"config.json", "tokenizer.json", "tokenizer_config.json"} < set(files)
    assert set(names(tmp_path / "out")) == {*files, MANIFEST}


def test_task_makes_another_graph_of_the_same_weights(model: Path, tmp_path: Path) -> None:
    assert bsexport("pack", model, "--task", "feature-extraction", "-o", tmp_path / "out").exit_code == 0
    manifest = json.loads((tmp_path / "out" / MANIFEST).read_text())
    assert manifest["task"] == "feature-extraction"
    assert "classifier.weight" not in {tensor["name"] for tensor in manifest["tensors"]}
