"""Curves: grids, points against pack and evaluate run by hand, sweeps that are killed, clusters, refusals."""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from command_line import bsexport, names, refused
from hf_models import LABELS, WORDS, save_bert, save_tokenizer
from models import save_classifier, save_small

pytest.importorskip("datasets", reason="NOT TESTED: measuring needs datasets")
pytest.importorskip("joblib", reason="NOT TESTED: measuring needs joblib")
pytest.importorskip("matplotlib", reason="NOT TESTED: measuring needs matplotlib")

from bsexport.curve.findings import findings
from bsexport.curve.grid import grid, parse_ratios, parse_steps
from bsexport.curve.plot import lines
from bsexport.curve.run import names as model_names
from bsexport.errors import RecipeError
from bsexport.recipe import step_text

COMMAND = [sys.executable, "-m", "bsexport.cli", "curve"]
PATIENCE = 240  # seconds for a process that shares its processor with others
TEXT = [word for word in WORDS if not word.startswith("[")]


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with model.onnx, a classifier, its tokenizer, and data.csv, 50 texts with labels."""
    folder = tmp_path_factory.mktemp("given")
    save_classifier(folder / "model.onnx", len(WORDS))
    save_tokenizer(folder)
    (folder / "config.json").write_text(json.dumps({"id2label": dict(enumerate(LABELS))}))
    draw = random.Random(0)
    with (folder / "data.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for index in range(50):
            writer.writerow([" ".join(draw.choices(TEXT, k=1 + index % 9)), draw.choice(LABELS)])
    return folder


def swept(*arguments: object) -> dict[str, Any]:
    result = bsexport("curve", "--jobs", 1, "--json", *arguments)
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def without_seconds(record: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in record.items() if key != "out"}
    for model in kept["models"]:
        for point in model["points"]:
            point.pop("seconds")
    return kept


# grids


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0:0.95:0.05", tuple(round(0.05 * index, 2) for index in range(20))),
        ("0:0.3:0.1", (0.0, 0.1, 0.2, 0.3)),
        ("0.5:0.5:1", (0.5,)),
        ("0:0.9:0.4", (0.0, 0.4, 0.8)),
        (".8,0,.5,0.50", (0.0, 0.5, 0.8)),
        ("0:0.2:0.1,0.9", (0.0, 0.1, 0.2, 0.9)),
    ],
)
def test_ratios(text: str, expected: tuple[float, ...]) -> None:
    assert parse_ratios(text) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "--prune '': cannot be read; write it like 0:0.95:0.05 or 0,0.5,0.8"),
        ("0:1", "--prune '0:1': cannot be read"),
        ("0:nan:1", "cannot be read"),
        ("0:inf:1", "cannot be read"),
        ("0:0.9:0", "expected a range first:last:increment that rises"),
        ("0.9:0:0.1", "expected a range first:last:increment that rises"),
        ("0:0.9:1e-9", "has 900000001 points, expected at most 10000"),
        ("0:1:0.5", "prune 1.0 cannot be used: expected a ratio from 0 up to, but not including, 1"),
        ("-0.1", "prune -0.1 cannot be used"),
    ],
)
def test_ratios_that_cannot_be_read(text: str, said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_ratios(text)
    assert said in str(caught.value)


def test_steps_and_the_grid_of_both() -> None:
    assert parse_steps("2^-8,0.0625,2^-8") == (0.0625, 0.00390625)
    assert grid((0.0, 0.5), (0.25, 0.125)) == [(0.0, 0.25), (0.5, 0.25), (0.0, 0.125), (0.5, 0.125)]
    with pytest.raises(RecipeError, match="step x cannot be used"):
        parse_steps("2^-8,x")


def test_steps_are_written_as_users_write_them() -> None:
    assert [step_text(step) for step in (2.0**-8, 0.75, 2.0)] == ["2^-8", "0.75", "2^1"]
    (step,) = parse_steps("1e-3")
    assert step_text(step) == "0.001" and parse_steps(step_text(step)) == (step,)


# points


def test_points_are_what_pack_and_evaluate_give(given: Path, tmp_path: Path) -> None:
    model, data = given / "model.onnx", given / "data.csv"
    record = swept(model, "--data", data, "--prune", "0,0.9", "--step", "2^-1,2^-6", "-o", tmp_path / "c")
    (measured,) = record["models"]
    dense, *points = measured["points"]
    assert (dense["prune"], dense["step"], dense["command"]) == (None, None, "")
    assert [(point["prune"], point["step"]) for point in points] == [(0, 0.5), (0.9, 0.5), (0, 2**-6), (0.9, 2**-6)]
    for index, point in enumerate(points):
        package = tmp_path / f"package{index}"
        assert point["command"].startswith(f"bsexport pack {model} --prune ")
        packed = bsexport(*point["command"].split()[1:], "-o", package, "--json")
        summary = json.loads(packed.stdout)["summary"]
        for size in ("weights_bytes", "bits_per_weight", "entropy_bits", "eg0_bits", "sparsity"):
            assert point[size] == summary[size], size
        evaluated = json.loads(bsexport("evaluate", package, "--data", data, "--json").stdout)
        assert point["figures"] == evaluated["figures"]
    assert len({point["figures"]["accuracy"]["value"] for point in measured["points"]}) > 1  # or else it shows nothing
    assert measured["fp32_bytes"] == 4 * measured["weights"]


def test_the_dense_point_is_pytorchs(given: Path, tmp_path: Path) -> None:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    folder = save_bert(tmp_path / "model", "text-classification")
    record = swept(folder, "--data", given / "data.csv", "--prune", "0", "-o", tmp_path / "c")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    with (given / "data.csv").open(newline="") as file, torch.no_grad():
        rows = list(csv.DictReader(file))
        told = [LABELS[int(model(**tokenizer(row["text"], return_tensors="pt")).logits.argmax())] for row in rows]
    right = sum(row["label"] == label for row, label in zip(rows, told, strict=True))
    assert record["models"][0]["points"][0]["figures"]["accuracy"]["value"] == right / 50


def test_files_of_a_curve(given: Path, tmp_path: Path) -> None:
    record = swept(given / "model.onnx", "--data", given / "data.csv", "--prune", "0,0.5", "-o", tmp_path / "c")
    assert names(tmp_path) == ["c"]
    assert names(tmp_path / "c") == ["curve.csv", "curve.html", "curve.json", "curve.png", "curve.svg"]
    written = json.loads((tmp_path / "c" / "curve.json").read_text())
    assert {"out": str(tmp_path / "c"), **written} == record
    assert written["data"]["sha256"] and written["asked"]["seed"] == 0 and written["versions"]["onnxruntime"]
    with (tmp_path / "c" / "curve.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["prune"] for row in rows] == ["", "0.0", "0.5"]
    point = written["models"][0]["points"][2]
    for name, figure in point["figures"].items():
        assert [float(rows[2][name + part]) for part in ("", "_low", "_high")] == list(figure.values())
    assert int(rows[2]["weights_bytes"]) == point["weights_bytes"]
    assert (tmp_path / "c" / "curve.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "c" / "curve.html").read_text()
    assert "{{" not in page and "http-equiv" not in page and 'src="' not in page


def test_data_without_labels_are_held_against_the_dense_model(given: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("\n\n".join(" ".join(random.Random(i).choices(TEXT, k=6)) for i in range(40)))
    record = swept(given / "model.onnx", "--data", tmp_path / "text.txt", "--prune", "0,0.8", "-o", tmp_path / "c")
    assert (record["measure"], record["primary"], record["examples"]) == ("agreement", "agreement", 40)
    dense, first, last = (point["figures"] for point in record["models"][0]["points"])
    assert dense["agreement"]["value"] == 1 and dense["kl"]["value"] == 0
    assert 0 < first["kl"]["value"] < last["kl"]["value"]
    assert first["agreement"]["value"] >= last["agreement"]["value"]


def test_embeddings_are_held_against_the_dense_models(tmp_path: Path) -> None:
    save_bert(tmp_path / "model", "feature-extraction")
    (tmp_path / "text.txt").write_text("the film was fine\nwho wrote it\n")
    record = swept(tmp_path / "model", "--data", tmp_path / "text.txt", "--prune", "0,0.9", "-o", tmp_path / "c")
    values = [point["figures"]["cosine"]["value"] for point in record["models"][0]["points"]]
    assert values[0] == pytest.approx(1) and 0.99 < values[1] < 1 and values[2] < values[1]


def test_several_models_overlay(given: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "model.onnx"
    save_classifier(other, len(WORDS), seed=1)
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        shutil.copy(given / name, other.with_name(name))
    record = swept(given / "model.onnx", other, "--data", given / "data.csv", "--prune", "0,0.5", "-o", tmp_path / "c")
    assert [model["name"] for model in record["models"]] == [str(given / "model.onnx"), str(other)]
    assert [label for label, _ in lines(record)] == [str(given / "model.onnx"), str(other)]
    assert all(model["findings"] for model in record["models"])


def test_names_of_models() -> None:
    assert model_names(("a/x", "b/y", "c/x")) == ["a/x", "y", "c/x"]


def test_a_line_for_each_step_or_ratio() -> None:
    def record(*pairs: tuple[float, float]) -> dict[str, Any]:
        points = [{"prune": prune, "step": step} for prune, step in pairs]
        return {"models": [{"name": "m", "points": [{}, *points]}]}

    assert [label for label, _ in lines(record((0, 0.5), (0.5, 0.5)))] == ["m"]
    assert [label for label, _ in lines(record((0, 0.5), (0, 0.25)))] == ["m"]
    both = record((0, 0.5), (0.5, 0.5), (0, 0.25), (0.5, 0.25))
    assert [(label, len(points)) for label, points in lines(both)] == [("m, step 2^-1", 2), ("m, step 2^-2", 2)]


# findings


def point(prune: float | None, step: float | None, value: float, size: int = 0) -> dict[str, Any]:
    figures = {"accuracy": {"value": value, "low": value - 0.01, "high": value + 0.01}}
    command = f"pack {prune} {step}"
    sizes = {"weights_bytes": size, "of_fp32": size / 4000, "bits_per_weight": size / 125}
    return {"prune": prune, "step": step, "figures": figures, **sizes, "command": command}


def test_findings_in_words() -> None:
    """At 2^-4, 0.8 is good again, but 0.5 is not: that ratio is no longer safe."""
    grid = [
        point(0.0, 2**-4, 0.897, 1000),
        point(0.5, 2**-4, 0.880, 500),
        point(0.8, 2**-4, 0.896, 200),
        point(0.0, 2**-8, 0.900, 2000),
        point(0.5, 2**-8, 0.893, 1200),
        point(0.8, 2**-8, 0.891, 400),
    ]
    said = findings({"points": [point(None, None, 0.9), *grid]}, "accuracy")
    assert [finding["text"] for finding in said] == [
        "dense: accuracy 90.00%, 95% confidence 89.00% to 91.00%",
        "within 0.5 points of it: pruning up to 0% (accuracy 89.70%, step 2^-4)",
        "within 0.5 points of it: smallest package 200 bytes, 5.0% of fp32, 1.60 bits/weight (accuracy 89.60%)",
        "within 1 point of it: pruning up to 80% (accuracy 89.10%, step 2^-8)",
        "within 1 point of it: smallest package 200 bytes, 5.0% of fp32, 1.60 bits/weight (accuracy 89.60%)",
    ]
    assert [finding["command"] for finding in said][1:4] == [
        "pack 0.0 0.0625",
        "pack 0.8 0.0625",
        "pack 0.8 0.00390625",
    ]


def test_findings_of_a_language_model_name_its_perplexity() -> None:
    points = [point(None, None, 0.3), point(0.0, 2**-8, 0.299, 1000)]
    for each, value in zip(points, (45.25, 45.678), strict=True):
        each["figures"]["perplexity"] = {"value": value, "low": value - 1, "high": value + 1}
    said = [finding["text"] for finding in findings({"points": points}, "accuracy")]
    assert said[0] == "dense: accuracy 30.00%, 95% confidence 29.00% to 31.00%, perplexity 45.25"
    assert said[1].endswith("1,000 bytes, 25.0% of fp32, 8.00 bits/weight (accuracy 29.90%, perplexity 45.68)")


def test_findings_where_nothing_is_near() -> None:
    said = findings({"points": [point(None, None, 0.9), point(0, 1, 0.5), point(0.5, 1, 0.5)]}, "accuracy")
    assert [finding["text"] for finding in said][1:] == [
        "within 0.5 points of it: no pruning ratio that was measured",
        "within 0.5 points of it: no package that was measured",
        "within 1 point of it: no pruning ratio that was measured",
        "within 1 point of it: no package that was measured",
    ]


# sweeps of one process


@pytest.mark.parametrize("model", ["model.onnx", "bert"])
def test_a_sweep_begins_in_another_folder(
    model: str, given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """joblib's processes outlive a sweep, and stand where the first one began."""
    for place in (tmp_path / "first", tmp_path / "second"):
        shutil.copytree(given, place)
        save_bert(place / "bert", "text-classification")
        monkeypatch.chdir(place)
        result = bsexport("curve", model, "--data", "data.csv", "--prune", "0,0.5", "--jobs", 2, "--json")
        assert result.exit_code == 0, result.output
        (place / "model.onnx").unlink()
        shutil.rmtree(place / "bert")


# sweeps that are killed


def test_a_killed_sweep_goes_on_where_it_stopped(given: Path, tmp_path: Path) -> None:
    arguments = [given / "model.onnx", "--data", given / "data.csv", "--prune", "0:0.95:0.02", "--jobs", "1"]
    out = tmp_path / "c"
    process = subprocess.Popen([*COMMAND, *map(str, arguments), "-o", str(out)])
    points = tmp_path / "c.partial" / "points"
    try:
        deadline = time.monotonic() + PATIENCE
        while len(list(points.glob("*.json"))) < 5:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert names(tmp_path) == ["c.partial"]
    before = {path.name: path.stat().st_mtime_ns for path in points.glob("*.json")}
    assert 5 <= len(before) < 49

    assert refused("curve", *arguments, "-o", out) == (
        f"{tmp_path / 'c.partial'}: holds points of an unfinished run; go on with --resume, or begin anew with --force"
    )
    assert refused("curve", *arguments, "-o", out, "--resume", "--batch-size", 3) == (
        f"{tmp_path / 'c.partial'}: was begun with batch_size 16, and this run has 3; "
        "resume with what it was begun with, or begin anew with --force"
    )
    kept = tmp_path / "kept"
    shutil.copytree(points, kept)
    process = subprocess.Popen([*COMMAND, *map(str, arguments), "-o", str(out), "--resume"])
    while process.poll() is None:
        for path in points.glob("*.json"):
            if path.name in before:
                assert path.stat().st_mtime_ns == before[path.name]  # not measured again
        time.sleep(0.05)
    assert process.returncode == 0 and names(tmp_path) == ["c", "kept"]
    resumed = json.loads((out / "curve.json").read_text())
    assert len(resumed["models"][0]["points"]) == 49
    whole = swept(*arguments, "-o", tmp_path / "whole")
    assert without_seconds(whole) == without_seconds(resumed)


@pytest.mark.parametrize(("number", "word"), [(signal.SIGINT, "Aborted!"), (signal.SIGTERM, "Terminated!")])
def test_a_stopped_sweep_leaves_no_process_and_says_how_to_go_on(
    given: Path, tmp_path: Path, number: signal.Signals, word: str
) -> None:
    arguments = [given / "model.onnx", "--data", given / "data.csv", "--prune", "0:0.95:0.001", "--jobs", "2"]
    command = [*COMMAND, *map(str, arguments), "-o", str(tmp_path / "c")]
    process = subprocess.Popen(
        command,
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # a background job ignores it
    )
    points = tmp_path / "c.partial" / "points"
    deadline = time.monotonic() + PATIENCE
    while len(list(points.glob("*.json"))) < 3:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # a terminal sends it to the workers, too
    else:
        process.send_signal(number)
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + number
    assert said == f"{word} {tmp_path / 'c.partial'} holds points: go on with --resume\n"
    while subprocess.run(["pgrep", "-s", str(process.pid)], capture_output=True).stdout:
        assert time.monotonic() < deadline, "processes of the sweep go on"
        time.sleep(0.1)
    assert len(list(points.glob("*.json"))) >= 3
    assert names(tmp_path / "c.partial") == ["cache", "models", "points", "run.json", "ticks"]


# clusters


def test_on_a_dask_cluster_of_two_processes(given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    distributed = pytest.importorskip("distributed", reason="NOT TESTED on a cluster: needs distributed")
    dask = pytest.importorskip("dask")
    arguments = [given / "model.onnx", "--data", given / "data.csv", "--prune", "0:0.9:0.1"]
    for name, value in dask.config.get("distributed.nanny.pre-spawn-environ").items():
        monkeypatch.setenv(name, str(value))  # a cluster sets these here too, the number of threads among them
    with (
        distributed.LocalCluster(2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        on_it = ["--backend", "dask", "--scheduler", cluster.scheduler_address, "-o", "there"]
        command = [*COMMAND, *map(str, [*arguments, *on_it, "--json"])]
        result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE)
        assert result.returncode == 0, result.stderr
        took_part = client.run(lambda: "bsexport.curve.point" in sys.modules)
        needed = client.run(lambda: [name for name in ("torch", "transformers", "datasets") if name in sys.modules])
    assert list(took_part.values()) == [True, True]
    assert list(needed.values()) == [[], []]
    there = without_seconds(json.loads(result.stdout))
    assert there == without_seconds(swept(*arguments, "-o", tmp_path / "here"))


def test_a_scheduler_that_does_not_answer(given: Path, tmp_path: Path) -> None:
    pytest.importorskip("distributed", reason="NOT TESTED on a cluster: needs distributed")
    options = ("--backend", "dask", "--scheduler", "tcp://127.0.0.1:9", "-o", tmp_path / "c")
    line = refused("curve", given / "model.onnx", "--data", given / "data.csv", *options)
    assert line.startswith("--scheduler tcp://127.0.0.1:9: no dask scheduler answers there (")
    assert names(tmp_path) == []


# refusals


def test_what_cannot_be_measured(given: Path, tmp_path: Path) -> None:
    model, data = given / "model.onnx", given / "data.csv"
    assert refused("curve", tmp_path / "none", "--data", data, "-o", tmp_path / "c").startswith(
        f"{tmp_path / 'none'}: "
    )
    assert refused("curve", model, "--data", tmp_path / "none.csv", "-o", tmp_path / "c") == (
        f"{tmp_path / 'none.csv'}: no such file or folder; give the file of the data, or its name on the Hub"
    )
    assert refused("curve", model, "--data", data, "--prune", "1", "-o", tmp_path / "c").startswith("prune 1.0 cannot")
    save_small(tmp_path / "small.onnx")
    assert refused("curve", tmp_path / "small.onnx", "--data", data, "-o", tmp_path / "c").endswith(
        "holds no tokenizer, which the model's folder would have to have; "
        "make the inputs yourself and give them to bsexport_runtime.load(...).run"
    )
    other = save_bert(tmp_path / "other", "feature-extraction")
    assert refused("curve", model, other, "--data", data, "-o", tmp_path / "c") == (
        "other: is measured by cosine on 50 examples, but model by classes on 50; "
        "overlay models of one task and one tokenizer"
    )
    assert names(tmp_path) == ["other", "small.onnx"]
    assert bsexport("curve", model, "--data", data, "--scheduler", "x").exit_code == 2
    assert bsexport("curve", "--data", data).exit_code == 2


def test_an_output_that_exists(given: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    arguments = ("curve", given / "model.onnx", "--data", given / "data.csv", "--prune", "0", "--jobs", 1)
    assert refused(*arguments, "-o", tmp_path / "mine") == (
        f"{tmp_path / 'mine'}: exists already; choose another place with -o, or replace it with --force"
    )
    assert refused(*arguments, "-o", tmp_path / "mine", "--force") == (
        f"{tmp_path / 'mine'}: was not made by this command, so --force does not replace it; "
        "choose another place with -o"
    )
    assert bsexport(*arguments, "-o", tmp_path / "c").exit_code == 0
    assert bsexport(*arguments, "-o", tmp_path / "c", "--force").exit_code == 0
    assert refused(*arguments, "-o", tmp_path / "c", "--resume").startswith(f"{tmp_path / 'c'}: exists already")


# on the device


def test_what_points_take_on_a_device(given: Path, tmp_path: Path) -> None:
    record = swept(
        *(given / "model.onnx", "--data", given / "data.csv", "--prune", "0,0.5", "--bench", "-o", tmp_path / "c")
    )
    points = record["models"][0]["points"]
    assert len(points) == 3
    for measured in points:
        bench = measured["bench"]
        assert 0 < bench["load_seconds"] < bench["first_answer_seconds"]
        assert 0 < bench["median_seconds"] <= bench["p95_seconds"]
    with (tmp_path / "c" / "curve.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["load_seconds"]) for row in rows] == [point["bench"]["load_seconds"] for point in points]
    assert "latency, ms" in (tmp_path / "c" / "curve.html").read_text()


def test_device_figures_are_those_that_were_asked_for(given: Path, tmp_path: Path) -> None:
    """A run that goes on without --bench shows no figures of it, also where a stopped one had some."""
    arguments = (given / "model.onnx", "--data", given / "data.csv", "--prune", "0,0.5", "-o", tmp_path / "c")
    process = subprocess.Popen([*COMMAND, *map(str, arguments), "--jobs", "1", "--bench"])
    points = tmp_path / "c.partial" / "points"
    deadline = time.monotonic() + PATIENCE
    while not any('"bench"' in path.read_text() for path in points.glob("*.json")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.wait()
    record = swept(*arguments, "--resume")
    assert not any("bench" in point for point in record["models"][0]["points"])


# working directories


def test_what_another_command_left_is_not_touched(given: Path, tmp_path: Path) -> None:
    partial = tmp_path / "c.partial"
    for content in ('{"command": "train"}', "{}", "no json"):
        partial.mkdir()
        (partial / "run.json").write_text(content)
        (partial / "thesis.txt").write_text("mine")
        for more in ((), ("--resume",), ("--force",)):
            line = refused("curve", given / "model.onnx", "--data", given / "data.csv", "-o", tmp_path / "c", *more)
            assert line == f"{partial}: was not made by this command; remove it, or choose another place with -o"
        assert names(partial) == ["run.json", "thesis.txt"]
        shutil.rmtree(partial)


def test_a_model_that_changed_is_another_run(given: Path, tmp_path: Path) -> None:
    """Also where its weights are the same: here its classes are others."""
    for name in names(given):
        shutil.copy(given / name, tmp_path / name)
    points = tmp_path / "c.partial" / "points"
    arguments = (tmp_path / "model.onnx", "--data", tmp_path / "data.csv", "--prune", "0:0.95:0.01", "--jobs", "1")
    process = subprocess.Popen([*COMMAND, *map(str, arguments), "-o", str(tmp_path / "c")])
    deadline = time.monotonic() + PATIENCE
    while not list(points.glob("*.json")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.wait()
    (tmp_path / "config.json").write_text(json.dumps({"id2label": dict(enumerate(reversed(LABELS)))}))
    line = refused("curve", *arguments, "-o", tmp_path / "c", "--resume")
    assert line.startswith(f"{tmp_path / 'c.partial'}: was begun with models ")


def test_usage(given: Path, tmp_path: Path) -> None:
    model = ("curve", given / "model.onnx", "--data", given / "data.csv")
    for wrong in (("--backend", "dask"), ("--backend", "dask", "--scheduler", "x", "--jobs", 2), ("--jobs", 0)):
        assert bsexport(*model, *wrong).exit_code == 2, wrong
    assert refused(*model, "--seed", -1) == "seed is -1, expected at least 0"
    assert refused(*model, "--max-length", 0) == "max_length is 0, expected at least 1".replace("_", "-")
    assert refused(*model, "-o", ".") == ".: is no name for an output; choose another place with -o"
