"""A question about a passage, and the span of the passage that answers it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from bsexport.errors import DataError
from bsexport.tasks.data import Data
from bsexport.tasks.labels import Labels
from bsexport.tasks.task import Role, Task, check_text

_STRIDE = 0.5  # of a window of a long passage: how much of it is in the next one, too


class QuestionAnswering(Task):
    """Columns: text, the passage; pair, the question; label, the answer: its text, or SQuAD's {text, answer_start}.

    A long passage is cut into overlapping windows, and the first that holds the whole answer is taken. What has no
    answer, as in SQuAD 2, or one that no window holds, points to the first token of the first window.
    """

    name = "question-answering"
    roles: ClassVar = {
        "text": Role(("context", "passage")),
        "pair": Role(("question",)),
        "label": Role(("answers", "answer")),
    }

    def check(self, data: Data) -> None:
        check_text(data, self.columns["text"], self.columns["pair"])
        data.check(
            self.columns["label"],
            ("string", "large_string", "struct<text: list", "struct<answer_start: list"),
            "answers",
        )

    def encode(self, data: Data, tokenizer: Any, max_length: int, labels: Labels | None) -> Any:
        def encode(rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
            questions, passages, answers = (rows[self.columns[role]] for role in ("pair", "text", "label"))
            windows = cut_into_windows(data, tokenizer, questions, passages, max_length)
            spans = [_span(data, passage, answer) for passage, answer in zip(passages, answers, strict=True)]
            chosen = [
                _place(windows, found, span) for found, span in zip(_by_row(windows, len(spans)), spans, strict=True)
            ]
            kept = [name for name in windows if name in tokenizer.model_input_names]
            return {
                **{name: [windows[name][window] for window, _, _ in chosen] for name in kept},
                "start_positions": [start for _, start, _ in chosen],
                "end_positions": [end for _, _, end in chosen],
            }

        return data.map(encode)

    def collator(self, tokenizer: Any, model: Any, seed: int) -> Callable[[list[Any]], dict[str, Any]]:
        from transformers import DataCollatorWithPadding

        collator: Callable[[list[Any]], dict[str, Any]] = DataCollatorWithPadding(tokenizer)
        return collator

    @staticmethod
    def predict(logits: Any, labels: Any) -> Any:
        """Of start and end logits [..., tokens] the most likely places, int64 [..., 2]."""
        import torch

        return torch.stack([logits[0].argmax(-1), logits[1].argmax(-1)], -1)

    @staticmethod
    def score(predictions: npt.NDArray[Any], labels: Any) -> float:
        """The share of the questions whose span is told exactly, both ends."""
        return float((predictions == np.stack(labels, -1)).all(-1).mean())


Span = tuple[int, int] | None  # characters of the passage from, and up to; None: no answer


def cut_into_windows(data: Data, tokenizer: Any, questions: list[str], passages: list[str], max_length: int) -> Any:
    """Questions with their passages as the tokenizer encodes them, a long passage in windows that overlap.

    Raises DataError if a question leaves no room for its passage.
    """
    try:
        return tokenizer(
            [question.strip() for question in questions],
            passages,
            truncation="only_second",
            max_length=max_length,
            stride=_stride(tokenizer, questions, max_length),
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
    except Exception as error:  # tokenizers has but one kind
        raise DataError(f"{data.name}: cannot be cut into windows of --max-length {max_length} ({error})") from error


def _stride(tokenizer: Any, questions: list[str], max_length: int) -> int:
    """Half of what the longest question of the batch leaves to the passage."""
    asked = tokenizer([question.strip() for question in questions], add_special_tokens=False)["input_ids"]
    longest = max(map(len, asked))
    return max(0, int((max_length - longest - tokenizer.num_special_tokens_to_add(pair=True)) * _STRIDE))


def _by_row(windows: Any, rows: int) -> list[list[int]]:
    """The windows of each row."""
    found: list[list[int]] = [[] for _ in range(rows)]
    for window, row in enumerate(windows["overflow_to_sample_mapping"]):
        found[row].append(window)
    return found


def _span(data: Data, passage: str, answer: Any) -> Span:
    """Where the (first) answer stands in the passage. Raises DataError if it does not."""
    if isinstance(answer, str):
        text, start = answer, passage.find(answer)
    elif not answer["text"]:
        return None
    else:
        text, start = answer["text"][0], answer["answer_start"][0]
    if not text or start < 0 or passage[start : start + len(text)] != text:
        raise DataError(f"{data.name}: the answer {text[:40]!r} does not stand in its passage ({passage[:40]!r}...)")
    return start, start + len(text)


def _place(windows: Any, candidates: list[int], span: Span) -> tuple[int, int, int]:
    """The window to take, and the tokens in it that the answer begins and ends with: 0, the first, if there is none."""
    if span is not None:
        for window in candidates:
            inside = [
                token
                for token, (of, (begin, end)) in enumerate(
                    zip(windows.sequence_ids(window), windows["offset_mapping"][window], strict=True)
                )
                if of == 1 and begin < span[1] and end > span[0]
            ]
            offsets = windows["offset_mapping"][window]
            if inside and offsets[inside[0]][0] <= span[0] and offsets[inside[-1]][1] >= span[1]:
                return window, inside[0], inside[-1]
    return candidates[0], 0, 0
