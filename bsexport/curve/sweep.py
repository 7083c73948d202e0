"""All points of some curves, in parallel through joblib, and kept as they end."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import shutil
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import joblib

from bsexport.curve.point import Point, measure_point
from bsexport.curve.record import is_curve
from bsexport.curve.subject import Prepared
from bsexport.errors import ClusterError
from bsexport.output import PARTIAL
from bsexport.working import Working

_LOST = ("TerminatedWorkerError", "KilledWorker", "NoValidWorkerError", "CommClosedError", "TimeoutError")
"""What joblib and dask raise when a worker is gone, by name: dask need not be there."""

LOOK = 0.2  # seconds between two looks at how far the points are


class Points(Working):
    """The working directory of a sweep: a file for each point that is over."""

    command: ClassVar = "curve"
    what: ClassVar = "points"
    made: ClassVar = "curve"
    others: ClassVar = frozenset({"points", "models", "ticks", "scratch"})

    def __init__(self, out: Path, *, resume: bool, force: bool) -> None:
        super().__init__(out, resume=resume, force=force, replaceable=is_curve)

    def left(self) -> Iterator[Path]:
        """The points that are over."""
        return (self.path / "points").glob("*.json")

    def kept(self) -> Iterator[Path]:
        """Those."""
        yield self.path / "points"

    def folder(self, name: str) -> Path:
        """A folder in it, made if it is not there; absolute, since workers may stand elsewhere."""
        folder = (self.path / name).absolute()
        folder.mkdir(exist_ok=True)
        return folder

    def find(self, point: Point) -> dict[str, Any] | None:
        """The figures of a point that is over."""
        path = self._path(point)
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

    def keep(self, point: Point, figures: dict[str, Any]) -> None:
        """Write the figures of a point that is over."""
        path = self._path(point)
        partial = path.with_suffix(PARTIAL)
        partial.write_text(json.dumps(figures), encoding="utf-8")
        partial.replace(path)

    def _path(self, point: Point) -> Path:
        return self.folder("points") / f"{point.key}.json"


@dataclass(frozen=True)
class Backend:
    """Where points are measured. name: a backend of joblib: "loky", processes of this machine, or "dask" or "ray".

    address: of a dask scheduler or a ray cluster. jobs: points at a time; None: as many as there are cores, or workers.
    threads: of each.
    """

    name: str = "loky"
    address: str | None = None
    jobs: int | None = None
    threads: int = 1

    @contextlib.contextmanager
    def parallel(self) -> Iterator[joblib.Parallel]:
        """joblib's Parallel on it, which hands results over as they come. Raises ClusterError if there is none."""
        with self._connected():
            yield joblib.Parallel(
                n_jobs=self.jobs or -1, return_as="generator_unordered", batch_size=1, pre_dispatch="all"
            )

    @contextlib.contextmanager
    def _connected(self) -> Iterator[None]:
        if self.name == "loky":
            with _ending_quietly(), joblib.parallel_config("loky"):
                yield
        elif self.name == "dask":
            with _dask(self.address), joblib.parallel_config("dask"):
                yield
        else:
            _ray(self.address)
            with joblib.parallel_config("ray"):
                yield


@contextlib.contextmanager
def _ending_quietly() -> Iterator[None]:
    """When a sweep is stopped, joblib warns that tasks are cancelled, and its thread that looks for them ends in a
    traceback: neither is news to whoever stopped it."""
    before = threading.excepthook

    def hook(ended: threading.ExceptHookArgs) -> None:
        if ended.thread is None or ended.thread.name != "ExecutorManagerThread" or ended.exc_type is not KeyError:
            before(ended)

    threading.excepthook = hook
    # joblib's process that cleans up tells of what a stopped sweep left to it; it reads this when it begins.
    os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"joblib\.")
            yield
    finally:
        threading.excepthook = before


@contextlib.contextmanager
def _dask(address: str | None) -> Iterator[None]:
    try:
        from distributed import Client
    except ImportError as error:
        raise ClusterError("--backend dask needs dask's distributed; run pip install distributed") from error
    try:
        client: Any = Client(address, timeout=10)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise ClusterError(f"--scheduler {address}: no dask scheduler answers there ({error})") from error
    with client:
        yield


def _ray(address: str | None) -> None:
    try:
        import ray
        from ray.util.joblib import register_ray
    except ImportError as error:
        raise ClusterError("--backend ray needs ray; run pip install ray") from error
    try:
        ray.init(address=address, ignore_reinit_error=True, log_to_driver=False)
    except (ConnectionError, ValueError) as error:
        raise ClusterError(f"--scheduler {address}: no ray cluster answers there ({error})") from error
    register_ray()


def sweep(
    models: Sequence[Prepared],
    points: Sequence[Point],
    working: Points,
    backend: Backend,
    progress: Callable[[str, float], None],
) -> dict[Point, dict[str, Any]]:
    """The figures of every point; those that an earlier run measured are not measured again."""
    found = {point: figures for point in points if (figures := working.find(point)) is not None}
    todo = [point for point in points if point not in found]
    ticks = working.folder("ticks")
    total = sum(len(models[point.model].batches) for point in todo)
    with _watching(ticks, total, progress), _scratch(working, backend) as scratch, backend.parallel() as parallel:
        tasks = (
            joblib.delayed(_measure)(models[point.model], point, backend.threads, ticks, scratch) for point in todo
        )
        try:
            with contextlib.closing(parallel(tasks)) as results:
                for point, figures in results:
                    working.keep(point, figures)
                    found[point] = figures
        except Exception as error:
            if type(error).__name__ not in _LOST:
                raise
            raise ClusterError(
                f"a process that measured a point was lost ({type(error).__name__}), as happens where memory runs out; "
                "what is done is kept: go on with --resume, and fewer at a time"
            ) from error
    return found


def _measure(
    model: Prepared, point: Point, threads: int, ticks: Path, scratch: Path | None
) -> tuple[Point, dict[str, Any]]:
    if multiprocessing.parent_process() is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the sweep's own ends its workers
    return point, measure_point(model, point, threads, ticks / point.key, scratch)


@contextlib.contextmanager
def _scratch(working: Points, backend: Backend) -> Iterator[Path | None]:
    """A folder for the packages of points, since a process that is stopped does not remove its own; another machine's
    own folder is nearer to it."""
    if backend.name != "loky":
        yield None
        return
    scratch = working.folder("scratch")
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextlib.contextmanager
def _watching(ticks: Path, total: int, progress: Callable[[str, float], None]) -> Iterator[None]:
    """Show, while it lasts, how many of all batches are done."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(LOOK):
            done = sum(file.stat().st_size for file in ticks.iterdir())
            progress("measuring", done / max(total, 1))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
