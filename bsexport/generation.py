"""Go on with a text: a language model's package, its tokenizer, and what both took."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bsexport.errors import SourceError
from bsexport.run import TOKENIZER_FILES, from_package
from bsexport_runtime.generate import stream
from bsexport_runtime.package import Package
from bsexport_runtime.session import load
from bsexport_runtime.text import TextStream

NEW_TOKENS = 64  # unless told otherwise


@dataclass(frozen=True)
class Generated:
    """What a package made of a prompt.

    text, tokens: what is new. prompt_tokens: how many the prompt has. prompt_seconds: until the first new token was
    known; seconds: from then until the last one was.
    """

    text: str
    tokens: list[int]
    prompt_tokens: int
    prompt_seconds: float
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return asdict(self)

    @property
    def speed(self) -> str:
        """How fast it went, in a line."""
        prompt = f"prompt: {self.prompt_tokens} tokens, {_per_second(self.prompt_tokens, self.prompt_seconds)}"
        return f"{prompt}; text: {len(self.tokens)} tokens, {_per_second(len(self.tokens) - 1, self.seconds)}"


def run_prompt(
    path: Path,
    prompt: str,
    *,
    mode: str | None,
    max_new_tokens: int | None,
    options: Mapping[str, Any],
    show: Callable[[str], None] = lambda text: None,
) -> Generated:
    """Generate what follows the prompt, or what an encoder-decoder makes of it, with the tokenizer of the package.

    mode: of bsexport_runtime.load. max_new_tokens: None: NEW_TOKENS, or as many as the model has positions left for.
    options: of bsexport_runtime.stream. show: is given the new text as it comes.
    Raises SourceError if the package is of no language model or has no tokenizer, or the prompt makes no tokens; and
    what the runtime raises.
    """
    package = Package(path)
    tokenizer = from_package(package, "AutoTokenizer", "tokenizer", TOKENIZER_FILES)
    if not (ids := tokenizer.encode(prompt)):
        raise SourceError("the prompt makes no tokens; give some text to go on with")
    session = load(path, mode=mode)
    if (language := session.language) is None:
        task = package.manifest.get("task") or "another task"
        raise SourceError(f"{path}: is for {task}, and a language model goes on with a prompt; give --text or --image")
    if max_new_tokens is None:
        left = None if session.encoder is not None or language.positions is None else language.positions - len(ids)
        max_new_tokens = NEW_TOKENS if left is None else max(1, min(NEW_TOKENS, left))

    def decode(tokens: Any) -> str:
        return str(tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    answer = TextStream(decode, ids if session.encoder is None else ())
    tokens: list[int] = []
    parts: list[str] = []
    start = first = last = time.perf_counter()
    for (token,) in stream(session, ids, max_new_tokens, **options):
        last = time.perf_counter()
        first = last if not tokens else first
        tokens.append(int(token))
        parts.append(answer.add(tokens[-1]))
        show(parts[-1])
    parts.append(answer.end())
    show(parts[-1])
    return Generated("".join(parts), tokens, len(ids), first - start, last - first)


def _per_second(tokens: int, seconds: float) -> str:
    return f"{tokens / seconds:.1f} tokens/s" if tokens and seconds else "too few to tell the speed"
