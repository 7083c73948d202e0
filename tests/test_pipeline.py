"""From a model to a package and back into a session: the straight line, on real files."""

import hashlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from models import save_small
from onnx import numpy_helper, parser

import bsexport_runtime
from bsexport import pipeline, prune
from bsexport.errors import OutputError, RecipeError, SourceError
from bsexport.output import Staging
from bsexport.package import is_package
from bsexport.pipeline import pack
from bsexport.quantize import dequantize, quantize
from bsexport.recipe import Recipe
from bsexport.source import open_source
from bsexport.table import report_text

RECIPE = Recipe(prune=0.8, step=1e-3)


def digests(directory):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(directory.iterdir())}


def inlined(package, plain=ort.GraphOptimizationLevel.ORT_ENABLE_ALL):
    """Plain onnxruntime on the package's plain graph with the decoded weights inside, and the runtime's options."""
    model = onnx.load(package / "decoded.onnx", load_external_data=False)
    tensors = bsexport_runtime.read_tensors(package)
    for initializer in model.graph.initializer:
        if initializer.name in tensors:
            initializer.CopyFrom(numpy_helper.from_array(tensors[initializer.name], initializer.name))
    options = ort.SessionOptions()
    options.graph_optimization_level = plain
    for key, value in bsexport_runtime.session.CONFIG.items():
        options.add_session_config_entry(key, value)
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def test_the_package_holds_the_pruned_and_quantised_weights(small, tmp_path):
    report = pack(open_source(str(small)), RECIPE, tmp_path / "out")
    tensors = bsexport_runtime.read_tensors(tmp_path / "out")
    weights = {weight.name: weight.read() for weight in open_source(str(small)).weights}
    matrices = [name for name in weights if weights[name].ndim == 2]
    magnitudes = np.sort(np.abs(np.concatenate([weights[name].reshape(-1) for name in matrices])))
    limit = magnitudes[round(0.8 * magnitudes.size)]
    for name in matrices:
        kept = np.where(np.abs(weights[name]) >= limit, weights[name], 0)
        expected = np.float32(1e-3) * np.rint(kept.astype(np.float64) / float(np.float32(1e-3))).astype(np.float32)
        np.testing.assert_array_equal(tensors[name], expected)
        assert np.abs(kept - expected).max() <= 0.5e-3 * (1 + 1e-6)
    total = report.summary()
    assert total["weights_bytes"] == (tmp_path / "out" / "weights.bsx").stat().st_size
    assert total["graph_bytes"] == sum(
        (tmp_path / "out" / name).stat().st_size for name in ("model.onnx", "decoded.onnx")
    )
    assert total["sparsity_pruned"] == pytest.approx(0.8, abs=1e-4)


def test_the_session_is_bit_identical_to_plain_onnxruntime_on_the_decoded_weights(small, tmp_path):
    pack(open_source(str(small)), RECIPE, tmp_path / "out")
    session = bsexport_runtime.load(tmp_path / "out")
    plain = inlined(tmp_path / "out")
    for shape in ((1, 1), (3, 7), (2, 64)):
        ids = np.random.default_rng(0).integers(0, 100, shape)
        (got,), (expected,) = session.run(None, {"ids": ids}), plain.run(None, {"ids": ids})
        assert got.tobytes() == expected.tobytes()
        tensors = bsexport_runtime.read_tensors(tmp_path / "out")
        bias = numpy_helper.to_array(next(i for i in onnx.load(small).graph.initializer if i.name == "bias"))
        by_hand = np.maximum(tensors["table"][ids] @ tensors["first"] + bias, 0) @ tensors["second"]
        np.testing.assert_allclose(got, by_hand, atol=1e-5)


def test_same_input_and_recipe_give_the_same_bytes_whatever_the_threads(small, tmp_path):
    for name, threads in (("a", 1), ("b", 2), ("c", 5)):
        pack(open_source(str(small)), RECIPE, tmp_path / name, threads=threads)
    assert digests(tmp_path / "a") == digests(tmp_path / "b") == digests(tmp_path / "c")


def test_a_dry_run_writes_nothing_and_reports_the_same_weights(small, tmp_path):
    before = sorted(tmp_path.iterdir())
    dry = pack(open_source(str(small)), RECIPE, None).summary()
    assert sorted(tmp_path.iterdir()) == before
    real = pack(open_source(str(small)), RECIPE, tmp_path / "out").summary()
    assert dry == real


@pytest.mark.parametrize("scope", ["tensor", "row"])
def test_the_other_scopes_prune_every_tensor_or_row_alike(small, tmp_path, scope):
    pack(open_source(str(small)), Recipe(prune=0.75, step=1e-6, scope=scope), tmp_path / "out")
    for name, tensor in bsexport_runtime.read_tensors(tmp_path / "out").items():
        if tensor.ndim == 2:
            rows = tensor if scope == "row" else tensor.reshape(1, -1)
            assert {int(zeros) for zeros in (rows == 0).sum(axis=1)} == {round(0.75 * rows.shape[1])}, name


def test_kept_and_protected_tensors(small, tmp_path):
    recipe = Recipe(prune=0.9, step=1e-3, keep=("first",), protect=("tab*",))
    report = {tensor.name: tensor for tensor in pack(open_source(str(small)), recipe, tmp_path / "out").tensors}
    tensors = bsexport_runtime.read_tensors(tmp_path / "out")
    model = {weight.name: weight.read() for weight in open_source(str(small)).weights}
    assert report["first"].why == "kept by --keep"
    np.testing.assert_array_equal(tensors["first"], model["first"])
    assert not report["table"].pruned
    np.testing.assert_allclose(tensors["table"], model["table"], atol=0.5e-3 + 1e-7)
    assert np.count_nonzero(tensors["second"] == 0) >= round(0.9 * 48 * 40)


def test_a_glob_that_matches_nothing_is_refused(small, tmp_path):
    with pytest.raises(RecipeError, match=r"--keep 'no\.such\*' matches no tensor; the names are such as table"):
        pack(open_source(str(small)), Recipe(keep=("no.such*",)), tmp_path / "out")


@pytest.mark.parametrize(("step", "why"), [(1e-9, "a level is beyond 2^24"), (1e-30, "a level is beyond 2^24")])
def test_a_step_finer_than_float32_leaves_tensors_as_they_are_and_says_so(small, tmp_path, step, why):
    report = pack(open_source(str(small)), Recipe(step=step), tmp_path / "out")
    assert all(why in tensor.why for tensor in report.tensors if len(tensor.shape) == 2)
    model = {weight.name: weight.read() for weight in open_source(str(small)).weights}
    for name, tensor in bsexport_runtime.read_tensors(tmp_path / "out").items():
        np.testing.assert_array_equal(tensor, model[name])


def test_a_step_that_leaves_nothing_names_the_largest_weight(small, tmp_path):
    weights = save_small(small)
    name = max(("table", "first", "second"), key=lambda name: np.abs(weights[name]).max())
    largest = np.abs(weights[name]).max()
    with pytest.raises(
        RecipeError, match=f"turns every weight into zero: the largest is {largest:g}, in tensor {name}"
    ):
        pack(open_source(str(small)), Recipe(step=100), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["small.onnx"]


@pytest.mark.parametrize("ratio", [0.0, 0.5])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_weight_that_is_no_number_is_refused_by_name_and_nothing_is_written(tmp_path, ratio, bad):
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[n, 40] x) => (float[n, 50] y) { y = MatMul (x, w) }'
    )
    weights = np.ones((40, 50), np.float32)
    weights[3, 4] = bad
    model.graph.initializer.append(numpy_helper.from_array(weights, "w"))
    onnx.save(model, tmp_path / "bad.onnx")
    what = "NaN" if np.isnan(bad) else "infinities"
    with pytest.raises(SourceError, match=rf"tensor w: holds {what} .1 of 2000 weights"):
        pack(open_source(str(tmp_path / "bad.onnx")), Recipe(prune=ratio), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["bad.onnx"]


def test_a_graph_of_which_nothing_can_be_coded_passes_through(tmp_path):
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[n] x) => (float[n] y) { y = Add (x, x) }'
    )
    onnx.save(model, tmp_path / "none.onnx")
    report = pack(open_source(str(tmp_path / "none.onnx")), RECIPE, tmp_path / "out")
    assert "nothing was coded" in report_text(report)
    session = bsexport_runtime.load(tmp_path / "out")
    np.testing.assert_array_equal(session.run(None, {"x": np.ones(3, np.float32)})[0], 2)
    assert list(bsexport_runtime.Package(tmp_path / "out").verify()) == []


def test_a_float16_weight_that_would_round_to_infinity_is_stored_as_it_is(tmp_path):
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float16[n, 40] x) => (float16[n, 50] y) { y = MatMul (x, w) }'
    )
    weights = np.full((40, 50), 65504, np.float16)  # the largest there is; at step 1000 the nearest level is 66,000
    model.graph.initializer.append(numpy_helper.from_array(weights, "w"))
    onnx.save(model, tmp_path / "half.onnx")
    (tensor,) = pack(open_source(str(tmp_path / "half.onnx")), Recipe(step=1000), tmp_path / "out").tensors
    assert tensor.why == "at step 1000 a weight would round beyond what float16 holds"
    assert bsexport_runtime.read_tensors(tmp_path / "out")["w"].tolist() == weights.tolist()


@pytest.mark.parametrize("fill", [0.0, 0.7])
def test_tensors_of_one_value(tmp_path, fill):
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[n, 40] x) => (float[n, 50] y) { y = MatMul (x, w) }'
    )
    model.graph.initializer.append(numpy_helper.from_array(np.full((40, 50), fill, np.float32), "w"))
    onnx.save(model, tmp_path / "flat.onnx")
    pack(open_source(str(tmp_path / "flat.onnx")), Recipe(step=0.1), tmp_path / "out")
    expected = dequantize(quantize(np.array([fill], np.float32), 0.1).astype(np.int32), 0.1)[0]
    assert bsexport_runtime.read_tensors(tmp_path / "out")["w"].tolist() == np.full((40, 50), expected).tolist()


def test_an_older_package_stands_until_the_new_one_is_whole(small, tmp_path, monkeypatch):
    out = tmp_path / "out"
    pack(open_source(str(small)), RECIPE, out)
    before = digests(out)
    with pytest.raises(OutputError, match="exists already"):
        pack(open_source(str(small)), Recipe(), out)

    def fail(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline.rewrite, "plain", fail)
    with pytest.raises(KeyboardInterrupt):
        pack(open_source(str(small)), Recipe(), out, force=True)
    assert digests(out) == before
    monkeypatch.undo()
    pack(open_source(str(small)), Recipe(), out, force=True)
    assert digests(out) != before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "small.onnx"]


def test_force_never_replaces_what_is_no_package(small, tmp_path):
    precious = tmp_path / "out"
    precious.mkdir()
    (precious / "thesis.tex").write_text("x")
    with pytest.raises(OutputError, match="was not made by this command"):
        pack(open_source(str(small)), RECIPE, precious, force=True)
    assert (precious / "thesis.tex").read_text() == "x"


def test_a_full_disk_is_one_line_and_leaves_nothing(small, tmp_path):
    """The file size limit of the process stands in for a full disk: write() fails half way in both."""
    script = (
        "import resource, signal, sys; from pathlib import Path; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000)); from bsexport.cli import main;"
        "main(['pack', sys.argv[1], '-o', sys.argv[2]])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(small), str(tmp_path / "out")], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "cannot be written" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["small.onnx"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing_half_made(tmp_path, number):
    weights = np.random.default_rng(0).standard_normal((20000, 1000)).astype(np.float32)
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (int64[n] x) => (float[n, 1000] y) { y = Gather (w, x) }'
    )
    model.graph.initializer.append(numpy_helper.from_array(weights, "w"))
    onnx.save(model, tmp_path / "big.onnx")
    process = subprocess.Popen(
        [sys.executable, "-m", "bsexport.cli", "pack", "big.onnx", "--step", "1e-3", "-o", "out"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a job in the background ignores it
    )
    for _ in range(2000):
        if (tmp_path / "out.partial" / "package").is_dir() or process.poll() is not None:
            break
        time.sleep(0.01)
    assert process.poll() is None, process.communicate()
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert [path.name for path in tmp_path.iterdir()] == ["big.onnx"]


def test_what_a_killed_run_of_unpack_left_is_cleaned_up_and_what_a_living_one_works_on_is_not(tmp_path):
    (tmp_path / ".out.0123.partial").mkdir()
    with Staging(tmp_path / "out", force=False, replaceable=is_package) as living:
        with Staging(tmp_path / "out", force=False, replaceable=is_package) as other:
            assert {path.name for path in tmp_path.iterdir()} == {living.path.name, other.path.name}
        assert {path.name for path in tmp_path.iterdir()} == {living.path.name}


def test_a_package_that_a_killed_run_had_set_aside_comes_back(small, tmp_path):
    pack(open_source(str(small)), RECIPE, tmp_path / "out")
    before = digests(tmp_path / "out")
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out").rename(tmp_path / "out.partial" / "package.old")
    with pytest.raises(OutputError, match="exists already"):
        pack(open_source(str(small)), Recipe(), tmp_path / "out")
    assert digests(tmp_path / "out") == before


def test_what_appears_at_the_output_while_packing_is_not_deleted(small, tmp_path, monkeypatch):
    def interfere(*args, **kwargs):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "thesis.tex").write_text("x")
        return plain(*args, **kwargs)

    plain = pipeline.rewrite.plain
    monkeypatch.setattr(pipeline.rewrite, "plain", interfere)
    with pytest.raises(OutputError, match="exists already"):
        pack(open_source(str(small)), RECIPE, tmp_path / "out")
    assert (tmp_path / "out" / "thesis.tex").read_text() == "x"


def test_a_failed_run_leaves_no_parents_behind(small, tmp_path):
    with pytest.raises(RecipeError, match="every weight into zero"):
        pack(open_source(str(small)), Recipe(step=100), tmp_path / "no" / "such" / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["small.onnx"]
    pack(open_source(str(small)), RECIPE, tmp_path / "no" / "such" / ("x" * 240))
    assert (tmp_path / "no" / "such" / ("x" * 240) / "bsexport.json").is_file()


def test_weights_that_were_pruned_and_then_stored_as_they_are_count_as_pruned(small, tmp_path):
    report = pack(open_source(str(small)), Recipe(prune=0.5, step=1e-8), tmp_path / "out")
    assert all(tensor.why for tensor in report.tensors)
    assert report.summary()["sparsity_pruned"] == pytest.approx(0.5, abs=1e-4)


def test_every_blob_is_compared_before_the_rename(small, tmp_path, monkeypatch):
    """A codec that decodes one weight wrongly must not get a package out."""
    from bsexport import code
    from bsexport.errors import VerifyError

    decode = code.codec.Parts.part

    def wrong(*args):
        decoded = decode(*args).copy()
        decoded.reshape(-1)[-1] += np.float32(1e-3)
        return decoded

    monkeypatch.setattr(code.codec.Parts, "part", wrong)
    with pytest.raises(VerifyError, match=r"tensor .*: its blob does not decode to the weights that were coded"):
        pack(open_source(str(small)), RECIPE, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["small.onnx"]


def test_the_manifest_says_what_was_done(small, tmp_path):
    pack(open_source(str(small)), RECIPE, tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "bsexport.json").read_text())
    assert manifest["format"], manifest["version"] == ("bsexport", 0)
    assert Recipe.from_json(manifest["recipe"]) == RECIPE
    tensors = [(weight.name, weight.read) for weight in open_source(str(small)).weights if len(weight.shape) == 2]
    assert manifest["threshold"] == prune.threshold(tensors, 0.8).magnitude
    assert {tensor["name"]: tensor["why"] for tensor in manifest["tensors"]} == {"table": "", "first": "", "second": ""}
    assert manifest["inline"] == ["bias"]


def test_packing_holds_little_more_than_the_largest_tensor(tmp_path):
    """Eight tensors of 32 MB in an external file: 256 MB of weights, packed within 128 MB on top of the import."""
    weights = np.random.default_rng(0).standard_normal((4096, 2048), np.float32)
    names = [f"w{layer}" for layer in range(8)]
    nodes = [f"h{name} = Gather ({name}, ids) y{name} = Identity (h{name})" for name in names]
    outputs = ", ".join(f"float[n, 2048] y{name}" for name in names)
    text = f'<ir_version: 8, opset_import: ["" : 17]> g (int64[n] ids) => ({outputs}) {{ {" ".join(nodes)} }}'
    model = parser.parse_model(text)
    model.graph.initializer.extend(numpy_helper.from_array(np.roll(weights, i), name) for i, name in enumerate(names))
    onnx.save(model, tmp_path / "wide.onnx", save_as_external_data=True, location="wide.data")
    script = """
import resource, sys
import bsexport.cli, bsexport.pipeline, bsexport.graph.read, bsexport_runtime, onnx, onnxruntime
from pathlib import Path
from bsexport.recipe import Recipe
from bsexport.source import open_source
from bsexport.table import report_text
def data(): return int(next(l for l in open('/proc/self/status') if l.startswith('VmData')).split()[1]) * 1024
limit = data() + 128 * 2**20
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
bsexport.pipeline.pack(open_source(sys.argv[1]), Recipe(prune=0.5, step=1e-2), Path(sys.argv[2]))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "wide.onnx"), str(tmp_path / "out")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert Path(tmp_path / "out" / "weights.bsx").stat().st_size > 1 << 20
