"""pack --int8 and --int8-check as a user meets them: what they write, report and measure, and what they refuse."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from command_line import bsexport, names, refused
from hf_models import save_bert, save_vit
from models import save_small
from onnx import helper, numpy_helper

import bsexport_runtime

TEXTS = [
    "the film was a fine one",
    "ada wrote it ; who did",
    "it was the film",
    "who was ada",
    "one",
    "the the film it",
]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bert(tmp_path_factory.mktemp("model") / "bert", "text-classification")


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    labels = ("good", "bad", "so-so")
    rows = [f'"{text}",{labels[index % 3]}' for index, text in enumerate(TEXTS * 5)]
    (tmp_path / "test.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    return tmp_path / "test.csv"


def test_int8_and_its_check_in_a_process_of_their_own(bert: Path, labelled: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bsexport.cli", "pack", str(bert), "--step", "2^-6", "-o", str(tmp_path / "p")]
    done = subprocess.run([*command, "--int8-check", str(labelled)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "  every level is within +-127: the int8 weights are exact\n" in done.stdout
    head, accuracy, *_ = done.stdout.partition("  float32")[2].splitlines()
    assert head.split() == ["int8", "difference", "30", "examples", "of", str(labelled)]
    name, exact, rounded, difference = accuracy.split()
    assert name == "accuracy"
    assert float(difference) == pytest.approx(float(rounded) - float(exact), abs=2e-4)
    for mode, expected in (("float32", exact), ("int8", rounded)):
        found = bsexport("evaluate", tmp_path / "p", "--data", labelled, "--mode", mode, "--json")
        assert found.exit_code == 0, found.output
        assert json.loads(found.stdout)["figures"]["accuracy"]["value"] == pytest.approx(float(expected), abs=1e-4)
    assert bsexport("verify", tmp_path / "p", "--against", bert).exit_code == 0


def test_texts_without_labels_are_held_against_float32(bert: Path, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS) + "\n")
    done = bsexport("pack", bert, "-o", tmp_path / "p", "--int8-check", tmp_path / "texts.txt", "--json")
    found = json.loads(done.stdout)["int8_check"]
    assert (found["measure"], found["examples"]) == ("agreement", 6)
    assert found["float32"]["agreement"]["value"] == 1
    assert found["float32"]["kl"]["value"] == pytest.approx(0, abs=1e-9)
    assert 0 < found["int8"]["kl"]["value"] < 0.1
    assert found["difference"]["kl"] == found["int8"]["kl"]["value"] - found["float32"]["kl"]["value"]


def test_bad_data_is_found_before_anything_is_written(bert: Path, labelled: Path, tmp_path: Path) -> None:
    out = tmp_path / "p"
    line = refused("pack", bert, "-o", out, "--int8-check", tmp_path / "none.csv")
    assert "none.csv" in line
    labelled.write_text("text,label\na film,awful\n")
    assert "awful" in refused("pack", bert, "-o", out, "--int8-check", labelled)
    bare = save_bert(tmp_path / "bare", "text-classification", tokenizer=False)
    labelled.write_text("text,label\na film,good\n")
    assert refused("pack", bare, "-o", out, "--int8-check", labelled).startswith("bare: holds no tokenizer")
    assert names(tmp_path) == ["bare", "test.csv"]
    dry = bsexport("pack", bert, "--dry-run", "--int8-check", labelled)
    assert (dry.exit_code, dry.stdout) == (2, "")
    assert "--int8-check measures the package, which --dry-run does not write" in dry.stderr


def test_the_report_says_what_is_int8_and_which_rows_are_rescaled(tmp_path: Path) -> None:
    weights = save_small(tmp_path / "small.onnx")
    command = ("pack", tmp_path / "small.onnx", "--step", "2^-8", "--int8", "-o", tmp_path / "p")
    table, first = (np.abs(np.rint(weights[name].astype(np.float64) * 256)) for name in ("table", "first"))
    rows, columns = int((table.max(1) > 127).sum()), int((first.max(0) > 127).sum())
    assert rows > 0 and columns > 0
    text = bsexport(*command)
    assert f"\n    {rows} rows of table\n    {columns} columns of first\n" in text.stdout
    assert "3 of 3 tensors in int8" in text.stdout
    found = json.loads(bsexport(*command, "--force", "--json").stdout)["int8"]
    assert found["arena_bytes"] == bsexport_runtime.load(tmp_path / "p", mode="int8").arena.size
    assert [(each["name"], each["rescaled"], each["why"]) for each in found["tensors"]][:2] == [
        ("table", rows, ""),
        ("first", columns, ""),
    ]


def test_convolutions_stay_as_they_are(tmp_path: Path) -> None:
    save_vit(tmp_path / "vit")
    done = bsexport("pack", tmp_path / "vit", "--int8", "-o", tmp_path / "p")
    pixels = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)
    exact, rounded = (
        bsexport_runtime.load(tmp_path / "p", mode=mode).run(None, {"pixel_values": pixels})[0]
        for mode in ("float32", "int8")
    )
    assert done.exit_code == 0
    assert 0 < np.abs(exact - rounded).max() < 0.05 * np.abs(exact).max()


def test_a_model_of_which_nothing_can_be_int8(tmp_path: Path) -> None:
    kernel = np.random.default_rng(0).standard_normal((16, 8, 3, 3)).astype(np.float32)
    images = [helper.make_tensor_value_info(name, 1, [1, channels, 8, 8]) for name, channels in (("x", 8), ("y", 16))]
    node = helper.make_node("Conv", ["x", "kernel"], ["y"], pads=[1, 1, 1, 1])
    graph = helper.make_graph([node], "g", images[:1], images[1:], [numpy_helper.from_array(kernel, "kernel")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")
    line = refused("pack", tmp_path / "m.onnx", "--int8", "-o", tmp_path / "p")
    expected = "--int8: the model has no coded matrix that could be int8, such as kernel: read by Conv; leave it out"
    assert line == expected
    assert names(tmp_path) == ["m.onnx"]


def test_packages_without_it(tmp_path: Path) -> None:
    save_small(tmp_path / "small.onnx")
    assert bsexport("pack", tmp_path / "small.onnx", "-o", tmp_path / "p").exit_code == 0
    assert "int8.onnx" not in names(tmp_path / "p")
    line = refused("bench", tmp_path / "p", "--modes", "float32,int8")
    assert line == f"{tmp_path / 'p'}: has no graph for mode int8; pack it again with --int8"
