"""Measures on outputs made by hand, with figures worked out by hand, and against independent libraries."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bsexport.evaluate.answers import Answers, best_span, exact_match, f1
from bsexport.evaluate.classes import Classes
from bsexport.evaluate.likeness import Agreement, Cosine, mean_states
from bsexport.evaluate.measure import Batch, bootstrap, summarise, wilson
from bsexport.evaluate.spans import Spans, is_prefixed, spans
from bsexport.evaluate.tokens import Tokens
from bsexport.tasks.task import IGNORED


def batch(count: int, mask: list[list[int]] | None = None, **known: object) -> Batch:
    feeds = {} if mask is None else {"attention_mask": np.array(mask)}
    return Batch(feeds, {"owner": list(range(count)), **known}, np.arange(count))


def one_hot(classes: list[list[int]] | list[int], count: int) -> np.ndarray:
    return np.eye(count, dtype=np.float32)[np.array(classes)]


# intervals


def test_wilson_of_the_literature() -> None:
    """Newcombe 1998, table 1: 81 of 263 gives 0.2553 to 0.3662, 0 of 20 gives 0 to 0.1611."""
    assert wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0.0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson(0.5, 0) == (0.0, 1.0)


def test_bootstrap_of_a_mean_is_near_the_normal_interval() -> None:
    values = np.random.default_rng(1).normal(3, 2, (2000, 1))
    low, high = bootstrap(lambda rows: {"mean": float(rows.mean())}, values, ["mean"])["mean"]
    half = 1.96 * values.std() / math.sqrt(2000)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.02)
    assert (low, high) == bootstrap(lambda rows: {"mean": float(rows.mean())}, values, ["mean"])["mean"]


# classes


def test_accuracy_and_macro_f1() -> None:
    """Labels 0 0 1 2, told 0 1 1 1; class 3 is nobody's and does not count. F1: 2/3, 1/2, 0."""
    measure = Classes(count=4)
    rows = measure.statistics({"logits": one_hot([0, 1, 1, 1], 4)}, batch(4, labels=[0, 0, 1, 2]))
    assert measure.figures(rows) == pytest.approx({"accuracy": 0.5, "macro_f1": (2 / 3 + 1 / 2 + 0) / 3})


def test_macro_f1_is_scikit_learns() -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="NOT TESTED against scikit-learn")
    random = np.random.default_rng(0)
    labels, told = random.integers(0, 5, 300), random.integers(0, 5, 300)
    measure = Classes(count=5)
    figures = measure.figures(measure.statistics({"logits": one_hot(list(told), 5)}, batch(300, labels=list(labels))))
    assert figures["macro_f1"] == pytest.approx(metrics.f1_score(labels, told, average="macro"))
    assert figures["accuracy"] == pytest.approx(metrics.accuracy_score(labels, told))


def test_a_share_gets_wilsons_interval_and_the_others_resamples() -> None:
    measure = Classes(count=2)
    rows = measure.statistics({"logits": one_hot([0, 0, 1, 1], 2)}, batch(4, labels=[0, 1, 1, 1]))
    found = summarise(measure, rows)
    assert (found["accuracy"].low, found["accuracy"].high) == wilson(0.75, 4)
    assert found["macro_f1"].low <= found["macro_f1"].value <= found["macro_f1"].high


# spans


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("O O", []),
        ("B-A I-A O B-A", [(0, 2, "A"), (3, 4, "A")]),
        ("B-A B-A", [(0, 1, "A"), (1, 2, "A")]),
        ("I-A I-B I-B", [(0, 1, "A"), (1, 3, "B")]),  # a span may begin with I
        ("B-A O I-A", [(0, 1, "A"), (2, 3, "A")]),
        ("B-A E-A I-A", [(0, 2, "A"), (2, 3, "A")]),
        ("S-A I-A", [(0, 1, "A"), (1, 2, "A")]),
        ("noun verb O noun", [(0, 1, "noun"), (1, 2, "verb"), (3, 4, "noun")]),
    ],
)
def test_spans(tags: str, expected: list[tuple[int, int, str]]) -> None:
    assert spans(tags.split(), prefixed=all(map(is_prefixed, tags.split()))) == expected


def test_whether_classes_are_prefixed_is_said_by_all_of_them() -> None:
    """One class without a prefix makes every word a span of its own, in what is told and in what is right."""
    names = ("O", "B-PER", "I-PER", "X")
    mask = [[1, 1, 1, 1]]
    measure = Spans(names)
    rows = measure.statistics({"logits": one_hot([[3, 1, 2, 0]], 4)}, batch(1, mask, labels=[[0, 1, 2, 0]]))
    assert rows.tolist() == [[2, 3, 2, 3, 4]]


def test_span_f1() -> None:
    """Padding, special tokens and the second tokens of words do not count. One of two told is one of two there."""
    names = ("O", "B-A", "I-A")
    there = [[IGNORED, 1, 2, IGNORED, 0, 1, IGNORED], [IGNORED, 0, IGNORED]]
    told = [[2, 1, 2, 1, 1, 0, 0], [0, 0, 0, 2, 2, 2, 2]]
    mask = [[1] * 7, [1, 1, 1, 0, 0, 0, 0]]
    measure = Spans(names)
    rows = measure.statistics({"logits": one_hot(told, 3)}, batch(2, mask, labels=there))
    assert rows.tolist() == [[1, 2, 2, 2, 4], [0, 0, 0, 1, 1]]
    assert measure.figures(rows) == {"f1": 0.5, "accuracy": 0.6}


def test_span_f1_is_seqevals() -> None:
    seqeval = pytest.importorskip("seqeval.metrics", reason="NOT TESTED against seqeval")
    names = ("O", "B-A", "I-A", "B-B", "I-B")
    random = np.random.default_rng(0)
    there, told = random.integers(0, 5, (40, 12)), random.integers(0, 5, (40, 12))
    measure = Spans(names)
    rows = measure.statistics({"logits": one_hot(told, 5)}, batch(40, [[1] * 12] * 40, labels=list(there)))
    expected = seqeval.f1_score(*([[names[tag] for tag in row] for row in rows] for rows in (there, told)))
    assert measure.figures(rows)["f1"] == pytest.approx(expected)


# tokens


def test_perplexity_and_accuracy_of_tokens() -> None:
    """Two windows of two places, four tokens. Uniform: perplexity 4."""
    measure = Tokens()
    labels = [[1, 2], [3, 3]]
    rows = measure.statistics({"logits": np.zeros((2, 2, 4), np.float32)}, batch(2, labels=labels))
    assert rows[:, 1].tolist() == [2, 2]
    assert measure.figures(rows)["perplexity"] == pytest.approx(4.0)
    sure = 50 * one_hot([[1, 2], [3, 0]], 4)
    figures = measure.figures(measure.statistics({"logits": sure}, batch(2, labels=labels)))
    assert figures["accuracy"] == 0.75
    assert figures["perplexity"] == pytest.approx(math.exp(50 / 4))


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_of_a_window_is_never_asked_for(side: str) -> None:
    logits = np.log(np.array([[[0.5, 0.5], [0.25, 0.75], [0.9, 0.1]]], np.float32))
    mask, labels = ([0, 1, 1], [1, 0]) if side == "left" else ([1, 1, 0], [0, 1])
    rows = Tokens().statistics({"logits": logits}, batch(1, [mask], labels=[labels]))
    likelihood = -math.log(0.75 * 0.9 if side == "left" else 0.5 * 0.75)
    assert rows.tolist() == [[2, 2, pytest.approx(likelihood)]]


def test_only_masked_tokens_count() -> None:
    measure = Tokens()
    labels = [[IGNORED, 1, IGNORED]]
    logits = np.log(np.array([[[0.5, 0.5], [0.25, 0.75], [1, 1]]], np.float32))
    figures = measure.figures(measure.statistics({"logits": logits}, batch(1, labels=labels)))
    assert figures == pytest.approx({"accuracy": 1.0, "perplexity": 4 / 3})


# answers


def test_exact_match_and_f1_as_in_squad() -> None:
    assert exact_match("The Denver Broncos!", "denver broncos") == 1
    assert f1("the Denver Broncos team", "Denver Broncos") == pytest.approx(2 * 2 / (3 + 2))
    assert (f1("", ""), f1("", "a word"), f1("the", "a")) == (1, 0, 1)


def test_best_span() -> None:
    start, end = np.array([9.0, 1, 5, 0]), np.array([9.0, 4, 0, 3])
    inside = np.array([False, True, True, True])
    assert best_span(start, end, inside) == (2, 3, 8.0)
    long = np.zeros(100)
    long[0] = long[99] = 5
    assert best_span(long, long, np.ones(100, bool)) == (0, 0, 10.0)  # not 0 to 99: longer than an answer is
    assert best_span(start, end, np.zeros(4, bool))[2] == -math.inf


def windows(nullable: bool, first_token: float) -> dict[str, float]:
    """One question, two windows of its passage; the second holds the likelier span, "two"."""
    offsets = [np.array([(-1, -1), (0, 3), (4, 7)]), np.array([(-1, -1), (4, 7), (-1, -1)])]
    start = np.array([[first_token, 2, 0], [first_token, 3, 9]], np.float32)
    end = np.array([[first_token, 2, 0], [first_token, 3, 9]], np.float32)
    of = Batch(
        {"attention_mask": np.ones((2, 3), np.int64)},
        {"owner": [0, 0], "offsets": [offsets], "passages": ["one two"], "answers": [["two", "one"]]},
        np.array([0]),
    )
    measure = Answers(nullable)
    return measure.figures(measure.statistics({"start_logits": start, "end_logits": end}, of))


def test_the_likeliest_span_of_all_windows_is_the_answer() -> None:
    assert windows(nullable=False, first_token=4) == {"f1": 1, "exact_match": 1}
    assert windows(nullable=True, first_token=2) == {"f1": 1, "exact_match": 1}
    assert windows(nullable=True, first_token=4) == {"f1": 0, "exact_match": 0}  # told: no answer


# likeness


def test_cosine_of_mean_embeddings_without_padding() -> None:
    measure, padded = Cosine(), batch(1, [[1, 1, 0]])
    dense = {"states": np.array([[[1, 0], [0, 1], [7, 7]]], np.float32)}
    kept = measure.reference(dense, padded)
    assert kept["embeddings"].tolist() == [[0.5, 0.5]]
    ours = {"states": np.array([[[1, 0], [1, 0], [0, 9]]], np.float32)}
    rows = measure.statistics(ours, batch(1, [[1, 1, 0]], **kept))
    assert measure.figures(rows)["cosine"] == pytest.approx(math.sqrt(0.5))


def test_embeddings_of_images_are_means_over_places() -> None:
    states = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
    assert mean_states(states, None).tolist() == states.astype(np.float64).mean((2, 3)).tolist()
    assert mean_states(states[:, :, 0, 0], None).tolist() == states[:, :, 0, 0].tolist()


def test_agreement_and_divergence() -> None:
    """KL((3/4, 1/4) from (1/2, 1/2)) = 3/4 ln 3/2 + 1/4 ln 1/2."""
    measure = Agreement()
    dense = {"logits": np.log(np.array([[0.75, 0.25], [0.25, 0.75]], np.float32))}
    ours = {"logits": np.log(np.array([[0.5, 0.5], [0.75, 0.25]], np.float32))}
    kept = measure.reference(dense, batch(2))
    rows = measure.statistics(ours, batch(2, **kept))
    expected = (0.75 * math.log(1.5) + 0.25 * math.log(0.5) + 0.5 * math.log(3)) / 2
    assert measure.figures(rows) == pytest.approx({"agreement": 0.5, "kl": expected}, rel=1e-5)
    assert measure.wanted(["logits", "hidden"]) == ["logits"]
    assert measure.wanted(["scores"]) == ["scores"]


def test_agreement_counts_no_padding() -> None:
    measure, mask = Agreement(), [[1, 0]]
    dense = {"logits": one_hot([[0, 0]], 2)}
    kept = measure.reference(dense, batch(1, mask))
    rows = measure.statistics({"logits": one_hot([[0, 1]], 2)}, batch(1, mask, **kept))
    assert measure.figures(rows) == {"agreement": 1.0, "kl": 0.0}
