"""The command line as a stranger meets it: exit codes, what goes to stdout and stderr, and one line for bad input."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
from command_line import bsexport, names, refused
from models import save_small
from onnx import numpy_helper

import bsexport_runtime
from bsexport.cli import main
from bsexport.recipe import DEFAULT_STEP, Recipe, parse_step
from bsexport_runtime.package import MANIFEST, seal

RECIPE = ("--prune", "0.8", "--step", "1e-3")


@pytest.fixture
def package(small: Path) -> Path:
    """A package of the small model, beside it."""
    out = small.with_name("small-bsx")
    assert bsexport("pack", small, *RECIPE, "-o", out).exit_code == 0
    return out


def reseal(package: Path, **changes: object) -> None:
    """Change fields of the manifest as someone would who lies on purpose: with the right checksum."""
    path = package / MANIFEST
    manifest = json.loads(path.read_bytes()) | changes
    del manifest["sha256"]
    path.write_bytes(seal(manifest))


# pack


def test_pack_writes_name_bsx_in_the_current_folder(tmp_path: Path) -> None:
    """A process of its own, as a user starts it: nothing on stderr, results on stdout."""
    (tmp_path / "elsewhere").mkdir()
    save_small(tmp_path / "elsewhere" / "tiny.onnx")
    command = [sys.executable, "-m", "bsexport.cli", "pack", "elsewhere/tiny.onnx", *RECIPE]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("elsewhere/tiny.onnx -> tiny-bsx\n")
    assert names(tmp_path) == ["elsewhere", "tiny-bsx"]
    manifest = json.loads((tmp_path / "tiny-bsx" / MANIFEST).read_text())
    assert (manifest["recipe"]["prune"], manifest["recipe"]["step"]) == (0.8, float(np.float32(1e-3)))
    for line in ("fp32 weights", "packed weights", "sparsity", "left uncoded", "graphs"):
        assert line in done.stdout


def test_json_is_all_of_stdout_and_is_the_manifest_and_more(small: Path, tmp_path: Path) -> None:
    result = bsexport("pack", small, *RECIPE, "-o", tmp_path / "out", "--json")
    printed = json.loads(result.stdout)
    manifest = json.loads((tmp_path / "out" / MANIFEST).read_text())
    assert result.stderr == ""
    assert printed["out"] == str(tmp_path / "out")
    assert printed["tensors"] == manifest["tensors"]
    assert printed["summary"]["graph_bytes"] > 0


def test_quiet_says_nothing_and_packs_all_the_same(small: Path, tmp_path: Path) -> None:
    result = bsexport("pack", small, "-q", "-o", tmp_path / "out")
    assert (result.exit_code, result.output) == (0, "")
    assert names(tmp_path) == ["out", "small.onnx"]


def test_dry_run_reports_and_writes_nothing(small: Path, tmp_path: Path) -> None:
    result = bsexport("pack", small, *RECIPE, "-o", tmp_path / "out", "--dry-run")
    assert "nothing written (dry run)" in result.stdout
    assert names(tmp_path) == ["small.onnx"]
    assert json.loads(bsexport("pack", small, "--dry-run", "--json").stdout)["out"] is None


def test_force_replaces_a_package_and_only_that(small: Path, package: Path) -> None:
    before = (package / "weights.bsx").read_bytes()
    assert "exists already" in refused("pack", small, "-o", package)
    assert (package / "weights.bsx").read_bytes() == before
    assert bsexport("pack", small, "-o", package, "--force").exit_code == 0
    assert (package / "weights.bsx").read_bytes() != before
    assert "was not made by this command" in refused("pack", small, "-o", small.parent, "--force")


def test_every_option_of_pack_reaches_the_recipe(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ("--scope", "row", "--order", "2", "--keep", "first", "--keep", "sec*", "--protect", "table")
    assert bsexport("pack", small, *RECIPE, *options, "-o", out, "--threads", "1").exit_code == 0
    manifest = json.loads((out / MANIFEST).read_text())
    recipe = Recipe(prune=0.8, step=1e-3, scope="row", order=2, keep=("first", "sec*"), protect=("table",))
    assert Recipe.from_json(manifest["recipe"]) == recipe
    tensors = {tensor["name"]: tensor for tensor in manifest["tensors"]}
    assert (tensors["table"]["layout"], tensors["table"]["level_code"]) == ("EG", "eg 2")
    assert [tensors[name]["why"] for name in ("first", "second")] == ["kept by --keep"] * 2
    assert not tensors["table"]["pruned"]


@pytest.mark.parametrize("layout", ["eg", "bm", "rl"])
@pytest.mark.parametrize("family", ["eg", "rice"])
def test_layout_and_family_can_be_forced(small: Path, tmp_path: Path, layout: str, family: str) -> None:
    out = tmp_path / "out"
    assert bsexport("pack", small, *RECIPE, "--layout", layout, "--family", family, "-o", out).exit_code == 0
    coded = [tensor for tensor in json.loads((out / MANIFEST).read_text())["tensors"] if not tensor["why"]]
    assert {tensor["layout"] for tensor in coded} == {layout.upper()}
    assert {tensor["level_code"].split()[0] for tensor in coded} == {family}
    assert "order 2 stands for" in refused("pack", small, "--order", "2", "--layout", "rl")


@pytest.mark.parametrize(("options", "zeros"), [((), 0), (("--protect", "none"), 1600)])
def test_protect_none_prunes_the_head_too(tmp_path: Path, options: tuple[str, ...], zeros: int) -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[n, 40] x) => (float[n, 50] y) { y = MatMul (x, w) }'
    )
    model.graph.node[0].input[1] = "classifier.weight"
    weights = np.random.default_rng(0).standard_normal((40, 50)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weights, "classifier.weight"))
    onnx.save(model, tmp_path / "head.onnx")
    out = tmp_path / "out"
    bsexport("pack", tmp_path / "head.onnx", "--prune", "0.8", "--step", "1e-6", *options, "-o", out)
    (tensor,) = json.loads((out / MANIFEST).read_text())["tensors"]
    assert tensor["zeros"] == zeros


def test_defaults_shown_are_the_defaults_of_the_recipe() -> None:
    options = {option.name: option.default for option in main.commands["pack"].params}
    step = next(option.help for option in main.commands["pack"].params if option.name == "step")
    assert parse_step(step.rpartition("else ")[2].rstrip("]")) == DEFAULT_STEP
    assert (options["prune"], options["scope"]) == (Recipe().prune, Recipe().scope)


@pytest.mark.parametrize("quiet", [(), ("--quiet",), ("--json",)])
def test_progress_goes_to_a_terminal_on_stderr_alone(small: Path, tmp_path: Path, quiet: tuple[str, ...]) -> None:
    terminal, stderr = pty.openpty()
    command = [sys.executable, "-m", "bsexport.cli", "pack", str(small), "-o", str(tmp_path / "out"), *quiet]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=stderr)
    os.close(stderr)
    shown = b""
    try:
        while part := os.read(terminal, 1 << 16):
            shown += part
    except OSError:  # the other end is closed
        pass
    os.close(terminal)
    assert done.returncode == 0
    assert b"\x1b" not in done.stdout and b"#" not in done.stdout
    assert (b"coding" in shown and b"100%" in shown) if not quiet else shown == b""


# bad input


def test_usage_errors_exit_with_2(package: Path) -> None:
    for arguments in (
        ("pack",),
        ("pack", "model", "--no-such-option"),
        ("pack", "model", "--scope", "layer"),
        ("pack", "model", "--threads", "0"),
        ("run", package),
        ("run", package, "--text", "a", "--image", "b"),
        ("run", package, "--image", "b", "--context", "c"),
        ("unpack", package),
        ("no-such-command",),
    ):
        result = bsexport(*arguments)
        assert (result.exit_code, result.stdout) == (2, ""), arguments
        assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--prune", "1", "prune 1.0 cannot be used: expected a ratio from 0 up to, but not including, 1"),
        ("--prune", "-0.1", "prune -0.1 cannot be used"),
        ("--prune", "nan", "prune nan cannot be used"),
        ("--step", "0", "step 0 cannot be used: expected a number above 0"),
        ("--step", "-1e-3", "step -1e-3 cannot be used"),
        ("--step", "nan", "step nan cannot be used"),
        ("--step", "1e99", "step 1e99 cannot be used"),
        ("--step", "fine", "step fine cannot be used"),
        ("--order", "16", "order 16 cannot be used: expected 0 to 15"),
        ("--keep", "nothing*", "--keep 'nothing*' matches no tensor; the names are such as table"),
        ("--task", "fill-mask", "--task is for Hugging Face models"),
    ],
)
def test_a_bad_option_is_refused_before_anything_is_written(
    small: Path, tmp_path: Path, option: str, value: str, message: str
) -> None:
    assert message in refused("pack", small, "-o", tmp_path / "out", f"{option}={value}")
    assert names(tmp_path) == ["small.onnx"]


def test_a_step_that_leaves_nothing_names_the_largest_weight(small: Path, tmp_path: Path) -> None:
    weights = save_small(small)
    largest = max(np.abs(array).max() for name, array in weights.items() if name != "bias")
    line = refused("pack", small, "--step", "1000", "-o", tmp_path / "out")
    assert f"step 1000 turns every weight into zero: the largest is {largest:g}, in tensor" in line
    assert names(tmp_path) == ["small.onnx"]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_named(small: Path, tmp_path: Path, bad: float) -> None:
    model = onnx.load(small)
    weights = numpy_helper.to_array(model.graph.initializer[1]).copy()
    weights[2, 3] = bad
    model.graph.initializer[1].CopyFrom(numpy_helper.from_array(weights, "first"))
    onnx.save(model, small)
    line = refused("pack", small, "-o", tmp_path / "out")
    what = "NaN" if np.isnan(bad) else "infinities"
    assert f"tensor first: holds {what} (1 of 3072 weights looked at)" in line
    assert names(tmp_path) == ["small.onnx"]


def test_models_that_are_none(small: Path, package: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(small.read_bytes()[:5000])
    (tmp_path / "text.onnx").write_text("hello")
    for model, message in (
        (tmp_path / "nowhere" / "at" / "all", "no such folder"),
        (tmp_path / "no.onnx", "no such file"),
        (tmp_path / "broken.onnx", "truncated"),
        (tmp_path / "text.onnx", "not an ONNX model"),
        (package, "is a package already"),
    ):
        assert message in refused("pack", model, "-o", tmp_path / "out"), model
    assert not (tmp_path / "out").exists()


def test_external_data_outside_its_folder_is_not_read(small: Path, tmp_path: Path) -> None:
    model = onnx.load(small)
    folder = tmp_path / "model"
    folder.mkdir()
    onnx.save(model, folder / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    model = onnx.load(folder / "m.onnx", load_external_data=False)
    (tmp_path / "secret").write_bytes((folder / "m.data").read_bytes())
    for place in ("../secret", str(tmp_path / "secret")):
        for tensor in model.graph.initializer:
            next(entry for entry in tensor.external_data if entry.key == "location").value = place
        (folder / "m.onnx").write_bytes(model.SerializeToString())
        assert "secret" in refused("pack", folder / "m.onnx", "-o", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["pack", "unpack.onnx", "unpack"])
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, small: Path, package: Path, command: str) -> None:
    """The file size limit of the process stands in for a full disk: write() fails half way in both."""
    if command == "unpack":
        reseal(package, task="feature-extraction")
    out = tmp_path / ("out.onnx" if command.endswith("onnx") else "out")
    arguments = ["pack", str(small), "-o", str(out)] if command == "pack" else ["unpack", str(package), "-o", str(out)]
    script = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000));"
        "from bsexport.cli import main; main(sys.argv[1:])"
    )
    done = subprocess.run([sys.executable, "-B", "-c", script, *arguments], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"Error: {out}: cannot be written: File too large; nothing was left behind\n"
    assert names(tmp_path) == ["small-bsx", "small.onnx"]


def truncate(package: Path) -> None:
    content = (package / "weights.bsx").read_bytes()
    (package / "weights.bsx").write_bytes(content[:-10])


def flip_head(package: Path) -> None:
    content = bytearray((package / "weights.bsx").read_bytes())
    content[20] ^= 1
    (package / "weights.bsx").write_bytes(content)


def flip_manifest(package: Path) -> None:
    content = (package / MANIFEST).read_bytes()
    (package / MANIFEST).write_bytes(content.replace(b'"prune": 0.8', b'"prune": 0.9'))


def make_foreign(package: Path) -> None:
    (package / MANIFEST).write_text('{"format": "other"}')


def make_newer(package: Path) -> None:
    reseal(package, version=99)


def drop_manifest(package: Path) -> None:
    (package / MANIFEST).unlink()


def drop_weights(package: Path) -> None:
    (package / "weights.bsx").unlink()


def claim_gigabytes(package: Path) -> None:
    """A shape, and with it an arena, that the blob's own head does not bear out."""
    manifest = json.loads((package / MANIFEST).read_bytes())
    manifest["tensors"][-1]["shape"] = [1 << 20, 1 << 18]
    reseal(package, tensors=manifest["tensors"], arena_bytes=1 << 40)


DAMAGE = {
    truncate: "weights.bsx: has",
    flip_head: "weights.bsx: tensor table",
    flip_manifest: "was changed since the package was made",
    make_foreign: "is not a bsexport manifest",
    make_newer: "has format version 99, this runtime reads version 0",
    drop_manifest: "No such file or directory; expected a directory made by bsexport pack",
    drop_weights: "No such file or directory; copy the package again",
    claim_gigabytes: "weights.bsx: tensor second is float32 [48, 40], but the manifest says",
}


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("command", ["run", "unpack", "inspect", "verify", "bench"])
def test_a_damaged_package_is_one_line(package: Path, tmp_path: Path, damage: object, command: str) -> None:
    damage(package)  # type: ignore[operator]
    options = {"run": ["--text", "x"], "unpack": ["-o", str(tmp_path / "back.onnx")]}.get(command, [])
    assert DAMAGE[damage] in refused(command, package, *options)  # type: ignore[index]
    assert names(tmp_path) == ["small-bsx", "small.onnx"]


def test_a_package_that_claims_gigabytes_gets_no_memory(package: Path) -> None:
    claim_gigabytes(package)
    script = (
        "import resource, sys, bsexport.verify; from bsexport.cli import main;"
        "data = next(l for l in open('/proc/self/status') if l.startswith('VmData')).split()[1];"
        "resource.setrlimit(resource.RLIMIT_DATA, (int(data) * 1024 + (64 << 20),) * 2); main(sys.argv[1:])"
    )
    done = subprocess.run([sys.executable, "-c", script, "verify", str(package)], capture_output=True, text=True)
    assert done.returncode == 1
    assert "but the manifest says" in done.stderr and len(done.stderr.splitlines()) == 1


def test_no_package_at_all(tmp_path: Path) -> None:
    assert "no such package; expected a directory made by bsexport pack" in refused("inspect", tmp_path / "none")


# inspect, version, warnings, interrupts


def test_inspect_shows_recipe_sizes_and_every_tensor(package: Path) -> None:
    result = bsexport("inspect", package)
    assert result.exit_code == 0
    assert "prune 0.8, scope global, step 0.001" in result.stdout
    assert "packed weights" in result.stdout
    lines = [line for line in result.stdout.splitlines() if "float32" in line]
    assert [line.split("  ")[-2].strip() for line in lines] == ["table", "first", "second"]
    assert [line.split("float32 ")[1] for line in lines] == ["100 x 64", "64 x 48", "48 x 40"]


def test_inspect_json_is_the_manifest(package: Path) -> None:
    printed = json.loads(bsexport("inspect", package, "--json").stdout)
    manifest = json.loads((package / MANIFEST).read_text())
    assert {key: printed[key] for key in manifest} == manifest
    assert printed["path"] == str(package)


def test_version_names_the_codec() -> None:
    result = bsexport("--version")
    assert result.exit_code == 0
    assert result.stdout.startswith("bsexport 0.1.0, codec ")


def test_warnings_are_one_line_without_source(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def inspect(path: Path) -> None:
        warnings.warn("decoding in numpy,\nwhich is slow", RuntimeWarning, stacklevel=2)
        return original(path)

    original = bsexport_runtime.inspect
    monkeypatch.setattr(bsexport_runtime, "inspect", inspect)
    assert bsexport("inspect", package, "--json").stderr == "Warning: decoding in numpy, which is slow\n"


def test_what_bsexport_logs_is_a_warning_unless_quiet(tmp_path: Path) -> None:
    save_small(tmp_path / "m.onnx")
    model = onnx.load(tmp_path / "m.onnx")
    values = onnx.helper.make_tensor("odd", onnx.TensorProto.FLOAT, [1], [1.0])
    indices = onnx.helper.make_tensor("i", onnx.TensorProto.INT64, [1], [0])
    model.graph.sparse_initializer.append(onnx.helper.make_sparse_tensor(values, indices, [4]))
    model.graph.node.append(onnx.helper.make_node("Identity", ["odd"], ["dense"]))
    model.graph.output.append(onnx.helper.make_tensor_value_info("dense", onnx.TensorProto.FLOAT, [4]))
    onnx.save(model, tmp_path / "m.onnx")
    warned = bsexport("pack", tmp_path / "m.onnx", "-o", tmp_path / "a")
    assert warned.exit_code == 0
    assert warned.stderr.startswith("Warning: ") and "sparse tensors stay as they are" in warned.stderr
    assert len(warned.stderr.splitlines()) == 1
    assert bsexport("pack", tmp_path / "m.onnx", "-o", tmp_path / "b", "-q").output == ""
    assert bsexport("pack", tmp_path / "m.onnx", "-o", tmp_path / "c").stderr != ""  # quiet was for one run


def test_an_interrupt_says_aborted_and_exits_with_130(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("bsexport.pipeline.pack", interrupt)
    result = bsexport("pack", small, "--dry-run")
    assert (result.exit_code, result.stdout, result.stderr.strip()) == (130, "", "Aborted!")
