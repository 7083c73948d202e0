"""Reading Hugging Face model directories: names, types, single tensors, and the ways in which they can be wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bsexport.checkpoint import Checkpoint, locate
from bsexport.errors import SourceError


def safetensors(tensors: dict[str, tuple[str, list[int], bytes]]) -> bytes:
    """A file of the format, written by hand: name -> type, shape, data."""
    header, data = {}, b""
    for name, (dtype, shape, raw) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


ONE = safetensors({"w": ("F32", [1], b"\x00\x00\x80\x3f")})  # 1.0


def folder(path: Path, **files: bytes | str) -> Path:
    """A model folder; `__` in a key stands for a dot, `___` for a hyphen."""
    (path / "config.json").write_text('{"model_type": "bert"}')
    for name, content in files.items():
        file = path / name.replace("___", "-").replace("__", ".")
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def sharded(path: Path, weight_map: Any, **files: bytes) -> Path:
    return folder(path, model__safetensors__index__json=json.dumps({"weight_map": weight_map}), **files)


def test_literal_bytes(tmp_path: Path) -> None:
    """Stored order, not that of names; floats become float32, the rest stays."""
    content = safetensors(
        {
            "f32": ("F32", [2, 1], b"\x00\x00\xc0\x3f\x00\x00\x00\xc0"),
            "bf16": ("BF16", [2], b"\xc0\x3f\x80\xff"),
            "f16": ("F16", [3], b"\x00\x3e\x01\x00\xff\x7b"),
            "f64": ("F64", [], b"\x9a\x99\x99\x99\x99\x99\xb9\x3f"),
            "i64": ("I64", [1, 2], b"\x07" + b"\x00" * 7 + b"\xff" * 8),
            "bool": ("BOOL", [2], b"\x01\x00"),
        }
    )
    checkpoint = Checkpoint.open(folder(tmp_path, model__safetensors=content))
    expected: dict[str, tuple[str, Any]] = {
        "f32": ("float32", [[1.5], [-2.0]]),
        "bf16": ("float32", [1.5, -np.inf]),
        "f16": ("float32", [1.5, 2.0**-24, 65504.0]),
        "f64": ("float32", np.float32(0.1)),
        "i64": ("int64", [[7, -1]]),
        "bool": ("bool", [True, False]),
    }
    assert list(checkpoint.tensors) == list(expected)
    for name, (dtype, values) in expected.items():
        array, stored = checkpoint.read(name), checkpoint.tensors[name]
        assert (array.dtype, array.shape) == (stored.dtype, stored.shape) == (np.dtype(dtype), np.shape(values))
        assert array.flags.c_contiguous
        np.testing.assert_array_equal(array, values)
    assert checkpoint.config == {"model_type": "bert"}


def test_shards(tmp_path: Path) -> None:
    two = safetensors({"b": ("I8", [2], b"\x01\xff"), "unlisted": ("I8", [1], b"\x05")})
    weight_map = {"b": "model-2.safetensors", "w": "model-1.safetensors"}
    path = sharded(tmp_path, weight_map, model___1__safetensors=ONE, model___2__safetensors=two)
    checkpoint = Checkpoint.open(path)
    assert list(checkpoint.tensors) == ["w", "b"]
    assert checkpoint.read("w").tolist() == [1.0]
    assert checkpoint.read("b").tolist() == [1, -1]


def test_files(tmp_path: Path) -> None:
    path = folder(tmp_path, model__safetensors=ONE, vocab__txt="a", tokenizer__json="{}", README__md="no")
    assert [file.name for file in Checkpoint.open(path).files()] == ["config.json", "tokenizer.json", "vocab.txt"]


def rejected(path: Path) -> str:
    """The one line of the error."""
    with pytest.raises(SourceError) as caught:
        Checkpoint.open(path)
    message = str(caught.value)
    assert "\n" not in message
    return message.removeprefix(str(path))


def test_no_folder(tmp_path: Path) -> None:
    assert rejected(tmp_path / "none").startswith(": no such folder; give a Hugging Face model folder")


def test_file_for_a_folder(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"")
    assert rejected(tmp_path / "model.bin").startswith(": is a file, expected a Hugging Face model folder")


def test_no_config(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(ONE)
    assert rejected(tmp_path) == ": no config.json; expected a folder that save_pretrained wrote"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "cannot be read as JSON (Expecting property name"),
        ("[1]", "holds a JSON list, expected an object"),
        (b"\xff\xfe", "cannot be read as JSON ('utf-8' codec"),
        ("[" * 100_000, "cannot be read as JSON (maximum recursion depth exceeded"),
    ],
)
def test_damaged_config(tmp_path: Path, config: bytes | str, message: str) -> None:
    assert rejected(folder(tmp_path, config__json=config, model__safetensors=ONE)).startswith(
        f"/config.json: {message}"
    )


def test_no_weights(tmp_path: Path) -> None:
    assert rejected(folder(tmp_path)) == ": no weights; expected model.safetensors or model.safetensors.index.json"


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model.bin.index.json"])
def test_pickles_are_not_opened(tmp_path: Path, name: str) -> None:
    folder(tmp_path)
    (tmp_path / name).write_bytes(b"cposix\nsystem\n(S'echo this pickle was opened'\ntR.")
    message = rejected(tmp_path)
    assert message.startswith(f"/{name}: is a ")
    assert "pickle, which bsexport does not open; convert it once where you trust it: python -c " in message
    assert f"M.from_pretrained('{tmp_path}').save_pretrained('{tmp_path}')" in message


def test_adapter(tmp_path: Path) -> None:
    message = rejected(folder(tmp_path, adapter_model__safetensors=ONE))
    assert message.startswith("/adapter_model.safetensors: is an adapter without its base model; merge it")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        ONE[:4],
        ONE[:20],
        ONE[:-1],
        ONE + b"\x00",
        b"\xff" * 64,
        ONE.replace(b'"F32"', b'"F99"'),
        ONE.replace(b"[1]", b"[9]"),
        safetensors({"w": ("F32", [2**62, 2**62], b"\x00" * 4)}),
    ],
    ids=["empty", "no length", "cut header", "cut data", "trailing", "huge header", "type", "shape", "overflow"],
)
def test_damaged_weights(tmp_path: Path, content: bytes) -> None:
    message = rejected(folder(tmp_path, model__safetensors=content))
    assert message.startswith("/model.safetensors: truncated or damaged (")
    assert message.endswith("; download or save the model again")


def test_no_tensor(tmp_path: Path) -> None:
    assert rejected(folder(tmp_path, model__safetensors=safetensors({}))).startswith(
        "/model.safetensors: holds no tensor"
    )


def test_type_that_is_not_a_plain_number(tmp_path: Path) -> None:
    message = rejected(folder(tmp_path, model__safetensors=safetensors({"w": ("F8_E4M3", [4], b"\x00" * 4)})))
    assert message.startswith("/model.safetensors: 'w' is stored in F8_E4M3, expected a float of 16 bits or more")


@pytest.mark.parametrize("weight_map", [None, [], {}, {"w": 1}])
def test_index_without_a_map(tmp_path: Path, weight_map: Any) -> None:
    assert rejected(sharded(tmp_path, weight_map)).startswith("/model.safetensors.index.json: no weight_map of tensor")


def test_missing_shard(tmp_path: Path) -> None:
    message = rejected(sharded(tmp_path, {"w": "a.safetensors", "v": "b.safetensors"}, a__safetensors=ONE))
    assert message.startswith("/model.safetensors.index.json: names b.safetensors, which is missing; download or save")


@pytest.mark.parametrize("file", ["../model.safetensors", "/model.safetensors", "a\\b", "..", ""])
def test_shard_outside_the_folder(tmp_path: Path, file: str) -> None:
    message = rejected(sharded(tmp_path, {"w": file}))
    assert message.startswith(f"/model.safetensors.index.json: names {file!r}, expected a safetensors file in the same")


def test_tensor_missing_from_its_shard(tmp_path: Path) -> None:
    message = rejected(sharded(tmp_path, {"w": "a.safetensors", "v": "a.safetensors"}, a__safetensors=ONE))
    assert message.startswith("/a.safetensors: the index promises 'v', which is not there")


def test_locate_takes_what_exists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("org/name").mkdir(parents=True)
    for path in (Path("org/name"), Path("org"), tmp_path, Path("a/b/c"), tmp_path / "none", Path("../none")):
        assert locate(path) == path


def test_hub_id_without_a_connection(tmp_path: Path) -> None:
    """In a process of its own: the client reads its settings when it is imported."""
    pytest.importorskip("huggingface_hub", reason="NOT TESTED: Hub ids need huggingface_hub")
    script = """
        from pathlib import Path
        from bsexport.checkpoint import locate
        from bsexport.errors import SourceError
        try:
            locate(Path("some-org/some-model"))
        except SourceError as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    message = done.stdout.strip()
    assert message.startswith(
        "some-org/some-model: no such folder, and no such model can be had from the Hugging Face Hub"
    )
    assert message.endswith("give a folder, or check the name and the connection")
    assert "\n" not in message


def test_a_file_that_is_cut_short_while_it_is_read(tmp_path: Path) -> None:
    path = folder(tmp_path, model__safetensors=ONE) / "model.safetensors"
    checkpoint = Checkpoint.open(path.parent)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 1)
    with pytest.raises(SourceError, match=r"model.safetensors: was cut short while it was read; download or save"):
        checkpoint.read("w")
    path.unlink()
    with pytest.raises(SourceError, match=r"model.safetensors: truncated or damaged .*No such file"):
        checkpoint.read("w")


@pytest.mark.skipif(sys.platform != "linux", reason="NOT TESTED: private memory is read from /proc")
def test_reading_takes_the_memory_of_one_tensor(tmp_path: Path) -> None:
    """8 tensors of 32 MiB in a file that is all hole, read in turn: never more than two of them in private memory."""
    mib = 2**20
    header = {
        str(i): {"dtype": "F32", "shape": [8 * mib], "data_offsets": [32 * i * mib, 32 * (i + 1) * mib]}
        for i in range(8)
    }
    text = json.dumps(header).encode()
    with (folder(tmp_path) / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + 256 * mib)
    script = f"""
        import resource
        from pathlib import Path
        from bsexport.checkpoint import Checkpoint
        used = int(Path("/proc/self/status").read_text().split("VmData:")[1].split()[0]) * 1024
        resource.setrlimit(resource.RLIMIT_DATA, (used + 80 * {mib}, -1))
        checkpoint = Checkpoint.open(Path({str(tmp_path)!r}))
        print(sum(checkpoint.read(name).size for name in checkpoint.tensors))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str(64 * mib), done.stderr
