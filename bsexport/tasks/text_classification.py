"""A text, or a pair of texts, and its class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from bsexport.tasks.data import Data
from bsexport.tasks.labels import Labels, match
from bsexport.tasks.task import Role, Task, check_text


class TextClassification(Task):
    """Columns: text, and pair where there is a second text; label: its name, or its number."""

    name = "text-classification"
    roles: ClassVar = {
        "text": Role(("text", "sentence", "sentence1", "premise", "review", "content")),
        "pair": Role(("pair", "text_pair", "sentence2", "hypothesis"), optional=True),
        "label": Role(("label", "labels", "class", "sentiment")),
    }

    def check(self, data: Data) -> None:
        check_text(data, *(self.columns[role] for role in ("text", "pair") if role in self.columns))

    def labels(self, data: Data, head: tuple[str, ...] | None) -> Labels:
        return match(data, self.columns["label"], head)

    def encode(self, data: Data, tokenizer: Any, max_length: int, labels: Labels | None) -> Any:
        assert labels is not None
        texts = [self.columns[role] for role in ("text", "pair") if role in self.columns]

        def encode(rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
            encoded = tokenizer(*(rows[column] for column in texts), truncation=True, max_length=max_length)
            return {**encoded, "labels": [labels.ids[value] for value in rows[self.columns["label"]]]}

        return data.map(encode)

    def collator(self, tokenizer: Any, model: Any, seed: int) -> Callable[[list[Any]], dict[str, Any]]:
        from transformers import DataCollatorWithPadding

        collator: Callable[[list[Any]], dict[str, Any]] = DataCollatorWithPadding(tokenizer)
        return collator
