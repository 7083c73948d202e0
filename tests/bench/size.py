"""Size of packages and what the packed models compute: `python -m tests.bench.size`."""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

import bsexport_runtime
from bsexport.bench.run import package_bytes
from bsexport.unpack import unpack

from . import cases, embeddings, results

PACKING_BAR = 5.0  # seconds, MiniLM
DEVIATION_BAR = 1e-4
BARS = {  # MiniLM: largest share of fp32, smallest mean cosine
    cases.FINE: (0.265, 0.9999),
    cases.COARSE: (0.205, 0.998),
    cases.PRUNED: (0.096, 0.0),
}


@dataclass(frozen=True)
class Measured:
    """What a package is held to. of_fp32: its weights' share of fp32; cosines: of each sentence's embedding."""

    packed: cases.Packed
    of_fp32: float
    of_fp32_with_graphs: float
    bits: float
    entropy: float
    cosines: embeddings.Array
    deviation: float
    identical: bool

    def row(self) -> list[str]:
        """Its line in the table."""
        return [
            self.packed.label,
            f"{self.of_fp32:.2%}",
            f"{self.of_fp32_with_graphs:.2%}",
            f"{self.bits:.3f}",
            f"{self.entropy:.3f}",
            f"{self.cosines.mean():.5f}",
            f"{self.cosines.min():.5f}",
            "yes" if self.identical else "**no**",
            f"{self.deviation:.1e}",
            f"{self.packed.seconds:.1f}",
        ]

    def verdicts(self) -> list[str]:
        """One line for each bar, held or missed."""
        checks = {
            "bit-identical to plain onnxruntime on the decoded weights": self.identical,
            f"within {DEVIATION_BAR:g} of PyTorch on the decoded weights": self.deviation <= DEVIATION_BAR,
        }
        if self.packed.model == cases.MINILM:
            size, cosine = BARS[self.packed.recipe]
            checks[f"at most {size:.1%} of fp32"] = self.of_fp32 <= size
            checks[f"packed within {PACKING_BAR:g} s"] = self.packed.seconds <= PACKING_BAR
            if cosine:
                checks[f"mean cosine at least {cosine:g}"] = float(self.cosines.mean()) >= cosine
        return [f"- {self.packed.label}: {text}: {'yes' if held else '**no**'}" for text, held in checks.items()]


def measure(packed: cases.Packed, directory: Path, folder: Path) -> Measured:
    """Hold one package against its model."""
    has_tokenizer = (directory / "tokenizer.json").exists()
    inputs = embeddings.tokenize(directory) if has_tokenizer else embeddings.random_inputs(30522)
    mask = inputs["attention_mask"]
    hidden = embeddings.session_outputs(bsexport_runtime.load(packed.path), inputs)
    plain = embeddings.session_outputs(embeddings.plain_session(packed.path), inputs)
    decoded = unpack(packed.path, folder / "decoded", force=True)
    summary = packed.report.summary()
    return Measured(
        packed=packed,
        of_fp32=summary["of_fp32"],
        of_fp32_with_graphs=package_bytes(packed.path) / summary["fp32_bytes"],
        bits=summary["bits_per_weight"],
        entropy=summary["entropy_bits"],
        cosines=embeddings.cosines(hidden, embeddings.torch_outputs(directory, inputs), mask),
        deviation=embeddings.largest_deviation(hidden, embeddings.torch_outputs(decoded, inputs), mask),
        identical=hidden.tobytes() == plain.tobytes(),
    )


def report(folder: Path, model: Path | None) -> str:
    """Measure all models and recipes; the table and the verdicts as Markdown."""
    lines, held = [], []
    for name, directory in cases.models(folder, model).items():
        source = cases.export(directory)
        for recipe in BARS:
            found = measure(cases.packed(name, source, recipe, folder), directory, folder)
            lines.append(found.row())
            held += found.verdicts()
            print("  ".join(found.row()), flush=True)
    rate = ["of fp32", "with graphs", "bits/weight", "entropy"]
    header = ["", *rate, "mean cosine", "smallest", "bit-identical", "deviation", "packing s"]
    return "\n".join([results.table(header, lines), "", *held])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="a model directory, in place of MiniLM and BERT-base")
    parser.add_argument("--dry-run", action="store_true", help="print only, leave docs/results.md as it is")
    parser.add_argument("--work", type=Path, help="where models and packages are kept between runs")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        text = report(options.work or Path(temporary), options.model)
    print(text)
    if not options.dry_run:
        results.write("size", "python -m tests.bench.size", text)


if __name__ == "__main__":
    main()
