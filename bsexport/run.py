"""Run a package on a text or an image, with the tokenizer or image processor that it carries."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bsexport.errors import SourceError
from bsexport.evaluate.answers import best_span
from bsexport.evaluate.likeness import mean_states
from bsexport.inputs import complete
from bsexport.quiet import quiet
from bsexport_runtime.cache import PRESENT
from bsexport_runtime.package import ENCODER, Package
from bsexport_runtime.session import Session, load

Array = npt.NDArray[Any]

CONFIG = "config.json"
TOP = 5
SHOWN_VALUES = 8
TOKENIZER_FILES = frozenset(
    {"tokenizer.json", "vocab.txt", "vocab.json", "tokenizer.model", "spiece.model", "spm.model"}
    | {"sentencepiece.model", "sentencepiece.bpe.model"}
)
PROCESSOR_FILES = frozenset({"preprocessor_config.json", "processor_config.json"})


def is_encoder_decoder(path: Path) -> bool:
    """Whether a package makes another text of a text: see generation.run_prompt."""
    return ENCODER in Package(path).graphs


def run_text(path: Path, text: str, context: str | None = None) -> dict[str, Any]:
    """What the package answers to a text: {"labels": ...}, {"tokens": ...}, {"answer": ...}, {"fills": ...},
    {"next": ...} or {"embedding": ...}, by its task, or by its outputs if it was made from an .onnx file.

    text: for question answering the question. context: the passage to look for its answer in.
    Raises SourceError if the package has no tokenizer, or the text does not suit the task.
    """
    package = Package(path)
    tokenizer = from_package(package, "AutoTokenizer", "tokenizer", TOKENIZER_FILES)
    texts = (text,) if context is None else (text, context)
    encoded = tokenizer(*texts, return_tensors="np", truncation=_limited(tokenizer))
    if any(each.overflowing for each in encoded.encodings or ()):
        limit = tokenizer.model_max_length
        warnings.warn(
            f"the text is longer than the {limit} tokens that the model takes; the rest is left out", stacklevel=2
        )
    outputs = answer(load(path), encoded, "the text may be too long, or the tokenizer another model's")
    config = config_of(package)
    task = package.manifest.get("task") or guess_task({name: each.shape for name, each in outputs.items()}, config)
    if (task == "question-answering") != (context is not None):
        raise SourceError(
            f"{path}: {task} takes "
            + ("a question as --text and a passage as --context" if context is None else "--text without --context")
        )
    if task == "question-answering":
        return {"answer": _answer(encoded, outputs, context or "")}
    if task == "text-classification":
        return {"labels": _labels(outputs["logits"][0], config)}
    if task == "token-classification":
        names = tokenizer.convert_ids_to_tokens(encoded["input_ids"][0])
        best = [_labels(logits, config)[0] for logits in outputs["logits"][0]]
        return {"tokens": [{"token": token, **label} for token, label in zip(names, best, strict=True)]}
    if task == "text-generation":
        return {"next": _likeliest(tokenizer, outputs["logits"][0, -1])}
    if task == "fill-mask":
        return {"fills": _fills(path, tokenizer, encoded["input_ids"][0], outputs["logits"][0])}
    return {"embedding": _embedding(outputs, encoded.get("attention_mask"))}


def run_image(path: Path, image: Path) -> dict[str, Any]:
    """What the package answers to an image file: {"labels": ...} or {"embedding": ...}.

    Raises SourceError if the package has no image processor or the file is no image.
    """
    package = Package(path)
    processor = from_package(package, "AutoImageProcessor", "image processor", PROCESSOR_FILES)
    session = load(path)
    pixels = read_image(image, mode_of(session.get_inputs()[0].shape))
    with quiet():
        encoded = processor(pixels, return_tensors="np")
    outputs = answer(session, encoded, "the image processor may be another model's")
    if "logits" in outputs:
        return {"labels": _labels(outputs["logits"][0], config_of(package))}
    return {"embedding": _embedding(outputs, None)}


def to_text(answer: dict[str, Any]) -> str:
    """An answer of run_text or run_image in lines: score, then label, token or text; of an embedding a summary."""
    ((kind, found),) = answer.items()
    if kind == "embedding":
        values = " ".join(f"{value:+.4f}" for value in found["values"][:SHOWN_VALUES])
        head = f"embedding of {found['dimensions']} dimensions, {found['pooling']}-pooled, norm {found['norm']:.4f}"
        return f"{head}: {values} ..."
    entries = [found] if isinstance(found, dict) else found
    rows = [(f"{entry['score']:.4f}", *(entry[key] for key in entry if key != "score")) for entry in entries]
    return "\n".join("  ".join(row) for row in rows)


def from_package(package: Package, kind: str, what: str, files: frozenset[str]) -> Any:
    """The package's own tokenizer or image processor, through transformers; no hub is asked."""
    if files.isdisjoint(package.files):
        raise SourceError(
            f"{package.path}: holds no {what}, which the model's folder would have to have; "
            "make the inputs yourself and give them to bsexport_runtime.load(...).run"
        )
    try:
        with quiet():
            import transformers

            return getattr(transformers, kind).from_pretrained(package.path, local_files_only=True)
    except ModuleNotFoundError as error:
        raise SourceError(f"{package.path}: the {what} needs {error.name}; run pip install 'bsexport[hf]'") from error
    except Exception as error:  # transformers raises many kinds for files that are missing or foreign
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise SourceError(f"{package.path}: transformers cannot load its {what}: {reason}") from error


def _limited(tokenizer: Any) -> bool:
    """Whether the tokenizer knows how much the model takes; transformers stands 1e30 for "no"."""
    return bool(tokenizer.model_max_length < 1 << 30)


def mode_of(shape: Sequence[Any]) -> str:
    """How Pillow names the images that an input of shape [batch, channels, height, width] takes."""
    return "L" if list(shape[1:2]) == [1] else "RGB"


def read_image(path: Path, mode: str) -> Any:
    """The image in a file. Raises SourceError if Pillow finds none."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as opened:
            return opened.convert(mode)
    except UnidentifiedImageError as error:
        raise SourceError(f"{path}: is not an image that Pillow reads") from error
    except (OSError, Image.DecompressionBombError) as error:
        raise SourceError(f"{path}: cannot be read as an image: {getattr(error, 'strerror', None) or error}") from error


def answer(session: Session, feeds: Mapping[str, Any], hint: str, wanted: list[str] | None = None) -> dict[str, Array]:
    """Outputs by name, those wanted, or all but a cache. What the graph does not take is dropped.

    Raises SourceError if the graph takes something else, or refuses it; the hint says why that may be.
    """
    feeds = complete(session, feeds)
    inputs = [value.name for value in session.get_inputs()]
    missing = [name for name in inputs if name not in feeds]
    if missing:
        raise SourceError(f"the graph takes {', '.join(missing)}, which its tokenizer or image processor does not make")
    names = wanted or answers_of(session)
    try:
        return dict(zip(names, session.run(names, {name: np.asarray(feeds[name]) for name in inputs}), strict=True))
    except Exception as error:  # onnxruntime's errors have no base class of their own
        raise SourceError(f"the model refuses its inputs: {error}; {hint}") from error


def answers_of(session: Session) -> list[str]:
    """The outputs that a model is run for: all but a language model's cache."""
    return [value.name for value in session.get_outputs() if not value.name.startswith(PRESENT)]


def config_of(package: Package) -> dict[str, Any]:
    """The model's config.json; a package made from an .onnx file need not have one."""
    if CONFIG not in package.files:
        return {}
    config: dict[str, Any] = json.loads(package.read_bytes(CONFIG))
    return config


def guess_task(outputs: Mapping[str, Sequence[Any]], config: dict[str, Any]) -> str:
    """The task of a graph whose outputs, shapes by name, are named as transformers names them."""
    if "start_logits" in outputs:
        return "question-answering"
    if "logits" not in outputs:
        return "feature-extraction"
    shape = outputs["logits"]
    if len(shape) == 2:
        return "text-classification"
    return "fill-mask" if shape[-1] == config.get("vocab_size") else "token-classification"


def _labels(logits: Array, config: dict[str, Any]) -> list[dict[str, Any]]:
    """The best labels with their scores, as transformers' pipelines have them.

    A model of several labels at once scores each on its own, as does one of a single label; a regression's score is
    its output.
    """
    kind = config.get("problem_type")
    if kind == "regression":
        scores = logits
    elif kind == "multi_label_classification" or logits.size == 1:
        scores = 1 / (1 + np.exp(-logits))
    else:
        scores = _softmax(logits)
    names = config.get("id2label") or {}
    best = np.argsort(-scores, kind="stable")[:TOP]
    return [{"label": names.get(str(index), f"LABEL_{index}"), "score": float(scores[index])} for index in best]


def _answer(encoded: Any, outputs: dict[str, Array], context: str) -> dict[str, Any]:
    """The likeliest span of the passage, and the product of its start and end probability."""
    inside = np.array([sequence == 1 for sequence in encoded.sequence_ids(0)])
    if not inside.any():
        raise SourceError("the passage given with --context holds no word to answer with")
    start, end = (np.where(inside, outputs[name][0], -np.inf) for name in ("start_logits", "end_logits"))
    first, last, _ = best_span(start, end, inside)
    offsets = encoded.encodings[0].offsets
    text = context[offsets[first][0] : offsets[last][1]]
    return {"text": text, "score": float(_softmax(start)[first] * _softmax(end)[last])}


def _fills(path: Path, tokenizer: Any, ids: Array, logits: Array) -> list[dict[str, Any]]:
    places = np.flatnonzero(ids == tokenizer.mask_token_id)
    if places.size != 1:
        raise SourceError(
            f"{path}: fills in a masked word; the text has {places.size}, expected one {tokenizer.mask_token}"
        )
    return _likeliest(tokenizer, logits[places[0]])


def _likeliest(tokenizer: Any, logits: Array) -> list[dict[str, Any]]:
    """The best tokens of one place, with their scores."""
    scores = _softmax(logits)
    best = np.argsort(-scores, kind="stable")[:TOP]
    return [{"token": tokenizer.decode([index]), "score": float(scores[index])} for index in best]


def _embedding(outputs: dict[str, Array], mask: Array | None) -> dict[str, Any]:
    """The mean over the tokens that the mask counts."""
    hidden = outputs["last_hidden_state"] if "last_hidden_state" in outputs else next(iter(outputs.values()))
    (mean,) = mean_states(hidden, None if mask is None else np.asarray(mask, bool))
    return {
        "pooling": "mean",
        "dimensions": int(mean.size),
        "norm": float(np.linalg.norm(mean)),
        "values": [float(value) for value in mean],
    }


def _softmax(logits: Array) -> Array:
    shifted = np.exp(logits - logits.max())
    return np.asarray(shifted / shifted.sum())
