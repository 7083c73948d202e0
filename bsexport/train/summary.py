"""A run's outcome in a few lines."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from bsexport.recipe import step_text
from bsexport.train.record import EXPONENTS


def summary(record: dict[str, Any], out: Path) -> str:
    """What to read when a run is over: accuracy, what became of the weights, bits at several steps, what to do next.

    out: the directory that was written.
    """
    final, step = record["final"], step_text(record["rate"]["step"])
    part, coded = final["taking_part"], final["coded"]
    rows = [("steps", str(record["steps"])), ("last loss", f"{record['curve'][-1]['loss']:.4f}")]
    if final["accuracy"] is not None:
        rows.append(("evaluation", f"accuracy {final['accuracy']:.4f}   loss {final['loss']:.4f}"))
    rows += [
        (
            "weights that took part",
            f"shape {part['shape']:.3f}   zeros {part['sparsity']:.1%}   {part['bits']:.3f} bits",
        ),
        ("weights to be coded", f"{coded['weights']:,}, entropy in bits/weight at a step of"),
    ]
    names = ["step", *(f"2^{n}" for n in EXPONENTS)]
    heads = [step, *names[1:]]
    lines = [f"{label:<24}{text}" for label, text in rows]
    lines += ["  ".join(f"{head:>8}" for head in heads), "  ".join(f"{coded['entropy'][name]:8.3f}" for name in names)]
    if record["model"]["new"]:
        lines.append(f"began at random: {', '.join(record['model']['new'])}")
    weight = record["rate"]["weight"]
    prune = f" --prune {weight['value']:g}" if weight["kind"] == "target-sparsity" else ""
    lines.append(f"next: bsexport pack {shlex.quote(str(out))}{prune} --step {step}")
    return "\n".join(lines)
