"""The paper's experiments on a made-up language: real runs through the other commands, in seconds each."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import bsexport, refused

pytest.importorskip("torch", reason="NOT TESTED: the experiments need torch")
pytest.importorskip("transformers", reason="NOT TESTED: the experiments need transformers")
pytest.importorskip("accelerate", reason="NOT TESTED: the experiments need accelerate")
pytest.importorskip("datasets", reason="NOT TESTED: the experiments need datasets")
pytest.importorskip("joblib", reason="NOT TESTED: the experiments need joblib")

from bsexport.errors import DataError, RecipeError
from bsexport.reproduce.profiles import PROFILES, choose
from bsexport.reproduce.sets import from_folder
from bsexport.reproduce.tables import TABLES
from bsexport.reproduce.tiny import write_sets


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `reproduce table4 pruning --profile tiny` leaves: normal training and BackSlash."""
    folder = tmp_path_factory.mktemp("reproduced") / "out"
    command = [sys.executable, "-m", "bsexport.cli", "reproduce", "table4", "pruning", "-o", str(folder), "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (folder / "printed.json").write_text(done.stdout)
    return folder


def rows(out: Path, table: str) -> dict[str, list[str]]:
    printed = json.loads((out / "printed.json").read_text())
    return {row[0]: row[1:] for row in printed[table]["rows"]}


def figures(out: Path, run: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "runs" / f"bert-imdb-{run}" / "figures.json").read_text())
    return found


def test_the_rate_tells(out: Path) -> None:
    """The model learns without it; with it, the shape and the bits are less."""
    normal, backslash = figures(out, "normal"), figures(out, "lambda_1000")
    assert normal["points"][1]["figures"]["accuracy"]["value"] > 0.6  # of three classes
    assert backslash["shape"] < normal["shape"] / 2
    assert backslash["bits"]["eg0"] < normal["bits"]["eg0"] - 1


def test_a_table_says_what_was_measured_and_what_the_paper_has(out: Path) -> None:
    run, table = figures(out, "lambda_1000"), rows(out, "table4")
    bits, accuracy = run["bits"], run["points"][1]["figures"]["accuracy"]["value"]
    expected = [f"{bits['fixed']:.0f}", f"{bits['eg0']:.2f}", f"{bits['huffman']:.2f}", f"{100 * accuracy:.1f}"]
    assert table["BERT, BackSlash"] == expected
    assert table["paper: BERT, BackSlash"] == ["10", "2.64", "2.42", "92.59"]
    text = (out / "tables.md").read_text()
    assert f"| BERT, BackSlash | {' | '.join(expected)} |\n" in text
    assert "Profile tiny, seed 0: BERT: " in text


def test_commands_of_a_run_can_be_run_by_hand(out: Path, tmp_path: Path) -> None:
    folder = out / "runs" / "bert-imdb-lambda_1000"
    train, stats, curve = json.loads((folder / "commands.json").read_text())
    assert train.startswith("bsexport train ") and " --pull 2 --form decoupled --shape global " in train
    done = bsexport(*shlex.split(stats)[1:])
    assert json.loads(done.stdout)["whole"]["bits"] == figures(out, "lambda_1000")["bits"]
    measured = bsexport(*shlex.split(curve.replace(str(folder / "curve"), str(tmp_path / "c")))[1:])
    points = json.loads(measured.stdout)["models"][0]["points"]
    expected = figures(out, "lambda_1000")["points"]
    assert [point["figures"] for point in points] == [point["figures"] for point in expected]


def test_pruning_is_a_curve_of_both(out: Path) -> None:
    curve = json.loads((out / "curves" / "pruning" / "curve" / "curve.json").read_text())
    accuracies = [
        [f"{100 * point['figures']['accuracy']['value']:.1f}" for point in model["points"]] for model in curve["models"]
    ]
    assert list(rows(out, "pruning").values()) == accuracies
    assert (out / "curves" / "pruning" / "curve" / "curve.html").is_file()


def test_what_is_there_is_not_run_again(out: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    done = bsexport("reproduce", "table4", "pruning", "-o", out, "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout) == json.loads((out / "printed.json").read_text())
    changed = {path for path, when in before.items() if path.stat().st_mtime_ns != when}
    assert {path.relative_to(out).parts[0] for path in changed} <= {"made", "tables.md"}


def test_what_a_killed_run_left_is_gone_on_with(out: Path) -> None:
    """Without its figures, a run is measured again, and not trained again."""
    folder = out / "runs" / "bert-imdb-normal"
    kept = (folder / "figures.json").read_bytes()
    trained = (folder / "model" / "model.safetensors").stat().st_mtime_ns
    (folder / "figures.json").unlink()
    assert bsexport("reproduce", "table4", "-o", out).exit_code == 0
    again = json.loads((folder / "figures.json").read_text())
    assert again["bits"] == json.loads(kept)["bits"]
    assert (folder / "model" / "model.safetensors").stat().st_mtime_ns == trained


def test_another_experiment_does_not_mix_with_what_is_there(out: Path) -> None:
    line = refused("reproduce", "table4", "-o", out, "--seed", 1)
    assert line.startswith(f"{out / 'runs' / 'bert-imdb-normal'}: was made by 'bsexport train ")
    assert line.endswith("; choose another place with -o")


# profiles and data


def test_profiles(tmp_path: Path) -> None:
    write_sets(tmp_path / "sets")
    assert set(PROFILES) == {"tiny", "small", "paper"}
    assert set(TABLES) == {"strength", "table3", "table4", "table5", "table6", "quantisation", "pruning"}
    small = choose("small", tmp_path, tmp_path / "sets", "a-model", None)
    assert (list(small.models.values()), small.language_model) == (["a-model"], None)
    assert list(small.sets) == ["IMDB", "Enron-Spam", "20 Newsgroups", "SQuAD", "WMT-19"]
    paper = choose("paper", tmp_path, None, None, None)
    assert list(paper.models) == ["BERT", "GPT-2", "Llama-3", "Gemma-2"] and "WMT-19" not in paper.sets
    with pytest.raises(RecipeError, match="profile small takes its model and data from files: give --model DIR and"):
        choose("small", tmp_path, None, None, None)


def test_folders_of_sets(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds none of the folders imdb, enron_spam, newsgroups20, squad, wmt19; each"):
        from_folder(tmp_path)
    (tmp_path / "imdb").mkdir()
    (tmp_path / "imdb" / "train.csv").write_text("text,label\n")
    with pytest.raises(DataError, match=r"imdb: holds 0 files test\.\*, expected one, such as test\.csv\.xz"):
        from_folder(tmp_path)
    (tmp_path / "imdb" / "test.csv").write_text("text,label\n")
    assert list(from_folder(tmp_path)) == ["IMDB"]


def test_usage(tmp_path: Path) -> None:
    assert bsexport("reproduce").exit_code == 2
    assert bsexport("reproduce", "table9").exit_code == 2
    (tmp_path / "imdb").mkdir()
    for part in ("train", "test"):
        (tmp_path / "imdb" / f"{part}.csv").write_text("text,label\n")
    line = refused("reproduce", "table6", "--data", tmp_path, "-o", tmp_path / "out")
    assert line == f"bsexport train: {tmp_path / 'imdb' / 'train.csv'}: holds no row"
