"""Examples in batches of like length, padded; kept in a folder, so that every process measures on the same."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import joblib
import numpy as np

from bsexport.evaluate.examples import Example
from bsexport.evaluate.measure import Batch
from bsexport.quiet import quiet

LOOKED_AHEAD = 4096  # examples that are ordered by length together: what is in memory at a time


def make_batches(examples: Iterable[Example], pad: Any, size: int) -> Iterator[Batch]:
    """Batches of `size` examples, the last of fewer; those of like length stand together.

    pad: the tokenizer whose `pad` fills up sequences; None where all inputs are of one shape.
    """
    window: list[tuple[int, Example]] = []
    for numbered in enumerate(examples):
        window.append(numbered)
        if len(window) == LOOKED_AHEAD:
            yield from _batches(window, pad, size)
            window = []
    yield from _batches(window, pad, size)


def _batches(examples: Sequence[tuple[int, Example]], pad: Any, size: int) -> Iterator[Batch]:
    ordered = sorted(examples, key=lambda numbered: _length(numbered[1])) if pad else examples
    for start in range(0, len(ordered), size):
        rows, together = zip(*ordered[start : start + size], strict=True)
        windows = [window for example in together for window in example.windows]
        known = {name: [example.known[name] for example in together] for name in together[0].known}
        owner = [index for index, example in enumerate(together) for _ in example.windows]
        yield Batch(_padded(windows, pad), {**known, "owner": owner}, np.array(rows))


def _length(example: Example) -> int:
    return max(len(next(iter(window.values()))) for window in example.windows)


def _padded(windows: list[dict[str, Any]], pad: Any) -> dict[str, Any]:
    if pad is None:
        return {name: np.stack([window[name] for window in windows]) for name in windows[0]}
    with quiet():
        padded = pad.pad(windows, return_tensors="np")
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
