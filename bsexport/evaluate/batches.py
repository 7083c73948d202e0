"""Examples in batches of like length, padded; kept in a folder, so that every process measures on the same."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import joblib
import numpy as np

from bsexport.errors import SourceError
from bsexport.evaluate.examples import PIXELS, Example
from bsexport.evaluate.measure import MASK, Batch
from bsexport.evaluate.subject import Subject
from bsexport.quiet import quiet

LOOKED_AHEAD = 4096  # examples that are ordered by length together: what is in memory at a time


def make_batches(examples: Iterable[Example], subject: Subject, size: int) -> Iterator[Batch]:
    """Batches of at most `size` examples; those of like length stand together.

    A graph that is not told which places are padding gets batches of one length.
    """
    window: list[tuple[int, Example]] = []
    for numbered in enumerate(examples):
        window.append(numbered)
        if len(window) == LOOKED_AHEAD:
            yield from _batches(window, subject, size)
            window = []
    yield from _batches(window, subject, size)


def _batches(examples: Sequence[tuple[int, Example]], subject: Subject, size: int) -> Iterator[Batch]:
    ordered = sorted(examples, key=lambda numbered: _lengths(numbered[1]))
    masked = MASK in subject.inputs
    for _, alike in itertools.groupby(ordered, key=lambda numbered: None if masked else _lengths(numbered[1])):
        group = list(alike)
        for start in range(0, len(group), size):
            rows, together = zip(*group[start : start + size], strict=True)
            windows = [window for example in together for window in example.windows]
            known = {name: [example.known[name] for example in together] for name in together[0].known}
            owner = [index for index, example in enumerate(together) for _ in example.windows]
            yield Batch(_padded(windows, subject), {**known, "owner": owner}, np.array(rows))


def _lengths(example: Example) -> tuple[tuple[int, ...], ...]:
    """Of the inputs of its windows, the longest first; of images their first dimension."""
    return tuple(sorted((tuple(map(len, window.values())) for window in example.windows), reverse=True))


def _padded(windows: list[dict[str, Any]], subject: Subject) -> dict[str, Any]:
    """The windows as arrays. Raises SourceError if they are images of several sizes."""
    shapes = {name: {np.shape(window[name]) for window in windows} for name in windows[0]}
    if all(len(found) == 1 for found in shapes.values()):
        return {name: np.stack([np.asarray(window[name]) for window in windows]) for name in windows[0]}
    if PIXELS in windows[0]:
        raise SourceError(f"{subject.package.path}: its image processor makes images of several sizes, expected one")
    with quiet():
        padded = subject.tokenizer.pad(windows, return_tensors="np")
    return {name: np.asarray(values) for name, values in padded.items()}


class Stored:
    """Batches in a folder, a file for each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, batches: Iterable[Batch]) -> None:
        """Write all of them."""
        self.folder.mkdir(parents=True)
        for index, batch in enumerate(batches):
            joblib.dump(batch, self.folder / f"{index:06}.joblib")

    def __len__(self) -> int:
        return sum(1 for _ in self.folder.iterdir())

    def __iter__(self) -> Iterator[Batch]:
        return map(joblib.load, sorted(self.folder.iterdir()))
