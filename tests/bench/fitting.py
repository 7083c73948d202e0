"""Does BERT-base, pruned by 90%, answer in 128 MB? What `bsexport fit` says: `python -m tests.bench.fitting`."""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

from bsexport.fit.run import fit
from bsexport.pipeline import pack
from bsexport.recipe import Recipe

from . import cases, results

RECIPE = Recipe(prune=0.9, step=2.0**-8)
LIMIT = 128_000_000
LENGTHS = (16, 128, 512)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dry-run", action="store_true", help="print only, leave docs/results.md as it is")
    parser.add_argument("--work", type=Path, help="where the model and its package are kept between runs")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.work or Path(temporary)
        path = folder / "bert-base-90"
        report = pack(cases.export(cases.bert_base(folder)), RECIPE, path, force=True, threads=2, int8=True)
        found = fit(path, LIMIT, lengths=LENGTHS, threads=1)
    weights = sum(tensor.weights for tensor in report.tensors)
    text = replace(found, package=Path(path.name)).to_text().replace(str(path), path.name)
    text = f"{weights:,} weights:\n\n```text\n{text}\n```"
    print(text)
    if not options.dry_run:
        results.write("fitting", "python -m tests.bench.fitting", text)


if __name__ == "__main__":
    main()
