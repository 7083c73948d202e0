"""Runs: a model trained and measured through the other commands, and kept, so that tables share them."""

from __future__ import annotations

import itertools
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bsexport.errors import ReproduceError
from bsexport.output import PARTIAL
from bsexport.reproduce.profiles import Profile
from bsexport.reproduce.sets import FOLDERS, Set

IMDB = "IMDB"
"""The set of every experiment that has but one."""

STEP = "2^-8"
PRUNED = "0.8"
FIGURES, COMMANDS, RECORD, TRAINED = "figures.json", "commands.json", "curve.json", "backslash.json"
SHAPES = {"DGGR": (), "L0.5": ("--shape", "0.5"), "L1": ("--shape", "1"), "L2": ("--shape", "2")}
"""Table 6: regulariser -> its options."""


class Laboratory:
    """Carries runs out in a folder; what an earlier one made there is taken from it, so that a killed one goes on.

    out/runs/KEY/commands.json   what makes the run
    out/runs/KEY/model           what train made
    out/runs/KEY/figures.json    what was measured
    out/curves/NAME/curve        curves of several runs
    """

    def __init__(self, profile: Profile, out: Path, seed: int, say: Callable[[str], None]) -> None:
        self.profile, self.out, self.seed, self.say = profile, out, seed, say

    def normal(self, name: str, data: str) -> dict[str, Any]:
        """The figures of training without a rate: of a model by the paper's name, on a set by the paper's name."""
        return self._figures(name, data, "normal", ("--form", "none"))

    def backslash(self, name: str, data: str, strength: str | None = None) -> dict[str, Any]:
        """Those of training with the rate. strength: the paper's lambda; None: the profile's last."""
        lam = strength or list(self.profile.strengths)[-1]
        return self._figures(name, data, f"lambda-{lam}", self.profile.strengths[lam])

    def regularised(self, name: str, regulariser: str) -> dict[str, Any]:
        """Those of training on IMDB with one of SHAPES."""
        options = (*self.profile.regularised, *SHAPES[regulariser])
        return self._figures(name, IMDB, regulariser, options)

    def overlay(self, name: str, *grid: str) -> dict[str, Any]:
        """The curves of normal training and of BackSlash on IMDB over a grid, in out/curves/NAME."""
        first = next(iter(self.profile.models))
        folders = [self.normal(first, IMDB)["folder"], self.backslash(first, IMDB)["folder"]]
        models = [str(self.out / folder / "model") for folder in folders]
        out = self.out / "curves" / name / "curve"
        command = ["curve", *models, *self._measured_on(self.profile.sets[IMDB]), *grid, "-o", str(out), "--json"]
        self._begin(out.parent, [shlex.join(["bsexport", *command])])
        if not (out / RECORD).is_file():
            self._carry_out(command)
        found: dict[str, Any] = json.loads((out / RECORD).read_text(encoding="utf-8"))
        return found

    def _figures(self, name: str, data: str, kind: str, rate: tuple[str, ...]) -> dict[str, Any]:
        """{"folder": in out, "commands", "shape", "bits": by code, "points": as in a curve} of a run."""
        if data not in self.profile.sets:
            raise ReproduceError(f"there is no {data} in --data, which this table takes; add {FOLDERS[data][0]} to it")
        key = f"runs/{_part(name)}-{_part(data)}-{_part(kind)}"
        model = self.profile.models.get(name) or self.profile.language_model or name
        folder = self.out / key
        commands = self._commands(model, self.profile.sets[data], folder, rate)
        self._begin(folder, [shlex.join(["bsexport", *command]) for command in commands])
        if not (folder / FIGURES).is_file():
            train, stats, curve = commands
            if not (folder / "model" / TRAINED).is_file():
                self._carry_out(train)
            whole = self._carry_out(stats)["whole"]
            points = self._carry_out(curve)["models"][0]["points"]
            if whole is None or "moments" not in whole["fits"]:
                raise ReproduceError(f"{folder / 'model'}: has no weights that are not zero; choose a weaker rate")
            figures = {"shape": whole["fits"]["moments"]["shape"], "bits": whole["bits"], "points": points}
            _write(folder / FIGURES, figures)
        return {"folder": key, **json.loads((folder / FIGURES).read_text(encoding="utf-8"))}

    def _begin(self, folder: Path, commands: list[str]) -> None:
        """Write down what makes a run, or hold it against what is written. Raises ReproduceError if they differ."""
        path = folder / COMMANDS
        if not path.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            _write(path, commands)
        for before, now in itertools.zip_longest(json.loads(path.read_text(encoding="utf-8")), commands):
            if before != now:
                raise ReproduceError(
                    f"{folder}: was made by {before!r}, and now it would be {now!r}; choose another place with -o"
                )

    def _commands(self, model: str, data: Set, folder: Path, rate: tuple[str, ...]) -> list[list[str]]:
        """Those that train a model, count bits, and measure answers."""
        profile, trained = self.profile, str(folder / "model")
        train = ["train", model, "--data", data.train, "--split", data.split, "--task", data.task, *data.options]
        train += [*profile.training, "--max-length", str(profile.max_length), "--seed", str(self.seed), *rate]
        curve = ["curve", trained, *self._measured_on(data), "--prune", f"0,{PRUNED}", "--step", STEP]
        return [
            [*train, "-o", trained, "--json"],
            ["stats", trained, "--step", STEP, "--json"],
            [*curve, "-o", str(folder / "curve"), "--force", "--json"],
        ]

    def _measured_on(self, data: Set) -> list[str]:
        limit = [] if self.profile.limit is None else ["--limit", str(self.profile.limit)]
        length = ["--max-length", str(self.profile.max_length)]
        return ["--data", data.test, "--split", data.test_split, *data.options, *limit, *length]

    def _carry_out(self, command: list[str]) -> dict[str, Any]:
        """What a command of bsexport prints as JSON. Raises ReproduceError with its message if it fails."""
        out = Path(command[command.index("-o") + 1]) if "-o" in command else None
        if out is not None and out.with_name(out.name + PARTIAL).is_dir():
            command = [*command, "--resume"]
        self.say(f"$ bsexport {shlex.join(command)}")
        done = subprocess.run([sys.executable, "-m", "bsexport.cli", *command], capture_output=True, text=True)
        if done.returncode:
            said = done.stderr.strip().rpartition("\n")[2] or f"exit code {done.returncode}"
            raise ReproduceError(f"bsexport {command[0]}: {said.removeprefix('Error: ')}")
        printed: dict[str, Any] = json.loads(done.stdout)
        return printed


def _part(name: str) -> str:
    """A name as part of a folder's."""
    return re.sub(r"[^\w.]+", "_", name).lower()


def _write(path: Path, value: Any) -> None:
    partial = path.with_suffix(PARTIAL)
    partial.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


def write_tables(out: Path, tables: list[str]) -> None:
    """Write tables in Markdown to out/tables.md."""
    partial = out / f"tables.md{PARTIAL}"
    partial.write_text("\n\n".join(tables) + "\n", encoding="utf-8")
    partial.replace(out / "tables.md")
