"""run gives what transformers' own pipelines give on the unpacked model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import hf_models
import numpy as np
import pytest
from command_line import bsexport, refused
from models import save_small

from bsexport.pipeline import pack
from bsexport.recipe import Recipe
from bsexport.run import run_image, run_text, to_text
from bsexport.source import open_source
from bsexport.unpack import unpack

TEXT = "the film was a fine one"
TASKS = ("text-classification", "token-classification", "question-answering", "fill-mask", "feature-extraction")


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package TASK and what it unpacks to, TASK-back, for every task."""
    folder = tmp_path_factory.mktemp("packages")
    for task in TASKS:
        hf_models.save_bert(folder / f"{task}-model", task)
    hf_models.save_vit(folder / "image-classification-model")
    for task in (*TASKS, "image-classification"):
        pack(open_source(str(folder / f"{task}-model")), Recipe(prune=0.5), folder / task)
        unpack(folder / task, folder / f"{task}-back")
    return folder


def pipeline(packages: Path, task: str) -> Any:
    back = packages / f"{task}-back"
    return hf_models.transformers.pipeline(task, model=str(back), device="cpu")


def assert_same(got: list[dict[str, Any]], expected: list[dict[str, Any]], key: str, expected_key: str) -> None:
    assert [entry[key] for entry in got] == [entry[expected_key] for entry in expected]
    np.testing.assert_allclose([entry["score"] for entry in got], [entry["score"] for entry in expected], atol=1e-4)


def test_text_classification(packages: Path) -> None:
    expected = pipeline(packages, "text-classification")(TEXT, top_k=None)
    got = run_text(packages / "text-classification", TEXT)["labels"]
    assert_same(got, expected, "label", "label")
    assert {entry["label"] for entry in got} == set(hf_models.LABELS)


def test_the_next_token(tmp_path: Path) -> None:
    hf_models.save_gpt2(tmp_path / "model")
    pack(open_source(str(tmp_path / "model")), Recipe(), tmp_path / "package")
    unpack(tmp_path / "package", tmp_path / "back")
    model = hf_models.transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "back").eval()
    tokenizer = hf_models.transformers.AutoTokenizer.from_pretrained(tmp_path / "back")
    encoded = tokenizer(TEXT, return_tensors="pt")
    encoded.pop("token_type_ids")
    with hf_models.torch.no_grad():
        expected = model(**encoded).logits[0, -1].softmax(-1).topk(5)
    got = run_text(tmp_path / "package", TEXT)["next"]
    assert [entry["token"] for entry in got] == [tokenizer.decode([index]) for index in expected.indices.tolist()]
    np.testing.assert_allclose([entry["score"] for entry in got], expected.values.numpy(), atol=1e-5)


def test_token_classification(packages: Path) -> None:
    expected = pipeline(packages, "token-classification")(TEXT, ignore_labels=[])
    got = run_text(packages / "token-classification", TEXT)["tokens"]
    assert [entry["token"] for entry in got] == ["[CLS]", *TEXT.split(), "[SEP]"]
    assert_same(got[1:-1], expected, "label", "entity")


def test_fill_mask(packages: Path) -> None:
    expected = pipeline(packages, "fill-mask")("the [MASK] was fine", top_k=5)
    got = run_text(packages / "fill-mask", "the [MASK] was fine")["fills"]
    assert_same(got, expected, "token", "token_str")


def test_feature_extraction(packages: Path) -> None:
    expected = np.mean(pipeline(packages, "feature-extraction")(TEXT)[0], axis=0)
    got = run_text(packages / "feature-extraction", TEXT)["embedding"]
    np.testing.assert_allclose(got["values"], expected, atol=1e-4)
    assert (got["dimensions"], got["pooling"]) == (32, "mean")
    assert got["norm"] == pytest.approx(np.linalg.norm(expected), abs=1e-4)


def test_question_answering(packages: Path) -> None:
    """Every span of the passage, by hand, on what transformers says."""
    question, passage = "who wrote it", "The film was fine ; Ada did"
    torch, transformers = hf_models.torch, hf_models.transformers
    back = packages / "question-answering-back"
    tokenizer = transformers.AutoTokenizer.from_pretrained(back)
    model = transformers.AutoModelForQuestionAnswering.from_pretrained(back).eval()
    with torch.no_grad():
        output = model(**tokenizer(question, passage, return_tensors="pt"))
    first = 1 + len(question.split()) + 1
    words = passage.split()
    place = slice(first, first + len(words))
    start, end = (logits[0, place].softmax(0).numpy() for logits in (output.start_logits, output.end_logits))
    spans = {(i, j): start[i] * end[j] for i in range(len(words)) for j in range(i, len(words))}
    i, j = max(spans, key=lambda span: spans[span])
    got = run_text(packages / "question-answering", question, passage)["answer"]
    assert got["text"] == " ".join(words[i : j + 1])  # in the passage's own capitals
    assert got["score"] == pytest.approx(spans[i, j], abs=1e-4)


def test_image_classification(packages: Path, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="NOT TESTED on images: needs pillow")
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    image.fromarray(pixels).save(tmp_path / "noise.png")
    expected = pipeline(packages, "image-classification")(str(tmp_path / "noise.png"), top_k=3)
    got = run_image(packages / "image-classification", tmp_path / "noise.png")["labels"]
    assert_same(got, expected, "label", "label")
    printed = bsexport("run", packages / "image-classification", "--image", tmp_path / "noise.png", "--json")
    assert json.loads(printed.stdout) == {"labels": got}


@pytest.mark.parametrize(
    ("kind", "logits", "scores"),
    [
        ("single_label_classification", [0.0, np.log(3.0)], [0.75, 0.25]),
        ("multi_label_classification", [0.0, np.log(3.0)], [0.75, 0.5]),
        (None, [np.log(3.0)], [0.75]),
        ("regression", [-1.5], [-1.5]),
    ],
)
def test_scores_are_those_of_the_problem_type(kind: str | None, logits: list[float], scores: list[float]) -> None:
    from bsexport.run import _labels

    labels = _labels(np.array(logits, np.float32), {"problem_type": kind, "id2label": {"0": "a"}})
    assert [entry["score"] for entry in labels] == pytest.approx(scores)
    assert labels[-1]["label"] == "a"


def test_a_process_of_its_own_prints_labels_and_no_noise(packages: Path) -> None:
    command = [sys.executable, "-m", "bsexport.cli", "run", str(packages / "text-classification"), "--text", TEXT]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    labels = run_text(packages / "text-classification", TEXT)["labels"]
    assert done.stdout == "".join(f"{entry['score']:.4f}  {entry['label']}\n" for entry in labels)


def test_text_of_every_answer() -> None:
    assert to_text({"answer": {"text": "Ada did", "score": 0.5}}) == "0.5000  Ada did"
    assert to_text({"fills": [{"token": "a", "score": 0.5}, {"token": "b", "score": 0.25}]}) == "0.5000  a\n0.2500  b"
    assert to_text({"tokens": [{"token": "ada", "label": "PER", "score": 1.0}]}) == "1.0000  ada  PER"
    values = [3.0, -4.0]
    embedding = {"pooling": "mean", "dimensions": 2, "norm": 5.0, "values": values}
    line = "embedding of 2 dimensions, mean-pooled, norm 5.0000: +3.0000 -4.0000 ..."
    assert to_text({"embedding": embedding}) == line


def test_a_text_that_is_too_long_is_cut_with_a_warning(packages: Path) -> None:
    with pytest.warns(UserWarning, match="longer than the 40 tokens that the model takes; the rest is left out"):
        got = run_text(packages / "text-classification", "film " * 50)["labels"]
    assert got == run_text(packages / "text-classification", "film " * 38)["labels"]


def test_what_does_not_suit_the_task_is_one_line(packages: Path, tmp_path: Path) -> None:
    (tmp_path / "no.png").write_text("no image")
    for arguments, message in (
        (("question-answering", "--text", "who"), "takes a question as --text and a passage as --context"),
        (("text-classification", "--text", "a", "--context", "b"), "takes --text without --context"),
        (("question-answering", "--text", "who", "--context", ""), "holds no word to answer with"),
        (("fill-mask", "--text", TEXT), "the text has 0, expected one [MASK]"),
        (("fill-mask", "--text", "[MASK] [MASK]"), "the text has 2, expected one [MASK]"),
        (("text-classification", "--image", tmp_path / "no.png"), "holds no image processor"),
        (("image-classification", "--image", tmp_path / "no.png"), "is not an image that Pillow reads"),
        (("image-classification", "--image", tmp_path / "none.png"), "No such file or directory"),
        (("image-classification", "--text", "a"), "holds no tokenizer"),
        (("text-classification", "--prompt", "a"), "is for text-classification, and a language model goes on with"),
    ):
        package, *options = arguments
        assert message in refused("run", packages / str(package), *options), arguments


def test_an_onnx_package_without_tokenizer_says_what_to_do_instead(tmp_path: Path) -> None:
    save_small(tmp_path / "small.onnx")
    pack(open_source(str(tmp_path / "small.onnx")), Recipe(), tmp_path / "out")
    assert "holds no tokenizer" in refused("run", tmp_path / "out", "--text", "a")
    assert "bsexport_runtime.load(...).run" in refused("run", tmp_path / "out", "--image", "a")


def test_an_onnx_file_beside_its_tokenizer_runs_as_the_folder_does(packages: Path, tmp_path: Path) -> None:
    """Its task is told from its outputs."""
    for task in TASKS:
        model = packages / f"{task}-model"
        folder = tmp_path / task
        folder.mkdir()
        unpack(packages / task, folder / "model.onnx")
        for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
            (folder / name).write_bytes((model / name).read_bytes())
        pack(open_source(str(folder / "model.onnx")), Recipe(step=1e-9), folder / "out")
        texts = ("the [MASK] was fine", "it was fine" if task == "question-answering" else None)
        ((kind, got),) = run_text(folder / "out", *texts).items()
        ((expected_kind, expected),) = run_text(packages / task, *texts).items()
        assert kind == expected_kind
        assert to_text({kind: got}) == to_text({kind: expected})


def test_a_damaged_tokenizer_is_one_line(packages: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    hf_models.save_bert(model, "feature-extraction")
    (model / "tokenizer.json").write_text("{}")
    pack(open_source(str(model)), Recipe(), tmp_path / "out")
    assert "transformers cannot load its tokenizer: " in refused("run", tmp_path / "out", "--text", "a")


def test_the_real_minilm(minilm: Path, tmp_path: Path) -> None:
    """Embeddings as transformers makes them of the unpacked model; sentences of like meaning lie close."""
    torch, transformers = hf_models.torch, hf_models.transformers
    pack(open_source(str(minilm)), Recipe(prune=0.5, step=1e-3), tmp_path / "minilm")
    back = unpack(tmp_path / "minilm", tmp_path / "back")
    tokenizer, model = (getattr(transformers, kind).from_pretrained(back) for kind in ("AutoTokenizer", "AutoModel"))
    vectors = []
    for text in ("A man is eating food.", "Someone is having a meal.", "The stock market fell sharply today."):
        vectors.append(np.array(run_text(tmp_path / "minilm", text)["embedding"]["values"]))
        with torch.no_grad():
            states = model.eval()(**tokenizer(text, return_tensors="pt")).last_hidden_state
        np.testing.assert_allclose(vectors[-1], states[0].mean(0).numpy(), rtol=0, atol=1e-4)
    first, same, other = (vector / np.linalg.norm(vector) for vector in vectors)
    assert first @ same > first @ other + 0.4
