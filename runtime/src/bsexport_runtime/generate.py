"""Generate text: the tokens that follow prompts, from the session of a language model. numpy only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from bsexport_runtime.decoder import Decoder, Logits, Tokens, vocabulary_of
from bsexport_runtime.encoder import encode
from bsexport_runtime.errors import BsexportRuntimeError
from bsexport_runtime.language import Language
from bsexport_runtime.sampling import Sampler

CHUNK = 128  # tokens of a prompt at a time; 256 are a twelfth faster, and take twice the memory beside the cache

Ids = Sequence[int] | Sequence[Sequence[int]] | npt.NDArray[Any]


def generate(
    session: ort.InferenceSession,
    ids: Ids,
    max_new_tokens: int,
    *,
    callback: Callable[[Tokens], None] = lambda tokens: None,
    **options: Any,
) -> Tokens:
    """The tokens that follow each prompt: int64 [batch, new], `new` at most max_new_tokens.

    Everything else is as for `stream`, which hands the tokens out one by one; so does `callback`, which is called with
    the next token of each row, int64 [batch], as soon as they are known.
    """
    found = []
    for tokens in stream(session, ids, max_new_tokens, **options):
        callback(tokens)
        found.append(tokens)
    return np.stack(found, axis=1)


def stream(
    session: ort.InferenceSession,
    ids: Ids,
    max_new_tokens: int,
    *,
    attention_mask: npt.NDArray[Any] | None = None,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    repetition_penalty: float = 1.0,
    seed: int | Sequence[int] | None = None,
    stop_tokens: int | Sequence[int] | None = None,
    pad_token: int | None = None,
    chunk: int = CHUNK,
) -> Iterator[Tokens]:
    """An iterator over the tokens that follow each prompt, as they come: int64 [batch], the next one of each row.

    session: of a causal language model or of an encoder-decoder, from bsexport_runtime.load in any mode.
    ids: one prompt, or a batch of prompts of any lengths: a sequence of sequences, or an array [batch, sequence].
    Of an encoder-decoder they are the sources, such as texts to translate: what it makes of one begins with the token
    that the package's model begins with, which is not told.
    attention_mask: for an array: 1 where a prompt is, 0 where it is padded, on whichever side.
    temperature, top_k, top_p, repetition_penalty, seed: as for `Sampler`. They mean what they mean to transformers'
    generate, but that temperature 0, the default, takes the likeliest token (do_sample=False there).
    stop_tokens: a row ends with the first of them, and holds pad_token from then on; the iterator ends with the last
    row. None: those that the package's model has; () for none.
    pad_token: None: the model's, or else the first stop token, or 0.
    chunk: tokens of a prompt that go through the model at once; what it takes beside weights and cache grows with it.

    The cache grows with the text, and no step copies it. Equal arguments give equal tokens, in any mode and batch,
    where logits do not come so close to each other that the order of sums decides.

    Raises BsexportRuntimeError before anything runs for a session that is no language model, prompts that are empty or
    have tokens beyond the vocabulary, more tokens than the model has positions, and options that make no sense; while
    it runs if logits are not numbers, or if there is too little memory; and what the session's run raises.
    """
    vocabulary = vocabulary_of(session)
    language = getattr(session, "language", None) or Language()
    prompts = _prompts(ids, attention_mask, vocabulary)
    encoder = getattr(session, "encoder", None)
    _check_sizes(max(map(len, prompts)), max_new_tokens, chunk, language, apart=encoder is not None)
    stops = language.stop_tokens if stop_tokens is None else tuple(np.atleast_1d(stop_tokens).tolist())
    pad = next((token for token in (pad_token, language.pad_token, *stops) if token is not None), 0)
    sampler = Sampler(
        temperature=temperature, top_k=top_k, top_p=top_p, repetition_penalty=repetition_penalty, seed=seed
    )
    if encoder is None:
        language, begun = replace(language, first_token=None, last_token=None, never_tokens=()), prompts
    else:
        begun = [_start(language, vocabulary)] * len(prompts)
    sampler.begin(begun, vocabulary)
    decoder = Decoder(session, len(prompts), None if encoder is None else encode(encoder, prompts))
    return _tokens(decoder, begun, max_new_tokens, sampler, replace(language, stop_tokens=stops), pad, chunk)


def _tokens(
    decoder: Decoder,
    prompts: Sequence[Tokens],
    most: int,
    sampler: Sampler,
    language: Language,
    pad: int,
    chunk: int,
) -> Iterator[Tokens]:
    ended: set[int] = set()  # rows
    logits = decoder.prefill(prompts, chunk)
    for left in reversed(range(most)):
        if language.never_tokens:
            logits[:, language.never_tokens] = -np.inf
        if left == most - 1:
            _force(logits, language.first_token)
        if left == 0:
            _force(logits, language.last_token)
        tokens = sampler.choose(logits)
        shown = tokens.copy()
        shown[list(ended)] = pad  # which need not be one of the model's: it goes on with what it chose
        yield shown
        ended.update(row for row, token in enumerate(tokens.tolist()) if token in language.stop_tokens)
        if not left or len(ended) == len(prompts):
            return
        logits = decoder.step(tokens)


def _force(logits: Logits, token: int | None) -> None:
    """Let nothing but the token be likely, unless it is None."""
    if token is not None:
        logits[:] = -np.inf
        logits[:, token] = 0


def _start(language: Language, vocabulary: int) -> Tokens:
    """What a decoder begins with. Raises BsexportRuntimeError if that is not told, or a token told is beyond the
    vocabulary."""
    if language.start_token is None:
        raise BsexportRuntimeError(
            "the package names no token that its decoder begins with, expected decoder_start_token_id in config.json; "
            "pack the model again with one"
        )
    for token in (language.start_token, language.first_token, language.last_token, *language.never_tokens):
        if token is not None and token >= vocabulary:
            raise BsexportRuntimeError(
                f"the package names the token {token}, expected 0 to {vocabulary - 1}; pack the model again with a "
                "config.json and a generation_config.json of its own"
            )
    return np.array([language.start_token])


def _prompts(ids: Ids, mask: npt.NDArray[Any] | None, vocabulary: int) -> list[Tokens]:
    """Each prompt's tokens, int64, without padding."""
    try:
        prompts = _rows(ids, mask)
    except (TypeError, ValueError) as error:
        raise BsexportRuntimeError(
            "ids is no prompt and no batch of them, expected numbers of tokens or rows of them; with an attention_mask "
            "an array [batch, sequence]"
        ) from error
    if not prompts:
        raise BsexportRuntimeError("there is no prompt, expected at least one")
    for row, prompt in enumerate(prompts):
        if prompt.ndim != 1 or not prompt.size:
            raise BsexportRuntimeError(f"prompt {row} has the shape {list(prompt.shape)}, expected at least one token")
        if not np.issubdtype(prompt.dtype, np.integer):
            raise BsexportRuntimeError(f"prompt {row} is {prompt.dtype}, expected the numbers of tokens")
        if not 0 <= prompt.min() <= prompt.max() < vocabulary:
            wrong = int(prompt[(prompt < 0) | (prompt >= vocabulary)][0])
            raise BsexportRuntimeError(
                f"prompt {row} has the token {wrong}, expected 0 to {vocabulary - 1}; the tokenizer may be another "
                "model's"
            )
    return [prompt.astype(np.int64) for prompt in prompts]


def _rows(ids: Ids, mask: npt.NDArray[Any] | None) -> list[npt.NDArray[Any]]:
    """The rows of ids, those with a mask without what it leaves out. Raises TypeError or ValueError if there are none,
    BsexportRuntimeError for a mask of another shape."""
    if mask is None:
        rows = [ids] if len(ids) and np.ndim(ids[0]) == 0 else ids
        return [np.asarray(row) for row in rows]
    array, mask = np.atleast_2d(ids), np.atleast_2d(mask)
    if array.shape != mask.shape:
        raise BsexportRuntimeError(
            f"attention_mask has the shape {list(mask.shape)}, expected that of ids, {list(array.shape)}"
        )
    return [row[kept != 0] for row, kept in zip(array, mask, strict=True)]


def _check_sizes(longest: int, most: int, chunk: int, language: Language, *, apart: bool) -> None:
    """Raise BsexportRuntimeError for sizes below 1, or beyond the model's positions. apart: of sources and of texts."""
    for name, size in (("max_new_tokens", most), ("chunk", chunk)):
        if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < 1:
            raise BsexportRuntimeError(f"{name} is {size!r}, expected a number of tokens above 0")
    if language.positions is None:
        return
    if apart and max(longest, most) > language.positions:
        raise BsexportRuntimeError(
            f"a source of {longest} tokens and {most} new ones: the model has {language.positions} positions for "
            "either; ask for fewer new tokens, or shorten the source"
        )
    if not apart and longest >= language.positions:
        raise BsexportRuntimeError(
            f"a prompt of {longest} tokens: the model has {language.positions} positions; shorten the prompt"
        )
    if not apart and longest + most > language.positions:
        raise BsexportRuntimeError(
            f"a prompt of {longest} tokens and {most} new ones are {longest + most}, the model has "
            f"{language.positions} positions; ask for fewer new tokens, or shorten the prompt"
        )
