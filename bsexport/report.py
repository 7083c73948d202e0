"""What packing did: every figure per tensor and in all, for the manifest and for table.py."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from bsexport.code import CODED_DTYPES, CodedTensor
from bsexport.graph.rewrite import BlobPlace
from bsexport.int8 import Int8Report
from bsexport.layout import best_code, code_bits, code_name
from bsexport.prune import Threshold
from bsexport.recipe import Recipe
from bsexport.source import Weight
from bsexport_runtime import codes
from bsexport_runtime.format import Layout

FP32_BYTES = 4


@dataclass(frozen=True)
class TensorReport:
    """One tensor of the package. Every *_bits figure is the sum over its weights, without side information.

    offset, blob_bytes: its blob in weights.bsx, of which head_bytes are side information (head, codebook, index).
    arena_offset, nbytes: its place in the decoded arena. largest: the largest magnitude of a coded tensor.
    constant: made by the model's code, not in its checkpoint. pruned: whether it took part in pruning.
    zeros: weights that decode to 0. wide: rows and columns of a matrix with a level beyond those of int8.
    level_code, run_code: families and orders, such as "rice 2" and "eg 0"; "" where there is no such stream. pairs:
    whether the levels are coded two at a time.
    eg0_bits, eg_bits: exp-Golomb at order 0 and at the best order, eg_order, of the tensor's own ranks.
    why: the reason for leaving it uncoded, "" if it is coded.
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
    wide: tuple[int, int]
    entropy_bits: float
    eg0_bits: int
    eg_bits: int
    eg_order: int
    why: str

    @classmethod
    def of(cls, weight: Weight, coded: CodedTensor, arena_offset: int, *, pruned: bool) -> TensorReport:
        """The report of a tensor that was just coded."""
        head = coded.head
        counts = None if coded.symbols is None else coded.symbols.counts
        code, bits = (0, 0) if counts is None else best_code(counts)
        return cls(
            name=weight.name,
            dtype=head.dtype.name.lower(),
            shape=weight.shape,
            ties=weight.ties,
            weights=weight.size,
            nbytes=head.nbytes,
            offset=coded.placed.offset,
            blob_bytes=coded.placed.nbytes,
            head_bytes=head.head_bytes,
            arena_offset=arena_offset,
            sha256=coded.placed.sha256,
            largest=coded.largest,
            layout=head.layout.name,
            level_code="" if coded.why else code_name(head.level_code),
            run_code=code_name(head.run_code) if head.layout is Layout.RL else "",
            pairs=head.pairs,
            symbols=head.symbols,
            constant=weight.constant,
            pruned=pruned,
            zeros=coded.zeros,
            wide=coded.wide,
            entropy_bits=coded.symbols.entropy() if coded.symbols else 0.0,
            eg0_bits=0 if counts is None else code_bits(counts, 0),
            eg_bits=bits,
            eg_order=codes.order_of(code),
            why=coded.why,
        )

    @property
    def place(self) -> BlobPlace:
        """Where the coded graph finds the blob, or the values of an uncoded tensor."""
        payload = self.offset + self.head_bytes
        return BlobPlace(self.offset, self.blob_bytes, payload, self.blob_bytes - self.head_bytes, coded=not self.why)


@dataclass(frozen=True)
class Report:
    """A packed model.

    inline: small tensors that stay in the graph. paper_bits: what algorithm 2 of the paper makes of all coded weights,
    with one codebook and order 0. int8: its form in the runtime's mode of that name, if that was asked for.
    graph_bytes: of all graphs.
    """

    name: str
    task: str | None
    recipe: Recipe
    threshold: Threshold
    tensors: tuple[TensorReport, ...]
    inline: tuple[str, ...]
    paper_bits: int
    int8: Int8Report | None = None
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
        pruned = [tensor for tensor in self.tensors if tensor.pruned]
        weights = sum(tensor.weights for tensor in self.tensors)
        coded_weights = sum(tensor.weights for tensor in coded)
        codewords = sum(tensor.blob_bytes - tensor.head_bytes for tensor in coded)
        uncoded = sum(tensor.blob_bytes for tensor in self.tensors if tensor.why)
        fp32 = sum(FP32_BYTES * t.weights if t.dtype in CODED_DTYPES else t.nbytes for t in self.tensors)
        return {
            "weights": weights,
            "coded_weights": coded_weights,
            "fp32_bytes": fp32,
            "weights_bytes": self.weights_bytes,
            "codeword_bytes": codewords,
            "side_bytes": self.weights_bytes - codewords - uncoded,
            "uncoded_bytes": uncoded,
            "graph_bytes": self.graph_bytes,
            "arena_bytes": self.arena_bytes,
            "of_fp32": _ratio(self.weights_bytes, fp32),
            "bits_per_weight": _ratio(8 * self.weights_bytes, weights),
            "coded_bits": _ratio(8 * sum(tensor.blob_bytes for tensor in coded), coded_weights),
            "entropy_bits": _ratio(sum(tensor.entropy_bits for tensor in coded), coded_weights),
            "eg_bits": _ratio(sum(tensor.eg_bits for tensor in coded), coded_weights),
            "eg0_bits": _ratio(sum(tensor.eg0_bits for tensor in coded), coded_weights),
            "paper_bits": _ratio(self.paper_bits, coded_weights),
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
            **({"int8": self.int8.to_manifest()} if self.int8 else {}),
        }

    def to_json(self) -> dict[str, Any]:
        """Everything, for --json."""
        return {**self.to_manifest(), "summary": self.summary()}


def _tensor_entry(tensor: TensorReport) -> dict[str, Any]:
    entry = asdict(tensor)
    entry["bytes"] = entry.pop("blob_bytes")
    entry["entropy_bits"] = round(entry["entropy_bits"], 3)
    return entry


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None
