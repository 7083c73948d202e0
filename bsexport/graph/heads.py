"""Which tensors belong to a task head, told from their names: heads are coded but by default not pruned."""

from __future__ import annotations

import re

HEADS = frozenset(
    {"pooler", "sequence_summary", "classifier", "pre_classifier", "cls_classifier", "distillation_classifier"}
    | {"classification_head", "logits_proj", "qa_outputs", "score"}
)
"""Module names of task heads in Hugging Face models. Language-model heads are not among them."""


def is_head(name: str) -> bool:
    """Whether a path component of a tensor's or node's name, or of a list of modules in Python's spelling, is a head's.

    A component is a run of letters, digits, underscores and hyphens: "bert.pooler.dense.weight", "/classifier/MatMul",
    "['', 'classifier', 'classifier.0', 'linear_1']".
    """
    return not HEADS.isdisjoint(re.findall(r"[\w-]+", name))
