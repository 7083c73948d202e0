"""Tiny Hugging Face models with random weights, made in code and saved as transformers does it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="NOT TESTED: Hugging Face models need torch")
transformers = pytest.importorskip("transformers", reason="NOT TESTED: Hugging Face models need transformers")

from bsexport.graph.architecture import TASKS  # noqa: E402

WORDS = [
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    *("the", "film", "was", "a", "fine", "one", ";", "who", "wrote", "it", "ada", "did"),
]
LABELS = ["bad", "so-so", "good"]
TEXT_CONFIG = {
    "vocab_size": len(WORDS),
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 40,
}


def save_bert(folder: Path, task: str, *, dtype: str = "float32", tokenizer: bool = True, **config: Any) -> Path:
    """A BERT of one layer for a text task, whose weights are large enough to tell classes apart, and its tokenizer."""
    torch.manual_seed(1)
    labels = {"id2label": dict(enumerate(LABELS)), "label2id": {label: i for i, label in enumerate(LABELS)}}
    if task == "question-answering":
        labels = {}
    model = getattr(transformers, TASKS[task]).from_config(transformers.BertConfig(**TEXT_CONFIG | labels | config))
    randomise(model)
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    if tokenizer:
        save_tokenizer(folder)
    return folder


def save_gpt2(folder: Path) -> Path:
    """A GPT-2 of one layer with the tokenizer of save_bert."""
    torch.manual_seed(1)
    sizes = {"n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": TEXT_CONFIG["max_position_embeddings"]}
    transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=len(WORDS), **sizes)).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def save_t5(folder: Path) -> Path:
    """A T5 of one layer with the tokenizer of save_bert."""
    torch.manual_seed(1)
    sizes = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 1, "num_heads": 2}
    config = transformers.T5Config(vocab_size=len(WORDS), decoder_start_token_id=0, **sizes)
    transformers.T5ForConditionalGeneration(config).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def save_vit(folder: Path) -> Path:
    """A vision transformer of one layer for images of 8 x 8 pixels, and its image processor."""
    torch.manual_seed(1)
    labels = {"id2label": dict(enumerate(LABELS)), "label2id": {label: i for i, label in enumerate(LABELS)}}
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    config = transformers.ViTConfig(image_size=8, patch_size=2, **sizes, **labels)
    model = transformers.ViTForImageClassification(config)
    randomise(model)
    model.save_pretrained(folder)
    transformers.ViTImageProcessor(size={"height": 8, "width": 8}).save_pretrained(folder)
    return folder


def randomise(model: Any) -> None:
    """Biases and norms too, so that a mix-up shows."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3)


def save_tokenizer(folder: Path) -> None:
    """Words of WORDS between [CLS] and [SEP]; all others are [UNK]."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    ids = {word: index for index, word in enumerate(WORDS)}
    made = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.BertProcessing(("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"]))
    names = {"unk": "[UNK]", "sep": "[SEP]", "pad": "[PAD]", "cls": "[CLS]", "mask": "[MASK]"}
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=made,
        model_max_length=TEXT_CONFIG["max_position_embeddings"],
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        **{f"{name}_token": token for name, token in names.items()},
    ).save_pretrained(folder)
