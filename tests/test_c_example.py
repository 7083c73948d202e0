"""examples/classify.c on a text classifier of transformers: the probabilities are those of the model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from c_programs import build_example, classify, install, needs_compiler, onnxruntime_folder
from hf_models import save_bert, torch, transformers

from bsexport.pipeline import pack
from bsexport.recipe import Recipe
from bsexport.source import open_source
from bsexport_runtime import read_tensors

IDS = [2, 5, 6, 7, 8, 9, 10, 3]


@needs_compiler
def test_a_text_is_classified_without_python(tmp_path: Path) -> None:
    folder = save_bert(tmp_path / "model", "text-classification")
    pack(open_source(str(folder)), Recipe(step=2.0**-6), tmp_path / "package")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    decoded = read_tensors(tmp_path / "package")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(decoded[name].reshape(parameter.shape)))
        expected = model(input_ids=torch.tensor([IDS])).logits.softmax(-1).numpy()[0]
    program = build_example(
        install(tmp_path / "prefix"), onnxruntime_folder(tmp_path / "onnxruntime"), tmp_path / "classify"
    )
    assert np.ptp(expected) > 0.1
    for mode in ("float32", "coded"):
        np.testing.assert_allclose(classify(program, tmp_path / "package", mode, IDS), expected, atol=5e-6)
