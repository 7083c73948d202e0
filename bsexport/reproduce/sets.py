"""The sets of data of the experiments: in a folder of files, or on the hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bsexport.errors import DataError

CLASSIFICATION, NEXT_TOKEN = "text-classification", "text-generation"
FOLDERS = {
    "IMDB": ("imdb", CLASSIFICATION),
    "Enron-Spam": ("enron_spam", CLASSIFICATION),
    "20 Newsgroups": ("newsgroups20", CLASSIFICATION),
    "SQuAD": ("squad", NEXT_TOKEN),
    "WMT-19": ("wmt19", NEXT_TOKEN),
}
"""The paper's name of a set -> the folder of its files train.* and test.*, and its task."""


@dataclass(frozen=True)
class Set:
    """task: the pipeline's name. train, test: what train and curve take as --data, and the split of each.
    options: further ones of both, such as columns."""

    task: str
    train: str
    test: str
    split: str = "train"
    test_split: str = "test"
    options: tuple[str, ...] = ()


def from_folder(folder: Path) -> dict[str, Set]:
    """Those sets of FOLDERS that lie in a folder. Raises DataError if it has none, or one without both files."""
    found = {
        name: Set(task, _only(folder / inner, "train"), _only(folder / inner, "test"))
        for name, (inner, task) in FOLDERS.items()
        if (folder / inner).is_dir()
    }
    if not found:
        expected = ", ".join(inner for inner, _ in FOLDERS.values())
        raise DataError(f"{folder}: holds none of the folders {expected}; each is to hold train.* and test.*")
    return found


def _only(folder: Path, name: str) -> str:
    files = sorted(folder.glob(f"{name}.*"))
    if len(files) != 1:
        raise DataError(f"{folder}: holds {len(files)} files {name}.*, expected one, such as {name}.csv.xz")
    return str(files[0])


def from_hub() -> dict[str, Set]:
    """The sets by their names on the hub; WMT-19, whose rows are pairs, is to be made into running text first."""
    return {
        "IMDB": Set(CLASSIFICATION, "stanfordnlp/imdb", "stanfordnlp/imdb"),
        "Enron-Spam": Set(CLASSIFICATION, "SetFit/enron_spam", "SetFit/enron_spam"),
        "20 Newsgroups": Set(CLASSIFICATION, "SetFit/20_newsgroups", "SetFit/20_newsgroups"),
        "SQuAD": Set(
            NEXT_TOKEN, "rajpurkar/squad", "rajpurkar/squad", test_split="validation", options=("--text", "context")
        ),
    }
