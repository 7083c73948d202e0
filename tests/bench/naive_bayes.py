"""What counting words gives on the texts that models are trained on: `python -m tests.bench.naive_bayes --help`.

Multinomial naive Bayes of single words (scikit-learn), the least that a trained model has to beat. On whole texts, and
on as much of them as the models of `tests.bench.training` see.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from sklearn.feature_extraction.text import CountVectorizer
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline
from transformers import AutoTokenizer

from bsexport.evaluate.measure import wilson
from bsexport.tasks.data import read_data

from . import results
from .training import LENGTH


def texts(rows: Any, tokenizer: Any, length: int | None) -> list[str]:
    """The texts, or what a model that sees so many tokens of them can read."""
    whole = list(rows["text"])
    if length is None:
        return whole
    cut = tokenizer(whole, truncation=True, max_length=length).input_ids
    return list(tokenizer.batch_decode(cut, skip_special_tokens=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", type=Path, help="folder with train.csv.xz and test.csv.xz: text and label")
    parser.add_argument("--model", type=Path, required=True, help="whose tokenizer cuts the texts")
    parser.add_argument("--limit", type=int, help="evaluate on so many texts, those of the runs  [default: all]")
    asked = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(asked.model)
    rows = []
    for folder in asked.data:
        with tempfile.TemporaryDirectory() as cache:
            train, test = (
                read_data(str(folder / f"{part}.csv.xz"), part, Path(cache)).sample(limit, seed=0).rows
                for part, limit in (("train", None), ("test", asked.limit))
            )
        for seen, cut in ((f"the first {LENGTH} tokens", LENGTH), ("whole texts", None)):
            words, tested = (texts(part, tokenizer, cut) for part in (train, test))
            model = make_pipeline(CountVectorizer(), MultinomialNB()).fit(words, train["label"])
            share = model.score(tested, test["label"])
            low, high = wilson(share, len(test))
            counts = [str(len(part)) for part in (train, test)]
            rows.append([f"{folder.name}, {seen}", *counts, f"{share:.2%}", f"{low:.1%}-{high:.1%}"])
    text = results.table(["naive Bayes", "trained on", "measured on", "accuracy", "95%"], rows)
    limit = "" if asked.limit is None else f" --limit {asked.limit}"
    results.write("naive-bayes", f"python -m tests.bench.naive_bayes DIR... --model DIR{limit}", text)


if __name__ == "__main__":
    main()
