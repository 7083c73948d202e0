"""Rate and speed of the codec beside other compressors, on the same integers: `python -m tests.bench.codec --help`.

Every figure of one run of this program comes from the same arrays, one core and one process. It writes a table and a
plot into docs/results.md, between the markers there.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bsexport import codebook, layout
from bsexport.layout import Allowed, Layout
from bsexport_runtime import codec
from bsexport_runtime.codec import Codec
from bsexport_runtime.codes import Family
from bsexport_runtime.errors import BackendError
from bsexport_runtime.format import DType
from tests.bench import bars, native, tensors
from tests.bench.peers import Coder, peers
from tests.bench.sets import Row, Set

DOCS = Path(__file__).parents[2] / "docs"
REMEDY = """\
The excess in places and levels is that of whole bits: every codeword has one at least, and lengths that are powers of
two fit no distribution exactly. An arithmetic or ANS coder of the same runs and levels would take it to almost nothing,
at the speed of the ANS row. The head's is the codebook and the index of blocks; larger blocks, or a codebook for
several tensors, would take less."""
LIBRARY_NOTE = """\
Ratios of speeds are medians over runs that follow each other. Speeds in G/s are those of the C library alone (`make -C
runtime/native bench`), with block checksums, and the best of several runs spread over the time that this program takes,
since other work on the machine changes them by up to 40% from minute to minute. Encoding is without the choice of
layout."""
PAGE, PLOT = DOCS / "results.md", DOCS / "codec.svg"
BEGIN, END = "<!-- codec: begin -->", "<!-- codec: end -->"
SLOW_SECONDS = 0.3  # no further run of what has taken so long in all
RUNS = 5
PAIRS = 50
NEIGHBOURS = 21
NATIVE_SIDE = 4096
LIBRARY_EVERY = 15  # sets
STEP = 2.0**-8
TYPES = {1: DType.INT8, 2: DType.INT16, 4: DType.INT32}


class Ours(Coder):
    """This codec. Encoding has the choice of the layout in its time; decoding takes all tensors of a set in one call,
    as loading does, into warm buffers."""

    def __init__(self, name: str, backend: Codec, limits: Allowed) -> None:
        self.backend, self.limits = backend, limits
        self.buffers: dict[DType, list[np.ndarray[Any, Any]]] = {}
        super().__init__(name, self._encode, self._refuse)

    def _encode(self, levels: np.ndarray[Any, Any]) -> bytes:
        wide = levels.astype(np.int32)
        symbols = codebook.rank(codebook.count(wide))
        coding = layout.choose(symbols, wide, self.limits)
        return self.backend.encode(
            wide,
            dtype=DType.FLOAT32,
            step=STEP,
            codebook=symbols.levels,
            layout=coding.layout,
            level_code=coding.level_code,
            run_code=coding.run_code,
            pair_classes=coding.pair_classes,
        )

    def decode_all(self, coded: list[bytes], like: Sequence[np.ndarray[Any, Any]]) -> list[np.ndarray[Any, Any]]:
        widest = max(levels.itemsize for levels in like)
        return self._decode(coded, TYPES[widest])

    def decode_floats(self, coded: list[bytes]) -> list[np.ndarray[Any, Any]]:
        return self._decode(coded, DType.FLOAT32)

    def _decode(self, coded: list[bytes], out_type: DType) -> list[np.ndarray[Any, Any]]:
        sizes = [self.backend.parse(blob).weights for blob in coded]
        outs = self.buffers.get(out_type, [])
        if [out.size for out in outs] != sizes:
            outs = self.buffers[out_type] = [np.ones(size, out_type.storage) for size in sizes]
        self.backend.decode_into(coded, outs, out_type=out_type)
        return outs

    @staticmethod
    def _refuse(coded: Any, dtype: np.dtype[Any], count: int) -> np.ndarray[Any, Any]:
        raise NotImplementedError("decode_all decodes")


def our_coders() -> tuple[list[Coder], list[str]]:
    """The native codec, the same with the paper's family alone, and numpy; and a line for what is not there."""
    numpy = Ours("**bsx** (numpy fallback)", codec.numpy_codec(), Allowed())
    try:
        native = codec.native_codec()
    except BackendError as error:
        return [numpy], [f"native bsx ({error})"]
    paper = Allowed(families=(Family.EXP_GOLOMB,))
    return [Ours("**bsx**", native, Allowed()), Ours("**bsx**, exp-Golomb only", native, paper), numpy], []


@dataclass
class Run:
    """All that was measured. name: of the model; threads: see two_threads; dry: nothing is to be written."""

    name: str
    dry: bool
    real: list[Set] = field(default_factory=list)
    synthetic: list[Set] = field(default_factory=list)
    native: dict[str, native.Speeds] = field(default_factory=dict)
    threads: float | None = None

    def write(self, absent: Sequence[str]) -> None:
        """After each set, so that a run that is ended has something to show."""
        if not self.dry:
            plot([*self.real, *self.synthetic][:3], PLOT)
            write(section(self, absent), PAGE)


class Library:
    """The C library alone, on blobs of its own."""

    def __init__(self, folder: Path, model: Path | None, run: Run) -> None:
        self.program, self.blobs, self.run = native.build(), native_blobs(folder, model), run

    def measure(self) -> None:
        """Once more: the best counts."""
        native.measure(self.program, self.blobs, self.run.native)


def seconds(action: Callable[[], Any]) -> tuple[float, Any]:
    """The median processor time of several runs, or of one if that is slow, and what the last gave.

    All coders here work in one thread, so that this is the time on a core of one's own, whoever else is on the machine.
    """
    times: list[float] = []
    result = None
    while len(times) < RUNS:
        start = time.process_time()
        result = action()
        times.append(time.process_time() - start)
        if sum(times) > SLOW_SECONDS:
            break
    return statistics.median(times), result


def measure(coder: Coder, levels: tensors.Levels) -> Row:
    """One coder on one set, tensor by tensor. Raises AssertionError if anything decodes to something else."""
    row = Row(coder.name, levels.weights)
    coded = []
    for tensor in levels.tensors:
        spent, one = seconds(partial(coder.encode, tensor))
        row.encode += spent
        row.coded_bytes += coder.size(one)
        coded.append(one)
    row.decode, decoded = seconds(lambda: coder.decode_all(coded, levels.tensors))
    for found, tensor in zip(decoded, levels.tensors, strict=True):
        assert np.array_equal(found.reshape(tensor.shape), tensor), f"{coder.name} on {levels.name}"
    if isinstance(coder, Ours):
        row.floats, decoded = seconds(lambda: coder.decode_floats(coded))
        for found, tensor in zip(decoded, levels.tensors, strict=True):
            assert np.array_equal(found.reshape(tensor.shape), tensor * np.float32(STEP)), coder.name
    return row


def measure_set(levels: tensors.Levels, coders: Sequence[Coder]) -> Set:
    copy = 0.0
    for tensor in levels.tensors:
        weights, out = tensor.astype(np.float32), np.ones(tensor.shape, np.float32)
        copy += seconds(partial(np.copyto, out, weights))[0]
    entropy = levels.entropy() / levels.weights
    found = Set(levels.name, levels.weights, levels.zeros(), entropy, copy, streams=parts(levels))
    for coder in coders:
        found.rows.append(measure(coder, levels))
        print(f"{found.name:34} {text_row(found, found.rows[-1])}", flush=True)
    if bars.of_zeros([found], (tensors.SPEED_SHAPE,)):
        compared = [coder for coder in coders if coder.name.startswith(tuple(bars.COMPARED))]
        found.faster = side_by_side(levels, coders[0], compared)
    return found


def side_by_side(levels: tensors.Levels, ours: Coder, others: Sequence[Coder]) -> dict[str, float]:
    """Our decode speed over that of each other: the median of the ratios of runs that follow each other."""
    found = {}
    mine = [ours.encode(tensor) for tensor in levels.tensors]
    for other in others:
        theirs = [other.encode(tensor) for tensor in levels.tensors]
        ratios = []
        for _ in range(NEIGHBOURS):
            start = time.process_time()
            ours.decode_all(mine, levels.tensors)
            between = time.process_time()
            other.decode_all(theirs, levels.tensors)
            ratios.append((time.process_time() - between) / (between - start))
        found[other.name] = statistics.median(ratios)
    return found


def native_blobs(folder: Path, model: Path | None) -> dict[str, Path]:
    """Folders of blobs for the C library: GG 0.6 in the layouts that the bars are for, and the model's."""
    found: dict[str, Path] = {}

    def write(name: str, levels: tensors.Levels, limits: Allowed) -> None:
        found[name] = folder / name
        found[name].mkdir()
        coder = Ours(name, codec.native_codec(), limits)
        for number, tensor in enumerate(levels.tensors):
            (found[name] / f"{number:03}.bsxb").write_bytes(coder.encode(tensor))

    for zeros in (0.1, 0.5):
        write(f"GG {zeros:.0%}", tensors.drawn(0.6, zeros, NATIVE_SIDE), Allowed())
    for zeros in (0.8, 0.9, 0.95):
        for kind in (Layout.RL, Layout.BM):
            write(f"{kind.name} {zeros * 100:.0f}", tensors.drawn(0.6, zeros, NATIVE_SIDE), Allowed(layouts=(kind,)))
    for ratio, step in ((0.9, 4e-3), (0.0, 1e-3), (0.0, 4e-3)) if model else ():
        write(f"MiniLM {ratio:.0%} {step:g}", tensors.pruned("MiniLM", model, ratio, step), Allowed())
    return found


def two_threads() -> float | None:
    """How many times as fast two threads decode as one, on the wall clock: the best run of each, taken in turns."""
    cores = os.sched_getaffinity(0)
    levels = tensors.drawn(0.6, 0.8, NATIVE_SIDE).tensors[0]
    blob = Ours("", codec.native_codec(), Allowed()).encode(levels)
    out = np.ones(levels.size, np.float32)
    times: dict[int, list[float]] = {1: [], 2: []}
    try:
        os.sched_setaffinity(0, range(os.cpu_count() or 1))
        if len(os.sched_getaffinity(0)) < 2:
            return None
        for _ in range(PAIRS):
            for threads, spent in times.items():
                start = time.perf_counter()
                codec.native_codec().decode_into([blob], [out], threads=threads)
                spent.append(time.perf_counter() - start)
    finally:
        os.sched_setaffinity(0, cores)
    return min(times[1]) / min(times[2])


def parts(levels: tensors.Levels) -> dict[str, float]:
    """Where ours takes more than the entropy, in bits per weight of the set: each part's excess over its own entropy.

    places: runs or bitmaps over the entropy of which weights are coded; levels: over that of the symbols there.
    """
    excess = {"entropy": 0.0, "places": 0.0, "levels": 0.0, "head": 0.0}
    for tensor in levels.tensors:
        wide = tensor.astype(np.int32)
        symbols = codebook.rank(codebook.count(wide))
        coding = layout.choose(symbols, wide, Allowed())
        coded = symbols.counts[1:]
        level_entropy = codebook.Histogram(symbols.levels[1:], coded).entropy() if coded.size else 0.0
        level_bits = coding.bits
        if coding.layout is not layout.Layout.EG:
            runs = layout.count_streams(wide, symbols).runs
            place_bits = layout.code_bits(runs, coding.run_code) if coding.layout is layout.Layout.RL else wide.size
            level_bits -= place_bits
            excess["places"] += place_bits - (symbols.entropy() - level_entropy)
            excess["levels"] += level_bits - level_entropy
        else:
            excess["levels"] += level_bits - symbols.entropy()
        excess["entropy"] += symbols.entropy()
        excess["head"] += coding.cost - coding.bits
    return {name: bits / levels.weights for name, bits in excess.items()}


def text_row(found: Set, row: Row) -> str:
    floats = "" if row.floats is None else f"{row.weights / row.floats / 1e9:.3f}"
    speeds = " | ".join(f"{row.weights / spent / 1e9:.3f}" for spent in (row.encode, row.decode))
    return f"| {row.coder} | {row.rate:.3f} | {row.rate / found.entropy:.3f} | {speeds} | {floats} |"


def table(found: Set) -> str:
    copied = found.weights / found.copy / 1e9
    title = f"#### {found.name}\n\nEntropy {found.entropy:.3f} bits/weight, {found.zeros:.1%} zeros, "
    title += f"{found.weights:,} weights; memcpy of the float32 weights {copied:.2f} G/s.\n"
    head = "| coder | bits/weight | x entropy | encode G/s | decode G/s | to float32 G/s |\n|---|---|---|---|---|---|"
    return "\n".join([title, head, *(text_row(found, row) for row in found.rows)])


def short_table(sets: Iterable[Set]) -> str:
    """One line a set: everybody's rate over the entropy, and ours by part."""
    sets = list(sets)
    names = [row.coder for row in sets[0].rows if "numpy" not in row.coder]
    lines = ["| set | entropy | " + " | ".join(names) + " |", "|---" * (len(names) + 2) + "|"]
    for found in sets:
        rates = " | ".join(f"{row.rate / found.entropy:.3f}" for row in found.rows if row.coder in names)
        lines.append(f"| {found.name} | {found.entropy:.3f} | {rates} |")
    return "\n".join(lines)


def parts_table(sets: Iterable[Set]) -> str:
    lines = [
        "| set | entropy | places | levels | head, codebook, index, padding | in all, x entropy |",
        "|---" * 6 + "|",
    ]
    for found in sets:
        bits = found.streams
        whole = sum(bits.values()) / bits["entropy"]
        cells = " | ".join(f"{bits[name]:+.4f}" for name in ("places", "levels", "head"))
        lines.append(f"| {found.name} | {bits['entropy']:.4f} | {cells} | {whole:.4f} |")
    return "\n".join(lines)


def plot(sets: Sequence[Set], path: Path) -> None:
    """Rate over the entropy against decode speed, a panel a set; left is smaller, up is faster."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "bsexport"
    figure, axes = pyplot.subplots(1, len(sets), figsize=(5 * len(sets), 4.5), squeeze=False, sharey=True)
    for axis, found in zip(axes[0], sets, strict=True):
        for row in found.rows:
            own = "bsx" in row.coder
            x, y = row.rate / found.entropy, row.weights / row.decode / 1e9
            axis.scatter(x, y, marker="o" if own else "x", color="tab:red" if own else "tab:blue")
            axis.annotate(
                row.coder.replace("*", "").split(" (")[0], (x, y), fontsize=7, xytext=(4, 3), textcoords="offset points"
            )
        axis.set(title=found.name, xlabel="size over zeroth-order entropy", xscale="log", yscale="log")
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("decode to integers, 1e9 weights/s, one core")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def section(run: Run, absent: Sequence[str]) -> str:
    """The text between the markers."""
    lines = [
        BEGIN,
        f"Made by `python -m tests.bench.codec` on {platform.machine()}, {cpu()}, one core, {codec.backend()}.",
        "Each row's levels were decoded and compared. Sizes count everything; times are medians of processor time: of",
        "encoding with the choice of layout and codes, of decoding into the narrowest integers that hold the levels",
        "(checksums on), and of decoding to float32. G/s is 1e9 weights a second.",
        "Absent from this run: " + ("; ".join(absent) if absent else "nobody") + ".",
        "",
        "### What was to be reached",
        "",
        LIBRARY_NOTE,
        "",
        bars.table(run.real, run.synthetic, run.native, run.threads, run.name),
    ]
    if run.real or run.synthetic:
        lines += ["", f"![Rate against decode speed]({PLOT.name})"]
    for title, sets in (("Real weights", run.real), ("Generalised Gaussians", run.synthetic)):
        if sets:
            lines += ["", f"### {title}: size over the zeroth-order entropy", "", short_table(sets)]
            lines += ["", "What ours takes above the entropy, by part, in bits/weight:", "", parts_table(sets)]
    lines += ["", REMEDY]
    for found in [*run.real, *(found for found in run.synthetic if found.name.startswith("GG 0.6"))]:
        lines += ["", table(found)]
    return "\n".join([*lines, END])


def cpu() -> str:
    found = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in found.read_text().splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor()


def write(text: str, page: Path) -> None:
    old = page.read_text() if page.exists() else f"# Results\n\n{BEGIN}\n{END}\n"
    before, rest = old.split(BEGIN)
    page.write_text(before + text + rest.split(END)[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="safetensors file of all-MiniLM-L6-v2, or of another model")
    parser.add_argument("--name", default="MiniLM", help="what to call the model")
    parser.add_argument("--side", type=int, default=1024, help="synthetic tensors are this many rows and columns")
    parser.add_argument("--only", default="", help="take the sets whose names have this in them")
    parser.add_argument("--speeds", action="store_true", help="print the bars of speed only: some minutes")
    parser.add_argument("--dry-run", action="store_true", help="print, and leave docs/results.md as it is")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    mine, missing = our_coders()
    others, absent = peers()
    absent = [*missing, *absent]
    for line in absent:
        print(f"ABSENT: {line}")

    run = Run(arguments.name, dry=arguments.dry_run or arguments.speeds)
    if arguments.model is None:
        absent.append("real weights (no --model was given)")
    sources = [(run.synthetic, tensors.synthetic(arguments.side))]
    if arguments.speeds:
        others = [coder for coder in others if coder.name.startswith(tuple(bars.COMPARED))]
        compared = (tensors.drawn(tensors.SPEED_SHAPE, zeros, 4 * arguments.side) for zeros in tensors.SPEED_ZEROS)
        sources = [(run.synthetic, compared)]
    elif arguments.model:
        sources.insert(0, (run.real, tensors.of_model(arguments.name, arguments.model)))
    with tempfile.TemporaryDirectory() as folder:
        library = Library(Path(folder), arguments.model, run) if not missing and not arguments.only else None
        for found, source in sources:
            for number, levels in enumerate(source):
                if library and (number % LIBRARY_EVERY == 0 or arguments.speeds):
                    library.measure()
                if arguments.only in levels.name:
                    found.append(measure_set(levels, [*mine, *others]))
                    run.write(absent)
        if library:
            library.measure()
            run.threads = two_threads()
    run.write(absent)
    print(bars.table(run.real, run.synthetic, run.native, run.threads, run.name))


if __name__ == "__main__":
    main()
