"""A package to measure: what its graph takes and gives, and the tokenizer or image processor that it carries."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from bsexport.errors import SourceError
from bsexport.run import CONFIG, PROCESSOR_FILES, TOKENIZER_FILES, config_of, from_package, guess_task
from bsexport_runtime.language import read_language
from bsexport_runtime.package import Package
from bsexport_runtime.session import Session

LONGEST = 128  # tokens, unless told otherwise
LONGEST_CAUSAL = 512  # and of a causal language model, whose perplexity depends on it
_NO_LIMIT = 1 << 30  # tokenizers without a limit say 1e30


class Subject:
    """An opened package and a session of it.

    inputs, outputs: of the graph, shapes by name, as onnxruntime gives them.
    """

    def __init__(self, package: Package, session: Session) -> None:
        self.package = package
        self.config: dict[str, Any] = config_of(package)
        self.inputs: dict[str, list[Any]] = {value.name: value.shape for value in session.get_inputs()}
        self.outputs: dict[str, list[Any]] = {value.name: value.shape for value in session.get_outputs()}

    @property
    def task(self) -> str:
        """The pipeline that it was exported for; of an .onnx file, what its outputs are named for."""
        return self.package.manifest.get("task") or guess_task(self.outputs, self.config)

    @cached_property
    def tokenizer(self) -> Any:
        """Its tokenizer, through transformers. Raises SourceError if there is none."""
        tokenizer = from_package(self.package, "AutoTokenizer", "tokenizer", TOKENIZER_FILES)
        if tokenizer.pad_token is None:  # masked where it stands, so that any token will do
            tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
        return tokenizer

    @cached_property
    def processor(self) -> Any:
        """Its image processor, through transformers. Raises SourceError if there is none."""
        return from_package(self.package, "AutoImageProcessor", "image processor", PROCESSOR_FILES)

    def max_length(self, wanted: int | None, longest: int = LONGEST) -> int:
        """Tokens to cut at: what is wanted, else `longest` or what the model takes. Raises SourceError beyond that."""
        limit = min(self.tokenizer.model_max_length, read_language(self.package).positions or _NO_LIMIT)
        if wanted is not None and wanted > limit:
            raise SourceError(f"{self.package.path}: --max-length {wanted}: the model takes {limit} tokens at most")
        return wanted or min(longest, limit)

    def head(self) -> tuple[str, ...]:
        """Names of the classes that its head has, by id. Raises SourceError if nothing says how many."""
        names = self.config.get("id2label")
        if names:
            return tuple(names[key] for key in sorted(names, key=int))
        count = self.outputs.get("logits", [None])[-1]
        if not isinstance(count, int):
            raise SourceError(
                f"{self.package.path}: neither its {CONFIG} nor its graph says how many classes its head has; "
                f"put the model's {CONFIG} beside it"
            )
        return tuple(f"LABEL_{index}" for index in range(count))
