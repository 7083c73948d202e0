"""Time and memory of loading, against onnxruntime on the plain fp32 file: `python -m tests.bench.load`.

Every figure is the median of processes that each load once, the kinds taken in turn, so that whatever else the machine
does hits all of them alike.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from bsexport.unpack import unpack

from . import cases, results

KINDS = {
    "native, 1 thread": ("native", 1),
    "native, 2 threads": ("native", 2),
    "onnxruntime, fp32 file": ("fp32", 0),
    "onnxruntime, fp32 file, no prepacking": ("fp32-unpacked", 0),
    "numpy": ("numpy", 1),
}
PLAIN = "onnxruntime, fp32 file"
MIB = 2**20
PEAK_BAR = 1.1  # peak of native loading, in decoded weights
NUMPY_BAR = 15e6  # weights per second of one core


def once(kind: str, path: Path, threads: int, measure: str, limit: int | None = None) -> dict[str, float]:
    """One process of load_once. Raises subprocess.CalledProcessError if it does not load."""
    asked = json.dumps({"kind": kind, "path": str(path), "threads": threads, "measure": measure, "limit": limit})
    command = [sys.executable, "-m", "tests.bench.load_once", asked]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def fits(kind: str, path: Path, limit: int) -> bool:
    """Whether loading, with one thread, gets by with so much private memory beyond the import."""
    try:
        once(kind, path, 1, "time", limit)
    except subprocess.CalledProcessError:
        return False
    return True


def measure(package: Path, plain: Path, repeats: int) -> dict[str, dict[str, float]]:
    """Of each kind, peak and end in bytes, which hardly vary, and the medians of all seconds of load_once."""
    jobs = {
        label: (kind, package if kind in ("native", "numpy") else plain, threads)
        for label, (kind, threads) in KINDS.items()
    }
    memory = {label: once(*job, "memory") for label, job in jobs.items()}  # this warms the page cache, too
    runs: dict[str, list[dict[str, float]]] = {label: [] for label in KINDS}
    for _ in range(repeats):
        for label, job in jobs.items():
            runs[label].append(once(*job, "time"))
    return {
        label: memory[label] | {key: median(run[key] for run in found) for key in found[0]}
        for label, found in runs.items()
    }


def rows(packed: cases.Packed, found: dict[str, dict[str, float]]) -> list[list[str]]:
    """The lines of one package in the table."""
    decoded = packed.report.arena_bytes
    weights = sum(tensor.weights for tensor in packed.report.tensors)
    plain = found[PLAIN]
    lines = []
    for label, run in found.items():
        lines.append(
            [
                f"{packed.label}: {label}",
                f"{run['seconds'] * 1e3:.0f}",
                f"{run['seconds'] / plain['seconds']:.2f}",
                f"{run['cpu_seconds'] * 1e3:.0f}",
                f"{weights / run['cpu_seconds'] / 1e6:.0f}",
                f"{run['peak'] / MIB:.0f}",
                f"{run['peak'] / decoded:.2f}",
                f"{run['end'] / MIB:.0f}",
            ]
        )
    return lines


def verdicts(packed: cases.Packed, plain: Path, found: dict[str, dict[str, float]]) -> list[str]:
    """One line for each bar, held or missed."""
    decoded = packed.report.arena_bytes
    weights = sum(tensor.weights for tensor in packed.report.tensors)
    limit = int(PEAK_BAR * decoded)
    checks: dict[str, Any] = {
        f"native peak at most {PEAK_BAR} x the decoded weights": found["native, 1 thread"]["peak"] <= limit,
        f"loads with private memory limited to {PEAK_BAR} x the decoded weights": fits("native", packed.path, limit),
        "onnxruntime on the fp32 file does not": not fits("fp32", plain, limit),
        "native, 1 thread, no slower than onnxruntime on the fp32 file": found["native, 1 thread"]["seconds"]
        <= found[PLAIN]["seconds"],
        f"numpy at least {NUMPY_BAR / 1e6:.0f} M weights per second of one core": weights
        / found["numpy"]["cpu_seconds"]
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
            found = measure(packed.path, plain, repeats)
            lines += rows(packed, found)
            held += verdicts(packed, plain, found)
            imports.append(found["native, 1 thread"]["import_seconds"])
            print("\n".join("  ".join(line) for line in lines[-len(KINDS) :]), flush=True)
    header = ["", "ms", "of fp32 file", "cpu ms", "M weights per cpu s", "peak MiB", "of decoded", "then MiB"]
    light = f"- import of the runtime beyond numpy and onnxruntime: {median(imports):.2f} s"
    return "\n".join([results.table(header, lines), "", *held, light])


if __name__ == "__main__":
    main()
