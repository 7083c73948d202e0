"""Hold a language model against itself: texts that are read at once, and texts that are read in steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from bsexport_runtime.cache import slots_of
from bsexport_runtime.decoder import IDS, KEPT, LOGITS, POSITIONS

Array = npt.NDArray[Any]

TOLERANCE = 1e-3
"""Of the largest logit: how far sums in another order may lead apart."""


def disagreement(session: ort.InferenceSession, inputs: dict[str, Array]) -> str | None:
    """What is wrong with a language model whose logits depend on how its texts are cut; None if nothing is.

    inputs: of texts that begin with no cache, and of which all logits are asked for.
    Its code then tells a token's place by something else than its position, such as by how many it is given.
    """
    (whole,) = session.run([LOGITS], inputs)
    stepped = _in_steps(session, inputs)
    apart, scale = float(np.abs(stepped - whole).max()), float(np.abs(whole).max())
    if apart <= TOLERANCE * scale:
        return None
    return (
        f"output {LOGITS}: is off by up to {apart:.3g}, where the largest is {scale:.3g}, if a text is read in steps: "
        "the model's code does not suit a cache of slots; export it to ONNX yourself and give the .onnx file"
    )


def _in_steps(session: ort.InferenceSession, inputs: dict[str, Array]) -> Array:
    """The logits of the texts, a half read at once, then one token, then the others; in twice the slots they need."""
    batch, length = inputs[IDS].shape
    slots = slots_of(session)
    cache = {each.past: np.zeros((batch, each.heads, 2 * length, each.size), each.dtype) for each in slots}
    found = []
    for start, end in ((0, length // 2), (length // 2, length // 2 + 1), (length // 2 + 1, length)):
        part = {name: inputs[name][:, start:end] for name in (IDS, POSITIONS)}
        part[KEPT] = np.tile(np.arange(end - start), (batch, 1))
        logits, *present = session.run([LOGITS, *(each.present for each in slots)], inputs | part | cache)
        cache = dict(zip(cache, present, strict=True))
        found.append(logits)
    return np.concatenate(found, 1)
