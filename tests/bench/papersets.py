"""The folder of data and the language model that the figures of `bsexport reproduce --profile small` are made with.

`python -m tests.bench.papersets --data DIR --model DIR -o OUT` writes OUT/sets and OUT/minilm-decoder.
"""

from __future__ import annotations

import argparse
import json
import lzma
import shutil
from collections.abc import Iterator
from pathlib import Path

LINKED = ("imdb", "enron_spam", "newsgroups20")
PARTS = ("train", "test")


def paragraphs(part: str, data: Path) -> Iterator[str]:
    """Those of the English XQuAD, which are SQuAD's, each once."""
    seen = set()
    with lzma.open(data / "squad_xquad_en" / f"{part}.jsonl.xz", "rt", encoding="utf-8") as lines:
        for line in lines:
            text = " ".join(json.loads(line)["context"].split())
            if text not in seen:
                seen.add(text)
                yield text


def pairs(part: str, data: Path) -> Iterator[str]:
    """Captions of Multi30k and their translations, in place of WMT-19's sentences."""
    both = []
    for language in ("en", "de"):
        path = data / "multi30k" / f"{part}.{language}"
        packed = path.with_name(path.name + ".xz")
        text = lzma.decompress(packed.read_bytes()) if packed.exists() else path.read_bytes()
        both.append(text.decode().splitlines())
    for english, german in zip(*both, strict=True):
        yield f"{english.strip()} = {german.strip()}"


def write_decoder(model: Path, out: Path) -> None:
    """A copy of an encoder that loads as a causal language model, its output layer tied to its embedding."""
    shutil.copytree(model, out)
    path = out / "config.json"
    config = json.loads(path.read_text()) | {"is_decoder": True, "architectures": ["BertLMHeadModel"]}
    path.write_text(json.dumps(config, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of imdb, enron_spam, newsgroups20, ...")
    parser.add_argument("--model", type=Path, required=True, help="all-MiniLM-L6-v2")
    parser.add_argument("-o", "--out", type=Path, required=True)
    asked = parser.parse_args()
    sets = asked.out / "sets"
    sets.mkdir(parents=True)
    for name in LINKED:
        (sets / name).symlink_to((asked.data / name).resolve())
    for name, lines in (("squad", paragraphs), ("wmt19", pairs)):
        (sets / name).mkdir()
        for part in PARTS:
            text = "".join(f"{line}\n" for line in lines(part, asked.data))
            (sets / name / f"{part}.txt").write_text(text, encoding="utf-8")
    write_decoder(asked.model, asked.out / "minilm-decoder")


if __name__ == "__main__":
    main()
