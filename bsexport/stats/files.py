"""The directory that stats writes: stats.json, stats.csv and plots."""

from __future__ import annotations

import csv
from pathlib import Path

from bsexport.output import Staging, disk_errors
from bsexport.record import read_record, write_record
from bsexport.stats.figures import FORMAT, Stats
from bsexport.stats.plot import plots

FIGURES = "stats.json"
TABLE = "stats.csv"


def is_stats(path: Path) -> bool:
    """Whether a directory that stats wrote stands at the path: what --force may replace."""
    return read_record(path / FIGURES, FORMAT) is not None


def write(found: Stats, out: Path, *, force: bool = False) -> None:
    """Write figures, table and plots to the directory `out`; of a model without coded weights the figures alone.

    Raises OutputError if it exists and force is not given, or the disk is full; then nothing was written.
    """
    with Staging(out, force=force, replaceable=is_stats) as staging:
        with disk_errors(out):
            write_record(staging.path / FIGURES, found.to_json())
            if found.whole is not None:
                _write_table(found, staging.path / TABLE)
                plots(staging.path, found, found.whole)
        staging.publish_directory()


def _write_table(found: Stats, path: Path) -> None:
    rows = found.rows()
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
