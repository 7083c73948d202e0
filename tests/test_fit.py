"""bsexport fit: "yes" is a process that answered under a limit of the system, "no" is one that could not."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from command_line import bsexport, refused
from onnx import numpy_helper, parser

from bsexport.bench.process import in_process
from bsexport.bench.worker import Job
from bsexport.errors import BenchError
from bsexport.fit.report import Fit, Report, latency_class
from bsexport.fit.run import fit as fit_package
from bsexport.pipeline import pack
from bsexport.recipe import Recipe
from bsexport.source import open_source
from bsexport_runtime import Package, residency

MISSING = residency.MODES["coded"].missing()
linux = pytest.mark.skipif(sys.platform != "linux", reason="NOT TESTED: memory is limited on Linux alone")
coded_only = pytest.mark.skipif(MISSING is not None, reason=f"NOT TESTED: mode coded cannot be had: {MISSING}")

MODEL = """
<ir_version: 8, opset_import: ["" : 17]>
wide (int64[batch, sequence] ids) => (float[batch, sequence, 1024] z) {
  e = Gather (table, ids)  a = MatMul (e, first)  b = Relu (a)  c = MatMul (b, second)
  d = MatMul (c, third)  z = MatMul (d, fourth)
}
"""
SIZES = {"table": (2000, 1024), **dict.fromkeys(("first", "third"), (1024, 2048))}
SIZES |= dict.fromkeys(("second", "fourth"), (2048, 1024))
WEIGHTS = sum(4 * rows * columns for rows, columns in SIZES.values())
BERT_BASE = 4 * 109_482_240
"""Bytes of the decoded weights of BERT-base, which is to answer in 128 MB."""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """42 MB of weights, nine tenths of them 0."""
    folder = tmp_path_factory.mktemp("wide")
    model = parser.parse_model(MODEL)
    draw = np.random.default_rng(0)
    for name, shape in SIZES.items():
        weights = draw.normal(size=shape).astype(np.float32) * 0.05
        model.graph.initializer.append(numpy_helper.from_array(weights, name))
    onnx.save(model, folder / "wide.onnx")
    pack(open_source(str(folder / "wide.onnx")), Recipe(prune=0.9, step=2.0**-8), folder / "wide-bsx", int8=True)
    return folder / "wide-bsx"


def fit(package: Path, memory: str, *more: str) -> tuple[int, dict[str, Any], str]:
    """Exit code, what --json prints and what stands on stderr, of the command as a user starts it."""
    options = ["--memory", memory, "--threads", "1", "--json", *more]
    command = [sys.executable, "-m", "bsexport.cli", "fit", str(package), *options]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode, json.loads(done.stdout), done.stderr


def answers(found: dict[str, Any]) -> dict[str, bool]:
    return {each["mode"]: each["fits"] for each in found["modes"]}


@linux
@coded_only
def test_all_modes_fit(package: Path) -> None:
    code, found, errors = fit(package, "0.25GiB", "--batch", "2", "--length", "8,4")
    assert (code, errors, found["limit_bytes"]) == (0, "", 2**28)
    assert answers(found) == {"float32": True, "int8": True, "coded": True}
    assert [point["length"] for point in found["points"]] == [8, 4]
    for each in found["modes"]:
        run = each["measured"]
        assert len(run["points"]) == 2 and each["why"] is None
        assert 0 < run["load_peak_bytes"] <= run["peak_bytes"] <= 2**28
        assert each["predicted_bytes"] == residency.predict(Package(package), each["mode"])
        assert run["imports_bytes"] > 5e6 and run["imports_file_bytes"] > 5e6
    float32, _, coded = (each["measured"] for each in found["modes"])
    assert WEIGHTS < float32["peak_bytes"] < 1.3 * WEIGHTS
    assert coded["peak_bytes"] < WEIGHTS / 4
    # The mapped weights are not private: they came in as pages of the file.
    assert coded["file_bytes"] >= 0.9 * (package / "weights.bsx").stat().st_size


@linux
@coded_only
def test_the_proportions_of_bert_base_in_128_mb(package: Path) -> None:
    """In coded mode alone; float32 is stopped by the system, for want of memory."""
    limit = int(128e6 / BERT_BASE * WEIGHTS)
    code, found, errors = fit(package, str(limit), "--length", "8", "--modes", "float32,coded")
    assert (code, errors) == (0, "")
    assert answers(found) == {"float32": False, "coded": True}
    float32, coded = found["modes"]
    assert "its decoded weights take" in float32["why"] and float32["why"].endswith("Cannot allocate memory")
    assert coded["measured"]["peak_bytes"] <= limit < float32["measured"]["peak_bytes"]
    assert found["load"] == f'bsexport_runtime.load("{package}", mode="coded", threads=1)'
    loaded = eval(found["load"], {"bsexport_runtime": __import__("bsexport_runtime")})
    assert loaded.run(None, {"ids": np.zeros((1, 2), np.int64)})[0].shape == (1, 2, 1024)


@linux
@coded_only
def test_nothing_fits(package: Path) -> None:
    code, found, errors = fit(package, "1MB", "--length", "8", "--modes", "float32,coded")
    assert (code, errors) == (1, f"Error: {package}: no mode fits into 1000000 bytes of memory\n")
    assert answers(found) == {"float32": False, "coded": False}
    assert all(each["why"] and each["measured"]["peak_bytes"] > 1e6 for each in found["modes"])
    assert found["load"] is None
    least = min(each["measured"]["peak_bytes"] for each in found["modes"])
    assert found["advice"][0] == f"advice: the least is {least / 1e6:.1f} MB, of mode coded"


@linux
@coded_only
def test_activations_alone_may_be_too_much(package: Path) -> None:
    """The same limit holds a short input and not a long one; the advice says so."""
    assert fit(package, "12MB", "--modes", "coded", "--length", "8")[0] == 0
    code, found, _ = fit(package, "12MB", "--modes", "coded", "--length", "2000")
    assert code == 1
    assert found["advice"][1].endswith("of it are activations: a smaller --batch or --length takes less")


@linux
def test_the_table(package: Path) -> None:
    result = bsexport("fit", package, "--memory", "30MB", "--modes", "float32", "--length", "8")
    assert result.exit_code == 1
    first, heads, row, why, *rest = result.stdout.splitlines()
    assert first == f"{package}: 30.0 MB of private memory above the imports; batch 1, length 8; all cores"
    assert heads.split() == ["mode", "fits", "predicted", "peak", "activations", "file", "pages", "load", "answer"]
    assert row.split()[:2] == ["float32", "no"] and len(row.split()) == 15
    assert why.startswith("float32 does not fit: ")
    assert rest[1] == "advice: weights take most of it: mode coded keeps them coded"
    assert not any(line.startswith("load it") for line in rest)


def run(peak: int, latency: float, loaded: int = 0) -> dict[str, Any]:
    sizes = {"peak_bytes": peak, "loaded_bytes": loaded, "file_bytes": 0, "imports_bytes": 1, "imports_file_bytes": 2}
    return {"points": [{"median_seconds": latency}, {"median_seconds": latency / 2}], "load_seconds": 0.1, **sizes}


def test_what_to_load_is_what_the_runtime_would_take() -> None:
    """The order of residency.MODES, whatever the clock says; and what it costs."""
    modes = (
        Fit("coded", "", 1, run(8, 0.1)),
        Fit("float32", "large", 1, run(99, 0.1)),
        Fit("int8", "", 1, run(9, 0.2)),
    )
    report = Report(Path("p"), 10, None, (), modes)
    assert report.load_line == 'bsexport_runtime.load("p", mode="int8")'
    (line,) = [line for line in report.to_text().splitlines() if line.startswith("load it")]
    assert line == f"load it: {report.load_line}  # mode int8, whose products round their activations to 8 bits"
    assert "advice" not in report.to_text()


def test_what_is_asked_for_and_not_touched_is_explained() -> None:
    report = Report(Path("p"), 10_000_000, None, (), (Fit("coded", "no memory", 1, run(9_000_000, 0.1)),))
    assert "touches 9.0 MB, but asks for more than the limit: fewer --threads" in report.to_text()


@linux
def test_a_mode_that_cannot_be_had_is_no_guess(monkeypatch: pytest.MonkeyPatch, small: Path, tmp_path: Path) -> None:
    pack(open_source(str(small)), Recipe(), tmp_path / "out")
    absent = dataclasses.replace(residency.MODES["coded"], missing=lambda: "the library is missing")
    monkeypatch.setitem(residency.MODES, "coded", absent)
    int8, coded = fit_package(tmp_path / "out", 2**30, ["int8", "coded"], lengths=[4]).modes
    assert (int8.why, int8.run) == ("has no graph for mode int8; pack it again with --int8", None)
    assert (coded.why, coded.run) == ("mode coded cannot be had: the library is missing", None)


@pytest.mark.parametrize(
    ("seconds", "name"), [(0.1, "instant"), (0.11, "prompt"), (1, "prompt"), (10, "slow"), (11, "batch work")]
)
def test_classes_of_latency(seconds: float, name: str) -> None:
    assert latency_class(seconds) == name


@linux
def test_a_process_under_a_limit_gets_no_more(tmp_path: Path, small: Path) -> None:
    """What the process may take is a limit of the system, not of our arithmetic."""
    program = """
from bsexport.bench.worker import limit_private
limit_private(64 << 20)
first = bytearray(48 << 20)
try:
    bytearray(48 << 20)
except MemoryError:
    print("held")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "held\n", done.stderr
    np.savez(tmp_path / "ids.npz", np.zeros((1, 1), np.int64))
    job = Job("fp32", str(small), 1, ["ids"], [str(tmp_path / "ids.npz")], runs=1, limit=1 << 16)
    with pytest.raises(BenchError, match="fp32"):
        in_process(job)


@linux
@pytest.mark.parametrize("text", ["512MB", "512000000", " 512 mb", "0.512GB"])
def test_sizes(package: Path, text: str) -> None:
    assert fit(package, text, "--modes", "float32", "--length", "1")[1]["limit_bytes"] == 512_000_000


@pytest.mark.parametrize("text", ["0", "-5MB", "12 parsecs", "MB", "1e3", ""])
def test_sizes_that_are_none(package: Path, text: str) -> None:
    result = bsexport("fit", package, f"--memory={text}")
    assert result.exit_code == 2
    assert f"{text!r} is no size above 0, such as 512MB, 0.5GiB or 536870912" in result.stderr


def test_bad_input(package: Path, tmp_path: Path) -> None:
    assert "no such package" in refused("fit", tmp_path / "nothing", "--memory", "1GB")
    (tmp_path / "file").write_text("")
    assert refused("fit", tmp_path / "file", "--memory", "1GB")
    assert bsexport("fit", package).exit_code == 2
    assert bsexport("fit", package, "--memory", "1GB", "--modes", "dense").exit_code == 2


def test_elsewhere_it_says_so(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "resource", None)  # as on Windows
    line = refused("fit", package, "--memory", "1GB")
    assert "cannot hold a process to a limit of private memory (RLIMIT_DATA)" in line
    assert line.endswith("run bsexport fit on Linux")


def test_a_damaged_package_fits_nowhere(package: Path, tmp_path: Path) -> None:
    copy = tmp_path / "damaged"
    shutil.copytree(package, copy)
    content = bytearray((copy / "weights.bsx").read_bytes())
    content[-1] ^= 1
    (copy / "weights.bsx").write_bytes(content)
    said = refused("fit", copy, "--memory", "1GB")
    assert said.startswith(f"{copy / 'weights.bsx'}: tensor ")
    assert said.endswith("; copy the package again")
