"""The encoder of an encoder-decoder: what its decoder is given of the sources, once for a whole text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnxruntime as ort

from bsexport_runtime.decoder import IDS, Tokens, padded

MASK = "attention_mask"
CROSS = "cross_key_values."
"""How the names of the keys and values begin that a decoder's layers have of the encoder's states."""


def encode(encoder: ort.InferenceSession, sources: Sequence[Tokens]) -> dict[str, ort.OrtValue]:
    """What the decoder's graph takes of the sources, by the names of its inputs, for all of its steps.

    encoder: the attribute `encoder` of an encoder-decoder's session. sources: of any lengths. Shorter ones are padded
    on the right, and the mask says where. Raises what the session's run raises.
    """
    ids = padded(sources)
    lengths = np.array([[len(source)] for source in sources])
    mask = (np.arange(ids.shape[1]) < lengths).astype(np.int64)
    given = {IDS: ort.OrtValue.ortvalue_from_numpy(ids), MASK: ort.OrtValue.ortvalue_from_numpy(mask)}
    binding = encoder.io_binding()
    for name, value in given.items():
        binding.bind_ortvalue_input(name, value)
    names = [output.name for output in encoder.get_outputs()]
    for name in names:
        binding.bind_output(name)
    encoder.run_with_iobinding(binding)
    return {MASK: given[MASK], **dict(zip(names, binding.get_outputs(), strict=True))}
