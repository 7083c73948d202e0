"""bsexport bench measures what it says, in fresh processes that take turns, and names what it cannot measure."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from command_line import bsexport, refused
from models import SMALL, save_small
from onnx import numpy_helper, parser

from bsexport.bench import worker
from bsexport.bench.points import Point, points
from bsexport.bench.process import in_process
from bsexport.bench.report import Deviation, Report
from bsexport.bench.run import Settings, bench
from bsexport.bench.worker import PLAIN, PLAIN_SAME, Job, Memory
from bsexport.errors import BenchError
from bsexport.inputs import sample_inputs
from bsexport.pipeline import pack
from bsexport.recipe import Recipe
from bsexport.source import open_source
from bsexport_runtime import load, read_tensors
from bsexport_runtime.session import CONFIG

QUICK = ("--rounds", "1", "--runs", "1", "--length", "4")
NAMES = ["fp32", "fp32-same-options", "float32"]
MIB = 2**20
linux = pytest.mark.skipif(sys.platform != "linux", reason="NOT TESTED: memory is measured on Linux alone")


@pytest.fixture
def package(small: Path) -> Path:
    """A package of the small model, beside it."""
    pack(open_source(str(small)), Recipe(prune=0.5, step=2.0**-7), small.with_name("small-bsx"))
    return small.with_name("small-bsx")


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A package, and what the command says of it, as a user starts it."""
    folder = tmp_path_factory.mktemp("measured")
    save_small(folder / "small.onnx")
    pack(open_source(str(folder / "small.onnx")), Recipe(), folder / "small-bsx")
    options = ["--rounds", "3", "--runs", "5", "--batch", "1,3", "--length", "4, 6", "--threads", "1", "--json"]
    command = [sys.executable, "-m", "bsexport.cli", "bench", str(folder / "small-bsx"), *options]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return folder / "small-bsx", json.loads(done.stdout)


# What is measured


def test_every_figure_is_there_and_a_number(measured: tuple[Path, dict[str, Any]]) -> None:
    package, found = measured
    sizes = [{"batch": b, "length": n, "tokens": b * n} for b in (1, 3) for n in (4, 6)]
    expected = [("load", "s", None), ("to the first answer", "s", None)]
    for size in sizes:
        expected += [("latency, median", "s", size), ("latency, p95", "s", size)]
        expected += [("throughput", "items/s", size), ("throughput", "tokens/s", size)]
    if sys.platform == "linux":
        memory = ("memory, peak of the load", "memory, peak", "memory, steady")
        expected += [(what, "bytes", None) for what in memory]
    expected.append(("on disk", "bytes", None))
    figures = found["figures"]
    assert [(each["what"], each["unit"], each["point"]) for each in figures] == expected
    for figure in figures:
        assert list(figure["medians"]) == NAMES
        assert list(figure["ratios"]) == ["float32"]
        assert list(figure["ratios"]["float32"]) == ["fp32", "fp32-same-options"]
        values = [*figure["medians"].values(), *figure["ratios"]["float32"].values()]
        assert all(math.isfinite(value) and value > 0 for value in values), figure
    assert found["memory_measured"] == (sys.platform == "linux")
    assert (found["package"], found["against"], found["threads"]) == (str(package), None, 1)
    assert (found["points"], found["rounds"], found["modes"]) == (sizes, 3, ["float32"])


def test_figures_are_the_medians_of_the_runs_and_of_ratios_within_a_round(measured: Any) -> None:
    """Computed again from the single runs, which are there, too."""
    _, found = measured
    runs = {name: [run for run in found["runs"] if run["name"] == name] for name in NAMES}

    def check(figure: dict[str, Any], values: dict[str, list[float]]) -> None:
        assert figure["medians"] == {name: median(values[name]) for name in NAMES}
        for base, ratio in figure["ratios"]["float32"].items():
            assert ratio == median(a / b for a, b in zip(values["float32"], values[base], strict=True))

    figures = iter(found["figures"])
    for key in ("load_seconds", "first_answer_seconds"):
        check(next(figures), {name: [run[key] for run in runs[name]] for name in NAMES})
    for index, size in enumerate(found["points"]):
        seconds = {name: [run["points"][index]["median_seconds"] for run in runs[name]] for name in NAMES}
        check(next(figures), seconds)
        check(next(figures), {name: [run["points"][index]["p95_seconds"] for run in runs[name]] for name in NAMES})
        for amount in (size["batch"], size["batch"] * size["length"]):
            check(next(figures), {name: [amount / value for value in seconds[name]] for name in NAMES})


def test_runs_take_turns_each_in_a_process_of_its_own(measured: Any) -> None:
    _, found = measured
    runs = found["runs"]
    assert [(run["round"], run["name"]) for run in runs] == [(turn, name) for turn in range(3) for name in NAMES]
    assert len({run["process"] for run in runs}) == 9
    began = [run["began_seconds"] for run in runs]
    assert began == sorted(began) and began[0] >= 0
    for run in runs:
        assert run["first_answer_seconds"] > run["load_seconds"]
        assert [point["runs"] for point in run["points"]] == [5] * 4
        assert all(point["p95_seconds"] >= point["median_seconds"] for point in run["points"])
        if found["memory_measured"]:
            assert run["peak_bytes"] >= max(run["load_peak_bytes"], run["steady_bytes"])
            assert run["load_peak_bytes"] >= run["loaded_bytes"]


def test_bytes_on_disk_are_those_of_the_files(measured: Any, tmp_path: Path) -> None:
    package, found = measured
    files = ("bsexport.json", "model.onnx", "decoded.onnx", "weights.bsx")
    assert bsexport("unpack", package, "-o", tmp_path / "plain.onnx").exit_code == 0
    plain = (tmp_path / "plain.onnx").stat().st_size
    medians = found["figures"][-1]["medians"]
    assert medians == {
        "fp32": plain,
        "fp32-same-options": plain,
        "float32": sum((package / name).stat().st_size for name in files),
    }


def test_the_modes_compute_the_same(measured: Any) -> None:
    _, found = measured
    assert [each["name"] for each in found["deviations"]] == ["fp32-same-options", "float32"]
    assert all(each["deviation"] < 1e-6 < each["scale"] for each in found["deviations"])


def test_the_deviation_is_that_of_the_two_models(small: Path, package: Path) -> None:
    """The same by hand, in numpy, on the same made-up inputs."""
    weights = save_small(small)
    settings = Settings(batches=(2,), lengths=(7,), rounds=1, runs=1)
    report = bench(package, settings, lambda task: open_source(str(small), task=task))
    session = load(package)
    ids = sample_inputs(session, onnx.load(small).graph, batch=2, length=7)["ids"]
    assert ids.shape == (2, 7)

    def by_hand(w: dict[str, np.ndarray]) -> np.ndarray:
        return np.maximum(w["table"][ids] @ w["first"] + weights["bias"], 0) @ w["second"]

    dense, packed = by_hand(weights), by_hand(read_tensors(package))
    same, float32 = report.deviations
    assert same.deviation < 1e-6
    assert float32.deviation == pytest.approx(np.abs(dense - packed).max(), rel=1e-3)
    assert float32.scale == pytest.approx(np.abs(dense).max(), rel=1e-3)
    assert (float32.output, float32.point) == ("scores", Point(2, 7, 14))
    assert report.against == "small"


def test_against_a_hugging_face_directory(tmp_path: Path) -> None:
    import hf_models

    model = hf_models.save_bert(tmp_path / "bert", "text-classification")
    pack(open_source(str(model)), Recipe(step=1e-9), tmp_path / "out")
    found = json.loads(bsexport("bench", tmp_path / "out", "--against", model, *QUICK, "--json").stdout)
    assert (found["against"], found["points"]) == ("bert", [{"batch": 1, "length": 4, "tokens": 4}])
    assert all(0 <= each["deviation"] < 1e-5 for each in found["deviations"])
    assert bsexport("unpack", tmp_path / "out", "-o", tmp_path / "plain.onnx").exit_code == 0
    again = json.loads(
        bsexport("bench", tmp_path / "out", "--against", tmp_path / "plain.onnx", *QUICK, "--json").stdout
    )
    assert again["against"] == "plain"


def test_an_image_model_has_a_batch_and_no_length(tmp_path: Path) -> None:
    import hf_models

    model = hf_models.save_vit(tmp_path / "vit")
    pack(open_source(str(model)), Recipe(), tmp_path / "out")
    found = json.loads(bsexport("bench", tmp_path / "out", "--rounds", "1", "--runs", "1", "--json").stdout)
    assert found["points"] == [{"batch": 1, "length": None, "tokens": None}]
    assert "tokens/s" not in [figure["unit"] for figure in found["figures"]]
    line = refused("bench", tmp_path / "out", "--length", "8")
    assert line == "--length: the graph fixes all sizes of its inputs but the batch; leave the option out"


def test_the_table_names_figures_columns_and_what_they_are(package: Path) -> None:
    result = bsexport("bench", package, *QUICK)
    assert (result.exit_code, result.stderr) == (0, "")
    first, heads, *lines = result.stdout.splitlines()
    assert first.startswith(f"{package}: medians of 1 round, all cores, codec ")
    assert heads.split() == ["fp32", "fp32*", "float32", "float32/fp32", "float32/fp32*"]
    for start in ("load, ms", "to the first answer, ms", "batch 1, length 4", "  latency, median, ms", "on disk, MiB"):
        (line,) = [line for line in lines if line.startswith(start)]
        assert start.startswith("batch") or len(line[34:].split()) == 5, line
    notes = " ".join(lines[lines.index(line) + 1 :])
    for part in ("default options on the package's decoded weights", "no prepacking", "outputs of float32 deviate"):
        assert part in notes


# The processes


def job(name: str, path: Path, ids: np.ndarray, **more: Any) -> Job:
    """A job on the small model, whose inputs lie beside it."""
    np.savez(path.parent / "ids.npz", ids)
    return Job(name, str(path), 1, ["ids"], [str(path.parent / "ids.npz")], runs=1, **more)


def test_the_baselines_are_default_options_and_those_of_the_runtime(small: Path, package: Path) -> None:
    def options(name: str, path: Path) -> ort.SessionOptions:
        return worker.loader(job(name, path, np.zeros((1, 1), np.int64)))().get_session_options()

    plain, same, ours = options(PLAIN, small), options(PLAIN_SAME, small), options("float32", package)
    assert plain.intra_op_num_threads == same.intra_op_num_threads == ours.intra_op_num_threads == 1
    for key, value in CONFIG.items():
        assert same.get_session_config_entry(key) == ours.get_session_config_entry(key) == value
        with pytest.raises(RuntimeError):
            plain.get_session_config_entry(key)
    assert (plain.enable_mem_pattern, same.enable_mem_pattern, ours.enable_mem_pattern) == (True, False, False)


@pytest.mark.parametrize("name", [PLAIN, PLAIN_SAME, "float32"])
def test_a_process_imports_what_a_device_has(small: Path, package: Path, name: str) -> None:
    asked = job(name, package if name == "float32" else small, np.zeros((1, 1), np.int64))
    command = [sys.executable, "-P", "-X", "importtime", worker.__file__, json.dumps(asdict(asked))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert {"numpy", "onnxruntime"} <= imported
    assert not imported & {"bsexport", "click", "google", "onnx", "torch", "transformers"}
    assert ("bsexport_runtime" in imported) == (name != PLAIN)


def test_what_a_process_answers_is_kept_where_it_is_told(small: Path, tmp_path: Path) -> None:
    weights = save_small(small)
    ids = np.array([[1, 99, 7]])
    (tmp_path / "kept").mkdir()
    in_process(job(PLAIN, small, ids, outputs=["scores"], keep=str(tmp_path / "kept")))
    hidden = np.maximum(weights["table"][ids] @ weights["first"] + weights["bias"], 0)
    with np.load(tmp_path / "kept" / "0.npz") as kept:
        np.testing.assert_allclose(kept["arr_0"], hidden @ weights["second"], rtol=0, atol=1e-6)


def test_a_latency_is_of_the_runs_after_the_warm_up(small: Path) -> None:
    """As many as asked for, or at least five."""
    ids = np.zeros((1, 1), np.int64)
    counts = []
    for runs in (2, None):
        asked = Job(**asdict(job(PLAIN, small, ids)) | {"runs": runs, "seconds": 0.0})
        counts.append(worker.measure(asked)["points"][0]["runs"])
    assert counts == [2, 5]


# Memory


STATUS = "Name:\tpython\nVmHWM:\t{peak} kB\nRssAnon:\t{private} kB\nRssFile:\t30 kB\nRssShmem:\t2 kB\nThreads:\t1\n"


def test_memory_is_what_the_kernel_says_less_files_and_imports(tmp_path: Path) -> None:
    def say(peak: int, private: int) -> None:
        (tmp_path / "status").write_text(STATUS.format(peak=peak, private=private))

    say(132, 100)
    memory = Memory(tmp_path)
    say(532, 300)
    assert memory.mark() == (400 * 1024, 200 * 1024)
    assert (tmp_path / "clear_refs").read_text() == "5"
    say(331, 300)  # file pages came in after the peak: what is there now is a lower bound
    assert memory.mark() == (200 * 1024, 200 * 1024)


def test_a_system_that_does_not_tell_is_no_zero(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="status"):
        Memory(tmp_path / "proc")
    (tmp_path / "status").write_text("Name:\tpython\nVmHWM:\t10 kB\n")
    with pytest.raises(KeyError, match="RssAnon"):
        Memory(tmp_path)


@linux
def test_a_peak_between_two_marks_is_not_missed() -> None:
    memory = Memory()
    block = np.ones(64 * MIB, np.uint8)
    del block
    peak, now = memory.mark()
    assert 60 * MIB < peak < 80 * MIB and now < 32 * MIB
    assert memory.mark()[0] < 32 * MIB  # each mark begins anew


# The report


def run(name: str, turn: int, seconds: float, memory: int | None) -> dict[str, Any]:
    latency = {"median_seconds": seconds, "p95_seconds": 2 * seconds, "runs": 5}
    sizes = dict.fromkeys(("load_peak_bytes", "loaded_bytes", "peak_bytes", "steady_bytes"), memory)
    times = {"load_seconds": seconds, "first_answer_seconds": 3 * seconds}
    return {"name": name, "round": turn, "points": [latency], **times, **sizes}


def report(memory: int | None) -> Report:
    """Three rounds whose medians have another ratio than the rounds have in the median."""
    seconds = {PLAIN: (1.0, 4.0, 2.0), PLAIN_SAME: (8.0, 8.0, 8.0), "float32": (1.0, 1.0, 3.0)}
    runs = tuple(run(name, turn, seconds[name][turn], memory) for turn in range(3) for name in seconds)
    disk = {PLAIN: 4096, PLAIN_SAME: 4096, "float32": 1024}
    deviations = (Deviation("float32", "y", Point(5, None, None), 0.5, 2.0),)
    return Report(Path("p"), None, 2, ("float32",), (Point(5, None, None),), runs, disk, deviations)


def test_ratios_are_taken_within_a_round() -> None:
    figures = {(figure.what, figure.unit): figure for figure in report(MIB).figures()}
    load = figures["load", "s"]
    assert [load.value(name) for name in (PLAIN, PLAIN_SAME, "float32")] == [2.0, 8.0, 1.0]
    assert (load.ratio("float32", PLAIN), load.ratio("float32", PLAIN_SAME)) == (1.0, 0.125)
    throughput = figures["throughput", "items/s"]
    assert [throughput.value(name) for name in (PLAIN, PLAIN_SAME, "float32")] == [2.5, 0.625, 5.0]
    assert throughput.ratio("float32", PLAIN) == 1.0
    assert figures["on disk", "bytes"].ratio("float32", PLAIN) == 0.25


def test_memory_that_was_not_measured_is_said_and_not_made_up() -> None:
    found = report(None)
    assert not any("memory" in figure.what for figure in found.figures())
    assert not found.to_json()["memory_measured"]
    assert found.to_text().endswith("memory was not measured: this system does not tell a process's private memory")
    assert "not measured" not in report(MIB).to_text()


def test_the_table_is_in_milliseconds_and_mebibytes() -> None:
    lines = {line[:34].rstrip(): line[34:].split() for line in report(3 * MIB).to_text().splitlines()}
    assert lines["load, ms"] == ["2,000.00", "8,000.00", "1,000.00", "1.00x", "0.12x"]
    assert lines["  throughput, items/s"] == ["2.50", "0.62", "5.00", "1.00x", "8.00x"]
    assert lines["memory, steady, MiB"] == ["3.00", "3.00", "3.00", "1.00x", "1.00x"]
    assert lines["batch 5"] == []


def test_a_ratio_to_nothing_is_none() -> None:
    ratios = {figure.what: figure.ratio("float32", PLAIN) for figure in report(0).figures()}
    assert ratios["memory, steady"] is None and ratios["load"] == 1.0
    line = next(line for line in report(0).to_text().splitlines() if line.startswith("memory, steady"))
    assert line.split()[-5:] == ["0.00", "0.00", "0.00", "-", "-"]


# What cannot be measured


def session_of(text: str, **weights: np.ndarray) -> tuple[ort.InferenceSession, onnx.GraphProto]:
    model = parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {text}')
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]), model.graph


def test_points_are_the_sizes_that_the_graph_leaves_open() -> None:
    text = "g (int64[n, length] ids, float[3] x) => (float[n, length, 4] y) { y = Gather (table, ids) }"
    made = points(*session_of(text, table=np.ones((9, 4), np.float32)))
    assert list(made) == [Point(1, 16, 16), Point(1, 128, 128)]
    assert [inputs["ids"].shape for inputs in made.values()] == [(1, 16), (1, 128)]
    fixed = session_of("g (float[7, 3] x) => (float[7, 3] y) { y = Abs (x) }")
    assert list(points(*fixed)) == [Point(7, None, None)]
    with pytest.raises(BenchError, match="--batch: the graph takes one batch only"):
        points(*fixed, batches=(7,))


def test_a_length_that_the_model_does_not_take_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    import hf_models

    model = hf_models.save_bert(tmp_path / "bert", "fill-mask")
    pack(open_source(str(model)), Recipe(), tmp_path / "out")
    capfd.readouterr()  # what transformers said when it saved the model
    line = refused("bench", tmp_path / "out", "--length", "41", "--batch", "2")
    assert line.startswith("batch 2, length 41: the model does not take it; choose others with --batch and --length")
    assert capfd.readouterr().err == ""  # nor does onnxruntime say anything of its own


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ("int64[batch, sequence] ids", "int64[batch] ids"),
            "inputs are ids (int64 of rank 1), the package's ids (int64 of rank 2)",
        ),
        (
            ("sequence] ids", "sequence] ids, int64[batch, sequence] words"),
            "inputs are ids (int64 of rank 2), words (int64 of rank 2), the package's ids ",
        ),
        (("40] scores", "40] biased"), "outputs are biased (float of rank 3), the package's scores"),
    ],
)
def test_a_model_of_other_inputs_or_outputs_is_refused(
    package: Path, tmp_path: Path, change: tuple[str, str], message: str
) -> None:
    weights = save_small(tmp_path / "other.onnx")
    model = parser.parse_model(SMALL.replace(*change))
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    onnx.save(model, tmp_path / "other.onnx")
    line = refused("bench", package, "--against", tmp_path / "other.onnx", *QUICK)
    assert line.startswith(f"other: is not the model of {package}: its {message}")
    assert line.endswith("give the model that was packed")


def test_outputs_that_cannot_be_compared_are_refused(package: Path, small: Path, tmp_path: Path) -> None:
    model = onnx.load(small)
    model.graph.initializer[3].CopyFrom(numpy_helper.from_array(np.ones((48, 30), np.float32), "second"))
    model.graph.output[0].type.tensor_type.shape.dim[2].dim_value = 30
    onnx.save(model, tmp_path / "narrow.onnx")
    line = refused("bench", package, "--against", tmp_path / "narrow.onnx", *QUICK)
    assert line == "output scores is float32 (1, 4, 40), the model's float32 (1, 4, 30)"
    save_small(tmp_path / "huge.onnx", scale=1e20)
    pack(open_source(str(tmp_path / "huge.onnx")), Recipe(step=1e17), tmp_path / "huge-bsx")
    line = refused("bench", tmp_path / "huge-bsx", "--against", small, *QUICK)
    assert line == "float32: output scores is not finite at batch 1, length 4, that of fp32 is"


def kill(folder: Path, name: str, number: int) -> dict[str, str]:
    """An environment in which the process that measures this mode ends itself by a signal, as soon as it begins."""
    (folder / "sitecustomize.py").write_text(
        f'import os, sys\nif \'"name": "{name}"\' in sys.orig_argv[-1]:\n    os.kill(os.getpid(), {int(number)})\n'
    )
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


@pytest.mark.parametrize(
    ("name", "number", "end"),
    [
        ("float32", signal.SIGKILL, "SIGKILL, which the system sends when memory runs out"),
        (PLAIN_SAME, signal.SIGSEGV, "SIGSEGV"),
    ],
)
def test_a_process_that_dies_is_named(package: Path, tmp_path: Path, name: str, number: int, end: str) -> None:
    command = [sys.executable, "-m", "bsexport.cli", "bench", str(package), *QUICK]
    done = subprocess.run(command, capture_output=True, text=True, env=kill(tmp_path, name, number))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"Error: {name}: the process that measured it was ended by {end}\n"


def test_a_process_that_fails_is_named_with_its_reason(small: Path, tmp_path: Path) -> None:
    small.with_name("broken.onnx").write_bytes(b"no model")
    with pytest.raises(BenchError, match=r"^fp32: cannot be measured: .*(?i:protobuf).*$") as caught:
        in_process(job(PLAIN, tmp_path / "broken.onnx", np.zeros((1, 1), np.int64)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [("--modes", "int4"), ("--batch", "0"), ("--length", "16,x"), ("--rounds", "0"), ("--runs", "0"), ("--batch", "")],
)
def test_wrong_usage_exits_with_2(package: Path, options: tuple[str, str]) -> None:
    result = bsexport("bench", package, *options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert re.search(f"Invalid value for '{options[0]}'", result.stderr)
