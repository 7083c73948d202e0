"""From rows of data to the examples that a package is measured on, and the measure that suits them.

One function for each task. Rows become what the package's own tokenizer or image processor makes of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bsexport.errors import DataError, RecipeError, SourceError
from bsexport.evaluate.answers import Answers
from bsexport.evaluate.classes import Classes
from bsexport.evaluate.likeness import Agreement, Cosine
from bsexport.evaluate.measure import MASK, Measure
from bsexport.evaluate.spans import Spans
from bsexport.evaluate.subject import LONGEST_CAUSAL, Subject
from bsexport.evaluate.tokens import Tokens
from bsexport.quiet import quiet
from bsexport.run import mode_of, read_image
from bsexport.tasks.data import IMAGE, LABEL, Data, draw
from bsexport.tasks.labels import Labels, match
from bsexport.tasks.language_modelling import CausalLanguageModelling, MaskedLanguageModelling
from bsexport.tasks.question_answering import QuestionAnswering, cut_into_windows
from bsexport.tasks.task import IGNORED, Task, check_text
from bsexport.tasks.text_classification import TextClassification
from bsexport.tasks.token_classification import TokenClassification
from bsexport_runtime.decoder import KEPT

IMAGE_CLASSIFICATION = "image-classification"
_EMBEDDINGS = frozenset({"last_hidden_state", "pooler_output", "sentence_embedding", "token_embeddings"})
PIXELS = "pixel_values"
_MASKED_TOGETHER = 16  # blocks; what is masked depends on it


@dataclass(frozen=True)
class Asked:
    """What a user asks to be measured on.

    columns: by role, those that the user named. task: a pipeline's name; None: the package's. limit: examples, drawn by
    the seed. max_length: tokens; None: what Subject.max_length says. stride: of text-generation, tokens from a window
    to the next; None: half of max_length. Raises RecipeError for a number that cannot be.
    """

    columns: dict[str, str | None] = field(default_factory=dict)
    task: str | None = None
    limit: int | None = None
    seed: int = 0
    max_length: int | None = None
    stride: int | None = None

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise RecipeError(f"seed is {self.seed}, expected at least 0")
        for name in ("limit", "max_length", "stride"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise RecipeError(f"{name.replace('_', '-')} is {value}, expected at least 1")


@dataclass(frozen=True)
class Example:
    """windows: the inputs of each of its windows, not padded; one, but for a question about a long passage.
    known: what the measure needs to know of it."""

    windows: list[dict[str, Any]]
    known: dict[str, Any]


@dataclass(frozen=True)
class Examples:
    """What a package is measured on, and how. examples: to be gone through once. columns: of the data, by role."""

    examples: Iterator[Example]
    count: int
    measure: Measure
    columns: dict[str, str]


def make_examples(subject: Subject, data: Data, asked: Asked) -> Examples:
    """The examples for a package. Raises DataError or SourceError if it, the data and what is asked do not fit."""
    task = asked.task or subject.task
    _check_head(subject)
    if asked.stride is not None and task != CausalLanguageModelling.name:
        raise RecipeError(f"stride {asked.stride} is for {CausalLanguageModelling.name}, not for {task}: leave it out")
    if PIXELS in subject.inputs or task == IMAGE_CLASSIFICATION:
        return _images(subject, data, asked)
    if task not in _MAKERS:
        raise SourceError(f"{task}: cannot be measured; expected one of {', '.join([*_MAKERS, IMAGE_CLASSIFICATION])}")
    made = _MAKERS[task](subject, data, asked)
    _check_outputs(subject, task, made.measure)
    return made


def _check_head(subject: Subject) -> None:
    """Raise SourceError for heads whose answer is not one of several classes."""
    shape = subject.outputs.get("logits", [None])
    kind = subject.config.get("problem_type")
    if shape[-1] == 1 or kind in ("regression", "multi_label_classification"):
        what = "a head of one output" if shape[-1] == 1 else f"a head for {str(kind).replace('_', ' ')}"
        raise SourceError(f"{subject.package.path}: has {what}, for which there is no measure here")


def _check_outputs(subject: Subject, task: str, measure: Measure) -> None:
    """Raise SourceError if the package does not give what a model for the task does."""
    where, instead = subject.package.path, "choose another --task"
    for name in measure.outputs:
        shape = subject.outputs.get(name)
        if shape is None:
            raise SourceError(f"{where}: gives {', '.join(subject.outputs)}, but {task} has {name}; {instead}")
        if len(shape) != measure.rank:
            dims = ", ".join(map(str, shape))
            raise SourceError(
                f"{where}: gives {name} [{dims}], but {task} has {name} of {measure.rank} dimensions; {instead}"
            )


def _texts(subject: Subject, data: Data, asked: Asked) -> Examples:
    if _lacks_labels(TextClassification, data, asked):
        return _unlabelled(subject, data, asked)
    task, head = TextClassification.on(data, asked.columns), subject.head()
    labels = match(data, task.columns["label"], head)
    return _labelled(subject, task, data, asked, labels, Classes(len(head)))


def _words(subject: Subject, data: Data, asked: Asked) -> Examples:
    task, head = TokenClassification.on(data, asked.columns), subject.head()
    labels = match(data, task.columns["label"], head)
    return _labelled(subject, task, data, asked, labels, Spans(head))


def _labelled(subject: Subject, task: Task, data: Data, asked: Asked, labels: Labels, measure: Measure) -> Examples:
    encoded = task.examples(data, *_cut(subject, asked), labels, asked.limit, asked.seed)
    examples = (Example([row], {"labels": row.pop("labels")}) for row in encoded)
    return Examples(examples, len(encoded), measure, task.columns)


def _next_tokens(subject: Subject, data: Data, asked: Asked) -> Examples:
    task = CausalLanguageModelling.on(data, asked.columns)
    max_length = subject.max_length(asked.max_length, LONGEST_CAUSAL)
    windows = task.windows(data, subject.tokenizer, max_length, asked.stride, asked.limit, asked.seed)
    examples = (_next_of_window(subject, row["input_ids"], row["asked"]) for row in windows)
    return Examples(examples, len(windows), Tokens(), task.columns)


def _next_of_window(subject: Subject, ids: list[int], asked: int) -> Example:
    """Of a window whose last `asked` tokens are to be told, each from the logits of the place before it."""
    first, last = len(ids) - asked - 1, len(ids) - 1
    inputs, labels = {"input_ids": ids}, ids[-asked:]
    if KEPT in subject.inputs:
        inputs[KEPT] = list(range(first, last))
    else:
        labels = [*[IGNORED] * first, *labels, IGNORED]
    if MASK in subject.inputs:
        inputs[MASK] = [1] * len(ids)
    return Example([inputs], {"labels": labels})


def _masked_tokens(subject: Subject, data: Data, asked: Asked) -> Examples:
    task = MaskedLanguageModelling.on(data, asked.columns)
    blocks = task.examples(data, *_cut(subject, asked), None, asked.limit, asked.seed)
    collate = task.collator(subject.tokenizer, None, asked.seed)

    def examples() -> Iterator[Example]:
        for start in range(0, len(blocks), _MASKED_TOGETHER):
            masked = collate([{"input_ids": ids} for ids in blocks[start : start + _MASKED_TOGETHER]["input_ids"]])
            yield from map(_block, masked["input_ids"].tolist(), masked["labels"].tolist())

    return Examples(examples(), len(blocks), Tokens(), task.columns)


def _block(ids: list[int], labels: list[int]) -> Example:
    """Of a block of running text, all of whose tokens are attended to."""
    return Example(
        [{"input_ids": ids, "attention_mask": [1] * len(ids), "token_type_ids": [0] * len(ids)}], {"labels": labels}
    )


def _questions(subject: Subject, data: Data, asked: Asked) -> Examples:
    task = QuestionAnswering.on(data, asked.columns)
    rows = data.sample(asked.limit, asked.seed).rows
    tokenizer, max_length = _cut(subject, asked)
    text, pair, label = (task.columns[role] for role in ("text", "pair", "label"))
    answers = [_right_answers(answer) for answer in rows[label]]

    def examples() -> Iterator[Example]:
        for row, right in zip(rows, answers, strict=True):
            encoded = cut_into_windows(data, tokenizer, [row[pair]], [row[text]], max_length)
            kept = [name for name in encoded if name in tokenizer.model_input_names]
            count = len(encoded["input_ids"])
            offsets = [
                [pair if of == 1 else (-1, -1) for of, pair in zip(encoded.sequence_ids(window), places, strict=True)]
                for window, places in enumerate(encoded["offset_mapping"])
            ]
            yield Example(
                [{name: encoded[name][window] for name in kept} for window in range(count)],
                {"offsets": [np.array(each) for each in offsets], "passages": row[text], "answers": right},
            )

    return Examples(examples(), len(rows), Answers(nullable=[""] in answers), task.columns)


def _right_answers(answer: Any) -> list[str]:
    """Every right answer, [""] where there is none: of a text, or SQuAD's {text, answer_start}."""
    return [answer] if isinstance(answer, str) else list(answer["text"]) or [""]


def _unlabelled(subject: Subject, data: Data, asked: Asked) -> Examples:
    """Any texts, or pairs: rows that are blank are left out."""
    roles = TextClassification.roles
    columns = [data.column(asked.columns.get("text"), roles["text"].usual, "--text")]
    if asked.columns.get("pair") or set(roles["pair"].usual) & set(data.rows.column_names):
        columns.append(data.column(asked.columns.get("pair"), roles["pair"].usual, "--pair"))
    check_text(data, *columns)
    told = [index for index, text in enumerate(data.rows[columns[0]]) if text.strip()]
    if not told:
        raise DataError(f"{data.name}: every text is blank")
    with quiet():
        rows = draw(data.rows.select(told, keep_in_memory=True), asked.limit, asked.seed)
    tokenizer, max_length = _cut(subject, asked)

    def examples() -> Iterator[Example]:
        for row in rows:
            texts = [row[column].rstrip("\n") for column in columns]
            yield Example([dict(tokenizer(*texts, truncation=True, max_length=max_length))], {})

    return Examples(examples(), len(rows), _likeness(subject), dict(zip(("text", "pair"), columns, strict=False)))


def _images(subject: Subject, data: Data, asked: Asked) -> Examples:
    column = data.column(asked.columns.get("image"), (IMAGE, "img", "file", "path"), "--image")
    named = asked.columns.get("label")
    columns = {"image": column}
    rows = data.sample(asked.limit, asked.seed).rows
    mode = mode_of(subject.inputs[PIXELS]) if PIXELS in subject.inputs else "RGB"
    measure = _likeness(subject)
    if "logits" in subject.outputs and (named or LABEL in data.rows.column_names):
        columns["label"] = data.column(named, (LABEL,), "--label")
        head = subject.head()
        ids, measure = match(data, columns["label"], head).ids, Classes(len(head))
    processor = subject.processor

    def examples() -> Iterator[Example]:
        for row in rows:
            pixels = read_image(Path(row[column]), mode) if isinstance(row[column], str) else row[column].convert(mode)
            with quiet():
                inputs = {name: value[0] for name, value in processor(pixels, return_tensors="np").items()}
            yield Example([inputs], {} if measure.dense else {"labels": ids[row[columns["label"]]]})

    return Examples(examples(), len(rows), measure, columns)


def _likeness(subject: Subject) -> Measure:
    return Cosine() if _EMBEDDINGS & set(subject.outputs) else Agreement()


def _lacks_labels(task: type[Task], data: Data, asked: Asked) -> bool:
    return asked.columns.get("label") is None and not set(task.roles["label"].usual) & set(data.rows.column_names)


def _cut(subject: Subject, asked: Asked) -> tuple[Any, int]:
    """The tokenizer, and at how many tokens it cuts."""
    return subject.tokenizer, subject.max_length(asked.max_length)


_MAKERS: dict[str, Callable[[Subject, Data, Asked], Examples]] = {
    TextClassification.name: _texts,
    TokenClassification.name: _words,
    QuestionAnswering.name: _questions,
    CausalLanguageModelling.name: _next_tokens,
    MaskedLanguageModelling.name: _masked_tokens,
    "feature-extraction": _unlabelled,
}
