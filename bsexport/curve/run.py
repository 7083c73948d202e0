"""curve(): the straight line from models and data to curves. Read this first."""

from __future__ import annotations

import platform
import shlex
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bsexport.curve.device import measure_on_device
from bsexport.curve.findings import findings
from bsexport.curve.page import PAGE, write_page
from bsexport.curve.plot import write_plots
from bsexport.curve.point import Point
from bsexport.curve.record import DEPENDENCIES, FORMAT, RECORD, TABLE, VERSION, write_csv
from bsexport.curve.subject import Prepared, prepare
from bsexport.curve.sweep import Backend, Points, sweep
from bsexport.errors import ClusterError, SourceError
from bsexport.evaluate.examples import Asked
from bsexport.pipeline import Progress
from bsexport.processes import Processes
from bsexport.recipe import Recipe, step_text
from bsexport.record import versions, write_record
from bsexport.source import default_name, is_onnx, open_source
from bsexport.tasks.data import Data, read_data


@dataclass(frozen=True)
class Settings:
    """What curve is told to do.

    models: as pack takes them. data, split: as tasks.data.read_data takes them. grids: for each model, ratio and step
    of each point. recipe: what all points share. asked: see evaluate. batch_size: examples that run together.
    bench: whether load time, memory and latency of each point are measured, too.
    out: the directory to appear; resume, force: see working.
    """

    models: tuple[str, ...]
    data: str
    split: str
    grids: tuple[tuple[tuple[float, float], ...], ...]
    recipe: Recipe
    asked: Asked
    batch_size: int
    out: Path
    backend: Backend
    bench: bool = False
    resume: bool = False
    force: bool = False
    trust_remote_code: bool = False


def curve(settings: Settings, progress: Progress = lambda stage, share: None) -> dict[str, Any]:
    """Measure every point and write the directory; returns the record that is in it as curve.json.

    Raises BsexportError. What was measured till then is kept in a working directory, see working.
    """
    if (launched := Processes.launched().count) > 1:
        raise ClusterError(
            f"{launched} processes were started, but curve starts its own: leave torchrun out, and give --jobs, or "
            "--backend dask on a cluster"
        )
    working = Points(settings.out, resume=settings.resume, force=settings.force)
    working.check()
    with working:
        progress("reading", 0)
        data = read_data(settings.data, settings.split, working.cache)
        models = [_prepare(settings, index, data, working, progress) for index in range(len(settings.models))]
        _check_same_measure(models)
        working.begin(_decisive(settings, data, models))
        points = [
            Point(index, recipe)
            for index, grid in enumerate(settings.grids)
            for recipe in (None, *(replace(settings.recipe, prune=prune, step=step) for prune, step in grid))
        ]
        measured = sweep(models, points, working, settings.backend, progress)
        found = {point: dict(measured[point]) for point in points}
        if settings.bench:
            measure_on_device(models, found, working, settings.backend.threads, progress)
        else:
            for figures in found.values():
                figures.pop("bench", None)  # of an earlier run that was asked for it
        record = _record(settings, data, models, found)
        folder = working.output
        folder.mkdir()
        write_record(folder / RECORD, record)
        write_csv(folder / TABLE, record)
        write_plots(folder, record)
        write_page(folder / PAGE, record)
        working.publish()
    return record


def _prepare(settings: Settings, index: int, data: Data, working: Points, progress: Progress) -> Prepared:
    model = settings.models[index]
    task = _task_of_export(model, settings.asked)
    source = open_source(model, task=task, trust_remote_code=settings.trust_remote_code)
    return prepare(
        names(settings.models)[index],
        source,
        data,
        settings.asked,
        settings.batch_size,
        working.folder("models") / str(index),
        settings.backend.threads,
        progress,
    )


def names(models: tuple[str, ...]) -> list[str]:
    """A name for each model: its base name, or where that is another's, too, what the user typed."""
    short = [default_name(model) for model in models]
    return [model if short.count(name) > 1 else name for model, name in zip(models, short, strict=True)]


def _check_same_measure(models: list[Prepared]) -> None:
    first = models[0]
    for other in models[1:]:
        if other.measure.name != first.measure.name or other.examples != first.examples:
            raise SourceError(
                f"{other.name}: is measured by {other.measure.name} on {other.examples} examples, but {first.name} by "
                f"{first.measure.name} on {first.examples}; overlay models of one task and one tokenizer"
            )


def _decisive(settings: Settings, data: Data, models: list[Prepared]) -> dict[str, Any]:
    """What decides the figures of a point, but for the grid: a resumed sweep may have another."""
    return {
        "models": [{"name": model.name, "sha256": model.sha256, "measure": model.measure.name} for model in models],
        "data": {
            "name": _written(data.name),
            "split": "" if Path(data.name).is_file() else data.split,
            "sha256": data.sha256,
        },
        "asked": asdict(settings.asked),
        "batch_size": settings.batch_size,
        "recipe": {key: value for key, value in settings.recipe.to_json().items() if key not in ("prune", "step")},
        "versions": {**versions(DEPENDENCIES), "python": platform.python_version()},
    }


def _record(
    settings: Settings, data: Data, models: list[Prepared], found: dict[Point, dict[str, Any]]
) -> dict[str, Any]:
    primary = models[0].measure.primary
    record = {
        "format": FORMAT,
        "version": VERSION,
        **_decisive(settings, data, models),
        "examples": models[0].examples,
        "columns": models[0].columns,
        "measure": models[0].measure.name,
        "primary": primary,
        "models": [],
    }
    for index, (model, typed) in enumerate(zip(models, settings.models, strict=True)):
        points = [
            {**figures, "command": _written(command(typed, point.recipe, settings))}
            for point, figures in found.items()
            if point.model == index
        ]
        entry = {
            "name": model.name,
            "model": _written(typed),
            "sha256": model.sha256,
            "weights": model.weights,
            "fp32_bytes": model.fp32_bytes,
            "points": points,
        }
        record["models"].append({**entry, "findings": findings(entry, primary)})
    return record


def command(model: str, recipe: Recipe | None, settings: Settings) -> str:
    """The command that makes a point's package; "" of the dense model."""
    if recipe is None:
        return ""
    words = [shlex.quote(model), "--prune", repr(recipe.prune), "--step", step_text(recipe.step)]
    if recipe.scope != Recipe().scope:
        words += ["--scope", recipe.scope]
    words += [f"--keep {shlex.quote(glob)}" for glob in recipe.keep]
    words += [f"--protect {shlex.quote(glob)}" for glob in recipe.protect]
    if task := _task_of_export(model, settings.asked):
        words += ["--task", shlex.quote(task)]
    if settings.trust_remote_code:
        words.append("--trust-remote-code")
    return " ".join(["bsexport", "pack", *words])


def _written(text: str) -> str:
    """Text that UTF-8 can write; a character of a file's name that it cannot becomes "?"."""
    return text.encode(errors="replace").decode()


def _task_of_export(model: str, asked: Asked) -> str | None:
    """An .onnx file was exported already."""
    return None if is_onnx(Path(model)) else asked.task
