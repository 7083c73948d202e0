"""Encoder-decoders: the encoder's graph, and the decoder's over a cache of slots, of one model.

What a decoder's layers project from the encoder's states to attend to stays the same for a whole text, so that the
encoder's graph ends in those keys and values, and the decoder's begins with them.

As with causal models (graph/causal.py), the model's own code is traced. Where it counts positions along a row, in
tables of positions and in relative biases, it is told those of the tokens.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from bsexport.errors import ExportError
from bsexport.graph.architecture import INSTEAD, Traced, as_it_is
from bsexport.graph.causal import (
    BATCH,
    SEQUENCE,
    cache_keyword,
    cache_of,
    kept_alone,
    named,
    seen_by_position,
    slots,
    slots_example,
    tensors_of,
)
from bsexport_runtime.cache import PAST, PRESENT
from bsexport_runtime.decoder import IDS, KEPT, LOGITS, POSITIONS
from bsexport_runtime.encoder import CROSS, MASK

CHECKED = frozenset(
    {
        *("BartForConditionalGeneration", "MBartForConditionalGeneration", "MT5ForConditionalGeneration"),
        *("MarianMTModel", "PegasusForConditionalGeneration", "T5ForConditionalGeneration"),
        "UMT5ForConditionalGeneration",
    }
)
"""The classes of encoder-decoders in docs/models.md: those that tests hold against transformers."""

_SOURCE = 6  # of the example that is traced; another size than those of causal.py


def decoder(model: Any, directory: Path) -> Traced:
    """The decoder over slots, with the example to trace it with.

    Inputs: those of a causal model's graph (graph/causal.py), then attention_mask int64 [batch, source], the encoder's,
    and cross_key_values.{i}.key and .value float32 [batch, heads, source, dims] of each layer, what the encoder's
    graph gives. Outputs: logits float32 [batch, kept, vocabulary]; present.{i}.key and .value.
    Requires that the parameters are fake tensors already. Raises ExportError if the model is not as expected.
    """
    import torch

    own, cross = _layers(model, directory)
    _check_positions(model, directory)
    inputs, axes = slots_example(own)
    batch, source = axes[IDS][0], torch.export.Dim("source")
    inputs |= {
        MASK: torch.ones((BATCH, _SOURCE), dtype=torch.int64),
        "cross": [torch.zeros(BATCH, heads, _SOURCE, dims) for heads, dims in cross],
    }
    axes |= {MASK: {0: batch, 1: source}, "cross": [{0: batch, 2: source}] * len(cross)}
    model.forward = partial(_decode, model, _own_forward(model), named(PRESENT, own), _buckets(model))
    return Traced(model, inputs, axes, (IDS, POSITIONS, KEPT, *named(PAST, own), MASK, *named(CROSS, cross)))


def encoder(model: Any, directory: Path) -> Traced:
    """The encoder with the decoder's projections of its states, and the example to trace it with.

    Inputs: input_ids and attention_mask int64 [batch, source]. Outputs: cross_key_values.{i}.key and .value float32
    [batch, heads, source, dims] of each of the decoder's layers.
    Requires and raises as `decoder`.
    """
    import torch

    _, cross = _layers(model, directory)
    batch, source = map(torch.export.Dim, ("batch", "source"))
    ids = torch.ones((BATCH, _SOURCE), dtype=torch.int64)
    axes = {name: {0: batch, 1: source} for name in (IDS, MASK)}
    model.forward = partial(_encode, model, _own_forward(model), named(CROSS, cross), _buckets(model))
    return Traced(model, {IDS: ids, MASK: ids.clone()}, axes, (IDS, MASK))


def encoder_alone(model: Any, directory: Path) -> Traced:
    """The encoder of a model whose decoder has been taken away: what it takes, and its last_hidden_state.

    Raises ExportError if it takes something else than architecture.as_it_is knows.
    """
    part = model.get_encoder()
    for module, (name, function) in _told(part, None, _buckets(part)).items():
        setattr(module, name, function)
    model.forward, model.main_input_name = part.forward, part.main_input_name
    return as_it_is(model, directory)


def _own_forward(model: Any) -> Callable[..., Any]:
    """The forward of the model's class: the model's may be the other graph's."""
    return partial(type(model).forward, model)


def _layers(model: Any, directory: Path) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Heads and dimensions of each layer's keys and of its values, in turn: of the decoder's own, and of the encoder's.

    Raises ExportError if the model's code puts something else into its caches.
    """
    import torch
    from transformers import DynamicCache, EncoderDecoderCache

    name = type(model).__name__
    forward = _own_forward(model)
    if (keyword := cache_keyword(type(model).forward)) is None:
        raise ExportError(f"{directory}: {name} takes no cache of keys and values; {INSTEAD}")
    if model.get_output_embeddings() is None:
        raise ExportError(f"{directory}: {name} does not say which module makes its logits; {INSTEAD}")
    cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
    source, target = (torch.ones((BATCH, length), dtype=torch.int64) for length in (_SOURCE, SEQUENCE))
    with torch.no_grad():
        forward(input_ids=source, attention_mask=source, decoder_input_ids=target, use_cache=True, **{keyword: cache})
    found = []
    for part, length in ((cache.self_attention_cache, SEQUENCE), (cache.cross_attention_cache, _SOURCE)):
        tensors = tensors_of(part)
        if not tensors or any(each is None or each.ndim != 4 or each.shape[2] != length for each in tensors):
            raise ExportError(
                f"{directory}: {name} keeps other states than keys and values of each token of source and target; "
                + INSTEAD
            )
        found.append([(each.shape[1], each.shape[3]) for each in tensors])
    return found[0], found[1]


def _check_positions(model: Any, directory: Path) -> None:
    """Raise ExportError unless the decoder's tokens learn where they stand in a way that can be told to them."""
    import torch

    part = model.get_decoder()
    if not _biased(part) and not isinstance(getattr(part, "embed_positions", None), torch.nn.Embedding):
        raise ExportError(
            f"{directory}: {type(part).__name__} has neither a table of positions (embed_positions) nor relative "
            f"biases (compute_bias), so nothing tells it where tokens stand; {INSTEAD}"
        )


def _biased(part: Any) -> list[Any]:
    """The attention modules that add a bias by the distance of two tokens."""
    return [module for module in part.modules() if getattr(module, "has_relative_attention_bias", False)]


def _decode(
    model: Any,
    forward: Callable[..., Any],
    present: list[str],
    buckets: dict[Any, Any],
    input_ids: Any,
    position_ids: Any,
    logits_to_keep: Any,
    past: list[Any],
    attention_mask: Any,
    cross: list[Any],
) -> dict[str, Any]:
    """What is traced of the decoder: the model's own `forward` after its encoder."""
    import torch
    from transformers import EncoderDecoderCache

    own = slots(past, position_ids)
    cache = EncoderDecoderCache(own, _projected(cross))
    cache.is_updated = dict.fromkeys(range(len(own.layers)), True)
    seen = torch.where(attention_mask[:, None, None, :] != 0, 0.0, torch.finfo(torch.float32).min)
    part = model.get_decoder()
    with (
        kept_alone(model, logits_to_keep),
        seen_by_position(position_ids, type(model).__name__),
        _positions_told(part, position_ids, buckets),
    ):
        outputs = forward(
            encoder_outputs=(cross[0],),  # of which only the keys and values are read, which are there already
            attention_mask=seen,
            decoder_input_ids=input_ids,
            use_cache=True,
            **{str(cache_keyword(forward)): cache},
        )
    return {LOGITS: outputs.logits, **dict(zip(present, tensors_of(own), strict=True))}


def _encode(
    model: Any,
    forward: Callable[..., Any],
    names: list[str],
    buckets: dict[Any, Any],
    input_ids: Any,
    attention_mask: Any,
) -> dict[str, Any]:
    """What is traced of the encoder: the model's own `forward` up to what the decoder projects of its states.

    The decoder is given a token, all else of which is dead code.
    """
    from transformers import EncoderDecoderCache

    own, cross = (_projected([None] * len(names)) for _ in range(2))
    with _positions_told(model.get_encoder(), None, buckets):
        forward(
            input_ids=input_ids,
            attention_mask=attention_mask,
            decoder_input_ids=input_ids[:, :1],
            use_cache=True,
            **{str(cache_keyword(forward)): EncoderDecoderCache(own, cross)},
        )
    return dict(zip(names, tensors_of(cross), strict=True))


def _projected(given: list[Any]) -> Any:
    """A transformers cache of keys and values that are there once for all: given, or kept when they are first made."""
    return cache_of(given, lambda held, new: new, lambda keys, new: new)


def _buckets(model: Any) -> dict[Any, Any]:
    """For each attention module with relative biases: which of them two tokens have, by distance: int64 [2 * reach + 1]
    from -reach to reach, beyond which it is that of the ends.

    As a table, so that no logarithm that another library rounds otherwise puts a token into the next bucket.
    """
    return {module: _bucket_table(module) for module in _biased(model)}


def _bucket_table(module: Any) -> Any:
    import torch

    class Number(torch.nn.Module):  # type: ignore[misc]
        """In the place of the table of biases: the number of the bucket itself."""

        def forward(self, buckets: Any) -> Any:
            return buckets[..., None]

    reach, biases = module.relative_attention_max_distance, module.relative_attention_bias
    module.relative_attention_bias = Number()
    try:  # of one token and those before it, then of one and those after it
        before = module.compute_bias(reach + 1, 1, torch.device("cpu"))[0, 0, :, 0]
        after = module.compute_bias(1, reach + 1, torch.device("cpu"))[0, 0, 0, :]
    finally:
        module.relative_attention_bias = biases
    return torch.cat([before.flip(0), after[1:]])


@contextlib.contextmanager
def _positions_told(part: Any, positions: Any | None, buckets: dict[Any, Any]) -> Iterator[None]:
    """In here, an encoder or a decoder takes the positions of its tokens as they are told; None: places in the row."""
    told = _told(part, positions, buckets)
    for module, (name, function) in told.items():
        setattr(module, name, function)
    try:
        yield
    finally:
        for module, (name, _) in told.items():
            delattr(module, name)


def _told(part: Any, positions: Any | None, buckets: dict[Any, Any]) -> dict[Any, tuple[str, Callable[..., Any]]]:
    """Modules of an encoder or a decoder whose method of that name is to be replaced."""
    told: dict[Any, tuple[str, Callable[..., Any]]] = {
        module: ("compute_bias", partial(_bias, module, buckets[module], positions)) for module in _biased(part)
    }
    table = getattr(part, "embed_positions", None)
    if table is not None and positions is not None:
        told[table] = ("forward", partial(_embedded, table, positions))
    return told


def _embedded(table: Any, positions: Any, *args: Any, **kwargs: Any) -> Any:
    """The rows of a table of positions: float32 [batch, sequence, width]."""
    import torch

    return torch.nn.functional.embedding(positions + getattr(table, "offset", 0), table.weight)


def _bias(module: Any, table: Any, positions: Any | None, queries: int, keys: int, *args: Any, **kwargs: Any) -> Any:
    """The bias of tokens at `positions` to the first `keys` slots: float32 [batch or 1, heads, queries, keys]."""
    import torch

    if positions is None:
        positions = torch.arange(queries)[None, :]
    reach = table.shape[0] // 2
    distances = torch.arange(keys)[None, None, :] - positions[:, :, None]
    numbers = table[distances.clamp(-reach, reach) + reach]
    return module.relative_attention_bias(numbers).permute(0, 3, 1, 2)
