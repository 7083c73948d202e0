"""The processes of a run that torchrun or accelerate launched, of which the first one speaks and writes."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

from bsexport.errors import BsexportError, ClusterError

T = TypeVar("T")

_PATIENCE = timedelta(days=1)  # for the slowest; whoever launched them ends all when one dies


@dataclass(frozen=True)
class Processes:
    """rank: which this one is, of `count`. here: how many of them are on this machine."""

    rank: int
    count: int
    here: int

    @classmethod
    def launched(cls) -> Processes:
        """As the environment has it: one, unless torchrun or the like set it up."""
        rank, count = (int(os.environ.get(name, alone)) for name, alone in (("RANK", "0"), ("WORLD_SIZE", "1")))
        return cls(rank, count, int(os.environ.get("LOCAL_WORLD_SIZE", count)))

    @property
    def first(self) -> bool:
        """Whether this one speaks and writes."""
        return self.rank == 0

    @property
    def threads(self) -> int | None:
        """For each process, when they share the cores of a machine; None when there is but one on it."""
        if self.here == 1:
            return None
        from bsexport_runtime.session import available_cores

        return max(1, available_cores() // self.here)

    def share(self, batches: Iterable[T]) -> Iterator[T]:
        """The batches that are this process's: every `count`-th."""
        return itertools.islice(batches, self.rank, None, self.count)

    def together(self, work: Callable[[], T]) -> list[T]:
        """What `work` gives in each process, by rank, in all of them.

        Where it raises an error that has a name, none waits for it: the others raise a ClusterError.
        """
        if self.count == 1:
            return [work()]
        from torch import distributed

        from bsexport_runtime.errors import BsexportRuntimeError

        found: list[tuple[T | None, str | None]] = [(None, None)] * self.count
        with _group():
            try:
                mine = work()
            except (BsexportError, BsexportRuntimeError) as error:
                distributed.all_gather_object(found, (None, str(error)))
                raise
            distributed.all_gather_object(found, (mine, None))
        for rank, (_, said) in enumerate(found):
            if said is not None:
                raise ClusterError(f"process {rank} of {self.count}: {said}")
        return [value for value, _ in found]  # type: ignore[misc]  # of an error is none


@contextlib.contextmanager
def _group() -> Iterator[None]:
    from torch import distributed

    distributed.init_process_group("gloo", timeout=_PATIENCE)
    try:
        yield
    finally:
        distributed.destroy_process_group()
