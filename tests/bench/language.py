"""A small language model of real text, with and without BackSlash: `python -m tests.bench.language --help`.

A Llama of 5.5 million weights is trained from scratch with `bsexport train` on the test part of WikiText-2 and the
first nine tenths of tinyshakespeare. It is measured on texts that it never saw: WikiText-2's validation part, the last
tenth of tinyshakespeare, passages of SQuAD and captions of Multi30k. What is trained and measured stays in the folder
--work, so that a study goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import lzma
from collections.abc import Sequence
from pathlib import Path

from .training import STEEP, bsexport

STEPS, BATCH, LENGTH, LEARNING_RATE, SEED = 800, 8, 256, "1e-3", 0
TOKENS = 4096
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": TOKENS,
    "hidden_size": 256,
    "intermediate_size": 704,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": LENGTH,
    "tie_word_embeddings": True,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
END, UNKNOWN = "<|endoftext|>", "<unk>"
"""The token that ends a text, the first, and what WikiText-2 has in the place of rare words."""

RUNS: dict[str, tuple[str, ...]] = {
    "normal": ("--form", "none"),
    "steep-90": ("--target-sparsity", "0.9", *STEEP),
    "steep-80": ("--target-sparsity", "0.8", *STEEP),
    "backslash-90": ("--target-sparsity", "0.9"),
}
"""Name of a run -> options of `bsexport train`."""


def prepare(data: Path, work: Path) -> None:
    """Write the texts, the tokenizer and the configuration, unless they are there."""
    model = work / "model"
    if (model / "config.json").is_file():
        return
    model.mkdir(parents=True, exist_ok=True)
    plays = (data / "tinyshakespeare" / "input.txt").read_text()
    kept = plays.rindex("\n\n", 0, len(plays) * 9 // 10) + 2
    with lzma.open(data / "squad_xquad_en" / "test.jsonl.xz", "rt") as lines:
        passages = dict.fromkeys(json.loads(line)["context"] for line in lines)
    texts = {
        "train.txt": (data / "wikitext2" / "test.txt").read_text() + plays[:kept],
        "wikitext2.txt": (data / "wikitext2" / "valid.txt").read_text(),
        "tinyshakespeare.txt": plays[kept:],
        "squad.jsonl": "".join(json.dumps({"text": passage}) + "\n" for passage in passages),
        "multi30k.txt": (data / "multi30k" / "test.en").read_text(),
    }
    for name, text in texts.items():
        (work / name).write_text(text)
    save_tokenizer(texts["train.txt"], model)
    (model / "config.json").write_text(json.dumps(LLAMA, indent=2) + "\n")


def save_tokenizer(text: str, folder: Path) -> None:
    """Train a byte-level BPE tokenizer on a text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=TOKENS, special_tokens=[END, UNKNOWN], initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(text.splitlines(keepends=True), trainer)
    PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token=END, eos_token=END, model_max_length=LENGTH
    ).save_pretrained(folder)


def train(name: str, work: Path) -> Path:
    """The directory of a run, trained unless it is there."""
    folder = work / name
    if not (folder / "backslash.json").is_file():
        resume = ["--resume"] if folder.with_name(folder.name + ".partial").is_dir() else []
        bsexport(
            *("train", str(work / "model" / "config.json"), "--task", "text-generation"),
            *("--data", str(work / "train.txt"), "-o", str(folder), "--max-length", str(LENGTH)),
            *("--steps", str(STEPS), "--batch-size", str(BATCH), "--lr", LEARNING_RATE, "--bf16"),
            *("--seed", str(SEED), *RUNS[name], *resume),
        )
    return folder


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", metavar="RUN", help=f"of {', '.join(RUNS)}")
    parser.add_argument("--data", type=Path, required=True, help="folder of the sets, each a folder")
    parser.add_argument("--work", type=Path, required=True, help="where texts and trained models are kept")
    asked = parser.parse_args(arguments)
    if unknown := set(asked.runs) - set(RUNS):
        parser.error(f"no such run: {', '.join(sorted(unknown))}")
    prepare(asked.data, asked.work)
    for name in asked.runs:
        train(name, asked.work)


if __name__ == "__main__":
    main()
