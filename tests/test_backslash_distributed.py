"""Two processes on gloo give what one process gives."""

import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="NOT TESTED: training needs torch")

LOOP = Path(__file__).parent / "distributed" / "loop.py"
NAMES = ("pull", "paper", "loss", "sparsity", "bits", "gradual", "language")


def run(form, out):
    several = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"] if form != "single" else []
    command = [sys.executable, *several, str(LOOP), form, str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert f'"world": {1 if form == "single" else 2}' in done.stdout
    return torch.load(out)


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    return run("single", tmp_path_factory.mktemp("single") / "weights.pt")


@pytest.fixture(scope="module", params=["ddp", "fsdp2"])
def several(request, tmp_path_factory):
    return run(request.param, tmp_path_factory.mktemp(request.param) / "weights.pt")


@pytest.mark.parametrize("name", NAMES)
def test_the_weights_are_those_of_one_process(single, several, name):
    one, two = single[name], several[name]
    for expected, found in zip(one["weights"], two["weights"], strict=True):
        assert torch.allclose(found, expected, rtol=0, atol=1e-5), float((found - expected).abs().max())


@pytest.mark.parametrize("name", NAMES)
def test_the_figures_are_those_of_one_process(single, several, name):
    one, two = single[name], several[name]
    for figure in ("shape", "sparsity", "bits"):
        assert two[figure] == pytest.approx(one[figure], abs=2e-3)
