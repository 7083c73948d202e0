"""How fast text is generated, beside plain onnxruntime and llama.cpp: `python -m tests.bench.generation`.

The model is a Llama of GPT-2's size made from its configuration, with weights as BackSlash leaves them: of a
generalised Gaussian of shape 0.6, coded with such a step that so many of them become 0; and pruned by magnitude, as
other weights have to be, which leaves large levels. Every figure is of a fresh process with one thread and the median
of the rounds, in which all take turns.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from bsexport.pipeline import pack
from bsexport.recipe import Recipe
from bsexport.source import open_source
from bsexport.unpack import unpack
from bsexport_runtime.package import INT8_GRAPH

from . import llama_cpp, results
from .bars import Bar
from .decoding import LLAMA, NEW, PLAIN

ZEROS = (0.8, 0.9)
PRUNED = Recipe(prune=0.9, step=4e-3)
MODES = ("float32", "coded", "int8")
SHAPE, DEVIATION = 0.6, 0.02
CONFIG = {
    "vocab_size": 32_000,
    "hidden_size": 768,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_key_value_heads": 4,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": True,
}


@dataclass
class Subject:
    """Something that generates. file_bytes: of all that it is loaded from. runs: what each process gave."""

    name: str
    kind: str
    path: Path
    file_bytes: int
    runs: list[dict[str, Any]] = field(default_factory=list)

    def run(self, threads: int) -> None:
        command = [sys.executable, "-m", f"{__package__}.decoding", self.kind, str(self.path), str(threads)]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
        self.runs.append(json.loads(done.stdout.strip().splitlines()[-1]))

    def of(self, key: str) -> float:
        """The median over the rounds."""
        return median(run[key] for run in self.runs)


def make_model(folder: Path) -> Path:
    """The directory of the model."""
    import torch
    import transformers
    from safetensors.numpy import save_file

    out = folder / "llama-made"
    if (out / "model.safetensors").exists():
        return out
    config = transformers.LlamaConfig(**CONFIG, architectures=["LlamaForCausalLM"])
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(config)
    rng = np.random.default_rng(0)
    config.save_pretrained(out)
    weights = {}
    for name, parameter in model.named_parameters():
        drawn = rng.standard_gamma(1 / SHAPE, parameter.shape) ** (1 / SHAPE) * rng.choice([-1, 1], parameter.shape)
        scale = DEVIATION / drawn.std()
        weights[name] = np.asarray(drawn * scale if parameter.ndim == 2 else np.ones(parameter.shape), np.float32)
    save_file(weights, out / "model.safetensors", {"format": "pt"})
    return out


def step_for(model: Path, zeros: float) -> float:
    """The step with which this share of the weights becomes 0."""
    from safetensors import safe_open

    with safe_open(model / "model.safetensors", "np") as file:
        tensors = [file.get_tensor(name) for name in file.keys() if "norm" not in name]  # noqa: SIM118
    return float(2 * np.quantile(np.concatenate([abs(tensor[::16]).ravel() for tensor in tensors]), zeros))


def packed(model: Path, recipe: Recipe, out: Path) -> Path:
    """The package, made unless it stands there."""
    if not out.exists():
        pack(open_source(str(model)), recipe, out, int8=True)
    return out


def subjects(folder: Path) -> Iterator[Subject]:
    """All of them; the plain ones have the weights of the package with the most zeros."""
    model = make_model(folder)
    pruned = packed(model, PRUNED, folder / "llama-pruned")
    yield Subject(f"coded, {PRUNED.prune:.0%} pruned", "coded", pruned, _bytes(pruned))
    for zeros in ZEROS:
        package = packed(model, Recipe(step=step_for(model, zeros)), folder / f"llama-{zeros:.0%}")
        for mode in MODES:
            if mode != "float32" or zeros == ZEROS[-1]:
                yield Subject(f"{mode}, {zeros:.0%} zeros", mode, package, _bytes(package))
    plain = folder / "llama.onnx"
    if not plain.exists():
        unpack(package, plain)
    yield Subject("onnxruntime, its default options", PLAIN, plain, plain.stat().st_size)
    for kind in llama_cpp.TYPES if llama_cpp.missing() is None else ():
        path = folder / f"llama-{kind}.gguf"
        if not path.exists():
            llama_cpp.write(package, path, kind)
        yield Subject(f"llama.cpp, {kind}", LLAMA, path, path.stat().st_size)


def modes_of(package: Path) -> Iterator[Subject]:
    """A package in every mode that it has."""
    for mode in MODES:
        if mode != "int8" or (package / INT8_GRAPH).exists():
            yield Subject(f"{mode}, {package.name}", mode, package, _bytes(package))


def bars(found: list[Subject]) -> Iterator[Bar]:
    (float32,) = (each for each in found if each.kind == "float32")
    for each in found:
        if each.kind == "coded" and f"{ZEROS[0]:.0%}" not in each.name:
            pairs = zip(each.runs, float32.runs, strict=True)
            ratio = median(one["text"] / two["text"] for one, two in pairs)
            yield Bar(f"{each.name}: tokens per second over float32", 1.0, ratio)
    for each in found:
        if each.kind in MODES:
            yield Bar(f"{each.name}: a step's overhead over the session's run alone", 0.03, each.of("overhead"), True)
    for each in found:
        if each.name == "llama.cpp, F32":
            same = sum(one == two for one, two in zip(each.runs[0]["tokens"], float32.runs[0]["tokens"], strict=True))
            yield Bar(f"tokens of {NEW} that llama.cpp with F32 chooses like float32", NEW, same)


def rows(found: list[Subject]) -> Iterator[list[str]]:
    for each in found:
        sizes = [each.file_bytes / 1e6, each.of("peak_bytes") / 2**20, each.of("file_bytes") / 2**20]
        speeds = [each.of("prompt"), each.of("text")]
        yield [each.name, *(f"{value:.1f}" for value in (*sizes, *speeds))]


def report(found: list[Subject], rounds: int, threads: int) -> str:
    """Measure; the tables as Markdown."""
    for _ in range(rounds):
        for each in found:
            each.run(threads)
    header = ["", "files, MB", "peak MiB, private", "pages of files, MiB", "prompt, tokens/s", "text, tokens/s"]
    lines = ["| bar | goal | measured | |", "|---|---|---|---|", *(bar.line for bar in bars(found))]
    return "\n".join([*lines, "", results.table(header, list(rows(found)))])


def _bytes(package: Path) -> int:
    return sum(path.stat().st_size for path in package.iterdir())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dry-run", action="store_true", help="print only, leave docs/results.md as it is")
    parser.add_argument("--work", type=Path, help="where models and packages are kept between runs")
    parser.add_argument("--package", type=Path, help="a language model's package, in place of all that; prints only")
    options = parser.parse_args()
    if options.package is not None:
        print(report(list(modes_of(options.package)), options.rounds, options.threads))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.work or Path(temporary)
        folder.mkdir(exist_ok=True)
        text = report(list(subjects(folder)), options.rounds, options.threads)
    if (without := llama_cpp.missing()) is not None:
        text += f"\n\nllama.cpp was not measured: {without}"
    print(text)
    if not options.dry_run:
        results.write("generation", f"python -m tests.bench.generation --rounds {options.rounds}", text)


if __name__ == "__main__":
    main()
