"""Running text: the next token, or tokens behind masks."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from bsexport.errors import DataError, RecipeError
from bsexport.tasks.data import Data, draw
from bsexport.tasks.labels import Labels
from bsexport.tasks.task import IGNORED, Role, Task, check_text

_MASKED = 0.15  # share of the tokens, as in BERT


class LanguageModelling(Task):
    """Column: text. All rows are joined, with an end token between rows that are texts of their own, and cut into
    blocks of max_length tokens, the special tokens included; what is left at the end is not used."""

    roles: ClassVar = {"text": Role(("text", "sentence", "content"))}

    def check(self, data: Data) -> None:
        check_text(data, self.columns["text"])

    def encode(self, data: Data, tokenizer: Any, max_length: int, labels: Labels | None) -> Any:
        import datasets

        ids = self._tokens(data, tokenizer)
        before, behind = _special_tokens(tokenizer)
        size = max_length - len(before) - len(behind)
        count = len(ids) // max(size, 1)
        if count == 0:
            raise DataError(
                f"{data.name}: holds {len(ids)} tokens in all, which is less than a block of --max-length {max_length}"
            )
        middle = ids[: count * size].reshape(count, size)
        ends = [np.tile(np.array(tokens, np.int64), (count, 1)) for tokens in (before, behind)]
        blocks = np.concatenate([ends[0], middle, ends[1]], axis=1)
        return datasets.Dataset.from_dict({"input_ids": blocks})

    def examples(
        self,
        data: Data,
        tokenizer: Any,
        max_length: int,
        labels: Labels | None,
        limit: int | None = None,
        seed: int = 0,
    ) -> Any:
        """What `encode` gives, at most `limit` blocks of it: rows drawn from a text would make no text."""
        return draw(self.encode(data, tokenizer, max_length, labels), limit, seed)

    def _tokens(self, data: Data, tokenizer: Any) -> npt.NDArray[np.int64]:
        """The ids of the tokens of all rows, joined."""
        end = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id
        after = [] if data.running or end is None else [end]

        def encode(rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
            texts = tokenizer(rows[self.columns["text"]], add_special_tokens=False, verbose=False)["input_ids"]
            return {"input_ids": [[*ids, *after] for ids in texts]}

        return _joined(data.map(encode))


class CausalLanguageModelling(LanguageModelling):
    """Every token but the first is to be told from those before it."""

    name = "text-generation"

    def windows(
        self,
        data: Data,
        tokenizer: Any,
        max_length: int,
        stride: int | None = None,
        limit: int | None = None,
        seed: int = 0,
    ) -> Any:
        """All rows joined, in overlapping windows, each `stride` tokens after the one before; at most `limit` of them.

        A datasets.Dataset of input_ids, at most max_length with the special tokens that stand before a text, and asked:
        how many of a window's last tokens are to be told. Every token is asked for in one window, from at least
        max_length - stride tokens before it or from all that there are; the text's first only if a special token
        stands before it. stride: None for half of max_length. Raises DataError for a text without such a token,
        RecipeError for a length or stride that leaves one out.
        """
        import datasets

        before, _ = _special_tokens(tokenizer)
        first = 0 if before else 1  # of all tokens, to be told
        size = max_length - len(before)
        if size <= first:
            raise RecipeError(f"max-length {max_length} leaves no token to be told from one before it: take more")
        stride = max(1, min(max_length // 2, size - first)) if stride is None else stride
        if stride > size - first:
            raise RecipeError(
                f"stride {stride} leaves out tokens: at --max-length {max_length} it can be {size - first} at most"
            )
        ids = self._tokens(data, tokenizer)
        if len(ids) <= first:
            raise DataError(f"{data.name}: holds {len(ids)} tokens in all, none to be told from one before it")
        starts = range(0, max(len(ids) - size, 0) + stride, stride)
        ends = [min(start + size, len(ids)) for start in starts]
        cut = [np.concatenate([before, ids[start:end]]) for start, end in zip(starts, ends, strict=True)]
        rows = {"input_ids": [part.astype(np.int64) for part in cut], "asked": np.diff([first, *ends])}
        return draw(datasets.Dataset.from_dict(rows), limit, seed)

    def collator(self, tokenizer: Any, model: Any, seed: int) -> Callable[[list[Any]], dict[str, Any]]:
        from transformers import default_data_collator

        def collate(blocks: list[Any]) -> dict[str, Any]:  # all of one length: nothing is padded
            return dict(
                default_data_collator([{"input_ids": ids, "labels": ids} for ids in (b["input_ids"] for b in blocks)])
            )

        return collate

    @staticmethod
    def score(predictions: npt.NDArray[Any], labels: npt.NDArray[Any]) -> float:
        """Of each token but the first, predicted from those before it."""
        return Task.score(predictions[:, :-1], labels[:, 1:])


class MaskedLanguageModelling(LanguageModelling):
    """15% of the tokens are hidden, others each time that a batch is another, and to be told."""

    name = "fill-mask"

    def collator(self, tokenizer: Any, model: Any, seed: int) -> Callable[[list[Any]], dict[str, Any]]:
        import torch
        from transformers import DataCollatorForLanguageModeling

        if tokenizer.mask_token is None:
            raise DataError(
                f"{self.name} needs a tokenizer with a mask token, which the model's lacks; choose another --task"
            )
        masking = DataCollatorForLanguageModeling(tokenizer, mlm_probability=_MASKED)
        before, behind = map(len, _special_tokens(tokenizer))

        def collate(blocks: list[Any]) -> dict[str, Any]:
            # From the batch and the seed alone: a resumed run masks the same tokens, as would any number of workers.
            content = zlib.crc32(np.array([block["input_ids"] for block in blocks], np.int64).tobytes(), seed)
            inside = len(blocks[0]["input_ids"]) - before - behind
            special = [1] * before + [0] * inside + [1] * behind

            def masked(attempt: int) -> dict[str, Any]:
                masking.generator = torch.Generator().manual_seed(attempt)
                return dict(masking([{**block, "special_tokens_mask": special} for block in blocks]))

            attempts = map(masked, itertools.count(content))
            return next(batch for batch in attempts if (batch["labels"] != IGNORED).any())  # or else its loss is 0/0

        return collate


def _joined(encoded: Any) -> npt.NDArray[np.int64]:
    """The lists of token ids of all rows, one after the other."""
    chunks = encoded.data.column("input_ids").chunks
    return np.concatenate([np.zeros(0, np.int64), *(np.asarray(chunk.flatten(), np.int64) for chunk in chunks)])


def _special_tokens(tokenizer: Any) -> tuple[list[int], list[int]]:
    """What the tokenizer puts before and behind a text."""
    encoded = tokenizer("a", return_special_tokens_mask=True)
    ids, special = encoded["input_ids"], encoded["special_tokens_mask"]
    text = special.index(0)
    length = special.count(0)
    return ids[:text], ids[text + length :]
