"""Tasks: what rows become, token by token, and how answers are counted. The words' ids are those of hf_models.WORDS."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hf_models import WORDS, save_tokenizer, torch, transformers

datasets = pytest.importorskip("datasets", reason="NOT TESTED: training data need datasets")

from bsexport.errors import DataError, RecipeError, SourceError  # noqa: E402
from bsexport.tasks import AUTO_CLASSES, TASKS, choose_task  # noqa: E402
from bsexport.tasks.data import read_data  # noqa: E402
from bsexport.tasks.language_modelling import CausalLanguageModelling  # noqa: E402
from bsexport.tasks.task import Task  # noqa: E402

PAD, UNK, CLS, SEP, MASK, THE, FILM, WAS, A, FINE, ONE, SEMICOLON, WHO, WROTE, IT, ADA, DID = range(17)


class Prepared:
    """Rows of a task: encoded, and what makes batches of them."""

    def __init__(self, folder: Path, name: str, rows: Any, max_length: int = 40, head: tuple[str, ...] | None = None):
        save_tokenizer(folder)
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        if isinstance(rows, str):
            path = folder / "rows.txt"
            path.write_text(rows)
        else:
            path = folder / "rows.jsonl"
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        data = read_data(str(path), "train", folder / "cache")
        self.task: Task = TASKS[name].on(data, {})
        labels = self.task.labels(data, head)
        self.rows = self.task.examples(data, self.tokenizer, max_length, labels)

    def batch(self, seed: int = 0) -> dict[str, Any]:
        collate = self.task.collator(self.tokenizer, None, seed)
        return {name: value.tolist() for name, value in collate(list(self.rows)).items()}


def test_text_classification(tmp_path: Path) -> None:
    rows = [{"text": "the film was fine", "label": "yes"}, {"text": "one film", "label": "no"}]
    batch = Prepared(tmp_path, "text-classification", rows, max_length=5).batch()
    assert batch["input_ids"] == [[CLS, THE, FILM, WAS, SEP], [CLS, ONE, FILM, SEP, PAD]]
    assert batch["attention_mask"] == [[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]]
    assert batch["labels"] == [1, 0]


def test_text_pairs(tmp_path: Path) -> None:
    rows = [
        {"premise": "the film", "hypothesis": "was fine", "label": 1},
        {"premise": "a", "hypothesis": "b", "label": 0},
    ]
    batch = Prepared(tmp_path, "text-classification", rows).batch()
    assert batch["input_ids"] == [[CLS, THE, FILM, SEP, WAS, FINE, SEP], [CLS, A, SEP, UNK, SEP, PAD, PAD]]
    assert batch["token_type_ids"][0] == [0, 0, 0, 0, 1, 1, 1]


def test_token_classification_labels_a_words_first_token(tmp_path: Path) -> None:
    rows = [{"tokens": ["ada", "wrote;", "it"], "tags": ["P", "O", "T"]}, {"tokens": ["film"], "tags": ["O"]}]
    batch = Prepared(tmp_path, "token-classification", rows).batch()
    assert batch["input_ids"] == [[CLS, ADA, WROTE, SEMICOLON, IT, SEP], [CLS, FILM, SEP, PAD, PAD, PAD]]
    assert batch["labels"] == [[-100, 1, 0, -100, 2, -100], [-100, 0, -100, -100, -100, -100]]


def test_token_classification_wants_a_label_for_each_word(tmp_path: Path) -> None:
    rows = [{"tokens": ["ada"], "tags": ["P"]}, {"tokens": ["it", "was"], "tags": ["P"]}]
    with pytest.raises(DataError, match=r"row 2 has 2 words in column 'tokens' and 1 labels in 'tags'; expected one"):
        Prepared(tmp_path, "token-classification", rows)


def test_running_text_is_joined_and_cut_into_blocks(tmp_path: Path) -> None:
    prepared = Prepared(tmp_path, "text-generation", "the film was fine\nwho wrote it\nada did\n", max_length=5)
    blocks = [[CLS, THE, FILM, WAS, SEP], [CLS, FINE, WHO, WROTE, SEP], [CLS, IT, ADA, DID, SEP]]
    assert prepared.batch() == {"input_ids": blocks, "labels": blocks}


def test_texts_of_their_own_have_an_end_between_them(tmp_path: Path) -> None:
    rows = [{"text": "the film was"}, {"text": "fine"}, {"text": "a"}]
    prepared = Prepared(tmp_path, "text-generation", rows, max_length=6)
    assert prepared.batch()["input_ids"] == [[CLS, THE, FILM, WAS, SEP, SEP], [CLS, FINE, SEP, A, SEP, SEP]]
    with pytest.raises(DataError, match=r"holds 8 tokens in all, which is less than a block of --max-length 30"):
        Prepared(tmp_path, "text-generation", rows, max_length=30)


def test_a_limit_on_text_counts_blocks(tmp_path: Path) -> None:
    prepared = Prepared(tmp_path, "text-generation", "the film was fine\n" * 30, max_length=6)
    data = read_data(str(tmp_path / "rows.txt"), "train", tmp_path / "cache")
    drawn = prepared.task.examples(data, prepared.tokenizer, 6, None, limit=7, seed=0)
    assert (len(prepared.rows), len(drawn)) == (30, 7)
    assert drawn[0]["input_ids"] == [CLS, THE, FILM, WAS, FINE, SEP]


class Text:
    """A text for next tokens, and a tokenizer that puts [CLS] before it, or nothing."""

    def __init__(self, folder: Path, count: int, begun: bool) -> None:
        save_tokenizer(folder)
        if not begun:
            path = folder / "tokenizer.json"
            path.write_text(json.dumps(json.loads(path.read_text()) | {"post_processor": None}))
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        self.ids = np.random.default_rng(count).integers(THE, DID + 1, count)
        (folder / "text.txt").write_text("".join(f"{WORDS[index]}\n" for index in self.ids))
        self.data = read_data(str(folder / "text.txt"), "test", folder / "cache")

    def windows(self, *options: int | None) -> tuple[list[list[int]], list[int]]:
        rows = CausalLanguageModelling.on(self.data, {}).windows(self.data, self.tokenizer, *options)
        return rows["input_ids"], rows["asked"]


def test_windows_of_a_text_overlap(tmp_path: Path) -> None:
    a, b, c, d, e, f, g, h, i = (text := Text(tmp_path / "begun", 9, begun=True)).ids.tolist()
    windows = [[CLS, a, b, c, d], [CLS, c, d, e, f], [CLS, e, f, g, h], [CLS, g, h, i]]
    assert text.windows(5, 2) == text.windows(5) == (windows, [4, 2, 2, 1])
    assert text.windows(5, 4) == ([[CLS, a, b, c, d], [CLS, e, f, g, h], [CLS, i]], [4, 4, 1])
    assert text.windows(40) == ([[CLS, *text.ids]], [9])
    assert all(window in windows for window in text.windows(5, 2, 2)[0])
    a, b, c, d, e, f = (text := Text(tmp_path / "bare", 6, begun=False)).ids.tolist()
    assert text.windows(4, 2) == text.windows(4) == ([[a, b, c, d], [c, d, e, f]], [3, 2])
    assert text.windows(4, 3) == ([[a, b, c, d], [d, e, f]], [3, 2])
    assert text.windows(2, 1) == ([[a, b], [b, c], [c, d], [d, e], [e, f]], [1] * 5)


@pytest.mark.parametrize("begun", [True, False])
def test_each_token_is_told_once_from_enough_before_it(tmp_path: Path, begun: bool) -> None:
    text = Text(tmp_path, 61, begun)
    for length in range(2, 14):
        for stride in range(1, length):
            told: list[int] = []
            for ids, asked in zip(*text.windows(length, stride), strict=True):
                place = len(told) + (not begun)  # of the first token that is told, in the text
                seen = len(ids) - asked  # tokens before it, in the window
                assert seen == place + begun if place < length - begun else seen >= length - stride
                assert ids[begun:-asked] == text.ids[place - seen + begun : place].tolist()
                told += ids[-asked:]
            assert told == text.ids[not begun :].tolist()


def test_windows_that_cannot_be(tmp_path: Path) -> None:
    begun, bare = Text(tmp_path / "begun", 9, begun=True), Text(tmp_path / "bare", 1, begun=False)
    with pytest.raises(RecipeError, match=r"stride 5 leaves out tokens: at --max-length 5 it can be 4 at most"):
        begun.windows(5, 5)
    with pytest.raises(RecipeError, match=r"max-length 1 leaves no token to be told from one before it: take more"):
        bare.windows(1)
    with pytest.raises(DataError, match=r"holds 1 tokens in all, none to be told from one before it"):
        bare.windows(5)


def test_masks_follow_from_the_batch_and_the_seed_alone(tmp_path: Path) -> None:
    prepared = Prepared(tmp_path, "fill-mask", "the film was a fine one ; who wrote it\n" * 50, max_length=22)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    batch = prepared.batch()
    assert torch.equal(torch.get_rng_state(), before)
    assert prepared.batch() == batch
    assert prepared.batch(seed=1) != batch
    ids, labels = np.array(batch["input_ids"]), np.array(batch["labels"])
    original = np.array(prepared.rows["input_ids"])
    asked = labels != -100
    assert (labels[asked] == original[asked]).all() and (ids[~asked] == original[~asked]).all()
    assert not asked[:, 0].any() and not asked[:, -1].any()
    assert asked.sum() == pytest.approx(0.15 * 500, abs=4 * (500 * 0.15 * 0.85) ** 0.5)
    assert (ids[asked] == MASK).sum() == pytest.approx(0.8 * asked.sum(), abs=4 * (asked.sum() * 0.16) ** 0.5)


def test_a_batch_always_asks_for_something(tmp_path: Path) -> None:
    """Else its loss would be 0/0: of a batch with two words, 72% would otherwise be without a mask."""
    prepared = Prepared(tmp_path, "fill-mask", "the film\n", max_length=4)
    for seed in range(20):
        assert any(label != -100 for label in prepared.batch(seed)["labels"][0])


CONTEXT = "the film was a fine one; ada wrote it"


def test_question_answering_takes_the_window_with_the_answer(tmp_path: Path) -> None:
    rows = [
        {"question": "who wrote it", "context": CONTEXT, "answers": {"text": ["ada"], "answer_start": [25]}},
        {"question": "who wrote it", "context": CONTEXT, "answers": {"text": [], "answer_start": []}},
        {"question": "who wrote it", "context": CONTEXT, "answers": {"text": ["the film"], "answer_start": [0]}},
    ]
    prepared = Prepared(tmp_path, "question-answering", rows, max_length=10)
    question = [CLS, WHO, WROTE, IT, SEP]
    assert prepared.rows["input_ids"][:] == [
        [*question, FINE, ONE, SEMICOLON, ADA, SEP],
        [*question, THE, FILM, WAS, A, SEP],
        [*question, THE, FILM, WAS, A, SEP],
    ]
    assert prepared.rows["start_positions"][:] == [8, 0, 5]
    assert prepared.rows["end_positions"][:] == [8, 0, 6]


def test_question_answering_finds_an_answer_that_is_only_text(tmp_path: Path) -> None:
    rows = [{"question": "who did it", "passage": CONTEXT, "answer": "fine one"}]
    prepared = Prepared(tmp_path, "question-answering", rows)
    assert prepared.rows["input_ids"][0][9:11] == [FINE, ONE]
    assert (prepared.rows["start_positions"][0], prepared.rows["end_positions"][0]) == (9, 10)
    with pytest.raises(DataError, match="the answer 'dull' does not stand in its passage"):
        Prepared(tmp_path, "question-answering", [{**rows[0], "answer": "dull"}])


def test_a_question_that_leaves_no_room(tmp_path: Path) -> None:
    rows = [{"question": "who wrote it " * 5, "passage": CONTEXT, "answer": "ada"}]
    with pytest.raises(DataError, match="cannot be cut into windows of --max-length 10"):
        Prepared(tmp_path, "question-answering", rows, max_length=10)


def test_translation_labels_are_the_targets_tokens(tmp_path: Path) -> None:
    rows = [{"source": "the film", "target": "was fine"}, {"source": "a", "target": "it"}]
    batch = Prepared(tmp_path, "translation", rows).batch()
    assert batch["input_ids"] == [[CLS, THE, FILM, SEP], [CLS, A, SEP, PAD]]
    assert batch["labels"] == [[CLS, WAS, FINE, SEP], [CLS, IT, SEP, -100]]


# accuracy


def test_what_is_not_asked_for_does_not_count() -> None:
    predictions, labels = np.array([[1, 2, 3], [4, 5, 6]]), np.array([[-100, 2, 9], [4, -100, -100]])
    assert TASKS["token-classification"].score(predictions, labels) == pytest.approx(2 / 3)
    assert TASKS["translation"].score(predictions, labels) == pytest.approx(2 / 3)
    assert TASKS["fill-mask"].score(predictions, labels) == pytest.approx(2 / 3)
    assert np.isnan(TASKS["fill-mask"].score(predictions, np.full((2, 3), -100)))


def test_the_next_token_is_what_causal_models_tell() -> None:
    labels = np.array([[7, 1, 2, 3], [7, 4, -100, -100]])
    predictions = np.array([[1, 2, 9, 9], [4, 9, 9, 9]])
    assert TASKS["text-generation"].score(predictions, labels) == 0.75


def test_a_span_counts_if_both_ends_are_right() -> None:
    logits = (torch.eye(4)[[1, 2, 0]], torch.eye(4)[[3, 2, 1]])
    predictions = TASKS["question-answering"].predict(logits, None).numpy()
    assert predictions.tolist() == [[1, 3], [2, 2], [0, 1]]
    assert TASKS["question-answering"].score(predictions, (np.array([1, 2, 0]), np.array([3, 3, 1]))) == pytest.approx(
        2 / 3
    )


def test_predictions_are_the_likeliest_classes_of_the_first_output() -> None:
    logits = torch.tensor([[0.1, 0.9, 0.0], [3.0, 0.0, -1.0]])
    for given in (logits, (logits, torch.zeros(7))):
        assert TASKS["text-classification"].predict(given, None).tolist() == [1, 0]


# tasks by name


@pytest.mark.parametrize(
    ("architecture", "name"),
    [
        ("BertForSequenceClassification", "text-classification"),
        ("BertForTokenClassification", "token-classification"),
        ("GPT2LMHeadModel", "text-generation"),
        ("LlamaForCausalLM", "text-generation"),
        ("BertForMaskedLM", "fill-mask"),
        ("DistilBertForQuestionAnswering", "question-answering"),
        ("T5ForConditionalGeneration", "translation"),
        ("MarianMTModel", "translation"),
    ],
)
def test_the_task_is_that_of_the_model(architecture: str, name: str) -> None:
    assert choose_task([architecture], None).name == name
    assert choose_task([architecture], "fill-mask").name == "fill-mask"
    auto = getattr(transformers, AUTO_CLASSES[name])
    assert any(architecture in str(found) for found in auto._model_mapping._model_mapping.values())


@pytest.mark.parametrize("architectures", [["BertModel"], [], None, ["ViTForImageClassification"], ["A", "B"]])
def test_a_model_that_says_no_task_to_train_for(architectures: list[str] | None) -> None:
    known = "text-classification, token-classification, text-generation, fill-mask, question-answering, translation"
    with pytest.raises(SourceError, match=f"which says no task; add --task with one of {known}"):
        choose_task(architectures, None)
    with pytest.raises(SourceError, match=f"--task summary: not a task to train for, expected one of {known}"):
        choose_task(architectures, "summary")
