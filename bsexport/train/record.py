"""backslash.json: what a run was told, what it was run on, how its figures went, and what came out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bsexport import codebook
from bsexport.pipeline import why_uncoded
from bsexport.quantize import quantize
from bsexport.recipe import Recipe, nearest_step
from bsexport.record import read_record

if TYPE_CHECKING:
    from bsexport.checkpoint import Checkpoint  # needs safetensors, which packing ONNX files does without

RECORD = "backslash.json"
FORMAT = "bsexport training record"
VERSION = 0
DEPENDENCIES = ("torch", "transformers", "accelerate", "datasets", "tokenizers")
"""Distributions that the outcome depends on."""

EXPONENTS = range(-4, -11, -1)
"""Of the steps 2^n at which the entropy of the finished weights is given."""

_CHUNK = 1 << 20  # weights quantised together
_CURVE = ("step", "epoch", "loss", "learning_rate", "grad_norm", "shape", "sparsity", "bits")


def is_trained(path: Path) -> bool:
    """Whether a directory that train made stands at the path: what --force may replace."""
    return _record(path) is not None


def trained_step(path: Path) -> float | None:
    """The quantiser step that the model in a directory was trained for; None if train did not make it."""
    record = _record(path)
    step = (record or {}).get("rate", {}).get("step")
    return None if step is None else nearest_step(step)


def trained_length(path: Path) -> int | None:
    """The tokens that the model in a directory was trained to take at most; None if train did not make it."""
    return (_record(path) or {}).get("max_length")


def _record(path: Path) -> dict[str, Any] | None:
    return read_record(path / RECORD, FORMAT)


def curve(log_history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of what the Trainer logged, the rows of training: step, epoch, loss, learning_rate, shape, sparsity, bits."""
    return [{key: row[key] for key in _CURVE if key in row} for row in log_history if "loss" in row]


def evaluations(log_history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of what the Trainer logged, the rows of evaluation: step, loss, accuracy."""
    return [
        {"step": row["step"], "loss": row["eval_loss"], "accuracy": row["eval_accuracy"]}
        for row in log_history
        if "eval_accuracy" in row
    ]


def coded_figures(checkpoint: Checkpoint, step: float) -> dict[str, Any]:
    """Of the weights of a checkpoint that pack would code: how many, the share of zeros at the step, and the
    entropy in bits/weight, of each tensor by itself, at the step and at each 2^n of EXPONENTS."""
    steps = {"step": step, **{f"2^{n}": 2.0**n for n in EXPONENTS}}
    bits = dict.fromkeys(steps, 0.0)
    count = zeros = 0
    for weight in checkpoint.weights():
        if why_uncoded(weight, Recipe()):
            continue
        weights = weight.read()
        for name, width in steps.items():
            levels = _levels(weights, width)
            bits[name] += levels.entropy()
            zeros += levels.zeros if name == "step" else 0
        count += weight.size
    return {
        "weights": count,
        "sparsity": zeros / max(count, 1),
        "entropy": {name: total / max(count, 1) for name, total in bits.items()},
    }


def _levels(weights: npt.NDArray[Any], step: float) -> codebook.Histogram:
    flat = weights.reshape(-1)
    parts = (flat[start : start + _CHUNK] for start in range(0, flat.size, _CHUNK))
    return codebook.merge(codebook.count(quantize(part, step).astype(np.int32)) for part in parts)
