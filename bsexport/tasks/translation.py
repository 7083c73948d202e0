"""A text, and what it is in another language."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from bsexport.tasks.data import Data
from bsexport.tasks.labels import Labels
from bsexport.tasks.task import IGNORED, Role, Task, check_text


class Translation(Task):
    """Columns: source and target. Any pair of texts will do that an encoder-decoder can learn, such as summaries."""

    name = "translation"
    roles: ClassVar = {"source": Role(("source", "src")), "target": Role(("target", "tgt"))}

    def check(self, data: Data) -> None:
        check_text(data, self.columns["source"], self.columns["target"])

    def encode(self, data: Data, tokenizer: Any, max_length: int, labels: Labels | None) -> Any:
        def encode(rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
            sources, targets = rows[self.columns["source"]], rows[self.columns["target"]]
            return dict(tokenizer(sources, text_target=targets, truncation=True, max_length=max_length))

        return data.map(encode)

    def collator(self, tokenizer: Any, model: Any, seed: int) -> Callable[[list[Any]], dict[str, Any]]:
        from transformers import DataCollatorForSeq2Seq

        collator: Callable[[list[Any]], dict[str, Any]] = DataCollatorForSeq2Seq(
            tokenizer, model=model, label_pad_token_id=IGNORED
        )
        return collator
