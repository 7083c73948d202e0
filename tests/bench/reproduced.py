"""Put what `bsexport reproduce` printed into docs/results.md: `python -m tests.bench.reproduced FOLDER`."""

from __future__ import annotations

import argparse
from pathlib import Path

from . import results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="what reproduce's -o was")
    parser.add_argument("--command", required=True, help="that made it")
    asked = parser.parse_args()
    results.write("reproduced", asked.command, (asked.folder / "tables.md").read_text().strip())


if __name__ == "__main__":
    main()
