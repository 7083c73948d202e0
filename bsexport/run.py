"""Run a package on a text or an image, with the tokenizer or image processor that it carries."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bsexport.errors import SourceError
from bsexport_runtime.session import Session, load

Array = npt.NDArray[Any]
TOP = 5


def run_text(path: Path, text: str, context: str | None = None) -> dict[str, Any]:
    """What the package answers to a text: labels, tokens, an answer, fills or an embedding, by its task.

    context: for question answering, the passage to look in.
    Raises SourceError if the package has no tokenizer, or the text does not suit the task.
    """
    session = load(path)
    tokenizer = _from_package(path, "AutoTokenizer", "tokenizer")
    texts = (text,) if context is None else (text, context)
    encoded = tokenizer(*texts, return_tensors="np", truncation=True)
    outputs = _run(session, encoded)
    config = _config(path)
    if "start_logits" in outputs:
        if context is None:
            raise SourceError(f"{path}: answers questions about a passage; give it with --context")
        return {"answer": _answer(tokenizer, encoded, outputs)}
    logits = outputs.get("logits")
    if logits is None:
        return _embedding(outputs, encoded.get("attention_mask"))
    if logits.ndim == 2:
        return {"labels": _labels(logits[0], config)}
    ids = encoded["input_ids"][0]
    if logits.shape[-1] == len(config.get("id2label", {})) and logits.shape[-1] != config.get("vocab_size"):
        tokens = tokenizer.convert_ids_to_tokens(ids)
        best = [_labels(each, config)[0] for each in logits[0]]
        return {"tokens": [{"token": token, **label} for token, label in zip(tokens, best, strict=True)]}
    return {"fills": _fills(path, tokenizer, ids, logits[0])}


def run_image(path: Path, image: Path) -> dict[str, Any]:
    """What the package answers to an image file: labels or an embedding.

    Raises SourceError if the package has no image processor or the file is no image.
    """
    from PIL import Image, UnidentifiedImageError

    session = load(path)
    processor = _from_package(path, "AutoImageProcessor", "image processor")
    try:
        with Image.open(image) as opened:
            pixels = opened.convert("RGB" if _channels(session) == 3 else "L")
    except (OSError, UnidentifiedImageError) as error:
        raise SourceError(f"{image}: cannot be read as an image: {error}") from error
    outputs = _run(session, processor(pixels, return_tensors="np"))
    if "logits" in outputs:
        return {"labels": _labels(outputs["logits"][0], _config(path))}
    return _embedding(outputs, None)


def _run(session: Session, encoded: Any) -> dict[str, Array]:
    """Outputs by name. Inputs that the graph does not take are dropped; missing ones are an error of the package."""
    feed = {value.name: np.asarray(encoded[value.name]) for value in session.get_inputs() if value.name in encoded}
    missing = [value.name for value in session.get_inputs() if value.name not in feed]
    if missing:
        raise SourceError(f"the graph takes {', '.join(missing)}, which its tokenizer or image processor does not make")
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, feed), strict=True))


def _from_package(path: Path, kind: str, what: str) -> Any:
    """The package's own tokenizer or image processor, through transformers; no hub is asked."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        import transformers
    except ImportError as error:
        raise SourceError(f"{path}: the {what} needs {error.name}; run pip install 'bsexport[hf]'") from error
    try:
        return getattr(transformers, kind).from_pretrained(path, local_files_only=True)
    except Exception as error:  # transformers raises many kinds for files that are missing or foreign
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise SourceError(f"{path}: has no {what} that transformers can load: {reason}") from error


def _config(path: Path) -> dict[str, Any]:
    file = path / "config.json"
    config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return config


def _channels(session: Session) -> int:
    channels = session.get_inputs()[0].shape[1]
    return channels if isinstance(channels, int) else 3


def _labels(logits: Array, config: dict[str, Any]) -> list[dict[str, Any]]:
    """The best labels with their scores; a model of several labels at once scores each on its own."""
    several = config.get("problem_type") == "multi_label_classification"
    scores = 1 / (1 + np.exp(-logits)) if several else _softmax(logits)
    names = config.get("id2label", {})
    best = np.argsort(-scores, kind="stable")[:TOP]
    return [{"label": names.get(str(index), f"LABEL_{index}"), "score": float(scores[index])} for index in best]


def _answer(tokenizer: Any, encoded: Any, outputs: dict[str, Array]) -> dict[str, Any]:
    """The span of the passage with the highest sum of start and end logits."""
    inside = np.array([sequence == 1 for sequence in encoded.sequence_ids(0)])
    start = np.where(inside, outputs["start_logits"][0], -np.inf)
    end = np.where(inside, outputs["end_logits"][0], -np.inf)
    spans = np.triu(start[:, None] + end[None, :])
    spans[np.tril_indices_from(spans, -1)] = -np.inf
    first, last = np.unravel_index(np.argmax(spans), spans.shape)
    score = float(_softmax(start)[first] * _softmax(end)[last])
    return {"text": tokenizer.decode(encoded["input_ids"][0][first : last + 1]), "score": score}


def _fills(path: Path, tokenizer: Any, ids: Array, logits: Array) -> list[dict[str, Any]]:
    places = np.flatnonzero(ids == tokenizer.mask_token_id)
    if places.size == 0:
        raise SourceError(f"{path}: fills in a masked word, but the text has no {tokenizer.mask_token}")
    scores = _softmax(logits[places[0]])
    return [{"token": tokenizer.decode([index]), "score": float(scores[index])} for index in np.argsort(-scores)[:TOP]]


def _embedding(outputs: dict[str, Array], mask: Array | None) -> dict[str, Any]:
    """The mean over the tokens that the mask counts, and a summary of it."""
    hidden = outputs["last_hidden_state"] if "last_hidden_state" in outputs else next(iter(outputs.values()))
    states = hidden[0].reshape(-1, hidden.shape[-1])
    counted = states if mask is None else states[np.asarray(mask[0], bool)]
    mean = counted.mean(axis=0)
    return {
        "embedding": {
            "pooling": "mean",
            "dimensions": int(mean.size),
            "norm": float(np.linalg.norm(mean)),
            "values": [float(value) for value in mean],
        }
    }


def _softmax(logits: Array) -> Array:
    shifted = np.exp(logits - logits.max())
    return np.asarray(shifted / shifted.sum())
