"""The model to train, its tokenizer and its teacher, as transformers loads them, and what speaks against each."""

from __future__ import annotations

import hashlib
import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from bsexport.checkpoint import Checkpoint, locate, read_config, read_json
from bsexport.errors import RecipeError, SourceError
from bsexport.graph.architecture import config_file, first_line, load_config
from bsexport.quiet import quiet
from bsexport.source import is_onnx
from bsexport.tasks import AUTO_CLASSES, choose_task, task_of
from bsexport.tasks.labels import Labels, shown
from bsexport.tasks.task import Task
from bsexport.train.settings import LONGEST

_ADAPTER = "adapter_config.json"
_NO_LIMIT = 1 << 30  # tokenizers without a limit say 1e30
_MOST_NEW = 0.5  # share of the weights that a checkpoint may lack


@dataclass(frozen=True)
class Origin:
    """What a user named as a model, before its weights are read.

    name: as named. place: its folder, or its configuration file if it is to be trained from scratch.
    """

    name: str
    place: Path
    config: Any
    tokenizer: Any
    task: type[Task]
    trust_remote_code: bool

    @property
    def from_scratch(self) -> bool:
        """Whether there are no weights to begin with."""
        return self.place.is_file()

    def head(self) -> tuple[str, ...] | None:
        """The names of the classes that the model's head has, by id; None if it gets a new head."""
        known = (
            "id2label" in read_json(config_file(self.place))
            if self.from_scratch
            else task_of(self.config.architectures) == self.task.name
        )
        return tuple(self.config.id2label[index] for index in sorted(self.config.id2label)) if known else None

    def max_length(self, wanted: int | None) -> int:
        """Tokens to cut at: what the user wants, else LONGEST or what the model takes. Raises RecipeError."""
        limit = min(self.tokenizer.model_max_length, getattr(self.config, "max_position_embeddings", None) or _NO_LIMIT)
        if wanted is not None and wanted > limit:
            raise RecipeError(f"max-length {wanted} cannot be used: {self.name} takes {limit} tokens at most")
        return wanted or min(LONGEST, limit)


def open_origin(name: str, task: str | None, trust_remote_code: bool) -> Origin:
    """Read configuration and tokenizer of a directory, a hub id or a configuration file.

    Raises SourceError or ExportError for what is no such model, is quantised, or is an adapter.
    """
    path = Path(name)
    if is_onnx(path):
        raise SourceError(
            f"{name}: is an ONNX file; training takes a Hugging Face directory, a hub id or a config.json"
        )
    place = path if path.is_file() else locate(path, code=trust_remote_code)
    if (place / _ADAPTER).is_file():
        raise SourceError(
            f"{name}: is an adapter (LoRA, PEFT): the weights that are packed stay frozen below it, so that no rate "
            "reaches them; merge it (peft: merge_and_unload), save that and train it"
        )
    raw = read_json(place) if place.is_file() else read_config(place)
    if "model_type" not in raw:
        raise SourceError(f"{config_file(place)}: names no model_type; expected a configuration of transformers")
    if not place.is_file():
        Checkpoint.open(place)  # says in one line what transformers would not
    with quiet():
        config = load_config(place, trust_remote_code)
    chosen = choose_task(config.architectures, task)
    return Origin(name, place, config, _tokenizer(name, place), chosen, trust_remote_code)


def _tokenizer(name: str, place: Path) -> Any:
    folder = place.parent if place.is_file() else place
    try:
        with quiet():
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # transformers raises many kinds for files that are missing or foreign
        raise SourceError(
            f"{name}: no tokenizer can be loaded from {folder} ({first_line(error)}); save one there"
        ) from error
    if len(tokenizer) <= len(set(tokenizer.all_special_ids)):  # where files lack, transformers may make an empty one
        raise SourceError(f"{name}: the tokenizer in {folder} has no words; save the model's tokenizer there")
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise SourceError(f"{name}: its tokenizer has neither a padding token nor an end token to pad with")
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load(origin: Origin, labels: Labels | None) -> tuple[Any, list[str]]:
    """The model in float32 with a head for the labels, and the names of the parameters that begin at random.

    Raises SourceError if transformers has no such model, or the weights or the tokenizer are another model's.
    """
    config, auto_name = origin.config, AUTO_CLASSES[origin.task.name]
    auto = getattr(transformers, auto_name)
    if type(config) not in auto._model_mapping and auto_name not in (getattr(config, "auto_map", None) or ()):
        raise SourceError(
            f"{origin.name}: transformers has no {auto_name} for {config.model_type}; choose another --task"
        )
    if labels is not None:
        config.id2label = dict(enumerate(labels.names))
        config.label2id = {name: index for index, name in enumerate(labels.names)}
    config.pad_token_id = origin.tokenizer.pad_token_id
    options = {"dtype": torch.float32, "trust_remote_code": origin.trust_remote_code}
    try:
        with quiet():
            if origin.from_scratch:
                model, new = auto.from_config(config, **options), []
            else:
                model, found = auto.from_pretrained(
                    origin.place, config=config, use_safetensors=True, output_loading_info=True, **options
                )
                new = sorted(found["missing_keys"])
    except Exception as error:  # whatever the values in config.json, and shapes that differ, lead to
        raise SourceError(f"{origin.name}: {auto_name} cannot be made of it ({first_line(error)})") from error
    _check(origin, model, new)
    return model, new


def _check(origin: Origin, model: Any, new: list[str]) -> None:
    sizes = {name: tensor.numel() for name, tensor in model.state_dict().items()}
    if sum(sizes.get(name, 0) for name in new) > _MOST_NEW * sum(sizes.values()):
        raise SourceError(
            f"{origin.name}: its weights lack most of {type(model).__name__}, such as {new[0]}; give the model that "
            "the configuration belongs to, or the configuration file, to train from scratch"
        )
    rows = model.get_input_embeddings().weight.shape[0]
    if len(origin.tokenizer) > rows:
        raise SourceError(
            f"{origin.name}: its tokenizer has {len(origin.tokenizer)} tokens, but the model knows {rows}"
        )


def load_teacher(name: str, pupil: Origin, labels: Labels | None) -> Any:
    """A trained model of the same task, classes and tokens. Raises SourceError if it is not that."""
    origin = open_origin(name, pupil.task.name, pupil.trust_remote_code)
    if origin.from_scratch or task_of(origin.config.architectures) != pupil.task.name:
        raise SourceError(f"{name}: is no trained model for {pupil.task.name}, which a teacher has to be")
    if labels is not None and (head := origin.head()) != labels.names:
        raise SourceError(
            f"{name}: the teacher has the classes {shown(head)}, and the model {shown(labels.names)}; "
            "train it on the same labels"
        )
    if origin.tokenizer.get_vocab() != pupil.tokenizer.get_vocab():
        raise SourceError(f"{name}: the teacher's tokenizer is another than that of {pupil.name}")
    return load(origin, labels)[0]


def counts_items(model: Any, batch: dict[str, Any]) -> bool:
    """Whether the model divides the loss of a batch by the number of labels that it is told.

    transformers takes that from the signature of `forward`, which is wrong for models such as BERT's classifiers: they
    take the number and leave it unused, and their loss would be multiplied by the micro-batches and the processes.
    """
    taken = inspect.signature(model.forward).parameters
    if "labels" not in batch or not any(each.kind == each.VAR_KEYWORD for each in taken.values()):
        return False
    inputs = {name: value for name, value in batch.items() if name in taken}
    with torch.no_grad():
        once, twice = (model(**inputs, num_items_in_batch=torch.tensor(count)).loss for count in (1, 2))
    return bool((once - twice).abs() > 0)


def check_causal(model: Any, name: str) -> None:
    """Raise SourceError if a language model sees what it is to predict, as BERT's does without is_decoder."""
    ids = torch.zeros((2, 3), dtype=torch.int64)
    ids[1, 2] = 1
    with torch.no_grad(), quiet():
        one, other = model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[:, 0]
    if (one - other).abs().max() > 0:
        raise SourceError(
            f"{name}: {type(model).__name__} sees the words that it is to predict; set is_decoder to true in its "
            "config.json, or train with --task fill-mask"
        )


def digest(model: Any) -> str:
    """The sha256 of all parameters and buffers with their names, in the order of the names."""
    found = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return found.hexdigest()
