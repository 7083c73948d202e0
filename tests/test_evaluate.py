"""Packages measured on data, each task against PyTorch on the decoded weights, one example at a time."""

from __future__ import annotations

import csv
import itertools
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import bsexport, refused
from hf_models import LABELS, WORDS, save_bert, save_gpt2, save_tokenizer, save_vit

pytest.importorskip("datasets", reason="NOT TESTED: measuring needs datasets")
pytest.importorskip("joblib", reason="NOT TESTED: measuring needs joblib")
pytest.importorskip("matplotlib", reason="NOT TESTED: measuring needs matplotlib")

import torch
import transformers
from onnx import helper, numpy_helper, parser, save

from bsexport.evaluate.answers import best_span
from bsexport_runtime import load

TEXT = [word for word in WORDS if not word.startswith("[")]


def packed(model: Path, *options: str) -> tuple[Path, Path]:
    """The package of a model, and its decoded weights as a directory for transformers."""
    package, plain = model.with_name("package"), model.with_name("plain")
    assert bsexport("pack", model, "--prune", "0.3", "--step", "2^-5", "-o", package, *options).exit_code == 0
    assert bsexport("unpack", package, "-o", plain).exit_code == 0
    return package, plain


def measured(package: Path, data: Path, *options: object) -> dict[str, Any]:
    result = bsexport("evaluate", package, "--data", data, "--json", *options)
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def values(found: dict[str, Any]) -> dict[str, float]:
    for figure in found["figures"].values():
        assert figure["low"] <= figure["value"] <= figure["high"]
    return {name: figure["value"] for name, figure in found["figures"].items()}


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def words(seed: int, count: int) -> str:
    return " ".join(random.Random(seed).choices(TEXT, k=count))


def test_text_classification(tmp_path: Path) -> None:
    package, plain = packed(save_bert(tmp_path / "model", "text-classification"))
    rows = [{"text": words(index, 1 + index % 9), "label": LABELS[index % 3]} for index in range(60)]
    model = transformers.AutoModelForSequenceClassification.from_pretrained(plain).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(plain)
    right = 0
    with torch.no_grad():
        for row in rows:
            logits = model(**tokenizer(row["text"], return_tensors="pt")).logits
            right += LABELS[int(logits.argmax())] == row["label"]
    data = write_rows(tmp_path / "data.jsonl", rows)
    found = measured(package, data, "--batch-size", 7)
    assert 0 < right < 60
    assert values(found)["accuracy"] == right / 60
    assert found["examples"] == 60 and found["measure"] == "classes"
    assert found["data"]["columns"] == {"text": "text", "label": "label"}
    assert values(measured(package, data, "--mode", "coded"))["accuracy"] == right / 60
    whole = measured(package, data, "--batch-size", 64)
    assert values(whole) == values(found)  # however examples are put together
    some = measured(package, data, "--limit", 10, "--seed", 3)
    assert some["examples"] == 10 and some == measured(package, data, "--limit", 10, "--seed", 3)


def test_token_classification(tmp_path: Path) -> None:
    package, plain = packed(save_bert(tmp_path / "model", "token-classification"))
    rows = [
        {"tokens": words(index, 2 + index % 7).split(), "tags": random.Random(index).choices(LABELS, k=2 + index % 7)}
        for index in range(30)
    ]
    model = transformers.AutoModelForTokenClassification.from_pretrained(plain).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(plain)
    right = count = 0
    with torch.no_grad():
        for row in rows:
            encoded = tokenizer(row["tokens"], is_split_into_words=True, return_tensors="pt")
            told = model(**encoded).logits[0, 1:-1].argmax(-1)
            right += sum(LABELS[index] == tag for index, tag in zip(told.tolist(), row["tags"], strict=True))
            count += len(row["tags"])
    found = values(measured(package, write_rows(tmp_path / "data.jsonl", rows), "--batch-size", 4))
    assert 0 < right < count
    assert found["accuracy"] == pytest.approx(right / count)
    assert found["f1"] == pytest.approx(right / count)  # each word is a span of its own


def test_masked_language_modelling(tmp_path: Path) -> None:
    package, plain = packed(save_bert(tmp_path / "model", "fill-mask"))
    (tmp_path / "text.txt").write_text("\n".join(words(index, 9) for index in range(60)))
    found = values(measured(package, tmp_path / "text.txt", "--max-length", 12, "--seed", 5))
    again = values(measured(package, tmp_path / "text.txt", "--max-length", 12, "--seed", 5, "--batch-size", 3))
    other = values(measured(package, tmp_path / "text.txt", "--max-length", 12, "--seed", 6))
    assert found == pytest.approx(again) and found != other

    from bsexport.tasks.data import read_data
    from bsexport.tasks.language_modelling import MaskedLanguageModelling

    tokenizer = transformers.AutoTokenizer.from_pretrained(plain)
    data = read_data(str(tmp_path / "text.txt"), "test", tmp_path / "cache")
    task = MaskedLanguageModelling.on(data, {})
    blocks = task.encode(data, tokenizer, 12, None)
    collate = task.collator(tokenizer, None, 5)
    model = transformers.AutoModelForMaskedLM.from_pretrained(plain).eval()
    losses, count = 0.0, 0
    with torch.no_grad():
        for start in range(0, len(blocks), 16):
            batch = collate([{"input_ids": ids} for ids in blocks[start : start + 16]["input_ids"]])
            asked = int((batch["labels"] != -100).sum())
            losses += float(model(**batch).loss) * asked
            count += asked
    assert found["perplexity"] == pytest.approx(np.exp(losses / count), rel=1e-4)


def test_question_answering(tmp_path: Path) -> None:
    package, plain = packed(save_bert(tmp_path / "model", "question-answering"))
    rows = []
    for index in range(20):
        passage = words(index, 12)
        answer = " ".join(passage.split()[3 : 5 + index % 3])
        answers = {"text": [answer], "answer_start": [passage.index(answer)]}
        rows.append({"context": passage, "question": "who wrote it", "answers": answers})
    model = transformers.AutoModelForQuestionAnswering.from_pretrained(plain).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(plain)
    overlap = []
    with torch.no_grad():
        for row in rows:
            encoded = tokenizer(row["question"], row["context"], return_tensors="pt", return_offsets_mapping=True)
            offsets = encoded.pop("offset_mapping")[0].tolist()
            inside = np.array([of == 1 for of in encoded.sequence_ids(0)])
            outputs = model(**encoded)
            first, last, _ = best_span(outputs.start_logits[0].numpy(), outputs.end_logits[0].numpy(), inside)
            told = row["context"][offsets[first][0] : offsets[last][1]]
            ours, right = ([w for w in text.split() if w not in ("a", "the", ";")] for text in (told, answer_of(row)))
            shared = sum((Counter(ours) & Counter(right)).values())
            overlap.append(2 * shared / (len(ours) + len(right)) if ours and right else float(ours == right))
    found = values(measured(package, write_rows(tmp_path / "data.jsonl", rows), "--batch-size", 3))
    assert found["f1"] == pytest.approx(np.mean(overlap))


def answer_of(row: dict[str, Any]) -> str:
    return row["answers"]["text"][0]


def test_images_in_folders(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    package, plain = packed(save_vit(tmp_path / "model"))
    model = transformers.AutoModelForImageClassification.from_pretrained(plain).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(plain)
    right = 0
    for index in range(24):
        pixels = np.random.default_rng(index).integers(0, 255, (8, 8, 3), dtype=np.uint8)
        folder = tmp_path / "images" / LABELS[index % 3]
        folder.mkdir(parents=True, exist_ok=True)
        image.fromarray(pixels).save(folder / f"{index}.png")
        with torch.no_grad():
            logits = model(**processor(image.fromarray(pixels), return_tensors="pt")).logits
        right += LABELS[int(logits.argmax())] == LABELS[index % 3]
    found = measured(package, tmp_path / "images", "--batch-size", 5)
    assert 0 < right < 24
    assert values(found)["accuracy"] == right / 24


def strided(model: Any, ids: list[int], max_length: int, stride: int, before: list[int]) -> dict[str, float]:
    """Perplexity as in the documentation of transformers, and accuracy likewise. before: tokens of every window."""
    losses, right, count, told = 0.0, 0, 0, 0
    size = max_length - len(before)
    with torch.no_grad():
        for begin in range(0, len(ids), stride):
            end = min(begin + size, len(ids))
            window = torch.tensor([[*before, *ids[begin:end]]])
            labels = window.clone()
            labels[:, : -(end - told)] = -100
            asked = int((labels[:, 1:] != -100).sum())
            outputs = model(input_ids=window, labels=labels)
            losses += float(outputs.loss) * asked
            right += int((outputs.logits[:, :-1].argmax(-1) == labels[:, 1:]).sum())
            count, told = count + asked, end
            if end == len(ids):
                break
    assert count == len(ids) - (not before)
    return {"accuracy": right / count, "perplexity": float(np.exp(losses / count))}


@pytest.mark.parametrize("before", [[2], []])
def test_causal_language_modelling(tmp_path: Path, before: list[int]) -> None:
    folder = save_gpt2(tmp_path / "model")
    if not before:
        path = folder / "tokenizer.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"post_processor": None}))
    package, plain = packed(folder)
    text = tmp_path / "text.txt"
    text.write_text(words(0, 400))
    model = transformers.AutoModelForCausalLM.from_pretrained(plain).eval()
    ids = [WORDS.index(word) for word in words(0, 400).split()]
    whole = strided(model, ids, 40, 20, before)
    assert values(measured(package, text)) == pytest.approx(whole, rel=1e-4)  # of the 40 tokens that it takes
    assert "logits_to_keep" in [value.name for value in load(package).get_inputs()]
    for max_length, stride, batch_size, mode in ((20, 10, 1, "float32"), (20, 19, 16, "coded"), (9, 4, 7, "coded")):
        options = ("--max-length", max_length, "--stride", stride, "--batch-size", batch_size, "--mode", mode)
        found = values(measured(package, text, *options))
        assert found == pytest.approx(strided(model, ids, max_length, stride, before), rel=1e-4)
        assert found != pytest.approx(whole, rel=1e-4)


NEXT = """
<ir_version: 8, opset_import: ["" : 17]>
next (int64[batch, sequence] input_ids) => (float[batch, sequence, 17] logits) {
  logits = Gather (table, input_ids)
}
"""


def test_next_tokens_of_an_onnx_file(tmp_path: Path) -> None:
    """A table of bigrams, whose perplexity is worked out from the counts of a text."""
    table = np.random.default_rng(0).normal(size=(len(WORDS), len(WORDS))).astype(np.float32)
    model = parser.parse_model(NEXT)
    model.graph.initializer.append(numpy_helper.from_array(table, "table"))
    assert helper.tensor_dtype_to_np_dtype(model.graph.initializer[0].data_type) == np.float32
    folder = tmp_path / "model"
    save_tokenizer(folder)
    save(model, folder / "next.onnx")
    package = tmp_path / "package"
    assert bsexport("pack", folder / "next.onnx", "--keep", "table", "-o", package).exit_code == 0
    text = words(1, 200)
    (tmp_path / "text.txt").write_text(text)
    found = values(measured(package, tmp_path / "text.txt", "--task", "text-generation", "--max-length", 20))
    ids = [2, *(WORDS.index(word) for word in text.split())]
    pairs = list(itertools.pairwise(ids))  # whatever the windows are
    likelihood = table - np.log(np.exp(table.astype(np.float64)).sum(1, keepdims=True))
    expected = np.exp(-np.mean([likelihood[pair] for pair in pairs]))
    assert found["perplexity"] == pytest.approx(expected, rel=1e-4)
    assert found["accuracy"] == pytest.approx(np.mean([table[one].argmax() == other for one, other in pairs]))


# refusals


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classifier")
    return packed(save_bert(folder / "model", "text-classification"))[0]


def write_csv(path: Path, *rows: tuple[str, str]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def test_embeddings_have_no_labels(tmp_path: Path) -> None:
    package = packed(save_bert(tmp_path / "model", "feature-extraction"))[0]
    data = write_csv(tmp_path / "data.csv", ("text", "label"), ("the film", "good"))
    assert refused("evaluate", package, "--data", data) == (
        f"{package}: gives embeddings, which no labels can be held against; hold the model against itself with "
        "bsexport curve, or the package with bsexport verify --against"
    )


def test_data_that_do_not_fit(classifier: Path, tmp_path: Path) -> None:
    data = write_csv(tmp_path / "data.csv", ("text", "label"), ("the film", "splendid"))
    assert refused("evaluate", classifier, "--data", data) == (
        f"{data}: column 'label' holds 'splendid', but the model's head has the classes 'bad', 'so-so', 'good'; "
        "give data with these, or a model without this head"
    )
    unlabelled = write_csv(tmp_path / "unlabelled.csv", ("text", "year"), ("the film", "1999"))
    assert refused("evaluate", classifier, "--data", unlabelled) == (
        f"{unlabelled}: has no labels, so there is nothing to hold the answers against; name their column with "
        "--label, or hold the model against itself with bsexport curve"
    )
    assert refused("evaluate", classifier, "--data", unlabelled, "--label", "stars") == (
        f"{unlabelled}: has no column 'stars'; its columns are text, year"
    )
    data = write_csv(tmp_path / "good.csv", ("text", "label"), ("the film", "good"))
    assert refused("evaluate", classifier, "--data", data, "--max-length", 99) == (
        f"{classifier}: --max-length 99: the model takes 40 tokens at most"
    )
    model = save_gpt2(tmp_path / "gpt2")  # n_positions in its config.json
    settings = model / "tokenizer_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "model_max_length": int(1e30)}))
    assert bsexport("pack", model, "-o", tmp_path / "causal").exit_code == 0
    assert refused("evaluate", tmp_path / "causal", "--data", data, "--max-length", 99) == (
        f"{tmp_path / 'causal'}: --max-length 99: the model takes 40 tokens at most"
    )
    assert refused("evaluate", classifier, "--data", data, "--stride", 5) == (
        "stride 5 is for text-generation, not for text-classification: leave it out"
    )
    assert refused("evaluate", classifier, "--data", data, "--limit", 0) == "limit is 0, expected at least 1"
    assert refused("evaluate", classifier, "--data", data, "--task", "translation").startswith(
        "translation: cannot be measured; expected one of text-classification, "
    )
    assert refused("evaluate", classifier, "--data", data, "--task", "fill-mask").startswith(f"{data}: holds ")
    empty = tmp_path / "folder"
    empty.mkdir()
    assert refused("evaluate", classifier, "--data", empty).startswith(f"{empty}: is neither a folder that ")


def test_a_model_of_another_kind(classifier: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("the film was fine " * 30)
    assert refused("evaluate", classifier, "--data", tmp_path / "text.txt", "--task", "fill-mask") == (
        f"{classifier}: gives logits [batch, 3], but fill-mask has logits of 3 dimensions; choose another --task"
    )
    rows = write_rows(tmp_path / "rows.jsonl", [{"context": "ada wrote it", "question": "who", "answer": "ada"}])
    assert refused("evaluate", classifier, "--data", rows, "--task", "question-answering") == (
        f"{classifier}: gives logits, but question-answering has start_logits; choose another --task"
    )


UNMASKED = """
<ir_version: 8, opset_import: ["" : 17]>
unmasked (int64[batch, sequence] input_ids) => (float[batch, 3] logits) <int64[1] middle = {1}> {
  states = Gather (table, input_ids)
  logits = ReduceSum <keepdims = 0> (states, middle)
}
"""


def test_a_graph_without_a_mask_sees_no_padding(tmp_path: Path) -> None:
    """Answers are those of one text at a time, however texts are put together."""
    model = parser.parse_model(UNMASKED)
    table = np.random.default_rng(3).normal(size=(len(WORDS), 3)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(table, "table"))
    save_tokenizer(tmp_path / "model")
    save(model, tmp_path / "model" / "sum.onnx")
    package = tmp_path / "package"
    assert bsexport("pack", tmp_path / "model" / "sum.onnx", "-o", package).exit_code == 0
    rows = [{"text": words(index, 1 + index % 9), "label": index % 3} for index in range(60)]
    data = write_rows(tmp_path / "data.jsonl", rows)
    ids = [[2, *(WORDS.index(word) for word in row["text"].split()), 3] for row in rows]
    right = np.mean([table[each].sum(0).argmax() == row["label"] for each, row in zip(ids, rows, strict=True)])
    for size in (1, 16, 200):
        assert values(measured(package, data, "--batch-size", size))["accuracy"] == pytest.approx(right)


def test_heads_that_have_no_measure(classifier: Path, tmp_path: Path) -> None:
    one = save_bert(tmp_path / "one", "text-classification", id2label={0: "score"}, label2id={"score": 0})
    data = write_csv(tmp_path / "data.csv", ("text", "label"), ("the film", "0"))
    assert bsexport("pack", one, "-o", tmp_path / "package").exit_code == 0
    assert refused("evaluate", tmp_path / "package", "--data", data) == (
        f"{tmp_path / 'package'}: has a head of one output, for which there is no measure here"
    )


def test_a_stray_image(classifier: Path, tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    for name in ("cat/a.png", "b.png"):
        (tmp_path / name).write_bytes(b"")
    assert refused("evaluate", classifier, "--data", tmp_path) == (
        f"{tmp_path / 'b.png'}: lies beside folders of images; put it into the folder of its class, or remove it"
    )
