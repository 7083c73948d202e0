"""Time and memory of loading, against onnxruntime on the plain fp32 file: `python -m tests.bench.load`.

Every figure is the median of processes that each load once, the kinds taken in turn, so that whatever else the machine
does hits all of them alike.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import bsexport_runtime
from bsexport.bench.process import in_process
from bsexport.bench.worker import PLAIN, PLAIN_SAME, Job
from bsexport.errors import BenchError
from bsexport.unpack import unpack

from . import cases, results

NATIVE = {"BSEXPORT_REQUIRE_NATIVE": "1"}
KINDS: dict[str, tuple[str, int | None, dict[str, str]]] = {  # label -> name and threads of a Job, environment
    "native, 1 thread": ("float32", 1, NATIVE),
    "native, 2 threads": ("float32", 2, NATIVE),
    "onnxruntime, fp32 file": (PLAIN, None, {}),
    "onnxruntime, fp32 file, no prepacking": (PLAIN_SAME, None, {}),
    "numpy": ("float32", 1, {"BSEXPORT_BACKEND": "numpy"}),
}
REFERENCE = "onnxruntime, fp32 file"
MIB = 2**20
PEAK_BAR = 1.1  # peak of native loading, in decoded weights
NUMPY_BAR = 15e6  # weights per second of one core


def jobs(package: Path, plain: Path) -> dict[str, Job]:
    """What each kind loads; it answers a few times, too, so that a model that does not compute is no success."""
    names = [value.name for value in bsexport_runtime.load(package).get_inputs()]
    ones = plain.with_suffix(".npz")
    np.savez(ones, *[np.ones((1, 8), np.int64)] * len(names))
    return {
        label: Job(name, str(package if name == "float32" else plain), threads, names, [str(ones)], runs=1)
        for label, (name, threads, _) in KINDS.items()
    }


def fits(job: Job, limit: int) -> bool:
    """Whether loading, with one thread, gets by with so much private memory beyond the import."""
    try:
        in_process(replace(job, threads=1, limit=limit))
    except BenchError:
        return False
    return True


def measure(asked: dict[str, Job], repeats: int) -> dict[str, dict[str, float]]:
    """Of each kind, the medians of all numbers that a process gives."""
    runs: dict[str, list[dict[str, Any]]] = {label: [] for label in KINDS}
    for _ in range(repeats):
        for label, job in asked.items():
            runs[label].append(in_process(job, os.environ | KINDS[label][2]))
    numbers = [key for key, value in runs[REFERENCE][0].items() if isinstance(value, int | float)]
    return {label: {key: median(run[key] for run in found) for key in numbers} for label, found in runs.items()}


def rows(packed: cases.Packed, found: dict[str, dict[str, float]]) -> list[list[str]]:
    """The lines of one package in the table."""
    decoded = packed.report.arena_bytes
    weights = sum(tensor.weights for tensor in packed.report.tensors)
    plain = found[REFERENCE]
    lines = []
    for label, run in found.items():
        lines.append(
            [
                f"{packed.label}: {label}",
                f"{run['load_seconds'] * 1e3:.0f}",
                f"{run['load_seconds'] / plain['load_seconds']:.2f}",
                f"{run['load_cpu_seconds'] * 1e3:.0f}",
                f"{weights / run['load_cpu_seconds'] / 1e6:.0f}",
                f"{run['load_peak_bytes'] / MIB:.0f}",
                f"{run['load_peak_bytes'] / decoded:.2f}",
                f"{run['loaded_bytes'] / MIB:.0f}",
            ]
        )
    return lines


def verdicts(packed: cases.Packed, asked: dict[str, Job], found: dict[str, dict[str, float]]) -> list[str]:
    """One line for each bar, held or missed."""
    decoded = packed.report.arena_bytes
    weights = sum(tensor.weights for tensor in packed.report.tensors)
    limit = int(PEAK_BAR * decoded)
    native, plain, numpy = (found[label] for label in ("native, 1 thread", REFERENCE, "numpy"))
    checks: dict[str, Any] = {
        f"native peak at most {PEAK_BAR} x the decoded weights": native["load_peak_bytes"] <= limit,
        f"loads with private memory limited to {PEAK_BAR} x the decoded weights": fits(
            asked["native, 1 thread"], limit
        ),
        "onnxruntime on the fp32 file does not": not fits(asked[REFERENCE], limit),
        "native, 1 thread, no slower than onnxruntime on the fp32 file": native["load_seconds"]
        <= plain["load_seconds"],
        f"numpy at least {NUMPY_BAR / 1e6:.0f} M weights per second of one core": weights / numpy["load_cpu_seconds"]
        >= NUMPY_BAR,
    }
    return [f"- {packed.label}: {text}: {'yes' if held else '**no**'}" for text, held in checks.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="a model directory, in place of MiniLM and BERT-base")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--dry-run", action="store_true", help="print only, leave docs/results.md as it is")
    parser.add_argument("--work", type=Path, help="where models and packages are kept between runs")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        text = report(options.work or Path(temporary), options.model, options.repeats)
    print(text)
    if not options.dry_run:
        results.write("load", "python -m tests.bench.load", text)


def report(folder: Path, model: Path | None, repeats: int) -> str:
    """Measure all models and recipes; the table and the verdicts as Markdown."""
    lines, held, imports = [], [], []
    for name, directory in cases.models(folder, model).items():
        source = cases.export(directory)
        plain = folder / f"{name.replace(', ', '-')}.onnx"
        for recipe in (cases.PRUNED, cases.FINE, cases.COARSE) if name == cases.MINILM else (cases.PRUNED, cases.FINE):
            packed = cases.packed(name, source, recipe, folder)
            unpack(packed.path, plain, force=True)
            asked = jobs(packed.path, plain)
            found = measure(asked, repeats)
            lines += rows(packed, found)
            held += verdicts(packed, asked, found)
            imports.append(found["native, 1 thread"]["import_seconds"])
            print("\n".join("  ".join(line) for line in lines[-len(KINDS) :]), flush=True)
    header = ["", "ms", "of fp32 file", "cpu ms", "M weights per cpu s", "peak MiB", "of decoded", "then MiB"]
    light = f"- import of the runtime beyond numpy and onnxruntime: {median(imports):.2f} s"
    return "\n".join([results.table(header, lines), "", *held, light])


if __name__ == "__main__":
    main()
