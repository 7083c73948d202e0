"""`bsexport evaluate` in two processes on gloo gives what it gives in one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from command_line import bsexport
from hf_models import LABELS, WORDS, save_bert, save_gpt2

from bsexport.processes import Processes

pytest.importorskip("datasets", reason="NOT TESTED: measuring needs datasets")
pytest.importorskip("joblib", reason="NOT TESTED: measuring needs joblib")
pytest.importorskip("matplotlib", reason="NOT TESTED: measuring needs matplotlib")

TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2")
ACCELERATE = (
    *("accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"),
    *("--mixed_precision", "no", "--dynamo_backend", "no"),
)
COMMAND = ["-m", "bsexport.cli"]


def text(count: int) -> str:
    return " ".join(np.random.default_rng(count).choice(WORDS[5:], count))


def launched(*command: object, by: Sequence[str] = TORCHRUN) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *by, *map(str, command)],
        capture_output=True, text=True, timeout=600, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def language(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The package of a causal language model, and a text of more windows than one batch has."""
    folder = tmp_path_factory.mktemp("language")
    save_gpt2(folder / "model")
    assert bsexport("pack", folder / "model", "-o", folder / "package").exit_code == 0
    (folder / "text.txt").write_text(text(700))
    return folder / "package", folder / "text.txt"


@pytest.mark.parametrize("launcher", [TORCHRUN, ACCELERATE])
def test_the_figures_are_those_of_one_process(language: tuple[Path, Path], launcher: tuple[str, ...]) -> None:
    if launcher == ACCELERATE:
        pytest.importorskip("accelerate", reason="NOT TESTED under accelerate launch: needs accelerate")
    package, data = language
    run = ("evaluate", package, "--data", data, "--max-length", 20, "--batch-size", 7, "--json")
    alone = bsexport(*run)
    done = launched(*COMMAND, *run, by=launcher)
    assert (alone.exit_code, done.returncode) == (0, 0), done.stderr
    assert json.loads(alone.stdout)["examples"] == 1 + -(-(700 - 19) // 10)
    assert json.loads(done.stdout) == json.loads(alone.stdout)  # to the bit, and printed once


def test_fewer_batches_than_processes(tmp_path: Path) -> None:
    model = save_bert(tmp_path / "model", "text-classification")
    assert bsexport("pack", model, "-o", tmp_path / "package").exit_code == 0
    rows = [{"text": text(1 + n), "label": LABELS[n % 3]} for n in range(9)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = ("evaluate", tmp_path / "package", "--data", tmp_path / "rows.jsonl")
    done = launched(*COMMAND, *run)
    assert done.returncode == 0, done.stderr
    assert done.stdout == bsexport(*run).stdout != ""


def test_the_first_process_tells_of_an_error_once(language: tuple[Path, Path], tmp_path: Path) -> None:
    package, data = language
    done = launched(*COMMAND, "evaluate", package, "--data", tmp_path / "none.txt")
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.count(f"Error: {tmp_path / 'none.txt'}: no such file or folder") == 1
    script = tmp_path / "one_lacks_the_data.py"
    script.write_text(
        "import os, sys; from bsexport.cli import main\n"
        "main(['evaluate', sys.argv[1], '--data', sys.argv[2] + '.moved' * (os.environ['RANK'] == '1')])\n"
    )
    done = launched(script, package, data)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.count(f"Error: process 1 of 2: {data}.moved: no such file or folder") == 1


def test_they_share_the_cores_that_they_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(6)), raising=False)
    assert [Processes(0, count, here).threads for count, here in ((1, 1), (4, 1), (4, 2), (8, 8))] == [None, None, 3, 1]


def test_curve_starts_processes_of_its_own(
    language: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package, data = language
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.chdir(tmp_path)
    result = bsexport("curve", package.with_name("model"), "--data", data)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        "Error: 2 processes were started, but curve starts its own: leave torchrun out, and give --jobs, or "
        "--backend dask on a cluster\n"
    )
    assert not any(tmp_path.iterdir())
