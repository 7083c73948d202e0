"""What packing did: every figure per tensor and in all, for the manifest and as a table for people."""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass, field, fields
from typing import Any

from bsexport.code import CodedTensor
from bsexport.codebook import Histogram, merge, rank
from bsexport.graph.rewrite import BlobPlace
from bsexport.layout import best_code, code_bits, code_name
from bsexport.prune import Threshold
from bsexport.recipe import Recipe
from bsexport.source import Weight
from bsexport_runtime import codec, codes
from bsexport_runtime.format import Layout
from bsexport_runtime.package import CODED_GRAPH, PLAIN_GRAPH

FP32_BYTES = 4
GRAPHS = (CODED_GRAPH, PLAIN_GRAPH)


@dataclass(frozen=True)
class TensorReport:
    """One tensor of the package. Every *_bits figure is the sum over its weights, without side information.

    offset, blob_bytes: its blob in weights.bsx, of which head_bytes are side information (head, codebook, index).
    arena_offset, nbytes: its place in the decoded arena. largest: the largest magnitude of a coded tensor.
    constant: made by the model's code, not in its checkpoint. pruned: whether it took part in pruning.
    zeros: weights that decode to 0 (not counted in an uncoded tensor).
    level_code, run_code: families and orders, such as "rice 2" and "eg 0"; "" where there is no such stream. pairs:
    whether the levels are coded two at a time.
    eg0_bits, eg_bits: exp-Golomb at order 0 and at the best order, eg_order, of the tensor's own ranks.
    why: the reason for leaving it uncoded, "" if it is coded. histogram: of its symbols; None if it is uncoded.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    ties: tuple[str, ...]
    weights: int
    nbytes: int
    offset: int
    blob_bytes: int
    head_bytes: int
    arena_offset: int
    sha256: str
    largest: float
    layout: str
    level_code: str
    run_code: str
    pairs: bool
    symbols: int
    constant: bool
    pruned: bool
    zeros: int
    entropy_bits: float
    eg0_bits: int
    eg_bits: int
    eg_order: int
    why: str
    histogram: Histogram | None = field(repr=False)

    @classmethod
    def of(cls, weight: Weight, coded: CodedTensor, offset: int, arena_offset: int, *, pruned: bool) -> TensorReport:
        """The report of a tensor that was just coded."""
        head = codec.parse(coded.blob)
        counts = None if coded.symbols is None else coded.symbols.counts
        code, bits = (0, 0) if counts is None else best_code(counts)
        return cls(
            name=weight.name,
            dtype=head.dtype.name.lower(),
            shape=weight.shape,
            ties=weight.ties,
            weights=weight.size,
            nbytes=head.nbytes,
            offset=offset,
            blob_bytes=len(coded.blob),
            head_bytes=head.head_bytes,
            arena_offset=arena_offset,
            sha256=hashlib.sha256(coded.blob).hexdigest(),
            largest=coded.largest,
            layout=head.layout.name,
            level_code="" if coded.why else code_name(head.level_code),
            run_code=code_name(head.run_code) if head.layout is Layout.RL else "",
            pairs=head.pairs,
            symbols=head.symbols,
            constant=weight.constant,
            pruned=pruned,
            zeros=coded.symbols.zeros if coded.symbols else 0,
            entropy_bits=coded.symbols.entropy() if coded.symbols else 0.0,
            eg0_bits=0 if counts is None else code_bits(counts, 0),
            eg_bits=bits,
            eg_order=codes.order_of(code),
            why=coded.why,
            histogram=coded.symbols,
        )

    @property
    def place(self) -> BlobPlace:
        """Where the coded graph finds the blob, or the values of an uncoded tensor."""
        payload = self.offset + self.head_bytes
        return BlobPlace(self.offset, self.blob_bytes, payload, self.blob_bytes - self.head_bytes, coded=not self.why)


@dataclass(frozen=True)
class Report:
    """A packed model. inline: small tensors that stay in the graph. graph_bytes: of both graphs; 0 in a dry run."""

    name: str
    task: str | None
    recipe: Recipe
    threshold: Threshold
    tensors: tuple[TensorReport, ...]
    inline: tuple[str, ...]
    graph_bytes: int = 0

    @property
    def weights_bytes(self) -> int:
        """Bytes of weights.bsx."""
        return self.tensors[-1].offset + self.tensors[-1].blob_bytes if self.tensors else 0

    @property
    def arena_bytes(self) -> int:
        """Bytes of all tensors decoded."""
        return self.tensors[-1].arena_offset + self.tensors[-1].nbytes if self.tensors else 0

    def summary(self) -> dict[str, Any]:
        """The totals. bits_per_weight counts everything in weights.bsx over all its weights; the rates count the
        codewords alone over the coded weights; paper_bits is algorithm 2 as printed: one codebook, order 0."""
        coded = [tensor for tensor in self.tensors if not tensor.why]
        pruned = [tensor for tensor in coded if tensor.pruned]
        weights = sum(tensor.weights for tensor in self.tensors)
        coded_weights = sum(tensor.weights for tensor in coded)
        codewords = sum(tensor.blob_bytes - tensor.head_bytes for tensor in coded)
        uncoded = sum(tensor.blob_bytes for tensor in self.tensors if tensor.why)
        histograms = [tensor.histogram for tensor in coded if tensor.histogram]
        paper = code_bits(rank(merge(histograms)).counts, 0) if histograms else 0
        return {
            "weights": weights,
            "coded_weights": coded_weights,
            "fp32_bytes": FP32_BYTES * weights,
            "weights_bytes": self.weights_bytes,
            "codeword_bytes": codewords,
            "side_bytes": self.weights_bytes - codewords - uncoded,
            "uncoded_bytes": uncoded,
            "graph_bytes": self.graph_bytes,
            "arena_bytes": self.arena_bytes,
            "of_fp32": _ratio(self.weights_bytes, FP32_BYTES * weights),
            "bits_per_weight": _ratio(8 * self.weights_bytes, weights),
            "coded_bits": _ratio(8 * sum(tensor.blob_bytes for tensor in coded), coded_weights),
            "entropy_bits": _ratio(sum(tensor.entropy_bits for tensor in coded), coded_weights),
            "eg_bits": _ratio(sum(tensor.eg_bits for tensor in coded), coded_weights),
            "eg0_bits": _ratio(sum(tensor.eg0_bits for tensor in coded), coded_weights),
            "paper_bits": _ratio(paper, coded_weights),
            "sparsity_pruned": _ratio(sum(t.zeros for t in pruned), sum(t.weights for t in pruned)),
            "sparsity": _ratio(sum(tensor.zeros for tensor in self.tensors), weights),
        }

    def to_manifest(self) -> dict[str, Any]:
        """What the manifest says (docs/format.md, section 7), without the files."""
        return {
            "name": self.name,
            "task": self.task,
            "recipe": self.recipe.to_json(),
            "threshold": self.threshold.magnitude,
            "arena_bytes": self.arena_bytes,
            "summary": {key: value for key, value in self.summary().items() if key != "graph_bytes"},
            "inline": list(self.inline),
            "tensors": [_tensor_entry(tensor) for tensor in self.tensors],
        }

    def to_json(self) -> dict[str, Any]:
        """Everything, for --json."""
        return {**self.to_manifest(), "summary": self.summary()}

    def to_text(self) -> str:
        """The table that pack ends with."""
        total = self.summary()
        return "\n".join(
            [*_size_lines(total), *_rate_lines(total), *self._pruning_lines(total), *self._uncoded_lines()]
        )

    def _pruning_lines(self, total: dict[str, Any]) -> list[str]:
        if total["sparsity_pruned"] is None:
            return (
                [f"sparsity          {total['sparsity']:.1%} of all weights; nothing was pruned"]
                if total["weights"]
                else []
            )
        limit = f", |w| <= {self.threshold.magnitude:.6g}" if self.recipe.scope == "global" else ""
        return [
            f"sparsity          {total['sparsity_pruned']:.1%} of the weights that took part in pruning{limit}; "
            f"{total['sparsity']:.1%} of all"
        ]

    def _uncoded_lines(self) -> list[str]:
        """Every tensor that was left uncoded, by reason."""
        reasons: dict[str, list[str]] = {}
        for tensor in self.tensors:
            if tensor.why:
                reasons.setdefault(tensor.why, []).append(tensor.name)
        if self.inline:
            reasons["small, inline in the graph"] = list(self.inline)
        if not reasons:
            return []
        lines = ["left uncoded"]
        for why, names in reasons.items():
            lines.append(f"  {why} ({len(names)})")
            lines.extend(f"    {name}" for name in draw_together(names))
        return lines


def manifest_text(manifest: dict[str, Any]) -> str:
    """A package's manifest as text: recipe, sizes, and a line for every tensor."""
    total = {**manifest["summary"], "graph_bytes": sum(manifest["files"][name]["bytes"] for name in GRAPHS)}
    recipe = ", ".join(f"{key} {value}" for key, value in manifest["recipe"].items() if value not in (None, []))
    lines = [f"task {manifest['task']}; {recipe}", *_size_lines(total), *_rate_lines(total)]
    lines.append("layouts with the code of levels, or of runs, then levels: E exp-Golomb, R Golomb-Rice, p in pairs")
    lines.append(f"{'bits/weight':>11} {'zeros':>7} {'layout':10}  tensor")
    for tensor in manifest["tensors"]:
        bits = 8 * tensor["bytes"] / tensor["weights"]
        zeros = f"{tensor['zeros'] / tensor['weights']:7.1%}" if not tensor["why"] else f"{'-':>7}"
        shape = " x ".join(map(str, tensor["shape"]))
        why = f" ({tensor['why']})" if tensor["why"] else ""
        lines.append(
            f"{bits:11.3f} {zeros} {_layout_text(tensor):10}  {tensor['name']}  {tensor['dtype']} {shape}{why}"
        )
    return "\n".join(lines)


def _layout_text(tensor: dict[str, Any]) -> str:
    """A tensor's layout and codes in short: "RAW", "EG E3", "BM R1p", "RL R2 E1"."""
    short = [
        code.replace("eg ", "E").replace("rice ", "R") for code in (tensor["run_code"], tensor["level_code"]) if code
    ]
    return f"{' '.join([tensor['layout'], *short])}{tensor['pairs'] * 'p'}"


def draw_together(names: list[str]) -> list[str]:
    """The names, those that differ in numbers alone as one: ["a.0.b", "a.1.b", "c"] -> ["a.{0,1}.b", "c"]."""
    groups: dict[str, list[list[str]]] = {}
    for name in names:
        groups.setdefault(re.sub(r"\d+", "#", name), []).append(re.findall(r"\d+", name))
    return [
        _fill(template, [list(dict.fromkeys(column)) for column in zip(*numbers, strict=True)])
        for template, numbers in groups.items()
    ]


def _fill(template: str, columns: list[list[str]]) -> str:
    parts = template.split("#")
    filled = [column[0] if len(column) == 1 else "{" + _range(column) + "}" for column in columns]
    return "".join(part + number for part, number in zip(parts, [*filled, ""], strict=True))


def _range(numbers: list[str]) -> str:
    values = [int(number) for number in numbers]
    if len(values) > 2 and values == list(range(values[0], values[0] + len(values))):
        return f"{values[0]}..{values[-1]}"
    return ",".join(numbers)


def _size_lines(total: dict[str, Any]) -> list[str]:
    rows = [
        ("fp32 weights", total["fp32_bytes"]),
        ("packed weights", total["weights_bytes"]),
        ("  codewords", total["codeword_bytes"]),
        ("  side information", total["side_bytes"]),
        ("  uncoded tensors", total["uncoded_bytes"]),
        ("graphs", total["graph_bytes"]),
    ]
    base = total["fp32_bytes"] or math.nan
    lines = [f"{'':18}{'bytes':>14}{'of fp32':>10}{'bits/weight':>13}"]
    for label, size in rows:
        bits = 8 * size / (total["weights"] or math.nan)
        lines.append(f"{label:18}{size:14,}{size / base:10.2%}{bits:13.3f}")
    return lines


def _rate_lines(total: dict[str, Any]) -> list[str]:
    if not total["coded_weights"]:
        return ["nothing was coded"]
    return [
        f"bits per weight of the {total['coded_weights']:,} coded weights:",
        f"  entropy {total['entropy_bits']:.3f}   packed {total['coded_bits']:.3f} (everything counted)   "
        f"EG best k {total['eg_bits']:.3f}   EG k=0 {total['eg0_bits']:.3f}   "
        f"paper's algorithm 2 (one codebook, k=0) {total['paper_bits']:.3f}",
    ]


def _tensor_entry(tensor: TensorReport) -> dict[str, Any]:
    entry = {item.name: getattr(tensor, item.name) for item in fields(tensor) if item.name != "histogram"}
    entry["bytes"] = entry.pop("blob_bytes")
    entry["entropy_bits"] = round(entry["entropy_bits"], 3)
    return entry


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None
