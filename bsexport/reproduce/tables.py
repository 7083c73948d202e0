"""The paper's tables and figures, made of runs, each beside what the paper prints."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from bsexport.reproduce import paper
from bsexport.reproduce.runs import IMDB, SHAPES, Laboratory
from bsexport.reproduce.sets import NEXT_TOKEN
from bsexport.source import default_name

NOTHING = "-"
LANGUAGE_MODEL = "language model"


@dataclass(frozen=True)
class Table:
    """title: what it is. header, rows: of text; the first column names the row. note: what differs from the paper."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str

    def to_text(self) -> str:
        """In Markdown."""
        lines = [self.header, ("---", *["---:"] * (len(self.header) - 1)), *self.rows]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return f"**{self.title}**\n\n{table}\n\n{self.note}"


def strengths(laboratory: Laboratory) -> Table:
    """Lambda against bits and accuracy (the paper's figure 4, and its table of BERT on IMDB)."""
    model = _first(laboratory)
    runs = {"0": laboratory.normal(model, IMDB)}
    runs |= {lam: laboratory.backslash(model, IMDB, lam) for lam in laboratory.profile.strengths}
    rows = [
        (_strength(laboratory, lam), *_shape_bits_accuracy(run), *_numbers(paper.STRENGTHS.get(lam, ())))
        for lam, run in runs.items()
    ]
    header = ("lambda", "shape", "EG", "HM", "accuracy", "pruned 80%", "paper: EG", "HM", "accuracy")
    return Table(f"Strength of the rate, {model} on IMDB", header, tuple(rows), _note(laboratory))


def table3(laboratory: Laboratory) -> Table:
    """Exp-Golomb bits at orders 0 to 4 after BackSlash."""
    rows: list[tuple[str, ...]] = []
    for model in laboratory.profile.models:
        bits = laboratory.backslash(model, IMDB)["bits"]
        rows.append((model, *(f"{bits[f'eg{k}']:.2f}" for k in range(5))))
    rows += [(f"paper: {model}", *_numbers(bits)) for model, bits in paper.EG_ORDERS.items()]
    header = ("model", *(f"EG{k}" for k in range(5)))
    return Table("Table 3: exp-Golomb codes after BackSlash, bits/weight", header, tuple(rows), _note(laboratory))


def table4(laboratory: Laboratory) -> Table:
    """Models on sentiment, before and after."""
    rows: list[tuple[str, ...]] = []
    for model in laboratory.profile.models:
        for label, run in _pair(laboratory, model, IMDB):
            rows.append((f"{model}, {label}", f"{run['bits']['fixed']:.0f}", *_shape_bits_accuracy(run)[1:4]))
    for model, pair in paper.MODELS.items():
        for label, figures in zip(("normal", "BackSlash"), pair, strict=True):
            rows.append((f"paper: {model}, {label}", f"{figures[0]}", *_numbers(figures[1:])))
    header = ("model", "FL", "EG", "HM", "accuracy")
    return Table("Table 4: models, sentiment", header, tuple(rows), _note(laboratory))


def table5(laboratory: Laboratory) -> Table:
    """Sets of data, before and after."""
    rows, left_out = [], []
    for name, pair in paper.SETS.items():
        data = laboratory.profile.sets.get(name)
        if data is None or (data.task == NEXT_TOKEN and laboratory.profile.language_model is None):
            left_out.append(f"{name} was not run: it needs {'its data' if data is None else '--language-model'}.")
            continue
        model = LANGUAGE_MODEL if data.task == NEXT_TOKEN else _first(laboratory)
        for (label, run), figures in zip(_pair(laboratory, model, name), pair, strict=True):
            rows.append((f"{name}, {label}", *_shape_bits_accuracy(run), *_numbers(figures)))
    header = ("set", "shape", "EG", "HM", "accuracy", "pruned 80%", "paper: EG", "HM", "accuracy")
    note = " ".join([_note(laboratory), "The last two sets: accuracy of the next token, no padding.", *left_out])
    return Table("Table 5: sets of data", header, tuple(rows), note)


def table6(laboratory: Laboratory) -> Table:
    """Regularisers: the shape estimated, or fixed at 0.5, 1 and 2."""
    rows = []
    for name in SHAPES:
        shape, eg, huffman, accuracy, pruned = _shape_bits_accuracy(laboratory.regularised(_first(laboratory), name))
        theirs = _numbers(paper.REGULARISERS[name])
        rows.append((name, shape, accuracy, eg, huffman, pruned, *theirs))
    header = ("regulariser", "shape", "accuracy", "EG", "HM", "pruned 80%", "paper: shape", "accuracy", "EG", "HM")
    options = " ".join(laboratory.profile.regularised)
    note = f"{_note(laboratory)} Here the soft clip is a tenth of the weights' rms ({options}): at the paper's, 1, all "
    note += "four pull alike on weights that are much smaller."
    return Table("Table 6: regularisers, IMDB", header, tuple(rows), note)


def quantisation(laboratory: Laboratory) -> Table:
    """Accuracy against the step."""
    record = laboratory.overlay("quantisation", "--prune", "0", "--step", laboratory.profile.steps)
    return Table(
        "Quantisation, IMDB: accuracy by step", *_overlaid(record, "step"), f"{paper.QUANTISATION} {_note(laboratory)}"
    )


def pruning(laboratory: Laboratory) -> Table:
    """Accuracy against the share of weights that are pruned."""
    record = laboratory.overlay("pruning", "--prune", laboratory.profile.ratios, "--step", "2^-8")
    return Table(
        "Pruning, IMDB: accuracy by ratio, step 2^-8",
        *_overlaid(record, "prune"),
        f"{paper.PRUNING} {_note(laboratory)}",
    )


TABLES: dict[str, Callable[[Laboratory], Table]] = {
    "strength": strengths,
    "table3": table3,
    "table4": table4,
    "table5": table5,
    "table6": table6,
    "quantisation": quantisation,
    "pruning": pruning,
}
"""In the order in which all of them are made."""


def _overlaid(record: dict[str, Any], key: str) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Header and rows: a row for each model, the dense one first."""
    labels = ["dense"]
    for point in record["models"][0]["points"][1:]:
        labels.append(f"{point['prune']:.0%}" if key == "prune" else f"{point['step']:.4g}")
    rows = [
        (label, *(_percent(point["figures"]["accuracy"]["value"]) for point in model["points"]))
        for label, model in zip(("normal", "BackSlash"), record["models"], strict=True)
    ]
    return ("training", *labels), tuple(rows)


def _pair(laboratory: Laboratory, model: str, data: str) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "normal", laboratory.normal(model, data)
    yield "BackSlash", laboratory.backslash(model, data)


def _shape_bits_accuracy(run: dict[str, Any]) -> tuple[str, str, str, str, str]:
    """Shape, EG0, Huffman, accuracy at step 2^-8, and when pruned, too."""
    _, unpruned, pruned = (point["figures"]["accuracy"]["value"] for point in run["points"])
    bits = run["bits"]
    return (
        f"{run['shape']:.2f}",
        f"{bits['eg0']:.2f}",
        f"{bits['huffman']:.2f}",
        _percent(unpruned),
        _percent(pruned),
    )


def _strength(laboratory: Laboratory, lam: str) -> str:
    options = laboratory.profile.strengths.get(lam, ())
    return f"{lam} (here {' '.join(options[:2])})" if options and options[0] != "--lambda" else lam


def _numbers(figures: tuple[float, ...]) -> tuple[str, ...]:
    return tuple(f"{figure:.2f}" for figure in figures)


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _first(laboratory: Laboratory) -> str:
    return next(iter(laboratory.profile.models))


def _note(laboratory: Laboratory) -> str:
    """What of a run differs from the paper, which does not state optimizer, learning rate, batch and epochs."""
    profile = laboratory.profile
    models = ", ".join(f"{name}: {default_name(model)}" for name, model in profile.models.items())
    limit = "all" if profile.limit is None else f"{profile.limit:,}"
    return (
        f"Profile {profile.name}, seed {laboratory.seed}: {models}; {' '.join(profile.training)}, {profile.max_length} "
        f"tokens; accuracies of {limit} examples at most, through the runtime."
    )
