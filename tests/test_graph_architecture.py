"""What is told from a model folder's configuration, and one clear line for every configuration that cannot be used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hf_models import TEXT_CONFIG, transformers
from safetensors.numpy import save_file

from bsexport.errors import ExportError, SourceError
from bsexport.graph.architecture import choose_task, image_size
from bsexport.graph.export import export


@pytest.mark.parametrize(
    ("architecture", "task"),
    [
        ("BertModel", "feature-extraction"),
        ("ViTModel", "feature-extraction"),
        ("DistilBertForSequenceClassification", "text-classification"),
        ("RobertaForTokenClassification", "token-classification"),
        ("MPNetForQuestionAnswering", "question-answering"),
        ("BertForMaskedLM", "fill-mask"),
        ("GPT2LMHeadModel", "text-generation"),
        ("LlamaForCausalLM", "text-generation"),
        ("T5ForConditionalGeneration", "text2text-generation"),
        ("MarianMTModel", "translation"),
        ("ViTForImageClassification", "image-classification"),
    ],
)
def test_task_of_the_configuration(architecture: str, task: str) -> None:
    assert choose_task([architecture], None) == task
    assert choose_task([architecture], "fill-mask") == "fill-mask"


@pytest.mark.parametrize(
    "architectures",
    [
        None,
        [],
        ["BertForPreTraining"],
        ["GPT2DoubleHeadsModel"],
        ["BertModel", "BertForMaskedLM"],
        "BertModel",
        5,
        [5],
        {},
    ],
)
def test_no_task_to_be_told(architectures: Any) -> None:
    with pytest.raises(
        SourceError, match="says no task; add --task with one of feature-extraction, text-classification,"
    ):
        choose_task(architectures, None)


def test_unknown_task() -> None:
    with pytest.raises(SourceError, match="--task summarize: not a task, expected one of feature-extraction, "):
        choose_task(["BertModel"], "summarize")


def bare(folder: Path, **config: Any) -> Path:
    """A folder with a configuration and one tensor."""
    (folder / "config.json").write_text(json.dumps(config))
    save_file({"w": np.zeros(1, np.float32)}, folder / "model.safetensors")
    return folder


def test_unknown_model_type(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"does not know model type 'nonesuch'; update it, or .* give the .onnx file"):
        export(bare(tmp_path, model_type="nonesuch"), "fill-mask")


def test_remote_code_stays_off(tmp_path: Path) -> None:
    (tmp_path / "evil.py").write_text("raise SystemExit('this code was run')")
    bare(tmp_path, model_type="nonesuch", auto_map={"AutoConfig": "evil.Config", "AutoModel": "evil.Model"})
    with pytest.raises(ExportError, match="model type 'nonesuch' brings its own code; add --trust-remote-code, or"):
        export(tmp_path, "feature-extraction")


def test_task_that_the_model_does_not_have(tmp_path: Path) -> None:
    with pytest.raises(
        ExportError, match="vit: transformers has no AutoModelForMaskedLM for it; choose another --task"
    ):
        export(bare(tmp_path, model_type="vit"), "fill-mask")


def test_task_that_comes_as_code_alone(tmp_path: Path) -> None:
    bare(tmp_path, model_type="bert", auto_map={"AutoModelForImageClassification": "evil.Model"})
    with pytest.raises(ExportError, match="has no AutoModelForImageClassification for it; add --trust-remote-code, or"):
        export(tmp_path, "image-classification")


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ({"hidden_act": "foo"}, "KeyError: 'foo'"),
        ({"hidden_size": "abc"}, "Field 'hidden_size' expected int, got str"),
        ({"hidden_size": None}, "Field 'hidden_size' expected int, got NoneType"),
        ({"hidden_size": -4}, "Trying to create tensor with negative dimension -4"),
        ({"num_hidden_layers": "2"}, "Field 'num_hidden_layers' expected int, got str"),
        ({"layer_norm_eps": "1e-12"}, "Field 'layer_norm_eps' expected float, got str"),
        ({"hidden_dropout_prob": "a"}, "Field 'hidden_dropout_prob' with value 'a' doesn't match"),
        ({"id2label": ["a"]}, "'list' object has no attribute 'items'"),
        ({"num_attention_heads": 0}, "ZeroDivisionError: "),
        ({"num_attention_heads": 3}, "The hidden size (32) is not a multiple of the number of attention heads (3)"),
        ({"vocab_size": -1}, "Trying to create tensor with negative dimension -1"),
        ({"vocab_size": 10**13}, "[enforce fail"),
        ({"dtype": "foo"}, "module 'torch' has no attribute 'foo'"),
        ({"model_type": ["bert"]}, "unhashable type: 'list'"),
        ({"model_type": None}, "The checkpoint you are trying to load has model type `None`"),
    ],
    ids=str,
)
def test_configuration_that_cannot_be(tmp_path: Path, setting: dict[str, Any], reason: str) -> None:
    """One short line that names the file; the words in brackets are transformers' or torch's, cut where they go on."""
    bare(tmp_path, **{"model_type": "bert"} | TEXT_CONFIG | setting)
    with pytest.raises(SourceError) as caught:
        export(tmp_path, "text-classification")
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}/config.json: cannot be used ({reason[:30]}")
    assert message.endswith("; repair it, or save or download the model again")
    assert "\n" not in message and len(message) < len(str(tmp_path)) + 300


def test_model_that_needs_a_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*args: Any, **kwargs: Any) -> Any:
        raise ImportError("needs timm\nand more")

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", absent)
    with pytest.raises(ExportError, match=r"transformers lacks a library for it \(needs timm\); install that, or"):
        export(bare(tmp_path, model_type="bert"), "fill-mask")


@pytest.mark.parametrize(
    ("settings", "error", "expected"),
    [
        ("{", SourceError, "/preprocessor_config.json: cannot be read as JSON"),
        ("[]", SourceError, "/preprocessor_config.json: holds a JSON list"),
        ('{"size": {"height": "a", "width": 2}}', ExportError, ": image size ('a', 2) in config.json or preprocessor_"),
        ('{"size": {"height": 8}}', ExportError, ": image size (8, None) in "),
        ('{"size": {"shortest_edge": 0}}', ExportError, ": image size 0 in "),
        ('{"size": [3, -1]}', ExportError, ": image size [3, -1] in "),
        ("{}", ExportError, ": image size None in "),
    ],
)
def test_image_processor_that_cannot_be(tmp_path: Path, settings: str, error: type[Exception], expected: str) -> None:
    (tmp_path / "preprocessor_config.json").write_text(settings)
    with pytest.raises(error) as caught:
        image_size(object(), tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}{expected}")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ('{"crop_size": {"height": 8, "width": 9}, "size": 7}', (8, 9)),
        ('{"size": {"shortest_edge": 7}}', (7, 7)),
        ('{"size": 6}', (6, 6)),
        ('{"size": [5, 4]}', (5, 4)),
    ],
)
def test_image_size_of_the_processor(tmp_path: Path, settings: str, expected: tuple[int, int]) -> None:
    (tmp_path / "preprocessor_config.json").write_text(settings)
    assert image_size(object(), tmp_path) == expected


def test_encoder_decoder(tmp_path: Path) -> None:
    message = "bart is an encoder-decoder, which fill-mask has no use for; choose --task text2text-generation"
    with pytest.raises(ExportError, match=message):
        export(bare(tmp_path, model_type="bart"), "fill-mask")


def test_quantised_model(tmp_path: Path) -> None:
    bare(tmp_path, model_type="bert", quantization_config={"quant_method": "gptq", "bits": 4})
    with pytest.raises(SourceError, match="is a quantised model; give the model before quantisation"):
        export(tmp_path, "feature-extraction")
