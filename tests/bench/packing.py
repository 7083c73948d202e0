"""Packing, verifying and unpacking models larger than the memory they get: `python -m tests.bench.packing`.

The models are Llamas of made weights, in shards, with an embedding of 128,256 x 2,048. Every measurement is a process
of its own, which may take so much private memory above its imports and no more; processor time of all its threads is
what the rates are of, since it is the same whoever else is on the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from . import results

VOCABULARY, WIDTH, INNER, HEADS, KEY_HEADS = 128_256, 2_048, 8_192, 32, 8
LAYERS = (2, 8, 23)  # 0.38, 0.75 and 1.66 billion weights
DTYPES = {"bfloat16": ml_dtypes.bfloat16, "float16": np.float16, "float32": np.float32}
CASES = [("float16", LAYERS[0]), ("float32", LAYERS[0]), *(("bfloat16", layers) for layers in LAYERS)]
SHARD_BYTES = 1 << 30
SHAPE = 0.6  # of the generalised Gaussian, as after training under a rate
SCALE = 0.02
POOL = 1 << 24  # weights that are drawn; tensors are made of pieces of them
PRUNE, STEP = 0.8, 2.0**-8
LIMITS = {"pack": 512, "verify": 256, "unpack": 256}  # MiB of private memory above the imports
THREADS = 2
RUNS = 3
BAR = 60e6  # weights per second of one core
BILLION_7 = 6.74e9
MIB = 2**20

CHILD = """
import json, os, resource, sys, threading, time
from pathlib import Path
import bsexport.cli, bsexport.graph.export, bsexport.pipeline, bsexport.unpack, bsexport.verify
import onnxruntime, torch
import torch.onnx, transformers, onnxscript
from bsexport.recipe import Recipe
from bsexport.slabs import Workers
from bsexport.source import open_source
from bsexport_runtime.package import Package
job = json.loads(sys.argv[1])
def status(key):
    return int(next(l for l in open("/proc/self/status") if l.startswith(key)).split()[1]) * 1024
source = open_source(job["model"], task="text-generation") if job["command"] == "pack" else None
base, data = status("RssAnon"), status("VmData")
resource.setrlimit(resource.RLIMIT_DATA, (data + job["limit"], data + job["limit"]))
peak, over = base, threading.Event()
def watch():
    global peak
    while not over.wait(0.05):
        peak = max(peak, status("RssAnon"))
watching = threading.Thread(target=watch)
watching.start()
began, spent = time.perf_counter(), time.process_time()
if job["command"] == "pack":
    recipe = Recipe(prune=job["prune"], step=job["step"])
    report = bsexport.pipeline.pack(source, recipe, Path(job["out"]), force=True, threads=job["threads"])
elif job["command"] == "verify":
    assert list(Package(job["model"]).verify()) == []
else:
    bsexport.unpack.unpack(Path(job["model"]), Path(job["out"]), force=True)
wall, cpu = time.perf_counter() - began, time.process_time() - spent
over.set(); watching.join()
print(json.dumps({"wall": wall, "cpu": cpu, "peak": peak - base}))
"""

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Model:
    """A model of made weights. bytes: of its shards."""

    path: Path
    dtype: str
    weights: int
    bytes: int

    @property
    def label(self) -> str:
        return f"{self.dtype}, {self.weights / 1e9:.2f} G weights, {self.bytes / 1e9:.2f} GB"


def tensors(layers: int) -> dict[str, tuple[int, ...]]:
    """The tensors of a Llama with tied embeddings, in the order in which they are stored."""
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCABULARY, WIDTH)}
    narrow = WIDTH * KEY_HEADS // HEADS
    for layer in range(layers):
        for name, shape in (
            ("input_layernorm", (WIDTH,)),
            ("self_attn.q_proj", (WIDTH, WIDTH)),
            ("self_attn.k_proj", (narrow, WIDTH)),
            ("self_attn.v_proj", (narrow, WIDTH)),
            ("self_attn.o_proj", (WIDTH, WIDTH)),
            ("post_attention_layernorm", (WIDTH,)),
            ("mlp.gate_proj", (INNER, WIDTH)),
            ("mlp.up_proj", (INNER, WIDTH)),
            ("mlp.down_proj", (WIDTH, INNER)),
        ):
            shapes[f"model.layers.{layer}.{name}.weight"] = shape
    return shapes | {"model.norm.weight": (WIDTH,)}


def draw() -> npt.NDArray[np.float32]:
    random = np.random.default_rng(0)
    magnitudes = random.gamma(1 / SHAPE, 1, POOL) ** (1 / SHAPE)
    weights = magnitudes * random.choice([-1.0, 1.0], POOL)
    return (weights * (SCALE / weights.std())).astype(np.float32)


def make(folder: Path, dtype: str, layers: int) -> Model:
    """Write a model of made weights, a shard at a time."""
    path = folder / f"{dtype}-{layers}"
    path.mkdir()
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": VOCABULARY, "hidden_size": WIDTH,
        "intermediate_size": INNER, "num_hidden_layers": layers, "num_attention_heads": HEADS,
        "num_key_value_heads": KEY_HEADS, "tie_word_embeddings": True, "dtype": dtype, "max_position_embeddings": 2048,
    }  # fmt: skip
    (path / "config.json").write_text(json.dumps(config))
    pool = draw().astype(DTYPES[dtype])
    random = np.random.default_rng(1)
    shapes, itemsize = tensors(layers), pool.itemsize
    sizes = {name: int(np.prod(shape)) for name, shape in shapes.items()}
    shard, full, places = 0, 0, {}
    for name, size in sizes.items():
        if full and full + size * itemsize > SHARD_BYTES:
            shard, full = shard + 1, 0
        places[name] = f"model-{shard:05}.safetensors"
        full += size * itemsize
    for file, names in groupby(sizes, places.__getitem__):
        header, end = {}, 0
        held = list(names)
        for name in held:
            nbytes = sizes[name] * itemsize
            word = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}[dtype]
            header[name] = {"dtype": word, "shape": list(shapes[name]), "data_offsets": [end, end + nbytes]}
            end += nbytes
        text = json.dumps(header).encode()
        with (path / file).open("wb") as stream:
            stream.write(len(text).to_bytes(8, "little") + text)
            for name in held:
                left = sizes[name]
                while left:
                    start = int(random.integers(0, POOL // 2))
                    piece = pool[start : start + min(left, POOL // 2)]
                    stream.write(piece.tobytes())
                    left -= piece.size
    index = {"metadata": {}, "weight_map": places}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    weights = sum(sizes.values())
    return Model(path, dtype, weights, weights * itemsize)


def run(command: str, model: Path, out: Path, threads: int = THREADS) -> dict[str, float]:
    """One measurement: wall and processor seconds, and the peak of private memory in bytes."""
    job = {"command": command, "model": str(model), "out": str(out), "limit": LIMITS[command] * MIB}
    job |= {"threads": threads, "prune": PRUNE, "step": STEP}
    environment = os.environ | {"BSEXPORT_REQUIRE_NATIVE": "1", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
    done = subprocess.run(
        [sys.executable, "-c", CHILD, json.dumps(job)], stdout=subprocess.PIPE, text=True, check=True, env=environment
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(command: str, model: Path, out: Path, runs: int) -> dict[str, float]:
    """The medians of several runs, but of memory the greatest."""
    found = [run(command, model, out) for _ in range(runs)]
    return {key: (max if key == "peak" else median)(each[key] for each in found) for key in found[0]}


def row(label: str, command: str, model: Model, found: dict[str, float]) -> list[str]:
    rate = model.weights / found["cpu"]
    return [
        f"{label}: {command}",
        f"{rate / 1e6:.0f}",
        f"{model.weights / found['wall'] / 1e6:.0f}",
        f"{found['cpu']:.1f}",
        f"{found['wall']:.1f}",
        f"{found['peak'] / MIB:.0f}",
        f"{LIMITS[command]}",
    ]


def report(folder: Path, cases: list[tuple[str, int]], runs: int) -> str:
    """Measure all models; the table, what was to be reached, and what 7 billion weights would take."""
    lines: list[list[str]] = []
    packed: list[tuple[Model, dict[str, float]]] = []
    for dtype, layers in cases:
        model = make(folder, dtype, layers)
        out = folder / "package"
        packed.append((model, measure("pack", model.path, out, runs)))
        lines.append(row(model.label, "pack", *packed[-1]))
        print("  ".join(lines[-1]), flush=True)
        if (dtype, layers) == cases[-1] or layers == max(each for _, each in cases):
            for command in ("verify", "unpack"):
                lines.append(row(model.label, command, model, measure(command, out, folder / "back", 1)))
                print("  ".join(lines[-1]), flush=True)
        for left in (model.path, out, folder / "back"):
            subprocess.run(["rm", "-rf", left], check=True)
    header = ["", "M weights/s, one core", "of the wall clock", "processor s", "wall s", "peak MiB", "limit MiB"]
    return "\n".join([results.table(header, lines), "", *verdicts(packed)])


def verdicts(packed: list[tuple[Model, dict[str, float]]]) -> list[str]:
    slowest = min(model.weights / found["cpu"] for model, found in packed)
    largest = max(packed, key=lambda each: each[0].bytes)
    whole = largest[1]["peak"] < 1e9 and largest[0].bytes >= 3e9
    same = [(model, found) for model, found in packed if model.dtype == largest[0].dtype]
    slope, fixed = np.polyfit([model.weights for model, _ in same], [found["cpu"] for _, found in same], 1)
    seconds = fixed + slope * BILLION_7
    return [
        f"- at least {BAR / 1e6:.0f} M weights/s of one core: {'yes' if slowest >= BAR else '**no**'} "
        f"({slowest / 1e6:.0f} at the least)",
        f"- {largest[0].bytes / 1e9:.2f} GB of weights in under 1 GB of private memory: {'yes' if whole else '**no**'} "
        f"({largest[1]['peak'] / MIB:.0f} MiB)",
        f"- 7B in {largest[0].dtype}: {fixed:.1f} s + {1e9 * slope:.1f} s for each billion weights: {seconds:.0f} s "
        f"of processor time for {BILLION_7 / 1e9:.2f} billion, {seconds / THREADS / 60:.1f} minutes of two cores.",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dry-run", action="store_true", help="print only, leave docs/results.md as it is")
    parser.add_argument("--work", type=Path, help="where models are made; some 20 GB, removed afterwards")
    parser.add_argument("--runs", type=int, default=RUNS, help=f"of each pack; default {RUNS}")
    parser.add_argument("--case", action="append", metavar="DTYPE:LAYERS", help="in place of all cases; repeatable")
    options = parser.parse_args()
    asked = [each.split(":") for each in options.case or []]
    cases = [(dtype, int(layers)) for dtype, layers in asked] or CASES
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        text = report(Path(folder), cases, options.runs)
    print(text)
    if not options.dry_run:
        chosen = [part for case in options.case or [] for part in ("--case", case)]
        command = ["python", "-m", "tests.bench.packing", "--runs", str(options.runs), *chosen]
        results.write("packing", shlex.join(command), text)


if __name__ == "__main__":
    main()
