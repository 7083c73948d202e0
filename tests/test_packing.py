"""Packing in slabs: what is larger than memory, by any number of threads, killed and resumed."""

import dataclasses
import hashlib
import json
import os
import signal
import subprocess
import sys
import time

import ml_dtypes
import numpy as np
import onnx
import pytest
from models import save_small
from onnx import numpy_helper, parser

import bsexport_runtime
from bsexport import code, pipeline, prune
from bsexport import slabs as slabs_module
from bsexport.errors import OutputError, ResumeError, SourceError
from bsexport.pipeline import pack
from bsexport.recipe import Recipe
from bsexport.slabs import Workers, slabs
from bsexport.source import open_source
from bsexport_runtime import codec

RECIPE = Recipe(prune=0.8, step=2.0**-8)


def digests(directory):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(directory.iterdir())}


def save_gathers(path, tensors):
    """A graph that gathers rows of every tensor, float32 or float16, its weights in an external file."""
    nodes = [f"h{name} = Gather ({name}, ids) y{name} = Cast <to = 1> (h{name})" for name in tensors]
    outputs = ", ".join(f"float[n, {array.shape[1]}] y{name}" for name, array in tensors.items())
    text = f'<ir_version: 10, opset_import: ["" : 18]> g (int64[n] ids) => ({outputs}) {{ {" ".join(nodes)} }}'
    model = parser.parse_model(text)
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in tensors.items())
    onnx.save(model, path, save_as_external_data=True, location=f"{path.name}.data", size_threshold=0)
    return path


def drawn(shape, seed=0):
    return (0.02 * np.random.default_rng(seed).standard_t(3, shape)).astype(np.float32)


@pytest.mark.parametrize(
    "shape", [(1,), (16385,), (3, 5), (40, 7, 11), (2000, 300), (3, 20000), (2, 70000), (5, 300000), (1, 600001)]
)
def test_slabs_are_whole_blocks_in_order(shape, monkeypatch):
    monkeypatch.setattr(slabs_module, "SLAB", 1 << 16)
    found = slabs(shape)
    size, cols = int(np.prod(shape)), int(np.prod(shape[1:]))
    assert [slab.begin for slab in found] == [0, *(slab.end for slab in found[:-1])]
    assert found[-1].end == size
    levels = np.zeros(shape, np.int32)
    how = {"codebook": levels.reshape(-1)[:1], "layout": codec.Layout.EG, "level_code": 0}
    head = codec.parse(codec.encode(levels, dtype=codec.DType.FLOAT32, step=1.0, **how))
    starts = set(head.block_bounds().tolist())
    for slab in found:
        assert {slab.begin, slab.end} <= starts
        assert slab.shape[0] * slab.shape[1] == slab.end - slab.begin
        assert slab.begin == slab.row * cols + slab.col
        assert slab.shape[1] == cols if slab.shape[0] > 1 else slab.col + slab.shape[1] <= cols


@pytest.mark.parametrize("threads", [1, 3])
def test_results_come_in_order_and_not_far_ahead(threads):
    done = []

    def double(item):
        done.append(item)
        return 2 * item

    with Workers(threads) as workers:
        results = workers.each(double, range(100))
        assert next(iter(results)) == 0
        assert len(done) <= 1 + threads * slabs_module.AHEAD
        assert list(results) == list(range(2, 200, 2))

        def refuse(item):
            raise SourceError(f"item {item}")

        with pytest.raises(SourceError, match="item 0"):
            list(workers.each(refuse, range(100)))


@pytest.mark.parametrize("scope", ["global", "tensor", "row"])
@pytest.mark.parametrize("held", [code.HELD_BYTES, 0, 100_000])
def test_slabs_hardly_matter(tmp_path, monkeypatch, scope, held):
    """The same bytes with slabs of two blocks as with one for each tensor, by three threads as by one, with levels
    that are kept as with levels that are made again: there are ties of the threshold, and rows longer than a slab."""
    tensors = {"a": drawn((300, 200)), "b": np.round(drawn((2, 90000), 1), 2), "c": drawn((70, 999), 2)}
    model = save_gathers(tmp_path / "m.onnx", tensors)
    recipe = Recipe(prune=0.7, step=2.0**-7, scope=scope)
    pack(open_source(str(model)), recipe, tmp_path / "whole")
    monkeypatch.setattr(slabs_module, "SLAB", 1 << 15)
    monkeypatch.setattr(code, "HELD_BYTES", held)
    pack(open_source(str(model)), recipe, tmp_path / "slabs", threads=3)
    assert digests(tmp_path / "slabs") == digests(tmp_path / "whole")


def test_long_rows_are_pruned_each_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(slabs_module, "SLAB", 1 << 15)
    rows = np.round(drawn((3, 100_000)), 2)
    pack(open_source(str(save_gathers(tmp_path / "m.onnx", {"a": rows}))), Recipe(0.5, "row", 1e-3), tmp_path / "out")
    kept = bsexport_runtime.read_tensors(tmp_path / "out")["a"] != 0
    for row, found in zip(rows, kept, strict=True):
        order = np.argsort(np.abs(row), kind="stable")  # ties in order of storage
        expected = np.zeros(row.size, bool)
        expected[order[50_000:]] = True
        np.testing.assert_array_equal(found, expected & (row != 0))


@pytest.mark.parametrize("stored", [np.float16, ml_dtypes.bfloat16, np.float32])
def test_the_threshold_of_any_type_is_exact_and_of_16_bits_read_once(stored):
    weights = drawn((500, 400)).astype(stored).astype(np.float32)
    reads = []

    def read(start):
        reads.append(start)
        return weights[start : start + 100]

    found = prune.threshold([("w", lambda start=start: read(start)) for start in range(0, 500, 100)], 0.8)
    magnitudes = np.sort(np.abs(weights.reshape(-1)))
    assert found.magnitude == magnitudes[160_000 - 1]
    assert found.ties == 160_000 - np.searchsorted(magnitudes, found.magnitude)
    assert len(reads) == (10 if stored == np.float32 else 5)


def test_types_may_be_mixed_in_a_threshold():
    tensors = [drawn((50, 40), seed).astype(dtype).astype(np.float32) for seed, dtype in enumerate(
        (ml_dtypes.bfloat16, np.float16, np.float32, ml_dtypes.bfloat16)
    )]  # fmt: skip
    magnitudes = np.sort(np.abs(np.concatenate(tensors).reshape(-1)))
    for ratio in (0.1, 0.5, 0.9):
        found = prune.threshold([("w", lambda tensor=tensor: tensor) for tensor in tensors], ratio)
        assert found.magnitude == magnitudes[round(ratio * 8000) - 1]


def test_float16_is_widened_as_numpy_does():
    from bsexport.checkpoint import _widened

    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    for some in (every, every[np.isfinite(every)], every[:0]):
        np.testing.assert_array_equal(_widened(some).view(np.uint32), some.astype(np.float32).view(np.uint32))


# What is larger than memory

LIMITED = """
import json, resource, sys
import bsexport.cli, bsexport.pipeline, bsexport.graph.read, bsexport.unpack, bsexport.verify, bsexport_runtime
import onnx, onnxruntime
from pathlib import Path
from bsexport.recipe import Recipe
from bsexport.source import open_source
from bsexport.table import report_text
def data(): return int(next(l for l in open('/proc/self/status') if l.startswith('VmData')).split()[1]) * 1024
limit = data() + int(sys.argv[1]) * 2**20
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
"""


def limited(script, mib, *arguments):
    """Run a script in a process that may take so much private memory above its imports; returns what it prints."""
    # Each thread would reserve an arena of its own for its small pieces, 64 MiB of address space that it hardly uses.
    environment = os.environ | {"MALLOC_ARENA_MAX": "1"}
    done = subprocess.run(
        [sys.executable, "-c", LIMITED + script, str(mib), *map(str, arguments)],
        capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="NOT TESTED: private memory is limited on Linux only")
@pytest.mark.parametrize("layer", ["coded", "kept"])
def test_a_tensor_that_is_larger_than_memory(tmp_path, layer):
    """192 MiB of float32 weights, 128 MiB of which are one tensor, within 96 MiB, by two threads: 32 of them are of
    threads' stacks."""
    tensors = {"table": np.tile(drawn((1 << 16, 128)), (1, 4)), "w": np.tile(drawn((1 << 15, 128), 1), (1, 4))}
    model = save_gathers(tmp_path / "m.onnx", tensors)
    recipe = f"Recipe(prune=0.8, step=2.0**-6, keep={('table',) if layer == 'kept' else ()})"
    pack_it = f"bsexport.pipeline.pack(open_source(sys.argv[2]), {recipe}, Path(sys.argv[3]), threads=2)"
    limited(pack_it, 96, model, tmp_path / "out")
    found = limited("print(list(bsexport_runtime.Package(sys.argv[2]).verify()))", 32, tmp_path / "out")
    assert found.strip() == "[]"
    compare = "bsexport.verify.compare(Path(sys.argv[3]), open_source(sys.argv[2]), print)"
    compare = f"found = {compare}; print(json.dumps([found.wrong, found.why_no_outputs]))"
    wrong, why = json.loads(limited(compare, 96, model, tmp_path / "out").splitlines()[-1])
    assert wrong == []
    assert why.startswith("running the model takes 0.2 GB of memory, of which 0.")
    tensors = bsexport_runtime.read_tensors(tmp_path / "out")
    magnitudes = np.abs(np.concatenate([drawn((1 << 16, 128)), drawn((1 << 15, 128), 1)]))
    kept = np.abs(drawn((1 << 16, 128))) > np.sort(magnitudes, axis=None)[round(0.8 * magnitudes.size) - 1]
    np.testing.assert_array_equal(tensors["table"][:, :128] != 0, kept if layer == "coded" else True)


# Killed and resumed


def resumable(folder):
    """A model of seven tensors, which takes some seconds: the last one is long in coming."""
    tensors = {f"w{i}": drawn((1000, 200), i) for i in range(6)} | {"last": np.tile(drawn((6000, 500), 7), (8, 1))}
    return save_gathers(folder / "m.onnx", tensors)


def killed(model, out, *options, number=signal.SIGKILL):
    """Begin to pack, and kill the process when four tensors are packed. Returns what it had logged."""
    command = [sys.executable, "-m", "bsexport.cli", "pack", model, "--prune", "0.8", "-o", out, *options]
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    log = out.with_name(f"{out.name}.partial") / "tensors.jsonl"
    while process.poll() is None and not (log.is_file() and log.read_bytes().count(b"\n") >= 5):
        time.sleep(0.002)
    assert process.poll() is None, process.communicate()
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    return log, errors


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path, number, monkeypatch):
    model = resumable(tmp_path)
    out = tmp_path / "out"
    log, errors = killed(model, out, number=number)
    assert not out.exists()
    if number != signal.SIGKILL:
        assert f"{out}.partial holds packed tensors: go on with --resume" in errors
    with pytest.raises(OutputError, match=r"holds packed tensors of an unfinished run; go on with --resume, or begin"):
        pack(open_source(str(model)), RECIPE, out)
    coded = []
    code_tensor = pipeline.code
    monkeypatch.setattr(pipeline, "code", lambda tensor, *rest: coded.append(tensor.name) or code_tensor(tensor, *rest))
    monkeypatch.setattr(prune, "threshold", None)  # nor is that sought again
    packed = log.read_bytes().count(b"\n") - 1
    assert packed >= 4
    pack(open_source(str(model)), RECIPE, out, resume=True, threads=2)
    assert coded == [*(f"w{i}" for i in range(packed, 6)), "last"]
    monkeypatch.undo()
    pack(open_source(str(model)), RECIPE, tmp_path / "straight")
    assert digests(out) == digests(tmp_path / "straight")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.onnx", "m.onnx.data", "out", "straight"]


def test_blobs_and_lines_that_are_torn_are_made_again(tmp_path):
    model = resumable(tmp_path)
    out = tmp_path / "out"
    log, _ = killed(model, out)
    third = json.loads(log.read_text().splitlines()[3])["tensor"]
    with (out.with_name("out.partial") / "package" / "weights.bsx").open("r+b") as file:
        file.seek(third["offset"] + third["blob_bytes"] - 1)
        file.write(b"\xaa")
    with log.open("a") as file:
        file.write('{"tensor": {"na')
    pack(open_source(str(model)), RECIPE, out, resume=True)
    pack(open_source(str(model)), RECIPE, tmp_path / "straight")
    assert digests(out) == digests(tmp_path / "straight")


def test_another_run_is_not_gone_on_with(tmp_path, monkeypatch):
    model = resumable(tmp_path)
    out = tmp_path / "out"
    killed(model, out)
    again = open_source(str(model))
    with pytest.raises(ResumeError, match=r"was begun with recipe.step 0.00390625, and this run has 0.0078125; resume"):
        pack(again, dataclasses.replace(RECIPE, step=2.0**-7), out, resume=True)
    os.utime(model.with_name("m.onnx.data"), (1, 1))
    with pytest.raises(
        ResumeError, match=r"was begun with model.files.m.onnx.data \d+ bytes, changed .*, and this run"
    ):
        pack(again, RECIPE, out, resume=True)
    killed(model, tmp_path / "version")
    monkeypatch.setattr(pipeline, "versions", lambda names: {"bsexport": "0.0.9"})
    with pytest.raises(ResumeError, match=r"was begun with versions.bsexport 0.1.0, and this run has 0.0.9; resume"):
        pack(again, RECIPE, tmp_path / "version", resume=True)
    monkeypatch.undo()
    pack(again, RECIPE, out, force=True)
    assert list(bsexport_runtime.Package(out).verify()) == []


def test_there_must_be_something_to_resume(tmp_path):
    save_small(tmp_path / "small.onnx")
    with pytest.raises(OutputError, match=r"out.partial: no such folder, so there is no run to resume"):
        pack(open_source(str(tmp_path / "small.onnx")), RECIPE, tmp_path / "out", resume=True)


def test_nothing_half_written_is_a_package(tmp_path):
    model = resumable(tmp_path)
    killed(model, tmp_path / "out")
    with pytest.raises(bsexport_runtime.errors.PackageError, match=r"bsexport.json: No such file"):
        bsexport_runtime.Package(tmp_path / "out.partial" / "package")
    done = subprocess.run(
        [sys.executable, "-m", "bsexport.cli", "verify", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "out: no such package" in done.stderr
