"""What a task is to training and measuring: its columns, how rows become inputs, and what a right answer is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy.typing as npt

from bsexport.errors import DataError
from bsexport.tasks.data import Data
from bsexport.tasks.labels import Labels

IGNORED = -100
"""A label that counts neither in the loss nor in the accuracy: padding, and what is not asked for."""

TEXT = ("string", "large_string")


@dataclass(frozen=True)
class Role:
    """What a column is for. usual: names it often has. optional: whether a set may lack it."""

    usual: tuple[str, ...]
    optional: bool = False


class Task(ABC):
    """One task on the columns of one set of data.

    name: the pipeline's. roles: by the option of the command line that names the column.
    columns: role -> column; optional ones that are not there are left out.
    """

    name: ClassVar[str]
    roles: ClassVar[dict[str, Role]]

    def __init__(self, columns: dict[str, str]) -> None:
        self.columns = columns

    @classmethod
    def on(cls, data: Data, named: dict[str, str | None]) -> Self:
        """The task on these data. named: role -> the column that the user gave.

        Raises DataError if a column is missing, or given for a role that the task has not.
        """
        for name, column in named.items():
            if column is not None and name not in cls.roles:
                raise DataError(f"--{name} {column}: {cls.name} has no such column, only --{', --'.join(cls.roles)}")
        columns = {}
        for name, role in cls.roles.items():
            given = named.get(name)
            if given is None and role.optional and not set(role.usual) & set(data.rows.column_names):
                continue
            columns[name] = data.column(given, role.usual, f"--{name}")
        task = cls(columns)
        task.check(data)
        return task

    @abstractmethod
    def check(self, data: Data) -> None:
        """Raise DataError if a column holds what the task cannot take."""

    def labels(self, data: Data, head: tuple[str, ...] | None) -> Labels | None:
        """The data's labels as classes of the head (see labels.match); None where the task has no classes."""
        return None

    @abstractmethod
    def encode(self, data: Data, tokenizer: Any, max_length: int, labels: Labels | None) -> Any:
        """The rows as a datasets.Dataset of what `collator` takes, at most max_length tokens each."""

    def examples(
        self,
        data: Data,
        tokenizer: Any,
        max_length: int,
        labels: Labels | None,
        limit: int | None = None,
        seed: int = 0,
    ) -> Any:
        """What `encode` gives, of at most `limit` rows that the seed draws."""
        return self.encode(data.sample(limit, seed), tokenizer, max_length, labels)

    @abstractmethod
    def collator(self, tokenizer: Any, model: Any, seed: int) -> Callable[[list[Any]], dict[str, Any]]:
        """What makes a batch of encoded rows. It draws no random number from a generator that others use."""

    @staticmethod
    def predict(logits: Any, labels: Any) -> Any:
        """The most likely class at each place, of logits [..., classes] int64 [...]: preprocess_logits_for_metrics."""
        return _first(logits).argmax(-1)

    @staticmethod
    def score(predictions: npt.NDArray[Any], labels: npt.NDArray[Any]) -> float:
        """The share of the labels that count (those that are not IGNORED) which are predicted; NaN if there is none."""
        counted = labels != IGNORED
        return float((predictions == labels)[counted].mean()) if counted.any() else float("nan")

    @classmethod
    def metrics(cls, evaluated: Any) -> dict[str, float]:
        """transformers' compute_metrics: {"accuracy": ...} of predictions that `predict` made."""
        return {"accuracy": cls.score(evaluated.predictions, evaluated.label_ids)}


def _first(logits: Any) -> Any:
    """Models may give more than logits, such as an encoder's states."""
    return logits[0] if isinstance(logits, tuple) else logits


def check_text(data: Data, *columns: str) -> None:
    """Raise DataError unless each of these columns holds text in every row."""
    for column in columns:
        data.check(column, TEXT, "text")
