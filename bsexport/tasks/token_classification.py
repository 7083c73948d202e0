"""Words, and a class for each."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, ClassVar

from bsexport.errors import DataError
from bsexport.tasks.data import Data
from bsexport.tasks.labels import Labels, match
from bsexport.tasks.task import IGNORED, Role, Task


class TokenClassification(Task):
    """Columns of lists: text holds the words, label a name or number for each.

    The first token of a word carries its label.
    """

    name = "token-classification"
    roles: ClassVar = {
        "text": Role(("tokens", "words")),
        "label": Role(("tags", "ner_tags", "labels", "pos_tags", "label")),
    }

    def check(self, data: Data) -> None:
        data.check(
            self.columns["text"],
            ("list<item: string", "large_list<item: string", "list<item: large_string"),
            "lists of words",
        )
        data.check(self.columns["label"], ("list", "large_list"), "lists of labels")
        words, tags = (data.rows.data.column(self.columns[role]) for role in ("text", "label"))
        import pyarrow.compute as pc

        differs = pc.not_equal(pc.list_value_length(words), pc.list_value_length(tags))
        row = differs.index(True).as_py()
        if row >= 0:
            raise DataError(
                f"{data.name}: row {row + 1} has {len(words[row])} words in column {self.columns['text']!r} and "
                f"{len(tags[row])} labels in {self.columns['label']!r}; expected one label for each word"
            )

    def labels(self, data: Data, head: tuple[str, ...] | None) -> Labels:
        return match(data, self.columns["label"], head)

    def encode(self, data: Data, tokenizer: Any, max_length: int, labels: Labels | None) -> Any:
        assert labels is not None

        def encode(rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
            encoded = tokenizer(
                rows[self.columns["text"]], is_split_into_words=True, truncation=True, max_length=max_length
            )
            tags = rows[self.columns["label"]]
            encoded["labels"] = [
                _labels_of_tokens(encoded.word_ids(row), tags[row], labels) for row in range(len(tags))
            ]
            return dict(encoded)

        return data.map(encode)

    def collator(self, tokenizer: Any, model: Any, seed: int) -> Callable[[list[Any]], dict[str, Any]]:
        from transformers import DataCollatorForTokenClassification

        collator: Callable[[list[Any]], dict[str, Any]] = DataCollatorForTokenClassification(
            tokenizer, label_pad_token_id=IGNORED
        )
        return collator


def _labels_of_tokens(words: list[int | None], tags: list[Any], labels: Labels) -> list[int]:
    """words: of each token the index of its word; None for special tokens."""
    return [
        IGNORED if word is None or word == before else labels.ids[tags[word]]
        for before, word in pairwise([None, *words])
    ]
