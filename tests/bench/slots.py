"""What a decode step takes by its cache, which it should read and not copy: `python -m tests.bench.slots`."""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
from pathlib import Path
from unittest import mock

import numpy as np
import onnxruntime as ort
import transformers

from bsexport.graph import causal
from bsexport.graph.export import export
from bsexport.verify import dense_session
from bsexport_runtime import Session
from bsexport_runtime.cache import Cache, slots_of

from . import results

CAPACITIES = (1024, 16384, 65536)
HEADS, SHARED, DIMS = 8, 2, 64
RUNS = 30


def made(folder: Path) -> Path:
    """A Llama of one layer whose four heads share one of keys and values; little else."""
    config = transformers.LlamaConfig(
        vocab_size=256,
        hidden_size=HEADS * DIMS,
        intermediate_size=512,
        num_hidden_layers=1,
        num_attention_heads=HEADS,
        num_key_value_heads=SHARED,
        max_position_embeddings=CAPACITIES[-1],
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def bound(session: Session, capacity: int, *, copied: bool) -> ort.IOBinding:
    """A step at the last position. copied: the cache comes out in other buffers than it goes in."""
    binding = session.io_binding()
    Cache(session, 1, capacity).bind(binding)
    for name, value in (("input_ids", 1), ("position_ids", capacity - 1), ("logits_to_keep", 0)):
        binding.bind_cpu_input(name, np.full((1, 1), value))
    for each in slots_of(session) if copied else ():
        array = np.zeros((1, each.heads, capacity, each.size), np.float32)
        binding.bind_ortvalue_output(each.present, ort.OrtValue.ortvalue_from_numpy(array))
    binding.bind_output("logits", "cpu")
    return binding


def milliseconds(steps: list[tuple[Session, ort.IOBinding]]) -> list[float]:
    """The median of each, in turn, so that other work on the machine meets all of them."""
    taken = []
    for _ in range(RUNS):
        for session, binding in steps:
            start = time.perf_counter()
            session.run_with_iobinding(binding)
            taken.append(time.perf_counter() - start)
    return [float(value) * 1e3 for value in np.median(np.reshape(taken, (RUNS, len(steps))), 0)]


def report() -> str:
    """The table."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = made(Path(temporary))
        slots = dense_session(export(folder, None))
        with mock.patch.object(causal, "_grouped_heads", contextlib.nullcontext):
            repeated = dense_session(export(folder, None))
    rows = []
    for capacity in CAPACITIES:
        steps = [(slots, bound(slots, capacity, copied=copied)) for copied in (False, True)]
        steps.append((repeated, bound(repeated, capacity, copied=False)))
        here, copied, heads = milliseconds(steps)
        size = 2 * SHARED * DIMS * capacity * 4
        rows.append(
            [
                f"{capacity:,} slots, {size / 1e6:.1f} MB",
                f"{here:.2f}",
                f"{copied:.2f} ({copied / here:.1f}x)",
                f"{heads:.2f} ({heads / here:.1f}x)",
            ]
        )
    return results.table(
        ["cache of a layer", "step, ms", "cache copied", "keys and values repeated for each head"], rows
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dry-run", action="store_true", help="print only, leave docs/results.md as it is")
    options = parser.parse_args()
    text = report()
    print(text)
    if not options.dry_run:
        results.write("slots", "python -m tests.bench.slots", text)


if __name__ == "__main__":
    main()
