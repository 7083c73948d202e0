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
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import results
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
}
"""Name of a run -> options of `bsexport train`."""

RATIOS, STEPS_OF_CODES, WINDOWS = "0,0.5,0.8,0.9", "2^-8,2^-5", 128
LEFT_OUT = {("steep-80", "0"), ("steep-90", "0")}
"""Packages that are not measured on every text: training at the rate left nothing to prune."""
MEASURED = (
    ("wikitext2.txt", "coded"),
    *((text, "float32") for text in ("tinyshakespeare.txt", "squad.jsonl", "multi30k.txt")),
)
PROMPT = "ROMEO:\nWhat"


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


def curve(name: str, work: Path) -> dict[str, Any]:
    """The record of `bsexport curve` of a run over all ratios and steps, measured unless it is there."""
    folder = work / "curves" / name
    if not (folder / "curve.json").is_file():
        folder.parent.mkdir(exist_ok=True)
        resume = ["--resume"] if folder.with_name(folder.name + ".partial").is_dir() else []
        bsexport(
            *("curve", str(work / name), "--data", str(work / "wikitext2.txt"), "--limit", str(WINDOWS)),
            *("--prune", RATIOS, "--step", STEPS_OF_CODES, "-o", str(folder), *resume),
        )
    found: dict[str, Any] = json.loads((folder / "curve.json").read_text())
    return found


@dataclass(frozen=True)
class Packed:
    """A package of a run, pruned."""

    run: str
    ratio: str

    def make(self, work: Path) -> Path:
        """Pack it unless it is there."""
        folder = work / "packages" / f"{self.run}-{self.ratio}"
        if not folder.is_dir():
            folder.parent.mkdir(exist_ok=True)
            bsexport("pack", str(work / self.run), "--prune", self.ratio, "-o", str(folder))
        return folder

    @property
    def name(self) -> str:
        return f"{self.run}, {float(self.ratio):.0%} pruned"

    def perplexity(self, text: Path, mode: str, work: Path) -> float:
        """Of the package on a text; measured unless that is in a file."""
        kept = work / "measured" / f"{self.run}-{self.ratio}-{text.stem}-{mode}.json"
        if not kept.is_file():
            kept.parent.mkdir(exist_ok=True)
            package = str(self.make(work))
            limits = ("--limit", str(WINDOWS), "--max-length", str(LENGTH))
            kept.write_text(bsexport("evaluate", package, "--data", str(text), *limits, "--mode", mode, "--json"))
        return float(json.loads(kept.read_text())["figures"]["perplexity"]["value"])

    def text(self, mode: str, work: Path) -> dict[str, Any]:
        """What the package goes on with after PROMPT, as `bsexport run --json` tells it."""
        kept = work / "measured" / f"{self.run}-{self.ratio}-said-{mode}.json"
        if not kept.is_file():
            drawn = ("--temperature", "0.7", "--top-k", "40", "--seed", "3", "--max-new-tokens", "60")
            kept.write_text(bsexport("run", str(self.make(work)), "--prompt", PROMPT, *drawn, "--mode", mode, "--json"))
        found: dict[str, Any] = json.loads(kept.read_text())
        return found


def report(names: list[str], work: Path) -> str:
    """All tables of these runs."""
    header = ["run", "step", "pruned", "perplexity", "95%", "accuracy", "bits/weight", "of fp32"]
    rows = [_row(name, point) for name in names for point in curve(name, work)["models"][0]["points"]]
    parts = [f"On {WINDOWS} windows of WikiText-2:", results.table(header, rows)]
    packed = [Packed(name, ratio) for name in names for ratio in ("0", "0.9") if (name, ratio) not in LEFT_OUT]
    header = ["package", *(f"{text.partition('.')[0]}, {mode}" for text, mode in MEASURED)]
    rows = [
        [each.name, *(f"{each.perplexity(work / text, mode, work):.2f}" for text, mode in MEASURED)] for each in packed
    ]
    parts += ["Perplexity of packages at step 2^-8, by text and mode:", results.table(header, rows)]
    parts.append(f"What they go on with after {PROMPT!r}, drawn by seed 3 at temperature 0.7 from the likeliest 40:")
    for each in packed:
        said = each.text("coded", work)
        speed = len(said["tokens"]) / said["seconds"]
        parts.append(f"{each.name}, mode coded, {speed:.0f} tokens/s:\n\n```text\n{PROMPT}{said['text'].rstrip()}\n```")
    return "\n\n".join(parts)


def _row(name: str, point: dict[str, Any]) -> list[str]:
    figure = point["figures"]["perplexity"]
    known = point["prune"] is not None
    return [
        name,
        f"2^{math.log2(point['step']):g}" if known else "dense",
        f"{point['prune']:.0%}" if known else "",
        f"{figure['value']:.2f}",
        f"{figure['low']:.1f}-{figure['high']:.1f}",
        f"{point['figures']['accuracy']['value']:.2%}",
        f"{point['bits_per_weight']:.3f}" if known else "32",
        f"{point['of_fp32']:.2%}" if known else "100%",
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", metavar="RUN", help=f"of {', '.join(RUNS)}")
    parser.add_argument("--data", type=Path, required=True, help="folder of the sets, each a folder")
    parser.add_argument("--work", type=Path, required=True, help="where texts and trained models are kept")
    parser.add_argument("--tables", action="store_true", help="measure all that are trained, and write the tables")
    asked = parser.parse_args(arguments)
    if unknown := set(asked.runs) - set(RUNS):
        parser.error(f"no such run: {', '.join(sorted(unknown))}")
    prepare(asked.data, asked.work)
    for name in asked.runs:
        train(name, asked.work)
    if asked.tables:
        trained = [name for name in RUNS if (asked.work / name / "backslash.json").is_file()]
        command = "python -m tests.bench.language RUN... --tables --data DIR --work DIR"
        results.write("language", command, report(trained, asked.work))


if __name__ == "__main__":
    main()
