"""Which tensors belong to a task head, told from their names: heads are coded but by default not pruned."""

from __future__ import annotations

import re

HEADS = frozenset({"pooler", "classifier", "pre_classifier", "qa_outputs", "score"})
"""Module names of task heads in Hugging Face models. Language-model heads are not among them."""


def is_head(name: str) -> bool:
    """Whether a path component of a tensor's or node's name is a head's.

    Components are split at dots, slashes and colons: "bert.pooler.dense.weight", "/classifier/MatMul".
    """
    return not HEADS.isdisjoint(re.split(r"[./:]+", name))
