"""What training and measuring need to know of a task: data, columns, inputs, labels, and the accuracy."""

from __future__ import annotations

from typing import Any

from bsexport.errors import SourceError
from bsexport.graph import architecture
from bsexport.tasks.language_modelling import CausalLanguageModelling, MaskedLanguageModelling
from bsexport.tasks.question_answering import QuestionAnswering
from bsexport.tasks.task import Task
from bsexport.tasks.text_classification import TextClassification
from bsexport.tasks.token_classification import TokenClassification
from bsexport.tasks.translation import Translation

TASKS: dict[str, type[Task]] = {
    task.name: task
    for task in (
        TextClassification,
        TokenClassification,
        CausalLanguageModelling,
        MaskedLanguageModelling,
        QuestionAnswering,
        Translation,
    )
}
"""By the pipeline's name."""

AUTO_CLASSES = architecture.TASKS
"""Pipeline's name -> the transformers class that builds a model for it."""

_SUFFIXES = architecture.SUFFIXES | {"ForConditionalGeneration": Translation.name}
"""How a class named in config.architectures ends -> its task; the first that fits."""


def task_of(architectures: Any) -> str | None:
    """The task of the one class in config.architectures; None if it says none."""
    match architectures:
        case [str(name)]:
            return next((task for suffix, task in _SUFFIXES.items() if name.endswith(suffix)), None)
    return None


def choose_task(architectures: Any, named: str | None) -> type[Task]:
    """The task that the user named, or that of the model. Raises SourceError if it is not one of TASKS."""
    known = ", ".join(TASKS)
    if named is not None and named not in TASKS:
        raise SourceError(f"--task {named}: not a task to train for, expected one of {known}")
    found = named or task_of(architectures)
    if found not in TASKS:
        raise SourceError(
            f"config.json: architectures is {architectures}, which says no task; add --task with one of {known}"
        )
    return TASKS[found]
