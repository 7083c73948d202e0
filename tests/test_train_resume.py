"""Runs that are killed and go on, runs of two processes, and the directory that a run works in."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import bsexport, names, refused
from hf_models import WORDS, save_bert, save_tokenizer

pytest.importorskip("accelerate", reason="NOT TESTED: training needs accelerate")
pytest.importorskip("datasets", reason="NOT TESTED: training needs datasets")
pytest.importorskip("matplotlib", reason="NOT TESTED: training needs matplotlib")

from safetensors.numpy import load_file

from bsexport.errors import OutputError, ResumeError
from bsexport.train.checkpoints import Checkpoints

COMMAND = [sys.executable, "-m", "bsexport.cli", "train"]
ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"}
PATIENCE = 240  # seconds for a process that shares its processor with others


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A masked language model with dropout, and a text."""
    folder = tmp_path_factory.mktemp("masked")
    words = np.array(["the", "film", "was", "a", "fine", "one", ";", "who", "wrote", "it", "ada", "did"])
    text = np.random.default_rng(0).choice(words, (300, 10))
    (folder / "text.txt").write_text("".join(" ".join(line) + "\n" for line in text))
    return save_bert(folder / "model", "fill-mask"), folder / "text.txt"


def options(masked: tuple[Path, Path], *more: object) -> list[str]:
    """Everything that has a state: dropout, masks, accumulated gradients, a target, frozen zeros, an optimizer."""
    model, text = masked
    own = "--epochs 2 --batch-size 4 --grad-accumulation 2 --max-length 12 --lr 1e-3 --save-steps 5 --settle-steps 20"
    rate = "--target-sparsity 0.5 --eval-steps 20"
    return [str(model), "--data", str(text), "--eval-data", str(text), *own.split(), *rate.split(), *map(str, more)]


def test_a_killed_run_goes_on_to_the_same_bits(masked: tuple[Path, Path], tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    partial = tmp_path / "killed.partial"
    process = subprocess.Popen([*COMMAND, *options(masked, "-o", killed)], env=ONE_THREAD)
    checkpoint = kill_after(process, partial, 35)
    assert names(tmp_path) == ["killed.partial"]
    assert checkpoint > 30 and not killed.exists()

    assert refused("train", *options(masked, "-o", killed)) == (
        f"{partial}: holds a checkpoint of an unfinished run; go on with --resume, or begin anew with --force"
    )
    assert refused("train", *options(masked, "-o", killed, "--resume", "--seed", "1")).startswith(
        f"{partial}: was begun with arguments.seed 0, and this run has 1; resume with what it was begun with, or"
    )
    other = (save_bert(tmp_path / "other", "fill-mask", hidden_size=16), masked[1])
    assert refused("train", *options(other, "-o", killed, "--resume")).startswith(
        f"{partial}: was begun with model.name {masked[0]}, and this run has {tmp_path}/other"
    )
    more_threads = ONE_THREAD | {"OMP_NUM_THREADS": "2"}
    resumed = [*COMMAND, *options(masked, "-o", killed, "--resume")]
    assert subprocess.run(resumed, env=more_threads, timeout=PATIENCE).returncode == 0
    assert subprocess.run([*COMMAND, *options(masked, "-o", whole)], env=ONE_THREAD, timeout=PATIENCE).returncode == 0
    assert (killed / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    records = [json.loads((out / "backslash.json").read_text()) for out in (killed, whole)]
    assert records[0] == records[1]
    assert not partial.exists()


def await_checkpoint(process: subprocess.Popen[Any], partial: Path, step: int) -> None:
    """Until a run has sealed the checkpoint of this step."""
    end = time.monotonic() + PATIENCE
    while not (partial / f"checkpoint-{step}" / "complete.json").exists():
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.001)


def kill_after(process: subprocess.Popen[bytes], partial: Path, step: int) -> int:
    """SIGKILL a run as soon as it has sealed the checkpoint of this step; returns the step of the last one."""
    await_checkpoint(process, partial, step)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    sealed = partial.glob("checkpoint-*/complete.json")  # two, if it was about to remove the older
    return max(int(seal.parent.name.removeprefix("checkpoint-")) for seal in sealed)


@pytest.mark.parametrize(("number", "word"), [(signal.SIGINT, "Aborted!"), (signal.SIGTERM, "Terminated!")])
def test_a_stopped_run_says_how_to_go_on(
    masked: tuple[Path, Path], tmp_path: Path, number: signal.Signals, word: str
) -> None:
    partial = tmp_path / "out.partial"
    process = subprocess.Popen(
        [*COMMAND, *options(masked, "-o", tmp_path / "out")],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # a background job ignores it
    )
    await_checkpoint(process, partial, 5)
    process.send_signal(number)
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + number
    assert said == f"{word} {partial} holds a checkpoint: go on with --resume\n"
    assert list(partial.glob("checkpoint-*/complete.json"))


def test_a_run_that_was_killed_after_its_last_step_only_finishes(
    masked: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = options(masked, "-o", tmp_path / "out", "--limit", "40", "--settle-steps", "2")
    with monkeypatch.context() as patched, pytest.raises(ZeroDivisionError):
        patched.setattr("bsexport.train.run.plot", lambda *_: 1 / 0)
        bsexport("train", *short)
    (last,) = (tmp_path / "out.partial").glob("checkpoint-*")
    weights = (last / "model.safetensors").read_bytes()
    assert json.loads((last / "complete.json").read_text())["last"] is True
    with monkeypatch.context() as patched:
        patched.setattr("transformers.Trainer.train", lambda *_, **__: 1 / 0)
        assert bsexport("train", *short, "--resume").exit_code == 0
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == weights
    record = json.loads((tmp_path / "out" / "backslash.json").read_text())
    assert record["curve"][-1]["step"] == record["steps"] == 10
    assert record["final"]["accuracy"] is not None


def test_two_processes_come_to_what_one_comes_to(tmp_path: Path) -> None:
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = save_bert(tmp_path / "model", "text-classification", **still)
    rows = [{"text": text, "label": n % 3} for n, text in enumerate(["the film was fine", "ada did", "a ; one"] * 16)]
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = [str(model), "--data", str(data), "--eval-data", str(data), "--steps", "12", "--pull", "0.3"]
    one, two = tmp_path / "one", tmp_path / "two"
    assert bsexport("train", *run, "-o", one, "--batch-size", "8").exit_code == 0
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", *COMMAND[2:]]
    done = launched(*launch, *run, "-o", two, "--batch-size", "4")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{model} -> {two}\n") and done.stdout.count("steps  ") == 1
    a, b = load_file(one / "model.safetensors"), load_file(two / "model.safetensors")
    before = load_file(model / "model.safetensors")
    # A key's bias changes no attention: its gradient is rounding noise, which Adam blows up to whole learning rates.
    assert max(np.abs(a[name] - b[name]).max() for name in a if not name.endswith("key.bias")) < 1e-6
    assert max(np.abs(a[name] - before[name]).max() for name in a) > 1e-2
    losses = [[row["loss"] for row in json.loads((out / "backslash.json").read_text())["curve"]] for out in (one, two)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    assert names(tmp_path) == ["data.jsonl", "model", "one", "two"]

    done = launched(*launch, *run, "-o", two)
    assert done.returncode == 1
    assert done.stderr.count(f"Error: {two}: exists already") == 1


def test_two_processes_of_accelerate_train_a_language_model_from_its_configuration(
    masked: tuple[Path, Path], tmp_path: Path
) -> None:
    """To the weights, and the figures, that one process comes to."""
    model = tmp_path / "model"
    save_tokenizer(model)
    config = {
        "model_type": "llama", "vocab_size": len(WORDS), "hidden_size": 32, "intermediate_size": 48,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 40,
        "tie_word_embeddings": True, "bos_token_id": 2, "eos_token_id": 3,
    }  # fmt: skip
    (model / "config.json").write_text(json.dumps(config))
    run = [str(model / "config.json"), "--task", "text-generation", "--data", str(masked[1]), "--max-length", "12"]
    run += ["--eval-data", str(masked[1]), "--steps", "12", "--lr", "1e-3", "--target-sparsity", "0.5"]
    one, two = tmp_path / "one", tmp_path / "two"
    assert bsexport("train", *run, "-o", one, "--batch-size", "8").exit_code == 0
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "-m", *COMMAND[2:]]
    done = launched(sys.executable, *launch, *run, "-o", str(two), "--batch-size", "4")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{run[0]} -> {two}\n") and done.stdout.count("steps  ") == 1
    a, b = load_file(one / "model.safetensors"), load_file(two / "model.safetensors")
    assert max(np.abs(a[name] - b[name]).max() for name in a) < 1e-5
    assert 0.3 < (a["model.layers.0.mlp.up_proj.weight"] == 0).mean() < 0.7
    records = [json.loads((out / "backslash.json").read_text()) for out in (one, two)]
    losses = [[row["loss"] for row in record["curve"]] for record in records]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    assert records[0]["final"]["accuracy"] == pytest.approx(records[1]["final"]["accuracy"], abs=1e-3)
    assert records[1]["processes"] == 2


def launched(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, env=ONE_THREAD)


def test_a_full_disk_is_one_line_and_the_run_goes_on(masked: tuple[Path, Path], tmp_path: Path) -> None:
    """The file size limit of the process stands in for a full disk, from the second checkpoint on."""
    script = (
        "import resource, signal, sys; from bsexport.cli import main;"
        "from bsexport.train.checkpoints import Checkpoints;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); complete = Checkpoints.complete;"
        "Checkpoints.complete = lambda self, step, last: (complete(self, step, last=last),"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (30000, 30000)));"
        "main(sys.argv[1:])"
    )
    run = options(masked, "-o", tmp_path / "out", "--limit", "120", "--settle-steps", "2")
    done = launched(sys.executable, "-c", script, "train", *run)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"Error: {tmp_path}/out.partial: cannot be written: ")
    assert line.endswith("File too large (os error 27); make room, then go on with --resume")
    resumed = bsexport("train", *run, "--resume")
    assert resumed.exit_code == 0, resumed.stderr


# the working directory


def begun(out: Path, run: dict[str, Any], *, resume: bool = False, force: bool = False) -> Checkpoints:
    working = Checkpoints(out, resume=resume, force=force)
    working.__enter__()
    working.begin(run)
    return working


def checkpoint(working: Checkpoints, step: int) -> Path:
    folder = working.path / f"checkpoint-{step}"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def leave(working: Checkpoints) -> None:
    working.__exit__(KeyboardInterrupt, None, None)


def test_a_run_without_a_checkpoint_leaves_nothing(tmp_path: Path) -> None:
    leave(begun(tmp_path / "out", {"seed": 1}))
    assert names(tmp_path) == []


def test_only_the_last_sealed_checkpoint_stays(tmp_path: Path) -> None:
    working = begun(tmp_path / "out", {"seed": 1})
    assert working.last_checkpoint() is None
    for step in (5, 10):
        checkpoint(working, step)
        working.complete(step, last=False)
    torn = checkpoint(working, 15)
    found = working.last_checkpoint()
    assert found and (found.path, found.step, found.last) == (working.path / "checkpoint-10", 10, False)
    assert names(working.path) == ["checkpoint-10", "checkpoint-15", "run.json"]
    leave(working)
    again = begun(tmp_path / "out", {"seed": 1}, resume=True)
    assert not torn.exists() and again.last_checkpoint() == found
    leave(again)


def test_a_checkpoint_of_another_run_or_a_damaged_one(tmp_path: Path) -> None:
    one, two = begun(tmp_path / "one", {"seed": 1}), begun(tmp_path / "two", {"seed": 2})
    checkpoint(one, 5)
    one.complete(5, last=False)
    shutil.copytree(one.path / "checkpoint-5", two.path / "checkpoint-5")
    with pytest.raises(ResumeError, match=r"two\.partial/checkpoint-5: is a checkpoint of another run; remove it, or"):
        two.last_checkpoint()
    (one.path / "checkpoint-5" / "model.safetensors").write_bytes(b"weigh")
    with pytest.raises(ResumeError, match=r"checkpoint-5/model\.safetensors: is missing or truncated; begin anew"):
        one.last_checkpoint()
    leave(one)
    leave(two)


def test_what_differs_is_named(tmp_path: Path) -> None:
    working = begun(tmp_path / "out", {"rate": {"form": "none", "step": 0.1}, "limit": None})
    checkpoint(working, 5)
    working.complete(5, last=False)
    leave(working)
    with pytest.raises(ResumeError, match=r"was begun with rate\.step 0\.1, and this run has 0\.2; resume with what"):
        begun(tmp_path / "out", {"rate": {"form": "none", "step": 0.2}, "limit": None}, resume=True)
    assert (working.path / "checkpoint-5").is_dir()


def test_a_folder_in_use_or_of_somebody_else(tmp_path: Path) -> None:
    working = begun(tmp_path / "out", {})
    with pytest.raises(OutputError, match=r"out\.partial: another process works there; wait for it or stop it"):
        begun(tmp_path / "out", {})
    leave(working)
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "thesis.tex").touch()
    for force in (False, True):
        with pytest.raises(OutputError, match=r"out\.partial: was not made by this command; remove it, or choose"):
            Checkpoints(tmp_path / "out", resume=False, force=force).check()
    assert names(tmp_path / "out.partial") == ["thesis.tex"]


def test_force_begins_anew(tmp_path: Path) -> None:
    working = begun(tmp_path / "out", {"seed": 1})
    checkpoint(working, 5)
    working.complete(5, last=False)
    leave(working)
    again = begun(tmp_path / "out", {"seed": 2}, force=True)
    assert names(again.path) == ["run.json"]
    leave(again)
    assert names(tmp_path) == []
