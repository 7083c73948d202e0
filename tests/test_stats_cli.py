"""bsexport stats as a stranger meets it: the table, JSON, the files and what is refused."""

from __future__ import annotations

import csv
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from command_line import bsexport, names, refused
from models import save_small
from onnx import numpy_helper

pytest.importorskip("torch", reason="NOT TESTED: the statistics of weights need torch")
pytest.importorskip("scipy", reason="NOT TESTED: the statistics of weights need scipy")
pytest.importorskip("safetensors", reason="NOT TESTED: the statistics of weights need safetensors")
pytest.importorskip("matplotlib", reason="NOT TESTED: the plots of weights need matplotlib")

FILES = ["codes.png", "codes.svg", "distribution.png", "distribution.svg", "stats.csv", "stats.json"]
FILES += ["tensors.png", "tensors.svg"]


def test_a_process_of_its_own_prints_json_and_writes_files(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    save_small(tmp_path / "elsewhere" / "tiny.onnx")
    options = ["elsewhere/tiny.onnx", "--prune", "0.8", "--step", "1e-3", "-o", "out", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "bsexport.cli", "stats", *options], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    printed = json.loads(done.stdout)
    assert names(tmp_path) == ["elsewhere", "out"]
    assert names(tmp_path / "out") == FILES
    assert printed.pop("out") == "out"
    assert printed == json.loads((tmp_path / "out" / "stats.json").read_text())
    assert (printed["model"], printed["recipe"]["prune"], printed["recipe"]["step"]) == (
        "tiny", 0.8, float(np.float32(1e-3))
    )  # fmt: skip
    assert [tensor["name"] for tensor in printed["tensors"]] == ["table", "first", "second"]
    assert printed["whole"]["weights"] == 11392
    assert printed["whole"]["zeros"] == sum(tensor["zeros"] for tensor in printed["tensors"]) >= 0.8 * 11392
    assert sum(printed["whole"]["histogram"]["counts"]) + printed["whole"]["histogram"]["outside"] == 11392


def test_the_files_hold_what_they_say(small: Path, tmp_path: Path) -> None:
    assert bsexport("stats", small, "-q", "-o", tmp_path / "out").output == ""
    figures = json.loads((tmp_path / "out" / "stats.json").read_text())
    with (tmp_path / "out" / "stats.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["tensor"] for row in rows] == ["all, one codebook", "all, a codebook each", "table", "first", "second"]
    assert float(rows[0]["eg0"]) == figures["whole"]["bits"]["eg0"]
    assert float(rows[1]["packed"]) == figures["per_tensor_bits"]["packed"]
    assert float(rows[2]["moments_shape"]) == figures["tensors"][0]["fits"]["moments"]["shape"]
    assert (rows[2]["dims"], rows[0]["packed"]) == ("100x64", "")
    drawn = (tmp_path / "out" / "distribution.svg").read_text()
    shape = figures["whole"]["fits"]["moments"]["shape"]
    for text in (f"generalized Gaussian, shape {shape:.2f}", "Laplace", "small: 11,392 weights"):
        assert text in drawn
    assert "exp-Golomb, k=5" in (tmp_path / "out" / "codes.svg").read_text()
    assert "shape, by moments" in (tmp_path / "out" / "tensors.svg").read_text()
    assert (tmp_path / "out" / "tensors.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_weights_give_the_same_files(small: Path, tmp_path: Path) -> None:
    for out in ("one", "two"):
        bsexport("stats", small, "-q", "-o", tmp_path / out)
    for name in FILES:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


def test_the_table_names_every_code_and_tensor_and_writes_nothing(small: Path, tmp_path: Path) -> None:
    result = bsexport("stats", small)
    assert (result.exit_code, result.stderr) == (0, "")
    for text in (
        "small: step 0.00390625\n",
        "11,392 weights of 3 tensors",
        "by maximum likelihood",
        "Huffman",
        "exp-Golomb, k=0",
        "exp-Golomb, k=5",
        "Golomb-Rice, best k",
        "layout RL, all counted",
        "  second\n",
    ):
        assert text in result.stdout
    assert names(tmp_path) == ["small.onnx"]


def test_a_package_is_looked_at_with_its_own_step(small: Path, tmp_path: Path) -> None:
    bsexport("pack", small, "--step", "1e-2", "--prune", "0.5", "-o", tmp_path / "package")
    figures = json.loads(bsexport("stats", tmp_path / "package", "--json").stdout)
    packed = json.loads((tmp_path / "package" / "bsexport.json").read_text())
    assert figures["recipe"]["step"] == packed["recipe"]["step"]
    assert figures["per_tensor_bits"]["packed"] == packed["summary"]["coded_bits"]
    assert figures["whole"]["bits"]["eg0"] == packed["summary"]["paper_bits"]


@pytest.mark.parametrize("name", ["a$b_c^{d.onnx", "_0.onnx", "\n.onnx"])
def test_any_name_can_be_drawn(tmp_path: Path, name: str) -> None:
    save_small(tmp_path / name)
    assert bsexport("stats", tmp_path / name, "-o", tmp_path / "out").exit_code == 0
    assert names(tmp_path / "out") == FILES


def test_weights_of_zero_can_be_drawn(tmp_path: Path) -> None:
    save_small(tmp_path / "zero.onnx", scale=0.0)
    assert bsexport("stats", tmp_path / "zero.onnx", "-o", tmp_path / "out").exit_code == 0
    assert json.loads((tmp_path / "out" / "stats.json").read_text())["whole"]["fits"] == {}


def test_a_model_of_no_coded_weights_has_figures_and_no_plots(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[n, 4] x) => (float[n, 4] y) { y = Add (x, w) }'
    )
    model.graph.initializer.append(numpy_helper.from_array(np.ones(4, np.float32), "w"))
    onnx.save(model, tmp_path / "none.onnx")
    result = bsexport("stats", tmp_path / "none.onnx", "-o", tmp_path / "out")
    assert result.exit_code == 0
    assert "no tensor would be coded" in result.stdout
    assert names(tmp_path / "out") == ["stats.json"]


def test_force_replaces_what_stats_wrote_and_only_that(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    bsexport("stats", small, "-o", out)
    before = (out / "stats.json").read_bytes()
    assert "exists already" in refused("stats", small, "-o", out, "--step", "1e-2")
    assert (out / "stats.json").read_bytes() == before
    assert bsexport("stats", small, "-o", out, "--step", "1e-2", "--force").exit_code == 0
    assert (out / "stats.json").read_bytes() != before
    assert "was not made by this command" in refused("stats", small, "-o", tmp_path, "--force")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_named(small: Path, tmp_path: Path, bad: float) -> None:
    model = onnx.load(small)
    weights = numpy_helper.to_array(model.graph.initializer[1]).copy()
    weights[2, 3] = bad
    model.graph.initializer[1].CopyFrom(numpy_helper.from_array(weights, "first"))
    onnx.save(model, small)
    what = "NaN" if np.isnan(bad) else "infinities"
    for prune in ("0", "0.5"):
        assert f"tensor first: holds {what}" in refused("stats", small, "-o", tmp_path / "out", "--prune", prune)
    assert names(tmp_path) == ["small.onnx"]


def test_bad_input_is_one_line(small: Path, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello")
    (tmp_path / "pickled").mkdir()
    (tmp_path / "pickled" / "config.json").write_text("{}")
    (tmp_path / "pickled" / "pytorch_model.bin").write_bytes(b"")
    for arguments, message in (
        ((small, "--prune", "1"), "prune 1.0 cannot be used"),
        ((small, "--step", "0"), "step 0 cannot be used"),
        ((small, "--task", "fill-mask"), "--task is for Hugging Face models"),
        ((tmp_path / "nowhere" / "at" / "all",), "no such folder"),
        ((tmp_path / "no.onnx",), "no such file"),
        ((tmp_path / "text",), "not an ONNX model"),
        ((tmp_path / "pickled",), "a pickle, which bsexport does not open"),
        ((tmp_path / ("x" * 300),), "xxx: cannot be looked up"),
    ):
        assert message in refused("stats", *arguments), arguments


def test_wrong_usage_exits_with_2() -> None:
    for arguments in (("stats",), ("stats", "model", "--no-such-option"), ("stats", "model", "--prune", "much")):
        result = bsexport(*arguments)
        assert (result.exit_code, result.stdout) == (2, "")


def test_what_is_not_installed_is_named(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "matplotlib" else real(name))
    message = "stats needs matplotlib; run pip install 'bsexport[measure]'"
    assert refused("stats", small, "-o", tmp_path / "out") == message
    assert bsexport("stats", small).exit_code == 0
