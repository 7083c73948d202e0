"""What a packed encoder computes, held against PyTorch and against plain onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import numpy_helper

import bsexport_runtime
from bsexport_runtime.package import PLAIN_GRAPH
from bsexport_runtime.session import own_options

Array = npt.NDArray[Any]
Inputs = dict[str, Array]

SENTENCES = (
    "The ferry leaves the island at half past six, unless the wind turns.",
    "Who wrote the first dictionary of the English language?",
    "Fold the egg whites in slowly, or the batter will collapse.",
    "Shares of the chip maker fell by four per cent after the report.",
    "yes",
    "A transformer attends to all positions of its input at once.",
    "My neighbour's dog barks at the moon; nobody knows why.",
    "Das Paket ist gestern nicht angekommen.",
    "ERROR 404: page not found (see /var/log/nginx/error.log)",
    "Water boils at a lower temperature on top of a mountain.",
    "Please cancel my subscription and refund the last payment.",
    "The defendant shall bear the costs of the proceedings.",
    "Photosynthesis turns light, water and carbon dioxide into sugar and oxygen.",
    "lol that movie was soooo bad, we left after 20 minutes",
    "In 1969 two men walked on the surface of the moon.",
    "The patient complains of headache, nausea and sensitivity to light.",
    "She sells sea shells by the sea shore.",
    "def area(r): return 3.14159 * r ** 2",
    "Although it had rained all night, the fields, which the farmer had ploughed in autumn, were dry by noon, and the "
    "children ran across them to the river, where the old boat lay as it had lain for years.",
    "Il pleut des cordes, prenez un parapluie.",
)


def tokenize(directory: Path, sentences: tuple[str, ...] = SENTENCES) -> Inputs:
    """The sentences as one padded batch: int64 [sentences, longest] each."""
    from transformers import AutoTokenizer

    encoded = AutoTokenizer.from_pretrained(directory)(list(sentences), padding=True, truncation=True)
    return {name: np.asarray(values, np.int64) for name, values in encoded.items()}


def random_inputs(vocabulary: int) -> Inputs:
    """Twenty sequences of 32 random tokens, for a model without a tokenizer."""
    ids = np.random.default_rng(0).integers(0, vocabulary, (20, 32))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


def torch_outputs(directory: Path, inputs: Inputs) -> Array:
    """last_hidden_state of the float32 model in PyTorch: [batch, sequence, hidden]."""
    import torch
    from transformers import AutoModel

    model = AutoModel.from_pretrained(directory, dtype=torch.float32).eval()
    with torch.inference_mode():
        out = model(**{name: torch.from_numpy(array) for name, array in inputs.items()})
    hidden: Array = out.last_hidden_state.numpy()
    return hidden


def session_outputs(session: ort.InferenceSession, inputs: Inputs) -> Array:
    """last_hidden_state of a session: [batch, sequence, hidden]."""
    wanted = {entry.name for entry in session.get_inputs()}
    (hidden,) = session.run(["last_hidden_state"], {name: inputs[name] for name in wanted})
    found: Array = hidden
    return found


def plain_session(package: Path) -> ort.InferenceSession:
    """Plain onnxruntime, with the runtime's settings, on the package's graph with the decoded weights inside."""
    model = onnx.load(package / PLAIN_GRAPH, load_external_data=False)
    tensors = bsexport_runtime.read_tensors(package)
    for initializer in model.graph.initializer:
        if initializer.name in tensors:
            initializer.CopyFrom(numpy_helper.from_array(tensors[initializer.name], initializer.name))
    return ort.InferenceSession(model.SerializeToString(), own_options(None), providers=["CPUExecutionProvider"])


def pooled(hidden: Array, mask: Array) -> Array:
    """Embeddings: the mean over the tokens that are no padding, as float64 of length 1: [batch, hidden]."""
    summed = (hidden.astype(np.float64) * mask[..., None]).sum(axis=1)
    unit: Array = summed / np.linalg.norm(summed, axis=1, keepdims=True)
    return unit


def cosines(hidden: Array, other: Array, mask: Array) -> Array:
    """Of the embeddings of each sentence: float64 [batch]."""
    found: Array = (pooled(hidden, mask) * pooled(other, mask)).sum(axis=1)
    return found


def largest_deviation(hidden: Array, other: Array, mask: Array) -> float:
    """The largest |a - b| over the tokens that are no padding."""
    return float(np.abs((hidden - other)[mask != 0]).max())
