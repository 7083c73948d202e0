"""Every form of the rate, and its rivals, on the demo's digits: `python -m tests.bench.digits`. Some minutes.

A small vision transformer is trained from nothing on 1,437 scanned digits, at the demo's budget; the accuracy is that
on the 360 that are held out, after global magnitude pruning of the weights that take part.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch

from bsexport.backslash import Epsilon, Rate, Weight
from bsexport.backslash.settle import zero_below
from examples import digits

from . import results

SHARES = (0.5, 0.8, 0.9, 0.95)
PAPER = {"form": "decoupled", "shape": "global", "epsilon": Epsilon(1.0, relative=False)}
TARGET = {"weight": Weight("target-sparsity", 0.95)}
ROWS: dict[str, Rate] = {
    "normal": Rate(form="none"),
    **{f"paper's form, pull {pull:g}": Rate(weight=Weight("pull", pull), **PAPER) for pull in (0.5, 1.0, 2.0, 4.0)},
    **{f"proximal, pull {pull:g}": Rate(weight=Weight("pull", pull)) for pull in (1.0, 2.0, 4.0)},
    **{f"proximal, pull 2, L{shape:g}": Rate(weight=Weight("pull", 2.0), shape=shape) for shape in (0.5, 1.0, 2.0)},
    "to 95% zeros": Rate(**TARGET),
    "to 95% zeros, one shape": Rate(shape="global", **TARGET),
    "to 95% zeros, Adam's metric": Rate(metric="adam", **TARGET),
    "to 95% zeros, epsilon 1": Rate(epsilon=Epsilon(1.0, relative=False), **TARGET),
    "to 95% zeros, L1": Rate(shape=1.0, **TARGET),
    "gradual magnitude pruning to 95%": Rate(form="gradual", **TARGET),
    "one-shot pruning to 95%, then the rest": Rate(form="oneshot", **TARGET),
}


def measure(rate: Rate, seeds: range) -> np.ndarray:
    """Mean over seeds of: accuracy unpruned and at SHARES, shape, share of zeros, entropy in bits/weight."""
    pixels, labels = digits.read_digits()
    held_out = np.arange(len(labels)) % 5 == 0
    found = []
    for seed in seeds:
        model, constraint = digits.fit(rate, pixels[~held_out], labels[~held_out], seed)
        now = constraint.measure()
        row = [digits.right(model, pixels[held_out], labels[held_out])]
        for share in SHARES:
            magnitudes = torch.cat([weights.abs().flatten() for weights in constraint.weights.local()])
            zero_below(constraint.weights, magnitudes.quantile(share))
            row.append(digits.right(model, pixels[held_out], labels[held_out]))
        found.append([*row, now.shape, now.sparsity, now.bits])
    return np.mean(found, axis=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--dry-run", action="store_true", help="print only, leave docs/results.md as it is")
    arguments = parser.parse_args()
    rows = []
    for name, rate in ROWS.items():
        *accuracies, shape, zeros, bits = measure(rate, range(arguments.seeds))
        rows.append([name, *(f"{each:.1%}" for each in accuracies), f"{shape:.2f}", f"{zeros:.1%}", f"{bits:.2f}"])
        print("  ".join(rows[-1]), flush=True)
    header = ["", "unpruned", *(f"{share:.0%}" for share in SHARES), "shape", "zeros", "bits/weight"]
    if not arguments.dry_run:
        results.write("digits", f"python -m tests.bench.digits --seeds {arguments.seeds}", results.table(header, rows))


if __name__ == "__main__":
    main()
