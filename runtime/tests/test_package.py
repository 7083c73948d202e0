"""Opening packages: sound ones, and every way that the files of one can be damaged or lie."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import blob_builder
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from make_package import PACKAGE, STEP

from bsexport_runtime import Package, load
from bsexport_runtime.errors import BsexportRuntimeError, PackageError
from bsexport_runtime.format import DType
from bsexport_runtime.package import seal

FILES = sorted(path.name for path in PACKAGE.iterdir())
MANIFEST = json.loads((PACKAGE / "bsexport.json").read_bytes())
PAGE = Path(__file__).parents[2] / "docs" / "format.md"
WEIGHTS = (PACKAGE / "weights.bsx").read_bytes()

HALF_A_PAIR = b'{"format": "bsexport", "version": 0, "x": "\\ud800"}'

Manifest = dict[str, Any]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the package, to be damaged."""
    return Path(shutil.copytree(PACKAGE, tmp_path / "package"))


def rewrite(package: Path, change: Callable[[Manifest], Any]) -> None:
    """Change the manifest and seal it again, as somebody would who lies on purpose."""
    manifest = json.loads((package / "bsexport.json").read_bytes())
    del manifest["sha256"]
    change(manifest)
    (package / "bsexport.json").write_bytes(seal(manifest))


def add_encoder(package: Path) -> None:
    """Make an encoder-decoder of it: the encoder's graphs are the decoder's but for the name of their output."""
    files = {}
    for name in ("model.onnx", "decoded.onnx"):
        content = (package / name).read_bytes()
        assert content.count(b"scores") == 2  # as a node's output and as the graph's
        (package / f"encoder_{name}").write_bytes(content := content.replace(b"scores", b"states"))
        files[f"encoder_{name}"] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    rewrite(package, lambda manifest: manifest["files"].update(files))


def replace_weights(package: Path, blobs: list[tuple[str, list[int], bytes]], decoded: list[int]) -> None:
    """Other float32 tensors (name, shape, blob) and what they claim to take decoded; all checksums are right."""
    content, tensors, end = b"", [], 0
    for (name, shape, blob), size in zip(blobs, decoded, strict=True):
        content += bytes(-len(content) % 64)
        place = {"offset": len(content), "bytes": len(blob), "arena_offset": -(-end // 64) * 64}
        digest = hashlib.sha256(blob).hexdigest()
        tensors.append({"name": name, "dtype": "float32", "shape": shape, "sha256": digest, **place})
        content += blob
        end = place["arena_offset"] + size
    (package / "weights.bsx").write_bytes(content)
    rewrite(package, lambda manifest: manifest.update(tensors=tensors, arena_bytes=end))


def wrong(package: Path) -> list[str]:
    """Everything that opening the package and checking it finds; each must be one line."""
    try:
        lines = list(Package(package).verify())
    except PackageError as error:
        lines = [str(error)]
    assert all("\n" not in line for line in lines)
    return lines


def test_a_sound_package() -> None:
    package = Package(PACKAGE)
    assert [(t.name, t.dtype, t.shape, t.arena_offset) for t in package.tensors] == [
        ("table", DType.FLOAT32, (400, 48), 0),
        ("first", DType.FLOAT32, (48, 72), 76800),
        ("bias", DType.FLOAT32, (72,), 90624),
        ("second", DType.FLOAT16, (72, 40), 90944),
    ]
    assert package.arena_bytes == 96704
    assert [package.head(tensor).layout.name for tensor in package.tensors] == ["RL", "EG", "RAW", "RL"]
    assert all(bytes(package.blob(t)) == WEIGHTS[t.offset : t.offset + t.nbytes] for t in package.tensors)
    assert sorted(package.files) == [name for name in FILES if name != "bsexport.json"]
    assert package.read_bytes("config.json") == b'{"model_type": "fixture"}\n'
    assert package.manifest == MANIFEST
    assert package.manifest["recipe"]["step"] == STEP
    assert wrong(PACKAGE) == []


def test_the_manifest_ends_with_the_sha256_of_all_before_it() -> None:
    content = (PACKAGE / "bsexport.json").read_bytes()
    body, end = content[:-82], content[-82:]
    assert end == b',\n "sha256": "%s"\n}\n' % hashlib.sha256(body).hexdigest().encode()
    assert seal({"format": "bsexport", "version": 0}) == (
        b'{\n "format": "bsexport",\n "version": 0,\n'
        b' "sha256": "c48cbd1dec5d0bce6a4a003794442a6de201d0836d9c02c33f462841235d372b"\n}\n'
    )


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_is_found_wherever_it_is(copy: Path, name: str) -> None:
    content = bytearray((copy / name).read_bytes())
    for place in range(0, len(content), 3 if name == "weights.bsx" else 1):  # every third byte, for time
        content[place] ^= 1 << place % 8
        (copy / name).write_bytes(content)
        assert wrong(copy), f"bit {place % 8} of byte {place} of {name}"
        content[place] ^= 1 << place % 8
    (copy / name).write_bytes(content)
    assert wrong(copy) == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_damaged_weights_are_found_and_never_loaded(copy: Path, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(WEIGHTS) - 1))
    damage = data.draw(st.binary(min_size=1, max_size=200))
    content = WEIGHTS[:start] + damage + WEIGHTS[start + len(damage) :]
    (copy / "weights.bsx").write_bytes(content)
    lines = wrong(copy)
    assert bool(lines) == (content != WEIGHTS)
    try:
        load(copy, threads=1)
    except PackageError as error:
        assert lines, error
    else:  # only what is between the blobs is not looked at
        blobs = [(tensor["offset"], tensor["bytes"]) for tensor in MANIFEST["tensors"]]
        assert all(content[at : at + size] == WEIGHTS[at : at + size] for at, size in blobs)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_cut_or_longer_file_is_found(copy: Path, name: str) -> None:
    content = (copy / name).read_bytes()
    for other in (b"", content[:1], content[: len(content) // 2], content[:-1], content + b"\0", content + content):
        (copy / name).write_bytes(other)
        (line,) = wrong(copy)
        assert name in line
    (copy / name).unlink()
    (line,) = wrong(copy)
    assert f"{name}: No such file or directory" in line
    (copy / name).mkdir()
    (line,) = wrong(copy)
    assert f"{name}: Is a directory" in line


def test_what_is_no_package(tmp_path: Path, copy: Path) -> None:
    def message(path: Path) -> str:
        with pytest.raises(PackageError) as caught:
            Package(path)
        return str(caught.value).replace(str(tmp_path), "")

    made = "expected a directory made by bsexport pack"
    assert message(tmp_path / "none") == f"/none: no such package; {made}"
    assert message(copy / "weights.bsx") == f"/package/weights.bsx: no such package; {made}"
    assert message(tmp_path) == f"/bsexport.json: No such file or directory; {made}"
    for content in (
        b"",
        b"{}",
        b"[]",
        b"7",
        b'{"format": "other"}',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"format": NaN}',
        HALF_A_PAIR,
    ):
        (copy / "bsexport.json").write_bytes(content)
        assert message(copy) == f"/package/bsexport.json: is not a bsexport manifest; {made}"
    with (copy / "bsexport.json").open("wb") as file:
        file.truncate(1 << 40)  # no disk space behind it
    assert message(copy) == f"/package/bsexport.json: is not a bsexport manifest; {made}"


def test_a_newer_version_is_named_before_anything_else(copy: Path) -> None:
    for version in (1, 10**30, "1", None, False, 0.0, [0]):
        (copy / "bsexport.json").write_text(json.dumps({"format": "bsexport", "version": version, "other": {}}))
        with pytest.raises(PackageError, match="update bsexport-runtime, or pack the model again") as caught:
            Package(copy)
        assert f"has format version {version!r:.20}, this runtime reads version 0;" in str(caught.value)


LIES: list[tuple[Callable[[Manifest], Any], str]] = [
    (lambda m: m.pop("tensors"), "tensors is missing, expected list"),
    (lambda m: m.update(tensors={}), "tensors is dict, expected list"),
    (lambda m: m.update(tensors=[[]]), "a tensor is list, expected an object"),
    (lambda m: m.update(tensors=[]), r"weights.bsx: has \d+ bytes, the manifest says 0"),
    (lambda m: m["tensors"].pop(), r"weights.bsx: has \d+ bytes, the manifest says 4\d+"),
    (lambda m: m["tensors"].reverse(), "tensor second has offset 4736, expected 0"),
    (lambda m: m["tensors"][1].update(name="table"), "names tensor table twice"),
    (lambda m: m["tensors"][1].update(name=7), "name is int, expected str"),
    (lambda m: m["tensors"][1].update(name="a\0b"), r"the name of tensor 'a\\x00b' has a zero in it"),
    (lambda m: m["tensors"][1].update(name="a\nb", offset=1), r"tensor 'a\\nb' has offset 1, expected 2176"),
    (lambda m: m["tensors"][1].update(dtype="float31"), "has the dtype 'float31', expected one of section 2"),
    (lambda m: m["tensors"][1].update(dtype="FLOAT32"), "has the dtype 'FLOAT32', expected one of section 2"),
    (lambda m: m["tensors"][1].update(dtype="float16"), r"tensor first is float32 \[48, 72\], but the manifest says"),
    (lambda m: m["tensors"][1].update(shape=[72, 48]), r"tensor first is float32 \[48, 72\], but the manifest says"),
    (lambda m: m["tensors"][1].update(shape=[48, 72.0]), "shape is float, expected int"),
    (lambda m: m["tensors"][1].update(shape=[48, True]), "shape is bool, expected int"),
    (lambda m: m["tensors"][1].update(shape=[-48, 72]), "shape is -48, expected a size"),
    (lambda m: m["tensors"][1].update(shape=[1 << 40, 1 << 40]), "but the manifest says float32"),
    (lambda m: m["tensors"][1].update(offset=2112), "tensor first has offset 2112, expected 2176"),
    (lambda m: m["tensors"][1].update(offset=-64), "offset is -64, expected a size"),
    (lambda m: m["tensors"][1].update(offset=10**400), "offset is a huge number, expected a size"),
    (lambda m: m["tensors"][3].update(bytes=1 << 50), r"weights.bsx: has \d+ bytes, the manifest says 1125899906"),
    (lambda m: m["tensors"][3].update(arena_offset=90941), "second has arena_offset 90941, expected 90944"),
    (lambda m: m["tensors"][3].update(arena_offset=1 << 50), "second has arena_offset 1125899906842624, expected"),
    (lambda m: m.update(arena_bytes=1 << 50), "arena_bytes is 1125899906842624, expected 96704"),
    (lambda m: m.update(arena_bytes=None), "arena_bytes is missing, expected int"),
    (lambda m: m.update(files=[]), "files is list, expected dict"),
    (lambda m: m["files"].update({"config.json": 3}), "has the file 'config.json', expected a plain name"),
    (lambda m: m["files"]["config.json"].pop("sha256"), "sha256 is missing, expected str"),
    (lambda m: m["files"]["config.json"].update(bytes=1 << 40), "config.json: has 26 bytes, the manifest says 10995"),
    (lambda m: m["files"]["config.json"].update(sha256="00"), "config.json: is not the file that was packed"),
    *(
        (lambda m, name=name: m["files"].update({name: {"bytes": 0, "sha256": ""}}), "expected a plain name")
        for name in ("", ".", "..", "../config.json", "/etc/passwd", "a\\b", "c:x", "a\0b", "a\nb", "a\x85b")
    ),
]


@pytest.mark.parametrize(("lie", "message"), LIES)
def test_a_manifest_that_lies(copy: Path, lie: Callable[[Manifest], Any], message: str) -> None:
    rewrite(copy, lie)
    with pytest.raises(PackageError, match=message) as caught:
        for line in Package(copy).verify():
            raise PackageError(line)
    assert str(caught.value).endswith("; copy the package again")
    assert "\n" not in str(caught.value)


def test_the_fields_that_the_specification_marks_are_required(copy: Path) -> None:
    section = PAGE.read_text().partition("## 7. The manifest")[2].partition("## 8.")[0]
    whole, tensor = (re.findall(r"^\| (\w+) \* \|", part, re.M) for part in section.split("| field of a tensor |"))
    assert whole == ["format", "version", "arena_bytes", "tensors", "files", "sha256"]
    assert tensor == ["name", "dtype", "shape", "offset", "bytes", "arena_offset", "sha256"]
    known = re.findall(r"\w+", " ".join(re.findall(r"^\| ([^|]+) \|", section, re.M)))
    assert set(MANIFEST) | set(MANIFEST["tensors"][0]) <= set(known)
    for place, fields in (((), set(whole) - {"sha256"}), (("tensors", 2), tensor)):
        for field in fields:
            rewrite(copy, lambda manifest, place=place, field=field: reduce(getitem, place, manifest).pop(field))
            assert wrong(copy), field
            (copy / "bsexport.json").write_bytes((PACKAGE / "bsexport.json").read_bytes())
    assert wrong(copy) == []


def test_a_key_that_is_there_twice(copy: Path) -> None:
    body = json.dumps({**MANIFEST, "arena_bytes": 0}, indent=1)
    text = body.replace('"arena_bytes": 0,', '"arena_bytes": 0,\n "arena_bytes": 96704,')
    assert text != body
    (copy / "bsexport.json").write_text(text)
    with pytest.raises(PackageError, match="is not a bsexport manifest"):
        Package(copy)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=300)
@given(data=st.data())
def test_any_manifest_opens_or_is_refused_in_one_line(copy: Path, data: st.DataObject) -> None:
    manifest = json.loads((PACKAGE / "bsexport.json").read_bytes())
    del manifest["sha256"]
    for _ in range(data.draw(st.integers(1, 3))):
        place: Any = manifest
        while isinstance(place, (dict, list)) and place:
            keys = sorted(place) if isinstance(place, dict) else range(len(place))
            key = data.draw(st.sampled_from(keys))
            if not isinstance(place[key], (dict, list)) or data.draw(st.booleans()):
                place[key] = data.draw(JSON)
                break
            place = place[key]
    (copy / "bsexport.json").write_bytes(seal(manifest))
    wrong(copy)
    try:
        load(copy, threads=1)
    except BsexportRuntimeError as error:
        assert "\n" not in str(error)
    (copy / "bsexport.json").write_bytes((PACKAGE / "bsexport.json").read_bytes())


def test_the_bytes_between_blobs_are_zero(copy: Path) -> None:
    gap = next(t["offset"] + t["bytes"] for t in MANIFEST["tensors"] if (t["offset"] + t["bytes"]) % 64)
    content = bytearray(WEIGHTS)
    content[gap] = 1
    (copy / "weights.bsx").write_bytes(content)
    (line,) = wrong(copy)
    assert "weights.bsx: the bytes before tensor first are not zero; copy the package again" in line


def test_a_swapped_blob_is_found_although_it_is_sound(copy: Path) -> None:
    blob = blob_builder.Blob(blocks=(blob_builder.Block(("1 010 011 1 1 1",)),)).build()
    replace_weights(copy, [("one", [2, 3], blob), ("two", [2, 3], blob)], [24, 24])
    assert wrong(copy) == []
    other = blob_builder.Blob(blocks=(blob_builder.Block(("1 010 010 1 1 1",)),)).build()
    content = (copy / "weights.bsx").read_bytes()
    (copy / "weights.bsx").write_bytes(other + content[len(other) :])
    (line,) = wrong(copy)
    assert "tensor one: its sha256 differs from the manifest's" in line


def in_little_memory(package: Path, verb: str) -> str:
    """What a process says that opens or loads the package with 64 MB of private memory beyond its imports."""
    script = """
import resource, sys
import bsexport_runtime
bsexport_runtime.backend()
data = next(line for line in open("/proc/self/status") if line.startswith("VmData"))
limit = int(data.split()[1]) * 1024 + 64 * 2**20
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
try:
    getattr(bsexport_runtime, sys.argv[2])(sys.argv[1], **({"threads": 1} if sys.argv[2] == "load" else {}))
except bsexport_runtime.BsexportRuntimeError as error:
    print(error)
"""
    if not Path("/proc/self/status").exists():
        pytest.skip("NOT TESTED: memory limits need Linux")
    command = [sys.executable, "-c", script, str(package), verb]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_what_claims_gigabytes_is_refused_before_they_are_taken(copy: Path) -> None:
    blob = blob_builder.Blob(dims=(1 << 20, 1 << 16), block_rows=1, block_cols=1 << 16).build()
    replace_weights(copy, [("huge", [1 << 20, 1 << 16], blob)], [1 << 38])
    assert "tensor huge: blob: 128 bytes, but the head with its 1048576 blocks takes" in in_little_memory(copy, "load")


def test_weights_that_do_not_fit_are_one_line(copy: Path) -> None:
    """A blob of 10 kB may truthfully hold 256 MB of zeros."""
    block = blob_builder.Block(("", ""), coded=0)
    layout = {"layout": blob_builder.RL, "block_rows": 1, "block_cols": 1 << 16}
    blob = blob_builder.Blob(dims=(1 << 10, 1 << 16), blocks=(block,) * (1 << 10), **layout).build()  # type: ignore[arg-type]
    replace_weights(copy, [("zeros", [1 << 10, 1 << 16], blob)], [1 << 28])
    assert in_little_memory(copy, "Package") == ""
    assert (
        in_little_memory(copy, "load")
        == f"{copy}: its decoded weights take 268435456 bytes of memory: Cannot allocate memory"
    )
