"""Rows to train or to measure on: from files, a folder of save_to_disk, or the Hub, through the datasets library."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bsexport.errors import DataError
from bsexport.graph.architecture import first_line
from bsexport.quiet import quiet

FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    ".csv": ("csv", {"keep_default_na": False, "na_values": [""]}),  # the word NA is a word
    ".jsonl": ("json", {}),
    ".json": ("json", {}),
    ".parquet": ("parquet", {}),
    ".txt": ("text", {"keep_linebreaks": True}),
    ".text": ("text", {"keep_linebreaks": True}),
}
"""How a file's name ends, compression aside -> the builder of datasets that reads it, and its options."""

COMPRESSIONS = (".xz", ".gz", ".bz2", ".zst")

IMAGES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
IMAGE, LABEL = "image", "label"
"""The columns of a folder of images: their paths, and the folders in it that they lie in."""

_SAVED = ("dataset_dict.json", "state.json")  # what save_to_disk leaves: of several splits, of one
_HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?(:[\w.-]+)?")


@dataclass(frozen=True)
class Data:
    """Rows with named columns.

    name, split: as the user gave them. rows: a datasets.Dataset. sha256: of the file, or of the folder's files; of what
    comes from the Hub, the fingerprint that datasets gives it. running: the rows are the lines of one running text.
    cache: a folder for what is computed of the rows.
    """

    name: str
    split: str
    rows: Any
    sha256: str
    running: bool
    cache: Path

    def sample(self, limit: int | None, seed: int) -> Data:
        """At most `limit` of the rows, drawn at random by the seed."""
        return replace(self, rows=draw(self.rows, limit, seed))

    def column(self, named: str | None, usual: Sequence[str], option: str) -> str:
        """The column that the user named, or the first of the usual names that is there. Raises DataError."""
        there = self.rows.column_names
        if named is not None and named not in there:
            raise DataError(f"{self.name}: has no column {named!r}; its columns are {', '.join(there)}")
        found = named or next((name for name in usual if name in there), None)
        if found is None:
            raise DataError(
                f"{self.name}: has no column {' or '.join(map(repr, usual))}; its columns are {', '.join(there)}: "
                f"name the one to take with {option}"
            )
        return found

    def check(self, column: str, kinds: Sequence[str], expected: str) -> None:
        """Raise DataError unless the column holds values of one of these Arrow types, as text, in every row."""
        stored = self.rows.data.column(column)
        if not str(stored.type).startswith(tuple(kinds)):
            raise DataError(f"{self.name}: column {column!r} holds {stored.type}, expected {expected}")
        if stored.null_count:
            first = stored.is_null().index(True).as_py()
            raise DataError(
                f"{self.name}: column {column!r} is empty in {stored.null_count} of {len(stored)} rows, "
                f"first in row {first + 1}; fill or remove them"
            )

    def map(self, encode: Callable[[dict[str, list[Any]]], dict[str, list[Any]]]) -> Any:
        """A datasets.Dataset of what `encode` makes of batches of rows."""
        self.cache.mkdir(parents=True, exist_ok=True)
        with quiet():
            return self.rows.map(
                encode,
                batched=True,
                remove_columns=self.rows.column_names,
                # Named, or else it would lie in a folder of the user's.
                cache_file_name=str(self.cache / f"{self.sha256[:16]}-{self.rows._fingerprint}.arrow"),
            )


def read_data(name: str, split: str, cache: Path) -> Data:
    """What a user named: a file, a folder that save_to_disk wrote, a folder of images, or NAME or NAME:CONFIGURATION
    on the Hub.

    split: which part of a folder or of a set on the Hub; a file has but one. cache: a folder for what is read.
    Raises DataError if there is nothing of that name, it cannot be read, or it holds no row.
    """
    path = Path(name)
    ending = _ending(path)
    if path.is_dir():
        rows, digest = _folder(path, split), _sha256_of_folder(path)
    elif path.is_file():
        rows, digest = _file(path, ending, cache), _sha256_of_file(path)
    elif ending in FORMATS or not _HUB_NAME.fullmatch(name):
        raise DataError(f"{name}: no such file or folder; give the file of the data, or its name on the Hub")
    else:
        rows = _hub(name, split)
        digest = rows._fingerprint
    if len(rows) == 0:
        raise DataError(f"{name}: holds no row")
    return Data(name, split, rows, digest, running=FORMATS.get(ending, ("",))[0] == "text", cache=cache)


def draw(rows: Any, limit: int | None, seed: int) -> Any:
    """A datasets.Dataset of at most `limit` rows of another, drawn at random by the seed."""
    if limit is None or limit >= len(rows):
        return rows
    with quiet():
        return rows.shuffle(seed=seed, keep_in_memory=True).select(range(limit), keep_in_memory=True)


def _ending(path: Path) -> str:
    """The ending that tells the format: of a.csv.xz, ".csv"."""
    named = path.with_suffix("") if path.suffix.lower() in COMPRESSIONS else path
    return named.suffix.lower()


def _file(path: Path, ending: str, cache: Path) -> Any:
    if ending not in FORMATS:
        raise DataError(
            f"{path}: its name does not tell its format; expected one that ends in {', '.join(FORMATS)}, "
            f"with {', '.join(COMPRESSIONS)} behind it if it is compressed"
        )
    if path.stat().st_size == 0:
        raise DataError(f"{path}: is empty")
    import datasets

    builder, options = FORMATS[ending]
    try:
        with quiet():
            return datasets.load_dataset(
                builder, data_files=str(path), split="train", cache_dir=str(cache / "read"), **options
            )
    except Exception as error:  # the readers' own kinds
        if "corresponds to no data" in str(error):
            raise DataError(f"{path}: holds no row") from error
        raise DataError(f"{path}: cannot be read as {builder} ({first_line(error)}); repair it") from error


def _folder(path: Path, split: str) -> Any:
    import datasets

    if not any((path / name).is_file() for name in _SAVED):
        return _images(path)
    try:
        with quiet():
            found = datasets.load_from_disk(str(path))
    except Exception as error:
        raise DataError(f"{path}: cannot be read ({first_line(error)}); save it again") from error
    if not isinstance(found, datasets.DatasetDict):
        return found
    if split not in found:
        raise DataError(f"{path}: has no split {split!r}; its splits are {', '.join(found)}")
    return found[split]


def _images(path: Path) -> Any:
    """The images in a folder, in the order of their paths; each one's label is the folder in it that it lies in."""
    import datasets

    found = sorted(each for each in path.rglob("*") if each.suffix.lower() in IMAGES and each.is_file())
    if not found:
        raise DataError(
            f"{path}: is neither a folder that save_to_disk of datasets wrote nor one of images; give one, or a file"
        )
    columns = {IMAGE: [str(each) for each in found]}
    lying = [each for each in found if each.parent == path]
    if lying and len(lying) < len(found):
        raise DataError(f"{lying[0]}: lies beside folders of images; put it into the folder of its class, or remove it")
    if not lying:
        columns[LABEL] = [each.relative_to(path).parts[0] for each in found]
    return datasets.Dataset.from_dict(columns)


def _hub(name: str, split: str) -> Any:
    import datasets

    of, _, configuration = name.partition(":")
    try:
        with quiet():
            return datasets.load_dataset(of, configuration or None, split=split)
    except Exception as error:
        raise DataError(
            f"{name}: no such file or folder, and it cannot be had from the Hugging Face Hub ({first_line(error)}); "
            "check the name, the split and the connection"
        ) from error


def _sha256_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sha256_of_folder(path: Path) -> str:
    """Of the names and sha256 of its files, in the order of the names."""
    digest = hashlib.sha256()
    for file in sorted(each for each in path.rglob("*") if each.is_file()):
        digest.update(f"{file.relative_to(path).as_posix()} {_sha256_of_file(file)}\n".encode())
    return digest.hexdigest()
