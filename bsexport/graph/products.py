"""What nodes do with a weight, in the forms that the graphs of a package have an operator of their own for."""

from __future__ import annotations

import onnx

from bsexport.graph import walk
from bsexport.graph.clean import MICROSOFT


def gathers_rows(node: onnx.NodeProto, rank: int) -> bool:
    """Whether `node` is a Gather on axis 0 of its first input, which has so many dimensions."""
    return walk.is_op(node, "Gather") and _integer(node, "axis", 0) in (0, -rank)


def product_trans_b(node: onnx.NodeProto) -> int | None:
    """transB if `node` is a plain product with its second input, plus its third if there is one; else None."""
    if walk.is_op(node, "MatMul"):
        return 0
    if is_fused_matmul(node):
        return _integer(node, "transB", 0)
    if walk.is_op(node, "Gemm") and not _integer(node, "transA", 0) and _number(node, "alpha", 1) == 1:
        has_bias = len(node.input) > 2 and node.input[2] != ""
        if not has_bias or _number(node, "beta", 1) == 1:
            return _integer(node, "transB", 0)
    return None


def is_fused_matmul(node: onnx.NodeProto) -> bool:
    """Whether `node` is a FusedMatMul that does nothing but, at most, transpose its second input."""
    return (
        node.op_type == "FusedMatMul"
        and node.domain == MICROSOFT
        and not any(_integer(node, name, 0) for name in ("transA", "transBatchA", "transBatchB"))
        and _number(node, "alpha", 1) == 1
    )


def _integer(node: onnx.NodeProto, name: str, default: int) -> int:
    found = walk.attribute(node, name)
    return default if found is None else int(found.i)


def _number(node: onnx.NodeProto, name: str, default: float) -> float:
    found = walk.attribute(node, name)
    return default if found is None else float(found.f)
