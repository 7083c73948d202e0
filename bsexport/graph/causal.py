"""Causal language models: one graph that reads prompts and goes on token by token, over a cache of slots.

A token's keys and values are written to the slot of its position, in buffers that are input and output of the graph;
it then sees the slots up to its own, or those of its window. docs/architecture.md says why.

The model's own code is traced: its masks come from its own mask functions, asked for positions instead of places in a
row, and its attention from its own attention function.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from bsexport.errors import ExportError
from bsexport.graph.architecture import INSTEAD, Traced
from bsexport_runtime.cache import PAST, PRESENT
from bsexport_runtime.decoder import IDS, KEPT, LOGITS, POSITIONS

_log = logging.getLogger(__name__)

CHECKED = frozenset(
    {
        *("BloomForCausalLM", "CodeGenForCausalLM", "Cohere2ForCausalLM", "CohereForCausalLM", "Exaone4ForCausalLM"),
        *("FalconForCausalLM", "GPT2LMHeadModel", "GPTBigCodeForCausalLM", "GPTJForCausalLM", "GPTNeoXForCausalLM"),
        *("Gemma2ForCausalLM", "Gemma3ForCausalLM", "GemmaForCausalLM", "Glm4ForCausalLM", "GlmForCausalLM"),
        *("GraniteForCausalLM", "HeliumForCausalLM", "LlamaForCausalLM", "MistralForCausalLM", "MptForCausalLM"),
        *("NemotronForCausalLM", "OPTForCausalLM", "Olmo2ForCausalLM", "Olmo3ForCausalLM", "OlmoForCausalLM"),
        *("PersimmonForCausalLM", "Phi3ForCausalLM", "PhiForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"),
        *("SmolLM3ForCausalLM", "StableLmForCausalLM", "Starcoder2ForCausalLM"),
    }
)
"""The classes of docs/models.md: those that tests hold against transformers."""

_BY_DISTANCE = ("bloom", "mpt")
"""Model types that take no positions, since what they add to the scores follows from the slots alone (ALiBi)."""

_OWN_MASKS = ("gpt_neo",)
"""Model types that mask by tables of their own besides, in which a token's place follows from how many are given."""

_PER_HEAD = ("s_aux",)
"""What some attention functions are given for each head: then the heads of a group stay apart."""

# Sizes of the example that is traced; all stay symbolic. They differ from each other and from 0 and 1, which torch
# would take for constants.
BATCH, SEQUENCE, _LOGITS, _SLOTS = 2, 5, 3, 7


def tell_if_unchecked(model: Any, directory: str | Path, checked: Collection[str] = CHECKED) -> None:
    """Warn in the log of a model that goes the same way as those checked, without a test that it arrives."""
    name = type(model).__name__
    if name not in checked:
        _log.warning(
            f"{name} is none of the classes that were checked (docs/models.md); when it is packed, run "
            f"bsexport verify PACKAGE --against {directory}"
        )


def over_slots(model: Any, directory: Path) -> Traced:
    """The model with its forward replaced by one over slots, and the example to trace it with.

    Inputs: input_ids and position_ids int64 [batch, sequence], the latter also the slots that the tokens are written
    to; logits_to_keep int64 [batch, kept], indices along the sequence; past_key_values.{i}.key and .value float32
    [batch, heads, capacity, dims] of each layer. Outputs: logits float32 [batch, kept, vocabulary];
    present.{i}.key and .value, the past with the tokens written to it.
    Requires that the parameters are fake tensors already. Raises ExportError if the model has no such cache.
    """
    layers = _layers(model, directory)
    inputs, axes = slots_example(layers)
    model.forward = partial(_forward, model, model.forward, named(PRESENT, layers))
    return Traced(model, inputs, axes, (IDS, POSITIONS, KEPT, *named(PAST, layers)))


def slots_example(layers: list[tuple[int, int]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tokens and slots to trace a decoder with, and the axes of each that stay symbolic, by the names of its inputs.

    layers: heads and dimensions of each layer's keys and of its values, in turn.
    """
    import torch

    batch, sequence, kept, capacity = map(torch.export.Dim, ("batch", "sequence", "kept", "capacity"))
    inputs = {
        IDS: torch.ones((BATCH, SEQUENCE), dtype=torch.int64),
        POSITIONS: torch.arange(SEQUENCE).repeat(BATCH, 1),
        KEPT: torch.arange(_LOGITS).repeat(BATCH, 1),
        "past": [torch.zeros(BATCH, heads, _SLOTS, dims) for heads, dims in layers],
    }
    axes = {
        IDS: {0: batch, 1: sequence},
        POSITIONS: {0: batch, 1: sequence},
        KEPT: {0: batch, 1: kept},
        "past": [{0: batch, 2: capacity}] * len(layers),
    }
    return inputs, axes


def named(prefix: str, layers: list[tuple[int, int]]) -> list[str]:
    """The names in a graph of the keys and of the values of each layer, in turn."""
    return [f"{prefix}{layer}.{member}" for layer in range(len(layers) // 2) for member in ("key", "value")]


def _layers(model: Any, directory: Path) -> list[tuple[int, int]]:
    """Heads and dimensions of each layer's keys and of its values, in turn, as the model's code puts them in a cache.

    Raises ExportError if it keeps none, or something else.
    """
    import torch
    from transformers import DynamicCache

    name = type(model).__name__
    if (keyword := cache_keyword(model.forward)) is None:
        raise ExportError(f"{directory}: {name} takes no cache of keys and values; {INSTEAD}")
    if POSITIONS not in inspect.signature(model.forward).parameters and model.config.model_type not in _BY_DISTANCE:
        raise ExportError(
            f"{directory}: {name} takes no {POSITIONS}, so nothing tells it where tokens stand; {INSTEAD}"
        )
    if model.config.model_type in _OWN_MASKS:
        raise ExportError(f"{directory}: {name} masks by the number of tokens, not by their positions; {INSTEAD}")
    if model.get_output_embeddings() is None:
        raise ExportError(f"{directory}: {name} does not say which module makes its logits; {INSTEAD}")
    cache = DynamicCache()
    with torch.no_grad():
        model(input_ids=torch.ones((BATCH, SEQUENCE), dtype=torch.int64), use_cache=True, **{keyword: cache})
    if not len(cache.layers):
        raise ExportError(f"{directory}: {name} puts no keys and values into its cache; {INSTEAD}")
    tensors = tensors_of(cache)
    if any(tensor is None or tensor.ndim != 4 or tensor.shape[2] != SEQUENCE for tensor in tensors):
        kinds = sorted({type(layer).__name__ for layer in cache.layers})
        raise ExportError(
            f"{directory}: {name} keeps other states than keys and values of each token ({', '.join(kinds)}); {INSTEAD}"
        )
    return [(tensor.shape[1], tensor.shape[3]) for tensor in tensors]


def tensors_of(cache: Any) -> list[Any]:
    """The tensors of a transformers cache: the keys and the values of each layer, in turn; None where it has none."""
    return [getattr(layer, member, None) for layer in cache.layers for member in ("keys", "values")]


def cache_keyword(forward: Callable[..., Any]) -> str | None:
    """What the model's forward calls its cache."""
    parameters = inspect.signature(forward).parameters
    return next((name for name in ("cache", "past_key_values") if name in parameters), None)


def _forward(
    model: Any,
    forward: Callable[..., Any],
    present: list[str],
    input_ids: Any,
    position_ids: Any,
    logits_to_keep: Any,
    past: list[Any],
) -> dict[str, Any]:
    """What is traced: the model's own `forward` over a cache of slots."""
    cache = slots(past, position_ids)
    told = {POSITIONS: position_ids} if POSITIONS in inspect.signature(forward).parameters else {}
    # No slot is padding. Models with ALiBi count the slots by it; the others' use of it is dead code.
    told["attention_mask"] = input_ids.new_ones((past[0].shape[0], past[0].shape[2]))
    keyword = str(cache_keyword(forward))
    with kept_alone(model, logits_to_keep), seen_by_position(position_ids, type(model).__name__), _grouped_heads():
        outputs = forward(input_ids=input_ids, use_cache=True, **told, **{keyword: cache})
    return {LOGITS: outputs.logits, **dict(zip(present, tensors_of(cache), strict=True))}


def slots(past: list[Any], positions: Any) -> Any:
    """A transformers cache of slots that hold `past`: what is new is written to the slots of its positions."""
    import torch

    def write(held: Any, new: Any) -> Any:
        row = torch.arange(new.shape[0])[:, None, None]
        head = torch.arange(new.shape[1])[None, :, None]
        return held.index_put((row, head, positions[:, None, :]), new)

    return cache_of(past, write, lambda keys, new: keys.shape[2])


def cache_of(held: list[Any], keep: Callable[[Any, Any], Any], seen: Callable[[Any, Any], Any]) -> Any:
    """A transformers cache that holds keys and values of each layer, in turn.

    keep: what it then holds, of what it held and what is new. seen: how many places a mask has, of the keys that are
    held and the number of new ones.
    """
    from transformers.cache_utils import Cache, CacheLayerMixin

    class Layer(CacheLayerMixin):  # type: ignore[misc]
        """One layer. It says that it is empty, since positions are told."""

        is_sliding = False

        def __init__(self, keys: Any, values: Any) -> None:
            super().__init__()
            self.keys, self.values, self.is_initialized = keys, values, True

        def lazy_initialization(self, *states: Any) -> None:
            """There is nothing to make."""

        def update(self, key_states: Any, value_states: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
            self.keys, self.values = keep(self.keys, key_states), keep(self.values, value_states)
            return self.keys, self.values

        def get_seq_length(self, *args: Any) -> int:
            return 0

        def get_max_length(self) -> int:
            return -1

        get_max_cache_shape = get_max_length  # its name before 5.20

        def get_mask_sizes(self, query_length: int, *args: Any) -> tuple[Any, int]:
            return seen(self.keys, query_length), 0

    return Cache(layers=[Layer(*pair) for pair in zip(held[::2], held[1::2], strict=True)])


@contextlib.contextmanager
def kept_alone(model: Any, kept: Any) -> Iterator[None]:
    """In here, the module that makes the logits is given only the states that are kept."""
    import torch

    def pick(module: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        rows = torch.arange(kept.shape[0])[:, None]
        return (arguments[0][rows, kept], *arguments[1:])

    hook = model.get_output_embeddings().register_forward_pre_hook(pick)
    try:
        yield
    finally:
        hook.remove()


@contextlib.contextmanager
def seen_by_position(positions: Any, name: str) -> Iterator[None]:
    """In here, masks say which slots the tokens at `positions` see: bool functions of the model, turned into numbers.

    Raises ExportError at the end if the model has asked for none.
    """
    import torch
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS as MASKS

    asked = False

    def mask(*, mask_function: Any, kv_length: Any, dtype: Any = torch.float32, **others: Any) -> Any:
        nonlocal asked
        asked = True
        row = torch.arange(positions.shape[0])[:, None, None, None]
        head = torch.zeros(1, dtype=torch.int64)[:, None, None, None]
        slot = torch.arange(kv_length)[None, None, None, :]
        seen = mask_function(row, head, positions[:, None, :, None], slot)
        return torch.where(seen, torch.tensor(0, dtype=dtype), torch.tensor(torch.finfo(dtype).min, dtype=dtype))

    MASKS["eager"] = mask
    try:
        yield
    finally:
        del MASKS["eager"]
    if not asked:
        raise ExportError(f"{name} makes its masks by itself, not by transformers' masking functions; {INSTEAD}")


@contextlib.contextmanager
def _grouped_heads() -> Iterator[None]:
    """In here, heads that share keys and values are further queries of one head, so that no keys are copied.

    For models that look their attention function up where transformers keeps them; the others do as they do.
    """
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS as ATTENTIONS

    def interface(name: str, own: Callable[..., Any]) -> Callable[..., Any]:
        return partial(_grouped_attention, own, masks)

    masks: dict[tuple[int, int], tuple[Any, Any]] = {}
    ATTENTIONS.get_interface = interface
    try:
        yield
    finally:
        del ATTENTIONS.get_interface


def _grouped_attention(
    own: Callable[..., Any],
    masks: dict[tuple[int, int], tuple[Any, Any]],
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any,
    *args: Any,
    **kwargs: Any,
) -> tuple[Any, Any]:
    """The model's `own` attention function with the queries of a group in one head: float32 [batch, sequence, heads,
    dims], and no weights.

    masks: those that have been repeated for groups, behind what they were, by the identity of that, for further layers;
    kept, so that no other mask gets that identity.
    """
    batch, heads, sequence, _ = query.shape
    shared = key.shape[1]
    size = heads // shared
    if size == 1 or any(kwargs.get(name) is not None for name in _PER_HEAD):
        apart: tuple[Any, Any] = own(module, query, key, value, attention_mask, *args, **kwargs)
        return apart
    folded = query.reshape(batch, shared, size * sequence, query.shape[3])
    known = (id(attention_mask), size)
    if known not in masks:
        if attention_mask.shape[1] == heads:
            mask = attention_mask.reshape(-1, shared, size * sequence, attention_mask.shape[3])
        else:
            mask = attention_mask.repeat(1, 1, size, 1)
        masks[known] = (attention_mask, mask)
    _, mask = masks[known]
    output, _ = own(_OneHeadEach(module), folded, key, value, mask, *args, **kwargs)
    unfolded = output.reshape(batch, size, sequence, shared, output.shape[3]).permute(0, 2, 3, 1, 4)
    return unfolded.reshape(batch, sequence, heads, output.shape[3]), None


class _OneHeadEach:
    """An attention module whose query heads are as many as those of its keys."""

    num_key_value_groups = 1

    def __init__(self, module: Any) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)
