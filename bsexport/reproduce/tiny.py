"""A made-up language of a few words, and models of one layer for it: enough to see that everything runs."""

from __future__ import annotations

import json
import random
from pathlib import Path

from bsexport.reproduce.sets import FOLDERS, NEXT_TOKEN

_WORDS = [f"{first}{second}{end}" for first in "bdgklm" for second in "aeiou" for end in "nrs"]
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_TOPICS = 3
_SIZES = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
_TRAIN, _TEST, _LENGTH = 800, 200, 12  # texts, and words of each


def write_sets(folder: Path) -> None:
    """Write every set of FOLDERS: texts of three topics, whose label is the topic, or running text."""
    draw = random.Random(0)
    for inner, task in FOLDERS.values():
        (folder / inner).mkdir(parents=True, exist_ok=True)
        for part, count in (("train", _TRAIN), ("test", _TEST)):
            topics = [draw.randrange(_TOPICS) for _ in range(count)]
            texts = [_text(draw, topic) for topic in topics]
            if task == NEXT_TOKEN:
                (folder / inner / f"{part}.txt").write_text("".join(f"{text}\n" for text in texts))
                continue
            rows = [{"text": text, "label": f"topic {topic}"} for text, topic in zip(texts, topics, strict=True)]
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            (folder / inner / f"{part}.jsonl").write_text(lines)


def _text(draw: random.Random, topic: int) -> str:
    """Words of the topic's own, most of which follow from the one before, and some of any topic."""
    own = len(_WORDS) // _TOPICS
    place = draw.randrange(own)
    words = []
    for _ in range(_LENGTH):
        words.append(_WORDS[topic * own + place] if draw.random() < 0.8 else draw.choice(_WORDS))
        place = (2 * place + 1) % own if draw.random() < 0.7 else draw.randrange(own)
    return " ".join(words)


def write_model(folder: Path, *, decoder: bool) -> Path:
    """Write a tokenizer and the configuration of a BERT of one layer; returns the latter, to train from scratch."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, PreTrainedTokenizerFast

    ids = {word: index for index, word in enumerate((*_SPECIAL, *_WORDS))}
    made = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.BertProcessing(("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"]))
    names = ("pad", "unk", "cls", "sep", "mask")
    PreTrainedTokenizerFast(
        tokenizer_object=made,
        model_max_length=64,
        **{f"{name}_token": token for name, token in zip(names, _SPECIAL, strict=True)},
    ).save_pretrained(folder)
    kind = "BertLMHeadModel" if decoder else "BertForSequenceClassification"
    BertConfig(
        vocab_size=len(ids),
        max_position_embeddings=64,
        type_vocab_size=1,
        is_decoder=decoder,
        architectures=[kind],
        **_SIZES,
    ).save_pretrained(folder)
    return folder / "config.json"
