"""Mode int8: what lies in its arena, what it computes, and every way that its part of a package can be wrong."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from make_package import INT8_PACKAGE, PACKAGE, STEP, int8_bias, int8_levels
from test_package import rewrite

from bsexport_runtime import BsexportRuntimeError, Package, PackageError, arena, load, read_tensors, residency
from bsexport_runtime.arena import decode_int8_arena
from bsexport_runtime.int8 import rescale, scales

IN_PLACE = tuple(int(part) for part in ort.__version__.split(".")[:2]) >= (1, 31)
needs_in_place = pytest.mark.skipif(not IN_PLACE, reason=f"NOT TESTED: onnxruntime {ort.__version__} is too old")
pytestmark = pytest.mark.filterwarnings("ignore:decoding in numpy, which is slow")

IDS = np.array([[0, 11, 399], [3, 3, -1]])
ARENA_BYTES = 48832
STEP32 = np.float32(STEP)

Manifest = dict[str, Any]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(INT8_PACKAGE, tmp_path / "package"))


def own_scales(levels: np.ndarray, axis: int) -> np.ndarray:
    largest = np.abs(levels).max(1 - axis)
    return np.where(largest > 127, (largest * np.float64(STEP) / 127).astype(np.float32), STEP32)


def int8_weights() -> dict[str, np.ndarray]:
    """What the int8 weights of the package stand for."""
    found = {}
    for name, axis in (("table", 0), ("places", 0), ("first", 1), ("second", 1)):
        levels = int8_levels()[name]
        wide = np.maximum(np.abs(levels).max(1 - axis, keepdims=True), 127)
        rounded = np.sign(levels) * np.floor(127 * np.abs(levels) / wide + 0.5)
        scale = own_scales(levels, axis)
        found[name] = rounded.astype(np.float32) * (scale[:, None] if axis == 0 else scale)
    return found


def rounded(x: np.ndarray) -> np.ndarray:
    """Activations through 8 bits and back, as ONNX defines DynamicQuantizeLinear."""
    low, high = min(x.min(), np.float32(0)), max(x.max(), np.float32(0))
    scale = np.float32((high - low) / np.float32(255))
    zero = np.clip(np.rint(-low / scale), 0, 255)
    return (np.clip(np.rint(x / scale) + zero, 0, 255) - zero) * np.float64(scale)


def expected_scores(ids: np.ndarray) -> np.ndarray:
    w = int8_weights()
    x = w["table"][ids] + w["places"][ids]
    inner = (rounded(x) @ w["first"]).astype(np.float32)
    again = (rounded(inner) @ w["second"]).astype(np.float32)
    return rounded(again) @ w["table"].T + int8_bias()


def arena_part(arena: np.ndarray, offset: int, like: np.ndarray) -> np.ndarray:
    return arena[offset : offset + like.nbytes].view(like.dtype).reshape(like.shape)


def test_the_arena_holds_levels_and_rescaled_rows() -> None:
    levels = int8_levels()
    found = decode_int8_arena(Package(INT8_PACKAGE), 2)
    assert (found.dtype, found.shape, found.flags.writeable) == (np.uint8, (ARENA_BYTES,), False)
    tied = levels["table"].T.astype(np.int8)
    np.testing.assert_array_equal(arena_part(found, 0, tied), tied)
    places = arena_part(found, 19200, np.zeros((400, 48), np.int8))
    usual = np.arange(400) != 3
    np.testing.assert_array_equal(places[usual], levels["places"][usual])
    assert levels["places"][3, :12].tolist() == [0, 0, -120, 320, 0, 0, 0, 200, -120, 0, 0, 0]
    assert np.abs(levels["places"][3]).max() == 360
    assert places[3, :12].tolist() == [0, 0, -42, 113, 0, 0, 0, 71, -42, 0, 0, 0]  # level * 127 / 360
    place_scales = arena_part(found, 38400, np.zeros(400, np.float32))
    assert place_scales[3] == np.float32(360 / 64 / 127)
    assert set(place_scales[usual]) == {STEP32}
    first = arena_part(found, 40000, np.zeros((48, 72), np.int8))
    others = np.arange(72) != 5
    np.testing.assert_array_equal(first[:, others], levels["first"][:, others])
    np.testing.assert_array_equal(first[:, 5], np.rint(levels["first"][:, 5] * 127 / 900))
    np.testing.assert_array_equal(
        arena_part(found, 43776 - 320, np.zeros(72, np.float32)), own_scales(levels["first"], 1)
    )
    assert found[47232:].tobytes() == int8_bias().tobytes()


def test_weights_within_range_are_exact() -> None:
    """Bit for bit the float32 weights of the package, but in the rows that are rescaled."""
    exact = read_tensors(INT8_PACKAGE)
    for name, values in int8_weights().items():
        same = values == exact[name]
        if name == "places":
            same = np.delete(same, 3, axis=0)
        if name == "first":
            same = np.delete(same, 5, axis=1)
        assert same.all(), name


@pytest.mark.parametrize("seed", range(3))
def test_rescaling(seed: int) -> None:
    """Against exact fractions; halves go away from zero."""
    assert rescale(np.array([[254, -127, 1, -1, 3, 0]], np.int32), np.array([[254]], np.int32)).tolist() == [
        [127, -64, 1, -1, 2, 0]
    ]
    random = np.random.default_rng(seed)
    levels = random.integers(-(1 << 24), (1 << 24) + 1, (20, 50)).astype(np.int32)
    levels[:10] = random.integers(-127, 128, (10, 50))
    largest = np.abs(levels).max(1)
    found = rescale(levels, largest[:, None])
    assert found.dtype == np.int8
    for row in range(20):
        wide = max(int(largest[row]), 127)
        for level, value in zip(levels[row].tolist(), found[row].tolist(), strict=True):
            assert abs(2 * (value * wide - 127 * level)) <= wide
    np.testing.assert_array_equal(found[:10], levels[:10])
    assert (np.abs(found[10:]).max(1) == 127).all()
    assert scales(np.array([127, 128], np.int32), STEP).tolist() == [STEP, np.float32(128 * STEP / 127)]


@needs_in_place
@pytest.mark.parametrize("threads", [1, 2])
def test_it_computes_as_onnx_defines_dynamic_quantisation(threads: int) -> None:
    session = load(INT8_PACKAGE, mode="int8", threads=threads)
    assert session.arena.shape == (ARENA_BYTES,)
    for ids in (IDS, np.zeros((1, 1), np.int64), np.arange(400).reshape(4, 100)):
        (scores,) = session.run(None, {"ids": ids})
        expected = expected_scores(ids)
        assert scores.dtype == np.float32 and scores.shape == expected.shape
        # A sum that is off in its last bits may round an activation the other way: by a step of those.
        np.testing.assert_allclose(scores, expected, rtol=0, atol=0.01 * np.abs(expected).max())
        assert np.median(np.abs(scores - expected)) < 1e-5 * np.abs(expected).max()
        (exact,) = load(INT8_PACKAGE).run(None, {"ids": ids})
        assert 0 < np.abs(scores - exact).max() < 0.05 * np.abs(exact).max()


@needs_in_place
def test_auto_takes_int8_where_float32_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is one: float32 is exact, and int8 is faster than coded."""
    monkeypatch.setattr(arena, "RESCALED_BYTES", 1)  # so small are these matrices
    package = Package(INT8_PACKAGE)
    assert residency.predict(package, "int8") < residency.predict(package, "float32")
    limit = (residency.predict(package, "int8") + residency.predict(package, "float32")) // 2
    with pytest.warns(
        RuntimeWarning, match="loaded in mode int8, whose products round their activations to 8 bits: flo"
    ):
        assert residency.choose(package, None, limit) == "int8"
    with pytest.raises(BsexportRuntimeError, match=r"float32 needs .*, int8 needs .*, coded "):
        residency.choose(package, None, 1000)


@needs_in_place
def test_numpy_decodes_the_same_arena() -> None:
    script = """
import sys, hashlib, bsexport_runtime
arena = bsexport_runtime.load(sys.argv[1], mode="int8").arena
print(bsexport_runtime.backend().split()[0], hashlib.sha256(arena).hexdigest())
"""
    found = {}
    for asked in ("", "numpy"):
        environment = os.environ | {"BSEXPORT_BACKEND": asked}
        command = [sys.executable, "-W", "ignore", "-c", script, str(INT8_PACKAGE)]
        name, digest = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True
        ).stdout.split()
        found[asked] = digest
        assert asked in ("", name)
    assert found[""] == found["numpy"]


def test_a_package_without_the_graph() -> None:
    assert Package(PACKAGE).int8 is None
    with pytest.raises(BsexportRuntimeError) as error:
        load(PACKAGE, mode="int8")
    assert str(error.value) == f"{PACKAGE}: has no graph for mode int8; pack it again with --int8"


def test_a_mode_that_is_not_there() -> None:
    with pytest.raises(BsexportRuntimeError, match="mode is 'int4', expected one of 'float32', 'int8'"):
        load(INT8_PACKAGE, mode="int4")


def test_an_onnxruntime_that_would_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "__version__", "1.30.2")
    with pytest.raises(
        BsexportRuntimeError, match=r"mode int8 cannot be had: it needs onnxruntime 1\.31 or later, this is 1\.30\.2"
    ):
        load(INT8_PACKAGE, mode="int8")


def drop_graph(manifest: Manifest) -> None:
    del manifest["files"]["int8.onnx"]


def set_field(**fields: Any) -> Callable[[Manifest], None]:
    return lambda manifest: manifest["int8"].update(fields)


def set_tensor(index: int, **fields: Any) -> Callable[[Manifest], None]:
    return lambda manifest: manifest["int8"]["tensors"][index].update(fields)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop_graph, "has the field int8, but lists no file int8.onnx"),
        (lambda manifest: manifest.update(int8=[]), "int8 is list, expected dict"),
        (lambda manifest: manifest.update(int8=None), "int8 is missing, expected dict"),
        (set_field(tensors={}), "tensors is dict, expected list"),
        (set_field(arena_bytes=-1), "arena_bytes is -1, expected a size"),
        (set_field(arena_bytes="x"), "arena_bytes is str, expected int"),
        (set_field(arena_bytes=ARENA_BYTES + 1), f"int8: arena_bytes is {ARENA_BYTES + 1}, expected {ARENA_BYTES}"),
        (lambda manifest: manifest["int8"]["tensors"].pop(), "int8 has 4 tensors, expected 5, as in the package"),
        (
            lambda manifest: manifest["int8"]["tensors"].reverse(),
            "int8: tensor table is not where it stands in the package",
        ),
        (lambda manifest: manifest["int8"]["tensors"].__setitem__(0, 7), "int8: tensor table is not where it stands"),
        (set_tensor(1, name="place"), "int8: tensor places is not where it stands in the package"),
        (set_tensor(1, int8=1), "int8 is int, expected bool"),
        (set_tensor(1, int8=None), "int8 is missing, expected bool"),
        (set_tensor(1, transposed=0), "transposed is int, expected bool"),
        (set_tensor(1, axis=2), "int8: tensor places has axis 2, expected 0 or 1"),
        (set_tensor(1, axis=True), "axis is bool, expected int"),
        (set_tensor(1, rescaled=401), "int8: tensor places has rescaled 401, expected at most 400"),
        (set_tensor(1, rescaled=0), "int8: tensor first has arena_offset 40000, expected 38400"),
        (set_tensor(1, arena_offset=19264), "int8: tensor places has arena_offset 19264, expected 19200"),
        (set_tensor(1, arena_offset=1 << 70), "arena_offset is 1180591620717411303424, expected a size"),
        (
            set_tensor(4, int8=True, transposed=False, axis=0, rescaled=0),
            "int8: tensor bias is RAW float32 of 1 dimensions, expected a coded float32 matrix",
        ),
    ],
)
def test_a_manifest_that_lies_is_refused_when_it_is_opened(
    copy: Path, change: Callable[[Manifest], Any], message: str
) -> None:
    rewrite(copy, change)
    with pytest.raises(PackageError) as error:
        Package(copy)
    assert str(error.value).startswith(f"{copy / 'bsexport.json'}: {message}")
    assert str(error.value).endswith("; copy the package again")


@needs_in_place
@pytest.mark.parametrize(("index", "name", "declared", "found"), [(1, "places", 2, 1), (2, "first", 3, 1)])
def test_a_wrong_number_of_rescaled_rows(copy: Path, index: int, name: str, declared: int, found: int) -> None:
    """Which rows they are only their levels tell: it is found before anything runs."""
    rewrite(copy, set_tensor(index, rescaled=declared))
    with pytest.raises(PackageError) as error:
        load(copy, mode="int8")
    expected = f"int8: tensor {name} has rescaled {declared}, expected {found}; copy the package again"
    assert str(error.value) == f"{copy / 'bsexport.json'}: {expected}"
    assert load(copy).run(None, {"ids": IDS})[0].shape == (2, 3, 400)


@needs_in_place
def test_levels_that_int8_does_not_hold(copy: Path) -> None:
    def change(manifest: Manifest) -> None:
        offsets = {"first": 38400, "second": 41856, "bias": 45312}
        manifest["int8"]["arena_bytes"] = 45312 + 1600
        for entry in manifest["int8"]["tensors"]:
            entry.update(rescaled=0, arena_offset=offsets.get(entry["name"], entry["arena_offset"]))

    rewrite(copy, change)
    with pytest.raises(PackageError, match=r"tensor places: blob: .*(?i:int8).*copy the package again"):
        load(copy, mode="int8")


@needs_in_place
def test_a_damaged_blob_is_named(copy: Path) -> None:
    content = bytearray((copy / "weights.bsx").read_bytes())
    place = Package(copy).tensors[0]
    content[place.offset + place.nbytes - 1] ^= 1
    (copy / "weights.bsx").write_bytes(content)
    with pytest.raises(PackageError, match=r"weights.bsx: tensor table: .*CRC.*copy the package again"):
        load(copy, mode="int8")


@needs_in_place
def test_a_damaged_graph_is_named(copy: Path) -> None:
    (copy / "int8.onnx").write_bytes((copy / "int8.onnx").read_bytes()[:-1] + b"?")
    load(copy)
    with pytest.raises(PackageError, match=r"int8.onnx: is not the file that was packed"):
        load(copy, mode="int8")
    assert [line.partition(": ")[0] for line in Package(copy).verify()] == [str(copy / "int8.onnx")]
