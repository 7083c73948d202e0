"""The torch model of a Hugging Face configuration, built without its weights, and what goes into it.

torch and transformers are imported inside the functions: everything else in bsexport works without them.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bsexport.checkpoint import CONFIG, read_json
from bsexport.errors import BsexportError, ExportError, SourceError

_log = logging.getLogger(__name__)

TASKS = {
    "feature-extraction": "AutoModel",
    "text-classification": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
    "question-answering": "AutoModelForQuestionAnswering",
    "fill-mask": "AutoModelForMaskedLM",
    "text-generation": "AutoModelForCausalLM",
    "text2text-generation": "AutoModelForSeq2SeqLM",
    "translation": "AutoModelForSeq2SeqLM",
    "image-classification": "AutoModelForImageClassification",
}
"""Pipeline task that can be packed -> the transformers class that builds a model for it."""

SUFFIXES = {
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForQuestionAnswering": "question-answering",
    "ForMaskedLM": "fill-mask",
    "ForCausalLM": "text-generation",
    "LMHeadModel": "text-generation",
    "ForConditionalGeneration": "text2text-generation",
    "MTModel": "translation",
    "ForImageClassification": "image-classification",
    "Model": "feature-extraction",
}
"""How a class named in config.architectures ends -> its task; the first that fits."""

SEQ2SEQ = ("text2text-generation", "translation")
"""The tasks of encoder-decoders."""

ENCODER_ALONE = "feature-extraction"
"""The task for which an encoder-decoder's encoder is taken alone."""

_NOT_BARE = ("DoubleHeadsModel",)
"""Classes that end as a bare model's, and have a head that no task here keeps."""

INSTEAD = "export the model to ONNX yourself and give the .onnx file"
"""What a message offers where this path ends."""

_LONGEST_REASON = 200  # characters of a message that is not ours

# Sizes of the example that is traced; both stay symbolic. They differ from each other and from 0 and 1, which torch
# would take for constants.
_BATCH, _SEQUENCE = 2, 5


def read_config(directory: Path, task: str, trust_remote_code: bool) -> Any:
    """The transformers configuration of a model directory, for the graph or the graphs of a task.

    Raises what load_config raises, and ExportError for a task that has no use for an encoder-decoder.
    """
    config = load_config(directory, trust_remote_code)
    if config.is_encoder_decoder and task not in (*SEQ2SEQ, ENCODER_ALONE):
        raise ExportError(
            f"{directory}: {config.model_type} is an encoder-decoder, which {task} has no use for; "
            f"choose --task {SEQ2SEQ[0]}, or {INSTEAD}"
        )
    # One graph, one set of outputs: nothing that is optional.
    config.use_cache = config.output_hidden_states = config.output_attentions = False
    return config


def load_config(directory: Path, trust_remote_code: bool) -> Any:
    """The transformers configuration of a model directory, or in a file like config.json.

    Raises ExportError if transformers does not know the model, or knows it only by code that the folder brings,
    SourceError if config.json holds what cannot be, or the model is quantised.
    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(directory, trust_remote_code=trust_remote_code)
    except Exception as error:  # whatever the values in config.json lead to
        raise _unknown(directory, trust_remote_code) or _unusable(directory, error) from error
    if getattr(config, "quantization_config", None) is not None:
        raise SourceError(f"{directory}: is a quantised model; give the model before quantisation")
    config.return_dict = True
    config.architectures = config.architectures or []  # transformers loops over it where a task has several classes
    return config


def config_file(model: Path) -> Path:
    """The file that holds the configuration of a model directory; a file is one itself."""
    return model if model.is_file() else model / CONFIG


def _unknown(directory: Path, trust_remote_code: bool) -> ExportError | None:
    """The error for a model type that only newer or foreign code knows; None if transformers knows it."""
    from transformers import CONFIG_MAPPING

    config = read_json(config_file(directory))
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind in CONFIG_MAPPING:
        return None
    if "auto_map" not in config:
        return ExportError(f"{directory}: transformers does not know model type {kind!r}; update it, or {INSTEAD}")
    if trust_remote_code:
        return None
    return ExportError(f"{directory}: model type {kind!r} brings its own code; add --trust-remote-code, or {INSTEAD}")


def _unusable(directory: Path, error: Exception) -> BsexportError:
    """The error for a model that transformers knows and yet cannot make."""
    reason = first_line(error)
    if isinstance(error, ImportError):
        return ExportError(f"{directory}: transformers lacks a library for it ({reason}); install that, or {INSTEAD}")
    return SourceError(
        f"{config_file(directory)}: cannot be used ({reason}); repair it, or save or download the model again"
    )


def choose_task(architectures: Any, task: str | None) -> str:
    """`task` if it is known, else the task of the one class in config.architectures. Raises SourceError."""
    known = ", ".join(TASKS)
    if task is not None:
        if task not in TASKS:
            raise SourceError(f"--task {task}: not a task, expected one of {known}")
        return task
    match architectures:
        case [str(name)]:
            for suffix, found in SUFFIXES.items():
                if name.endswith(suffix) and not name.endswith(_NOT_BARE):
                    return found
    raise SourceError(
        f"config.json: architectures is {architectures}, which says no task; add --task with one of {known}"
    )


def build(directory: Path, config: Any, task: str, trust_remote_code: bool) -> Any:
    """The model of `config` for `task`, in evaluation mode and float32: parameters on the meta device, buffers real.

    Raises ExportError if transformers has no such model, SourceError if config.json holds what cannot be.
    """
    import torch
    import transformers

    auto = getattr(transformers, TASKS[task])
    brings_own = TASKS[task] in (getattr(config, "auto_map", None) or ())
    if type(config) not in auto._model_mapping and not (brings_own and trust_remote_code):
        option = "add --trust-remote-code" if brings_own else "choose another --task"
        raise ExportError(f"{config.model_type}: transformers has no {TASKS[task]} for it; {option}, or {INSTEAD}")
    try:
        with _weightless(torch):
            model = auto.from_config(
                config, attn_implementation="eager", dtype=torch.float32, trust_remote_code=trust_remote_code
            )
    except Exception as error:  # whatever the values in config.json lead to
        raise _unusable(directory, error) from error
    if task == ENCODER_ALONE and None not in (getattr(model, "encoder", None), getattr(model, "decoder", None)):
        _log.warning("%s: %s is the encoder alone: the graph has its last_hidden_state", directory, task)
        model.decoder = None
    return model.eval()


def is_encoder_alone(model: Any) -> bool:
    """Whether `build` took the model's decoder away."""
    return getattr(model, "decoder", model) is None


@contextlib.contextmanager
def _weightless(torch: Any) -> Iterator[None]:
    """Modules built in here keep their parameters on the meta device.

    Buffers are left alone: position ids and the like are not in the checkpoint, so their values must come from the
    model's own code. A parameter is allocated before it is registered, but not touched, so no memory is spent on it.
    """
    register = torch.nn.Module.register_parameter

    def register_meta(module: Any, name: str, parameter: Any) -> None:
        if parameter is not None and not parameter.is_meta:  # a tied parameter comes twice and must stay one
            parameter = torch.nn.Parameter(parameter.to("meta"), requires_grad=False)
        register(module, name, parameter)

    torch.nn.Module.register_parameter = register_meta
    try:
        yield
    finally:
        torch.nn.Module.register_parameter = register


@dataclass(frozen=True)
class Traced:
    """What the exporter is given.

    module: what is traced, by an example of its inputs: keywords of its forward, tensors or lists of them. axes: the
    symbolic ones of each input: axis -> name. names: of the graph's inputs, those of lists in their order.
    """

    module: Any
    inputs: dict[str, Any]
    axes: dict[str, Any]
    names: tuple[str, ...]


def as_it_is(model: Any, directory: Path) -> Traced:
    """A model that is traced as it is.

    Text: int64 [batch, sequence]. Images: float32 [batch, channels, height, width], and features of sounds
    [batch, bins, frames], only the batch symbolic. One that takes texts and images has a batch of each.
    Raises ExportError if the model takes something else.
    """
    takes = inspect.signature(model.forward).parameters
    if {"input_ids", "pixel_values"} <= takes.keys():
        model.forward = partial(_tensors_alone, model.forward)
        inputs, axes = _texts(["input_ids", "attention_mask"])
        images, axes_of_images = _images(model.config.vision_config, directory, "images")
        inputs, axes = inputs | images, axes | axes_of_images
    elif model.main_input_name == "pixel_values":
        inputs, axes = _images(model.config, directory, "batch")
    elif model.main_input_name == "input_features":
        inputs, axes = _sounds(model.config)
    elif model.main_input_name == "input_ids":
        # A model with a single token type does not need to be told; its tokenizer does not tell it either.
        types = "token_type_ids" in takes and getattr(model.config, "type_vocab_size", 0) > 1
        inputs, axes = _texts(["input_ids", "attention_mask", *["token_type_ids"] * types])
    else:
        known = "input_ids, pixel_values or input_features"
        raise ExportError(f"{directory}: takes {model.main_input_name}, expected {known}; {INSTEAD}")
    return Traced(model, inputs, axes, tuple(inputs))


def _tensors_alone(
    forward: Callable[..., Any], input_ids: Any, attention_mask: Any, pixel_values: Any
) -> dict[str, Any]:
    """The outputs of a model of several parts, without those of the parts."""
    outputs = forward(input_ids=input_ids, attention_mask=attention_mask, pixel_values=pixel_values)
    return {name: value for name, value in outputs.items() if not isinstance(value, dict)}


def _texts(names: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    import torch

    ids = torch.ones((_BATCH, _SEQUENCE), dtype=torch.int64)
    return {name: ids.clone() for name in names}, {name: {0: "batch", 1: "sequence"} for name in names}


def _images(config: Any, directory: Path, batch: str) -> tuple[dict[str, Any], dict[str, Any]]:
    import torch

    pixels = torch.zeros((_BATCH, config.num_channels, *image_size(config, directory)))
    return {"pixel_values": pixels}, {"pixel_values": {0: batch}}


def _sounds(config: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Of a Whisper: as many frames as its table of positions is for, of which it takes every second one."""
    import torch

    features = torch.zeros((_BATCH, config.num_mel_bins, 2 * config.max_source_positions))
    return {"input_features": features}, {"input_features": {0: "batch"}}


def image_size(config: Any, directory: Path) -> tuple[int, int]:
    """Height and width in pixels: config.image_size, else what the image processor crops or resizes to."""
    size = getattr(config, "image_size", None)
    processor = directory / "preprocessor_config.json"
    if size is None and processor.is_file():
        settings = read_json(processor)
        size = settings.get("crop_size") or settings.get("size")
    if isinstance(size, dict):
        size = (size.get("height"), size.get("width")) if "height" in size else size.get("shortest_edge")
    match size:
        case int(edge) if edge > 0:
            return edge, edge
        case [int(height), int(width)] if height > 0 and width > 0:
            return height, width
    raise ExportError(
        f"{directory}: image size {size} in config.json or {processor.name}, expected height and width in pixels; "
        + INSTEAD
    )


def first_line(error: BaseException) -> str:
    """What first went wrong, in one short line: torch wraps errors in others that say only where it was."""
    while error.__cause__ is not None:
        error = error.__cause__
    line = next(iter(str(error).strip().splitlines()), "")
    if not line or isinstance(error, LookupError | ArithmeticError):  # their text is only the key, or the operation
        line = f"{type(error).__name__}: {line}"
    return line if len(line) <= _LONGEST_REASON else f"{line[:_LONGEST_REASON]}..."
