"""Which tensor of a checkpoint is which tensor of a model: names and ties as in transformers' from_pretrained."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from bsexport.checkpoint import Checkpoint, Stored
from bsexport.errors import ExportError, SourceError

_log = logging.getLogger(__name__)

_SHOWN = 3  # tensors named in a message


@dataclass(frozen=True)
class Match:
    """Where the model's tensors stand in the checkpoint.

    stored: name in the model -> tensor of the checkpoint; names that are tied share one.
    ties: name in the checkpoint -> the other names of that tensor, as the checkpoint or else the model calls it.
    """

    stored: dict[str, Stored]
    ties: dict[str, tuple[str, ...]]


def match(model: Any, checkpoint: Checkpoint, task: str) -> Match:
    """The checkpoint's tensor for every tensor of `model`; integer buffers are filled, all else stays unread.

    A feature extractor loses its pooler if the checkpoint holds none of it, with a warning in the log.
    What the checkpoint need not hold, and does not, stays the model's own, with values.
    Raises SourceError if tensors are missing or of another shape or kind, ExportError if they need conversion.
    """
    present = found(model, checkpoint)
    if task == "feature-extraction":
        _drop_absent_pooler(model, present)
    state = model.state_dict(keep_vars=True)
    _check_fit(checkpoint, state, present)
    stored: dict[str, Stored] = {}
    ties: dict[str, tuple[str, ...]] = {}
    missing: list[str] = []
    for names in _tied(state):
        if not state[names[0]].is_floating_point():
            _fill(checkpoint, state, names, present)
        elif holders := {name: present[name] for name in names if name in present}:
            _share(checkpoint, names, holders, stored, ties)
        elif not _make(model, names[0]):
            missing.append(names[0])
    if missing:
        raise SourceError(
            f"{checkpoint.directory}: lacks {_some(missing)}, which {task} needs; "
            "choose the --task that the model was trained for, or train it for this one first"
        )
    return Match(stored, ties)


def found(model: Any, checkpoint: Checkpoint) -> dict[str, Stored]:
    """Model name -> tensor of the checkpoint: transformers' own renaming rules, the base model's prefix put on or off.

    Raises ExportError where a rule would join, split or permute tensors: those would not be the checkpoint's any more.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, rename_source_key

    rules = get_model_conversion_mapping(model)
    converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
    renamings = [rule for rule in rules if not isinstance(rule, WeightConverter)]
    state, prefix = model.state_dict(), model.base_model_prefix
    matched: dict[str, Stored] = {}
    for name, stored in checkpoint.tensors.items():
        renamed, converter = rename_source_key(name, renamings, converters, prefix, state)
        if renamed not in state and name in state:
            renamed, converter = rename_source_key(name, [], [], prefix, state)
        if renamed in state and converter is not None:
            raise ExportError(
                f"{checkpoint.directory}: transformers converts {name!r} while it loads, expected tensors to be used "
                "as they are stored; export the model to ONNX yourself and give the .onnx file"
            )
        if renamed in state:
            matched.setdefault(renamed, stored)
    return matched


def _drop_absent_pooler(model: Any, present: dict[str, Stored]) -> None:
    pooler = getattr(model, "pooler", None)
    if pooler is not None and not any(f"pooler.{name}" in present for name in pooler.state_dict()):
        model.pooler = None  # what add_pooling_layer=False does
        _log.warning("the checkpoint holds no pooler: the graph has no pooler_output")


def _check_fit(checkpoint: Checkpoint, state: dict[str, Any], present: dict[str, Stored]) -> None:
    """Shapes agree, and floats meet floats."""
    wrong = [
        f"{stored.name!r} is {stored.stored_dtype} {list(stored.shape)}, "
        f"expected {str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
        for name, tensor in state.items()
        if (stored := present.get(name)) is not None
        and (stored.shape != tuple(tensor.shape) or (stored.dtype == np.float32) != tensor.is_floating_point())
    ]
    if wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise SourceError(f"{checkpoint.directory}: {wrong[0]}{more}; config.json and the weights must be of one model")


def _tied(state: dict[str, Any]) -> list[list[str]]:
    """The names of each tensor of the model, in the model's order."""
    names: dict[int, list[str]] = {}
    for name, tensor in state.items():
        names.setdefault(id(tensor), []).append(name)
    return list(names.values())


def _share(
    checkpoint: Checkpoint,
    names: list[str],
    holders: dict[str, Stored],
    stored: dict[str, Stored],
    ties: dict[str, tuple[str, ...]],
) -> None:
    """Let tied `names` share the first tensor that the checkpoint has for them.

    As in from_pretrained, a checkpoint that stores two different tensors is right, and the tie in its config is wrong.
    """
    first = next(iter(holders.values()))
    others: list[str] = []
    for name in names:
        own = holders.get(name, first)
        same = own is first or checkpoint.same(own.name, first.name)
        stored[name] = first if same else own
        if same and own is not first:
            others.append(own.name)
        elif name not in holders:
            others.append(name)
    ties[first.name] = tuple(others)


def _fill(checkpoint: Checkpoint, state: dict[str, Any], names: list[str], present: dict[str, Stored]) -> None:
    """Integer buffers (tables of indices) steer the graph, so the exporter must see their values."""
    import torch

    for name in names:
        if name in present:
            state[name].copy_(torch.from_numpy(checkpoint.read(present[name].name)))


def _make(model: Any, name: str) -> bool:
    """Whether the model's code makes the values of a tensor that checkpoints need not hold, such as sines of positions.

    They then stand in the model.
    """
    import torch

    patterns = getattr(model, "_keys_to_ignore_on_load_missing", None) or ()
    if not any(re.search(pattern, name) for pattern in patterns):
        return False
    prefix, _, member = name.rpartition(".")
    module = model.get_submodule(prefix)
    if member in module._parameters:  # without values yet; buffers have theirs
        module._parameters[member] = torch.nn.Parameter(
            torch.full(module._parameters[member].shape, torch.nan), requires_grad=False
        )
        with torch.no_grad():
            model._init_weights(module)
    return bool(getattr(module, member).isfinite().all())


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more tensors" if len(names) > _SHOWN else ""
    return ", ".join(repr(name) for name in names[:_SHOWN]) + more
