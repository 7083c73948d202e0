"""BackSlash against its rivals on a real task: `python -m tests.bench.training --help`.

Each run trains with `bsexport train` and is measured with `bsexport pack` and `bsexport evaluate`. It ends in a file of
figures of its own, so that a study goes on where it was stopped: a run that has its file is not run again, and one that
was measured on fewer texts than are asked for is measured anew, without training. The tables in docs/results.md are
made of the files.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bsexport.curve.point import SIZES

from . import results

RUNS = Path(__file__).parents[2] / "docs" / "training"
STEPS, SETTLE, BATCH, LENGTH, LEARNING_RATE, FASTER = 1000, 250, 8, 128, "1e-4", "2e-4"
COARSE, COARSER = "2^-5", "2^-4"
FURTHER = 5000  # texts at a run's further pruning ratios: enough to see a loss of ten points


def settled(*options: str) -> tuple[str, ...]:
    """Options of a run that ends with steps without the rate."""
    return ("--settle-steps", str(SETTLE), *options)


def at(share: str, *options: str) -> tuple[str, ...]:
    return settled("--target-sparsity", share, *options)


PAPER = ("--form", "decoupled", "--shape", "global", "--epsilon", "1")
PLAIN = ("--metric", "plain", "--shape", "tensor", "--epsilon", "0.1rms")
ADAM = ("--metric", "adam", "--shape", "global")
STEEP = ("--metric", "adam", "--shape", "0.1", "--epsilon", "0.02rms")
"""The rate of weights as they are to come, not as they are: large ones are hardly pulled. The default of targets."""
LAWS = {
    "backslash-plain": PLAIN,
    "backslash-adam": ADAM,
    "backslash-steep": STEEP,
    "gradual": ("--form", "gradual"),
    "gradual-adam": ("--form", "gradual", "--metric", "adam"),
    "oneshot": ("--form", "oneshot"),
}
EARLY = ("--settle-steps", str(STEPS // 2))
TAUGHT = ("--teacher", "{normal}", "--round")
EXTRAS = {
    "": (),
    "-early": EARLY,
    "-taught": TAUGHT,
    "-early-taught": (*EARLY, *TAUGHT),
    "-early-faster": (*EARLY, "--lr", FASTER),
}
"""What BackSlash and its rivals may have alike: half of the steps to settle in, a teacher and rounded weights there, or
twice the learning rate."""
ROWS: dict[str, tuple[str, ...]] = {
    "normal": ("--form", "none"),
    **{
        f"{name}{extra}-{share}": at(f"0.{share[0]}", *law, *options)
        for share in ("80", "90")
        for name, law in LAWS.items()
        for extra, options in EXTRAS.items()
    },
    **{f"paper-pull-{pull}": settled("--pull", pull, *PAPER) for pull in ("0.1", "0.25", "0.5", "0.75")},
    **{f"l{shape}": settled("--pull", "0.75", "--shape", shape) for shape in ("0.5", "1", "2")},
    "dggr": settled("--pull", "0.75"),
    **{
        f"{kind}{extra}-{name}": settled("--target-bits", target, "--step", step, *options)
        for kind, step in (("bits", COARSE), ("bits-coarser", COARSER))
        for name, target in (("2", "1.9"), ("1", "0.95"))  # a package has something to say besides the levels
        for extra, options in EXTRAS.items()
    },
}
"""Name of a run -> options of `bsexport train`; {normal} is the directory of the normal run of its seed."""
AGAINST = (
    ("backslash-steep-early-80", "normal"),
    ("backslash-steep-early-80", "gradual-80"),
    ("backslash-steep-early-80", "oneshot-80"),
    ("backslash-steep-90", "gradual-90"),
    ("backslash-steep-90", "oneshot-90"),
    ("bits-early-taught-2", "normal"),
    ("bits-coarser-early-taught-1", "normal"),
)
"""Runs that are to be compared, each at its first ratio, in the seeds that both have."""


Measured = tuple[dict[str, Any], dict[str, Any]]  # the figures of a run, and those of one of its points


@dataclass(frozen=True)
class Data:
    """A data set in two files with the columns text and label, and how many rows of the second are evaluated."""

    name: str
    train: Path
    test: Path
    limit: int | None


def ratios(rate: dict[str, Any]) -> tuple[float, ...]:
    """The pruning ratios at which a run is measured, by the recipe that it was trained with."""
    if rate["form"] == "none":
        return (0, 0.8, 0.9)
    match rate["weight"]["kind"]:
        case "target-bits":
            return (0,)
        case "target-sparsity":  # pruned already
            return (rate["weight"]["value"],)
        case _:
            return (0, 0.8)


def run(name: str, seed: int, model: Path, data: Data, work: Path) -> dict[str, Any]:
    """Train one run and measure it; its figures."""
    folder = work / f"{data.name}-{name}-{seed}"
    if not (folder / "backslash.json").is_file():
        normal = work / f"{data.name}-normal-{seed}"
        options = [option.format(normal=normal) for option in ROWS[name]]
        resume = ["--resume"] if folder.with_name(folder.name + ".partial").is_dir() else []
        bsexport(
            *("train", str(model), "--task", "text-classification", "--data", str(data.train), "-o", str(folder)),
            *("--steps", str(STEPS), "--batch-size", str(BATCH), "--max-length", str(LENGTH), "--lr", LEARNING_RATE),
            *("--seed", str(seed), "--bf16", *options, *resume),
        )
    record = json.loads((folder / "backslash.json").read_text())
    return {
        "run": name,
        "seed": seed,
        "data": data.name,
        "limit": data.limit,
        "options": ROWS[name],
        "train": {**record["data"], "name": data.train.name},
        "rate": record["rate"],
        "model": {**record["model"], "name": model.name},
        "versions": record["versions"],
        "taking_part": record["final"]["taking_part"],
        "points": points(folder, ratios(record["rate"]), data),
    }


def points(folder: Path, prunings: Sequence[float], data: Data) -> list[dict[str, Any]]:
    """The figures of a trained model at each pruning ratio; at the further ones, on FURTHER texts at most."""
    fewer = replace(data, limit=FURTHER if data.limit is None else min(data.limit, FURTHER))
    return [measure(folder, ratio, fewer if number else data) for number, ratio in enumerate(prunings)]


def measure(folder: Path, prune: float, data: Data) -> dict[str, Any]:
    """The figures of a trained model, pruned, at the step it was trained for: its package's sizes and answers."""
    package = folder.with_name(f"{folder.name}-package")
    packed = json.loads(bsexport("pack", str(folder), "--prune", str(prune), "-o", str(package), "--force", "--json"))
    limit = [] if data.limit is None else ["--limit", str(data.limit)]
    answers = ("--data", str(data.test), *limit, "--max-length", str(LENGTH), "--threads", "1")
    evaluated = json.loads(bsexport("evaluate", str(package), *answers, "--json"))
    return {
        "prune": packed["recipe"]["prune"],
        "step": packed["recipe"]["step"],
        **{name: packed["summary"][name] for name in SIZES},
        "examples": evaluated["examples"],
        "figures": evaluated["figures"],
    }


def quick(model: Path, work: Path) -> Path:
    """A copy of a model that trains faster: a run sees less than one epoch, so that dropout only takes a tenth of its
    time, and the fused attention's backward pass in bfloat16 is slow on a processor."""
    copy = work / "model"
    if not copy.is_dir():
        shutil.copytree(model, copy.with_name("model.partial"), dirs_exist_ok=True)
        config = copy.with_name("model.partial") / "config.json"
        settings = json.loads(config.read_text())
        settings |= {name: 0.0 for name in settings if name.endswith("dropout_prob")}
        config.write_text(json.dumps({**settings, "attn_implementation": "eager"}, indent=1))
        copy.with_name("model.partial").rename(copy)
    return copy


def bsexport(*arguments: str) -> str:
    """Run the command line; what it prints."""
    command = [sys.executable, "-m", "bsexport.cli", *arguments]
    print(f"$ bsexport {' '.join(arguments)}", file=sys.stderr, flush=True)
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout


def report(found: Iterable[dict[str, Any]]) -> str:
    """The table of all runs and points, with the mean of a run's seeds.

    All are evaluated on the same texts: the interval says what those leave open, the range of the seeds the rest.
    """
    groups: dict[tuple[str, str, float, float, int], list[Measured]] = {}
    for each in found:
        for point in each["points"]:
            key = each["data"], each["run"], float(point["prune"]), float(point["step"]), point["examples"]
            groups.setdefault(key, []).append((each, point))
    sizes = ["shape", "zeros", "entropy", "EG-0", "best EG", "bits/weight"]
    header = ["run", "pruned", "step", "texts", "accuracy", "95%", "seeds", *sizes]
    return results.table(header, [_row(*key, measured) for key, measured in groups.items()])


def _row(data: str, name: str, prune: float, step: float, texts: int, measured: list[Measured]) -> list[str]:
    figures = [point["figures"]["accuracy"] for _, point in measured]
    value, low, high = (float(np.mean([figure[part] for figure in figures])) for part in ("value", "low", "high"))
    seeds = [figure["value"] for figure in figures]
    sizes = [
        float(np.mean([point[size] for _, point in measured]))
        for size in ("entropy_bits", "eg0_bits", "eg_bits", "bits_per_weight")
    ]
    shape = np.mean([each["taking_part"]["shape"] for each, _ in measured])
    zeros = np.mean([point["sparsity"] for _, point in measured])
    return [
        f"{data}, {name}",
        f"{prune:.0%}",
        f"{step:.4g}",
        f"{texts:,}",
        f"{value:.2%}",
        f"{low:.1%}-{high:.1%}",
        f"{len(seeds)}: {min(seeds):.1%}-{max(seeds):.1%}" if len(seeds) > 1 else "1",
        f"{shape:.3f}",
        f"{zeros:.1%}",
        *(f"{size:.3f}" for size in sizes),
    ]


def differences(found: Iterable[dict[str, Any]]) -> str:
    """The table of accuracies of a run less those of another with the same seed, in points.

    The interval is that of the texts for the mean, as if each run had texts of its own; both have the same, so that it
    is rather too wide. It does not say what other seeds would give: that, the seeds do.
    """
    first = {(each["data"], each["run"], each["seed"]): each["points"][0] for each in found}
    rows = []
    for data in sorted({data for data, _, _ in first}):
        for run, other in AGAINST:
            ours = [seed for at, name, seed in first if (at, name) == (data, run)]
            both = [(first[data, run, seed], first[data, other, seed]) for seed in ours if (data, other, seed) in first]
            if pairs := [pair for pair in both if pair[0]["examples"] == pair[1]["examples"]]:
                rows.append([f"{data}, {run}", other, *_difference(pairs)])
    return results.table(["run", "less", "points", "95%", "by seed"], rows)


def _difference(pairs: list[tuple[dict[str, Any], dict[str, Any]]]) -> list[str]:
    def share(point: dict[str, Any]) -> float:
        return float(point["figures"]["accuracy"]["value"])

    by_seed = [100 * (share(ours) - share(theirs)) for ours, theirs in pairs]
    # Of one seed in place of the mean over seeds: these answer the same texts, and may err on the same ones.
    variances = [sum(share(point) * (1 - share(point)) / point["examples"] for point in pair) for pair in pairs]
    spread = 100 * float(np.mean(variances)) ** 0.5
    mean = float(np.mean(by_seed))
    interval = f"{mean - 1.96 * spread:+.1f} to {mean + 1.96 * spread:+.1f}"
    return [f"{mean:+.1f}", interval, ", ".join(f"{each:+.1f}" for each in by_seed)]


def is_over(path: Path, limit: int | None) -> bool:
    """Whether a run has its figures in the file, on at least as many texts as are asked for (None: all)."""
    if not path.is_file():
        return False
    figures = json.loads(path.read_text())
    texts = figures["points"][0]["examples"]
    on_all = figures["limit"] is None or texts < figures["limit"]
    return on_all or (limit is not None and limit <= texts)


def read_runs() -> list[dict[str, Any]]:
    """The figures of all runs that are over, in the order of ROWS."""
    found = [json.loads(path.read_text()) for path in sorted(RUNS.glob("*.json"))]
    names = list(ROWS)
    return sorted(found, key=lambda each: (each["data"], names.index(each["run"]), each["seed"]))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="RUN", help=f"of {', '.join(ROWS)}; none: make the tables only")
    parser.add_argument("--model", type=Path, help="all-MiniLM-L6-v2")
    parser.add_argument("--data", type=Path, help="folder with train.csv.xz and test.csv.xz: text and label")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument(
        "--limit",
        type=int,
        help=f"evaluate on so many texts, drawn once; at further ratios on {FURTHER} at most  [default: all]",
    )
    parser.add_argument(
        "--work", type=Path, help="where trained models are kept; taught runs need the normal one there"
    )
    asked = parser.parse_args(arguments)
    if asked.rows and None in (asked.model, asked.data, asked.work):
        parser.error("runs need --model, --data and --work")
    if unknown := set(asked.rows) - set(ROWS):
        parser.error(f"no such run: {', '.join(sorted(unknown))}")
    RUNS.mkdir(exist_ok=True)
    model = quick(asked.model, asked.work) if asked.rows else None
    for seed in asked.seeds:
        for name in asked.rows:
            data = Data(asked.data.name, asked.data / "train.csv.xz", asked.data / "test.csv.xz", asked.limit)
            path = RUNS / f"{data.name}-{name}-{seed}.json"
            if not is_over(path, data.limit):
                figures = run(name, seed, model, data, asked.work)
                path.write_text(json.dumps(figures, indent=1) + "\n")
    found = read_runs()
    command = "python -m tests.bench.training RUN... --model DIR --data DIR --work DIR"
    results.write("training", command, report(found))
    results.write("training-differences", command, differences(found))


if __name__ == "__main__":
    main()
