"""Which parameters take part in the rate, and sums over them, wherever they lie."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from bsexport.backslash import rate
from bsexport.errors import RecipeError, SourceError
from bsexport.graph.heads import is_head
from bsexport.recipe import FEWEST_WEIGHTS, NO_PROTECTION, matches, why_too_small

_GROUP = 1 << 24  # weights of a piece on an accelerator: it takes some 200 MB to compute what is computed of them
_WRAPPERS = re.compile(r"(?<![^.])(_orig_mod|_checkpoint_wrapped_module)\.")  # of torch.compile, and checkpointing


@dataclass(frozen=True)
class Weights:
    """The parameters that take part; each tied one once.

    names: of each, its first. parameters: float32, of two or more dimensions. count: of their elements, in all shards.
    """

    names: tuple[str, ...]
    parameters: tuple[nn.Parameter, ...]
    count: int

    @classmethod
    def of(
        cls,
        model: nn.Module,
        only: tuple[str, ...],
        exempt: tuple[str, ...],
        trained: Iterable[nn.Parameter] | None = None,
    ) -> Weights:
        """Those of the model's trainable floating-point parameters that pack would prune and that the globs select.

        trained: the parameters that an optimizer has, if it is known; no other takes part.
        Raises SourceError if none takes part, if one has fewer than 32 bits or holds NaN, or for a low-rank adapter;
        RecipeError for a glob that matches nothing.
        """
        names = _names(model)
        if adapters := [of[0] for of in names.values() if ".lora_" in of[0]]:
            raise SourceError(
                f"{adapters[0]}: a low-rank adapter; the weights that are packed are frozen below it, so that no rate "
                "reaches them: merge the adapter (peft: merge_and_unload) and train the whole model"
            )
        for glob in {*only, *exempt} - {NO_PROTECTION}:
            if not any(matches((glob,), of) for of in names.values()):
                first = next(iter(names.values()))[0]
                raise RecipeError(f"{glob!r} matches no parameter; their names are like {first}")
        having = None if trained is None else set(trained)
        chosen = {
            parameter: of[0]
            for parameter, of in names.items()
            if _prunable(parameter) and matches(only, of) and not _exempt(of, exempt)
            if having is None or parameter in having
        }
        if not chosen:
            raise SourceError(
                f"no parameter takes part: of {len(names)}, none is trainable, floating-point, of two dimensions and "
                f"{FEWEST_WEIGHTS} elements or more, no task head, and selected by {', '.join(only)}"
            )
        found = cls(tuple(chosen.values()), tuple(chosen), sum(parameter.numel() for parameter in chosen))
        found.check()
        return found

    def check(self) -> None:
        """Raise SourceError for weights that the rate cannot work on."""
        for name, parameter in zip(self.names, self.parameters, strict=True):
            if parameter.dtype not in (torch.float32, torch.float64):
                raise SourceError(
                    f"{name}: is {str(parameter.dtype).removeprefix('torch.')}, too coarse to add up small pulls; load "
                    "the model in float32 and train with autocast (--bf16 or --fp16)"
                )
        if len({(p.device_mesh, p.placements) if isinstance(p, DTensor) else None for p in self.parameters}) > 1:
            raise SourceError(
                "some parameters are sharded and others are not, or not alike; shard the whole model alike"
            )
        sums = self.sums()
        for name, magnitudes in zip(self.names, sums[:, 0].tolist(), strict=True):
            if not math.isfinite(magnitudes):
                raise SourceError(f"{name}: holds NaN or infinities; repair the model")
        if not float(sums[:, 1].sum()) > 0:
            raise SourceError("all weights that take part are zero: there is nothing to train under a rate")

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self.parameters[0].device

    def differentiable(self) -> list[Tensor]:
        """What of each parameter lies in this process, as a part of autograd's graph."""
        return [local(parameter) for parameter in self.parameters]

    def local(self) -> list[Tensor]:
        """What of each parameter lies in this process, without gradients, to be read or changed in place."""
        return [local(parameter.detach()) for parameter in self.parameters]

    def sizes(self) -> Tensor:
        """The number of elements of each parameter over all shards, float64 [parameters]."""
        return torch.tensor([p.numel() for p in self.parameters], dtype=torch.float64, device=self.device)

    def reduce(self, sums: Tensor) -> Tensor:
        """Sums over this process's shards become sums over all shards, in place."""
        first = self.parameters[0]
        if isinstance(first, DTensor):
            for dimension, placement in enumerate(first.placements):
                if placement.is_shard():
                    torch.distributed.all_reduce(sums, group=first.device_mesh.get_group(dimension))
        return sums

    def sums(self) -> Tensor:
        """The sums of |w| and of w^2 of each parameter, float64 [parameters, 2], over all shards."""
        magnitudes, squares = [], []
        for _, (piece,) in self.pieces():
            magnitudes += [magnitude.sum(dtype=torch.float64) for magnitude in torch._foreach_abs(piece)]
            squares += [torch.linalg.vecdot(flat, flat) for flat in map(torch.flatten, piece)]
        found = torch.stack([torch.stack(magnitudes), torch.stack(squares).double()], 1)
        sums = torch.zeros((len(self.parameters), 2), dtype=torch.float64, device=self.device)
        sums.index_add_(0, self._places, found)
        return self.reduce(sums)

    @cached_property
    def _places(self) -> Tensor:
        """The parameter's index of each part of `pieces`, on the device."""
        return torch.tensor([index for indices, _ in self.pieces() for index in indices], device=self.device)

    def pieces(self, *others: list[Tensor]) -> Iterator[tuple[list[int], list[list[Tensor]]]]:
        """The local weights in lists of parts that are worth computing together.

        others: lists of tensors like `local`, taken apart in the same way. Each list of parameters' indices comes with
        the parts of the weights, then of the others. On a processor it is one flat part that stays in the cache; on an
        accelerator some parameters whole, so that few kernels are launched and what they compute takes little memory.
        """
        sources = [self.local(), *others]
        if self.device.type != "cpu":
            yield from _groups(sources)
            return
        for index, tensors in enumerate(zip(*sources, strict=True)):
            for parts in rate.parts(*tensors):
                yield [index], [[part] for part in parts]


def _groups(sources: list[list[Tensor]]) -> Iterator[tuple[list[int], list[list[Tensor]]]]:
    """Consecutive tensors of the sources, of together about _GROUP elements."""
    begin = size = 0
    for index, tensor in enumerate(sources[0]):
        size += tensor.numel()
        if size >= _GROUP or index + 1 == len(sources[0]):
            yield list(range(begin, index + 1)), [source[begin : index + 1] for source in sources]
            begin, size = index + 1, 0


def sample(tensor: Tensor, stride: int) -> Tensor:
    """Evenly spaced elements of a tensor, flat, about one in `stride`."""
    return tensor.flatten()[:: _prime_from(stride)]


@cache
def _prime_from(number: int) -> int:
    """The next prime: no common divisor with a row's length, so that not all of a sample are of the same columns."""
    while any(number % divisor == 0 for divisor in range(2, math.isqrt(number) + 1)):
        number += 1
    return number


def _names(model: nn.Module) -> dict[nn.Parameter, list[str]]:
    """Each parameter's names in the model as it was before it was wrapped or compiled."""
    if isinstance(model, nn.parallel.DistributedDataParallel):
        model = model.module
    names: dict[nn.Parameter, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(parameter, []).append(_WRAPPERS.sub("", name))
    return names


def _prunable(parameter: nn.Parameter) -> bool:
    return parameter.requires_grad and parameter.is_floating_point() and not why_too_small(parameter.shape)


def _exempt(names: list[str], exempt: tuple[str, ...]) -> bool:
    head = NO_PROTECTION not in exempt and any(map(is_head, names))
    return head or matches(exempt, names)


def local(tensor: Any) -> Tensor:
    """What of a tensor lies in this process."""
    mine: Tensor = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    return mine
