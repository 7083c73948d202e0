"""What a rate takes of memory, at its peak."""

import itertools
import json

import pytest

torch = pytest.importorskip("torch", reason="NOT TESTED: training needs torch")

from bsexport.backslash import Epsilon, Rate, Weight, attach  # noqa: E402

WIDTH, LAYERS = 1024, 16
WEIGHTS = 4 * LAYERS * WIDTH**2  # bytes
PAPER = {"shape": "global", "epsilon": Epsilon(1.0, relative=False)}
TARGET = {"weight": Weight("target-sparsity", 0.8), "step": 2**-12}
RATES = {
    "pull": Rate(),
    "decoupled": Rate(form="decoupled", **PAPER),
    "adam": Rate(metric="adam"),
    "target-sparsity": Rate(**TARGET),
    "target-bits": Rate(weight=Weight("target-bits", 2.0), step=2**-12),
    "gradual": Rate(form="gradual", **TARGET),
    "loss": Rate(form="loss", weight=Weight("per-weight", 1e-9), **PAPER),
}


def train(rate):
    """Two steps of two micro-batches each."""
    model = torch.nn.Sequential(*[torch.nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(LAYERS)])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    constraint = attach(model, optimizer, rate, 1000)
    for _ in range(2):
        loss = model(torch.ones(1, WIDTH)).square().mean() + constraint.loss()
        optimizer.zero_grad()  # as late as can be
        loss.backward()
        model(torch.ones(1, WIDTH)).square().mean().backward()
        optimizer.step()


def peak(rate, folder):
    """Bytes of tensors at the peak of the training."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiled:
        train(rate)
    profiled.export_chrome_trace(str(folder / "trace.json"))
    trace = json.loads((folder / "trace.json").read_text())["traceEvents"]
    return max(itertools.accumulate(event["args"]["Bytes"] for event in trace if event["name"] == "[memory]"))


@pytest.fixture(scope="module")
def without(tmp_path_factory):
    return peak(Rate(form="none"), tmp_path_factory.mktemp("none"))


@pytest.mark.parametrize("name", RATES)
def test_a_rate_keeps_no_second_copy_of_the_weights(name, tmp_path, without):
    assert peak(RATES[name], tmp_path) - without < WEIGHTS / 2  # samples of a fixed size are taken, too
