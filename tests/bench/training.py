"""BackSlash against its rivals on a real task: `python -m tests.bench.training --help`.

Each run trains with `bsexport train`, packs with `bsexport pack`, and counts the right answers of what the runtime
decodes. It ends in a file of figures of its own, so that a study goes on where it was stopped: a run that has its file
is not run again. The tables in docs/results.md are made of the files.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas
from transformers import AutoTokenizer

import bsexport_runtime

from . import results

RUNS = Path(__file__).parents[2] / "docs" / "training"
STEPS, SETTLE, BATCH, LENGTH, LEARNING_RATE = 1000, 250, 8, 128, "2e-4"
FINE, COARSE = "2^-8", "2^-5"
EVALUATED_TOGETHER = 32
CONFIDENCE = 1.96  # standard deviations: 95%


def settled(*options: str) -> tuple[str, ...]:
    """Options of a run that ends with steps without the rate."""
    return (*options, "--settle-steps", str(SETTLE))


def at(share: str, *options: str) -> tuple[str, ...]:
    return settled("--target-sparsity", share, *options)


PAPER = ("--form", "decoupled", "--shape", "global", "--epsilon", "1")
EXTRAS = ("--teacher", "{normal}", "--round")
ROWS: dict[str, tuple[str, ...]] = {
    "normal": ("--form", "none"),
    "backslash-80": at("0.8"),
    "gradual-80": at("0.8", "--form", "gradual"),
    "oneshot-80": at("0.8", "--form", "oneshot"),
    "backslash-90": at("0.9"),
    "gradual-90": at("0.9", "--form", "gradual"),
    "oneshot-90": at("0.9", "--form", "oneshot"),
    **{f"paper-pull-{pull}": settled("--pull", pull, *PAPER) for pull in ("0.25", "0.5", "1", "2")},
    **{f"l{shape}": settled("--pull", "1", "--shape", shape) for shape in ("0.5", "1", "2")},
    "dggr": settled("--pull", "1"),
    "backslash-80-adam": at("0.8", "--metric", "adam", "--shape", "global"),
    "backslash-90-adam": at("0.9", "--metric", "adam", "--shape", "global"),
    **{
        f"{name}-{share}-taught": at(f"0.{share[0]}", "--form", form, *EXTRAS)
        for share in ("80", "90")
        for name, form in (("backslash", "proximal"), ("gradual", "gradual"), ("oneshot", "oneshot"))
    },
    "bits-2": settled("--target-bits", "1.9", "--step", COARSE),
    "bits-1": settled("--target-bits", "0.95", "--step", COARSE),
}
"""Name of a run -> options of `bsexport train`; {normal} is the directory of the normal run of its seed."""


@dataclass(frozen=True)
class Data:
    """A data set in two files with the columns text and label, and how many rows of the second are evaluated."""

    name: str
    train: Path
    test: Path
    limit: int | None


def points(name: str) -> list[tuple[str, str]]:
    """The pruning ratios and steps at which a run is measured."""
    if name.startswith("bits"):
        return [("0", COARSE)]
    share = "0.9" if "90" in name else "0.8"
    return [("0", FINE), (share, FINE), *([("0.9", FINE), ("0", COARSE)] if name == "normal" else [])]


def run(name: str, seed: int, model: Path, data: Data, work: Path) -> dict[str, Any]:
    """Train one run, pack it at its points and evaluate; its figures."""
    folder = work / f"{data.name}-{name}-{seed}"
    if not (folder / "backslash.json").is_file():
        normal = work / f"{data.name}-normal-{seed}"
        options = [option.format(normal=normal) for option in ROWS[name]]
        resume = ["--resume"] if folder.with_name(folder.name + ".partial").is_dir() else []
        bsexport(
            *("train", str(model), "--task", "text-classification", "--data", str(data.train), "-o", str(folder)),
            *("--steps", str(STEPS), "--batch-size", str(BATCH), "--max-length", str(LENGTH), "--lr", LEARNING_RATE),
            *("--seed", str(seed), *options, *resume),
        )
    record = json.loads((folder / "backslash.json").read_text())
    measured = [evaluate(folder, prune, step, data) for prune, step in points(name)]
    return {
        "run": name,
        "seed": seed,
        "data": data.name,
        "options": ROWS[name],
        "train": record["data"],
        "rate": record["rate"],
        "model": record["model"],
        "versions": record["versions"],
        "final": record["final"],
        "points": measured,
    }


def evaluate(folder: Path, prune: str, step: str, data: Data) -> dict[str, Any]:
    """Pack at a pruning ratio and a step, and count the right answers of a session of the runtime."""
    with tempfile.TemporaryDirectory() as scratch:
        package = Path(scratch) / "package"
        done = bsexport("pack", str(folder), "--prune", prune, "--step", step, "-o", str(package), "--json")
        packed = json.loads(done)
        right, count = count_right(package, data)
    keys = ("weights_bytes", "of_fp32", "bits_per_weight", "entropy_bits", "sparsity")
    figures = {key: packed[key] for key in keys if key in packed}
    return {"prune": prune, "step": step, "right": right, "count": count, **figures}


def count_right(package: Path, data: Data) -> tuple[int, int]:
    """How many texts of the test set are classified rightly, of how many; texts of like length are run together."""
    tokenizer = AutoTokenizer.from_pretrained(package)
    session = bsexport_runtime.load(package)
    names = {each.name for each in session.get_inputs()}
    rows = pandas.read_csv(data.test)
    if data.limit is not None:
        rows = rows.sample(min(data.limit, len(rows)), random_state=0)
    encoded = [tokenizer(text, truncation=True, max_length=LENGTH) for text in rows["text"]]
    order = np.argsort([len(each["input_ids"]) for each in encoded], kind="stable")
    right, labels = 0, rows["label"].to_numpy()
    for start in range(0, len(order), EVALUATED_TOGETHER):
        batch = order[start : start + EVALUATED_TOGETHER]
        padded = tokenizer.pad([encoded[index] for index in batch], return_tensors="np")
        (logits,) = session.run(["logits"], {name: padded[name] for name in names})
        right += int((logits.argmax(1) == labels[batch]).sum())
    return right, len(order)


def bsexport(*arguments: str) -> str:
    """Run the command line; what it prints."""
    command = [sys.executable, "-m", "bsexport.cli", *arguments]
    print(f"$ bsexport {' '.join(arguments)}", file=sys.stderr, flush=True)
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout


def wilson(share: float, count: int) -> tuple[float, float]:
    """The interval of 95% confidence of a share of so many texts (Wilson 1927)."""
    spread = CONFIDENCE**2 / count
    middle = (share + spread / 2) / (1 + spread)
    half = CONFIDENCE * math.sqrt(share * (1 - share) / count + spread / (4 * count)) / (1 + spread)
    return middle - half, middle + half


def report(found: Iterable[dict[str, Any]]) -> str:
    """The table of all runs and points, with the mean of a run's seeds.

    All are evaluated on the same texts: the interval says what those leave open, the range of the seeds the rest.
    """
    groups: dict[tuple[str, str, str, str], list[dict[str, Any]]] = {}
    finals: dict[tuple[str, str, str, str], list[dict[str, Any]]] = {}
    for each in found:
        for point in each["points"]:
            key = (each["data"], each["run"], point["prune"], point["step"])
            groups.setdefault(key, []).append(point)
            finals.setdefault(key, []).append(each["final"])
    rows = []
    for key, measured in groups.items():
        shares = [point["right"] / point["count"] for point in measured]
        low, high = wilson(float(np.mean(shares)), measured[0]["count"])
        shape = np.mean([final["taking_part"]["shape"] for final in finals[key]])
        mean = {name: np.mean([point[name] for point in measured]) for name in ("bits_per_weight", "entropy_bits")}
        rows.append(
            [
                f"{key[0]}, {key[1]}",
                f"{float(key[2]):.0%}",
                key[3],
                f"{np.mean(shares):.2%}",
                f"{low:.1%}-{high:.1%}",
                f"{len(shares)}: {min(shares):.1%}-{max(shares):.1%}" if len(shares) > 1 else "1",
                f"{shape:.3f}",
                f"{mean['entropy_bits']:.3f}",
                f"{mean['bits_per_weight']:.3f}",
            ]
        )
    header = ["run", "pruned", "step", "accuracy", "95%", "seeds", "shape", "entropy", "bits/weight"]
    return results.table(header, rows)


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
    parser.add_argument("--limit", type=int, help="evaluate on so many texts, drawn once for all runs  [default: all]")
    parser.add_argument("--work", type=Path, help="where trained models are kept between calls")
    asked = parser.parse_args(arguments)
    if asked.rows and None in (asked.model, asked.data, asked.work):
        parser.error("runs need --model, --data and --work")
    if unknown := set(asked.rows) - set(ROWS):
        parser.error(f"no such run: {', '.join(sorted(unknown))}")
    RUNS.mkdir(exist_ok=True)
    for seed in asked.seeds:
        for name in asked.rows:
            data = Data(asked.data.name, asked.data / "train.csv.xz", asked.data / "test.csv.xz", asked.limit)
            path = RUNS / f"{data.name}-{name}-{seed}.json"
            if not path.is_file():
                figures = run(name, seed, asked.model, data, asked.work)
                path.write_text(json.dumps(figures, indent=1) + "\n")
    results.write(
        "training", "python -m tests.bench.training RUN... --model DIR --data DIR --work DIR", report(read_runs())
    )


if __name__ == "__main__":
    main()
