"""Data from files, folders and the Hub, and class labels in them."""

from __future__ import annotations

import gzip
import hashlib
import json
import lzma
from pathlib import Path

import pytest

datasets = pytest.importorskip("datasets", reason="NOT TESTED: training data need datasets")

from bsexport.errors import DataError  # noqa: E402
from bsexport.tasks.data import Data, read_data  # noqa: E402
from bsexport.tasks.labels import Labels, match  # noqa: E402
from bsexport.tasks.task import Task  # noqa: E402
from bsexport.tasks.text_classification import TextClassification  # noqa: E402

CSV = 'text,label\n"a fine, fine film",good\nNA,bad\n'
ROWS = [{"text": "a fine, fine film", "label": "good"}, {"text": "NA", "label": "bad"}]


def read(path: Path, split: str = "train") -> Data:
    return read_data(str(path), split, path.parent / "cache")


def write_jsonl(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def message(path: Path, split: str = "train") -> str:
    with pytest.raises(DataError) as caught:
        read(path, split)
    return str(caught.value)


# files


def test_csv_plain_and_compressed(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(CSV)
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(CSV.encode()))
    (tmp_path / "c.csv.xz").write_bytes(lzma.compress(CSV.encode()))
    for name in ("a.csv", "b.csv.gz", "c.csv.xz"):
        data = read(tmp_path / name)
        assert list(data.rows) == ROWS, name  # the text NA is text
        assert data.sha256 == hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
        assert not data.running


def test_jsonl_and_parquet(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", ROWS)
    (tmp_path / "b.jsonl.xz").write_bytes(lzma.compress((tmp_path / "a.jsonl").read_bytes()))
    datasets.Dataset.from_list(ROWS).to_parquet(tmp_path / "c.parquet")
    for name in ("a.jsonl", "b.jsonl.xz", "c.parquet"):
        assert list(read(tmp_path / name).rows) == ROWS, name


def test_text_keeps_its_lines(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("the film\n\nwas fine\n")
    data = read(tmp_path / "a.txt")
    assert list(data.rows["text"]) == ["the film\n", "\n", "was fine\n"]
    assert data.running


def test_a_saved_folder_and_its_splits(tmp_path: Path) -> None:
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "one")
    splits = {"train": datasets.Dataset.from_list(ROWS), "test": datasets.Dataset.from_list(ROWS[:1])}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "two")
    before = sorted(path for path in tmp_path.rglob("*"))
    assert list(read(tmp_path / "one").rows) == ROWS
    assert list(read(tmp_path / "two", "test").rows) == ROWS[:1]
    assert message(tmp_path / "two", "dev") == f"{tmp_path}/two: has no split 'dev'; its splits are train, test"
    assert sorted(path for path in tmp_path.rglob("*")) == before
    assert read(tmp_path / "one").sha256 != read(tmp_path / "two").sha256


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("none.csv", None, "none.csv: no such file or folder; give the file of the data, or its name on the Hub"),
        ("a/b/c", None, "a/b/c: no such file or folder"),
        ("empty.csv", "", "empty.csv: is empty"),
        ("head.csv", "text,label\n", "head.csv: holds no row"),
        ("torn.csv", 'text,label\n"abc,1\nd,2,3\n', "torn.csv: cannot be read as csv (Error tokenizing data"),
        ("bad.jsonl", "{oops\n", "bad.jsonl: cannot be read as json"),
        ("data.pkl", "x", "data.pkl: its name does not tell its format; expected one that ends in .csv, .jsonl"),
        ("bad.csv.xz", "x", "bad.csv.xz: cannot be read as csv"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, name: str, content: str | None, expected: str) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    assert message(tmp_path / name).startswith(f"{tmp_path}/{expected}")


def test_a_folder_that_is_none_of_ours(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    assert "is neither a folder that save_to_disk of datasets wrote nor one of images" in message(tmp_path / "folder")


def test_a_hub_name_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match="nobody/nothing: no such file or folder, and it cannot be had"):
        read_data("nobody/nothing", "train", tmp_path)


def test_a_sample_is_the_seeds(tmp_path: Path) -> None:
    data = read(write_jsonl(tmp_path / "a.jsonl", [{"n": n} for n in range(100)]))
    drawn = data.sample(10, 1).rows["n"][:]
    assert len(set(drawn)) == 10
    assert drawn == data.sample(10, 1).rows["n"][:] != data.sample(10, 2).rows["n"][:]
    assert data.sample(None, 1).rows["n"][:] == data.sample(100, 1).rows["n"][:] == list(range(100))


# columns


def on(path: Path, **named: str) -> Task:
    return TextClassification.on(read(path), dict(named))


def test_usual_names_are_found_and_others_named(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"sentence1": "a", "sentence2": "b", "class": "x", "y": "z"}])
    assert on(path).columns == {"text": "sentence1", "pair": "sentence2", "label": "class"}
    assert on(path, text="sentence2", label="y").columns == {"text": "sentence2", "pair": "sentence2", "label": "y"}


@pytest.mark.parametrize(
    ("row", "named", "expected"),
    [
        ({"text": "a", "y": "z"}, {}, "has no column 'label' or 'labels' or 'class' or 'sentiment'; "
         "its columns are text, y: name the one to take with --label"),
        ({"text": "a", "label": "z"}, {"label": "z"}, "has no column 'z'; its columns are text, label"),
        ({"text": 1, "label": "z"}, {}, "column 'text' holds int64, expected text"),
        ({"text": None, "label": "z"}, {}, "column 'text' holds null, expected text"),
    ],
)  # fmt: skip
def test_columns_that_are_not_there(
    tmp_path: Path, row: dict[str, object], named: dict[str, str], expected: str
) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [row])
    with pytest.raises(DataError) as caught:
        on(path, **named)
    assert str(caught.value) == f"{path}: {expected}"


def test_an_empty_cell_is_named(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"text": "a", "label": 1}, {"text": None, "label": 0}])
    with pytest.raises(DataError, match="column 'text' is empty in 1 of 2 rows, first in row 2; fill or remove them"):
        on(path)


def test_a_column_for_another_task(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", ROWS)
    with pytest.raises(
        DataError, match="--source text: text-classification has no such column, only --text, --pair, --label"
    ):
        on(path, source="text")


# labels


def labels(tmp_path: Path, values: list[object], head: tuple[str, ...] | None) -> Labels:
    return match(read(write_jsonl(tmp_path / "l.jsonl", [{"y": value} for value in values])), "y", head)


def test_a_new_head_gets_a_class_for_each_label(tmp_path: Path) -> None:
    assert labels(tmp_path, ["b", "a", "b"], None) == Labels(("a", "b"), {"a": 0, "b": 1})
    assert labels(tmp_path, [5, 1, 1], None) == Labels(("1", "5"), {1: 0, 5: 1})
    assert labels(tmp_path, [True, False], None) == Labels(("0", "1"), {0: 0, 1: 1})


def test_labels_are_matched_with_a_head_by_name_or_number(tmp_path: Path) -> None:
    head = ("bad", "good")
    assert labels(tmp_path, ["good", "good"], head) == Labels(head, {"good": 1})
    assert labels(tmp_path, [0, 1], head) == Labels(head, {0: 0, 1: 1})
    assert labels(tmp_path, [5, 1], ("1", "3", "5")) == Labels(("1", "3", "5"), {1: 0, 5: 2})


@pytest.mark.parametrize(
    ("values", "head", "expected"),
    [
        (
            ["good", "ugly"],
            ("bad", "good"),
            "holds 'good', 'ugly', but the model's head has the classes 'bad', 'good'; ",
        ),
        ([0, 2], ("bad", "good"), "holds '0', '2', but the model's head has the classes 'bad', 'good'"),
        ([-1, 1], ("bad", "good"), "holds '-1', '1', but"),
        (["x", "x"], None, "holds only 'x', expected two labels or more"),
        ([0.5, 1.5], None, "holds double, expected labels: names or whole numbers from 0 up"),
        (["x", None], None, "lacks 1 of 2 labels"),
        (list(map(str, range(10))), ("a", "b"), "holds '0', '1', '2', '3', '4', '5', '6', '7' and 2 more, but"),
    ],
)
def test_labels_that_do_not_match(
    tmp_path: Path, values: list[object], head: tuple[str, ...] | None, expected: str
) -> None:
    with pytest.raises(DataError) as caught:
        labels(tmp_path, values, head)
    assert str(caught.value).startswith(f"{tmp_path}/l.jsonl: column 'y' {expected}")


def test_class_labels_of_datasets_have_names(tmp_path: Path) -> None:
    feature = datasets.Features({"y": datasets.ClassLabel(names=["no", "yes"])})
    datasets.Dataset.from_dict({"y": [1, 0, 1]}, features=feature).save_to_disk(tmp_path / "d")
    assert match(read(tmp_path / "d"), "y", None) == Labels(("no", "yes"), {0: 0, 1: 1})
    assert match(read(tmp_path / "d"), "y", ("yes", "no")) == Labels(("yes", "no"), {0: 1, 1: 0})


def test_a_folder_of_images(tmp_path: Path) -> None:
    """Each image's label is the folder in it that it lies in; of images that lie in no folder there is none."""
    for name in ("dog/b.PNG", "cat/in/a.jpg", "cat/notes.txt"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(b"")
    assert list(read(tmp_path / "in").rows) == [
        {"image": str(tmp_path / "in" / "cat" / "in" / "a.jpg"), "label": "cat"},
        {"image": str(tmp_path / "in" / "dog" / "b.PNG"), "label": "dog"},
    ]
    assert list(read(tmp_path / "in" / "dog").rows) == [{"image": str(tmp_path / "in" / "dog" / "b.PNG")}]
