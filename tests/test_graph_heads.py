"""Heads are told from names: of tensors, of the nodes that read them, and of the modules these came from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

from bsexport.graph.heads import is_head
from bsexport.graph.read import read_onnx

MODEL = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[8,8] x) => (float[8,12] y) { p = MatMul(x, Q) q = MatMul(p, R) y = MatMul(q, W) }
"""


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("bert.pooler.dense.weight", True),
        ("pooler.dense.weight", True),
        ("classifier.weight", True),
        ("pre_classifier.bias", True),
        ("qa_outputs.weight", True),
        ("score.weight", True),
        ("/classifier/MatMul", True),
        ("model::score::weight", True),
        ("cls_classifier.weight", True),
        ("distillation_classifier.bias", True),
        ("classification_head.dense.weight", True),
        ("logits_proj.weight", True),
        ("sequence_summary.summary.weight", True),
        ("['', 'classifier', 'classifier.0', 'linear_1']", True),
        ("['', 'bert.encoder', 'linear_1']", False),
        ("my-classifier.weight", False),
        ("cls.predictions.decoder.weight", False),
        ("lm_head.weight", False),
        ("vocab_transform.weight", False),
        ("encoder.scores.weight", False),
        ("my_classifier.weight", False),
        ("", False),
    ],
)
def test_what_is_a_head(name: str, head: bool) -> None:
    assert is_head(name) is head


def test_heads_are_told_from_the_weight_or_from_its_node(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(MODEL)
    for name, shape in (("Q", (8, 9)), ("R", (9, 8)), ("W", (8, 12))):
        model.graph.initializer.append(numpy_helper.from_array(np.ones(shape, np.float32), name))
    model.graph.node[0].name = "/encoder/dense/MatMul"
    model.graph.node[0].input[1] = model.graph.initializer[0].name = "bert.pooler.dense.weight"
    model.graph.node[2].name = "/classifier/MatMul"
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    assert {weight.name: weight.head for weight in read_onnx(path).weights} == {
        "bert.pooler.dense.weight": True,
        "R": False,
        "W": True,
    }


@pytest.mark.parametrize("optimize", [True, False])
def test_heads_of_torchs_own_export(tmp_path: Path, optimize: bool) -> None:
    """Optimised, the weights are val_0 and val_2 and their nodes node_MatMul_1 and _3: the module is noted beside."""
    torch = pytest.importorskip("torch", reason="NOT TESTED: heads in torch's exports need torch")
    pytest.importorskip("onnxscript", reason="NOT TESTED: heads in torch's exports need onnxscript")

    class Tiny(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.encoder = torch.nn.Linear(12, 16)
            self.classifier = torch.nn.Sequential(torch.nn.Linear(16, 10))

        def forward(self, x: Any) -> Any:
            return self.classifier(torch.relu(self.encoder(x)))

    path = tmp_path / "model.onnx"
    example = (torch.zeros(2, 3, 12),)
    torch.onnx.export(Tiny().eval(), example, path, dynamo=True, optimize=optimize, verbose=False)
    heads = {weight.shape: weight.head for weight in read_onnx(path).weights}
    if optimize:
        assert heads == {(12, 16): False, (16, 10): True}
    else:
        assert heads == {(16, 12): False, (10, 16): True}
