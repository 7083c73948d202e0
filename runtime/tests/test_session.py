"""Loading a package into an onnxruntime session: what it computes, what it owns, and what goes wrong in one line."""

from __future__ import annotations

import gc
import hashlib
import shutil
import subprocess
import sys
import warnings
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from make_package import PACKAGE, outputs, weights
from test_package import add_encoder, rewrite

import bsexport_runtime
from bsexport_runtime import BsexportRuntimeError, Package, PackageError, Session, inspect, load, read_tensors
from bsexport_runtime.residency import GRAPH_FACTOR, MODES, SESSION_BYTES, predict
from bsexport_runtime.session import CONFIG, available_cores

IN_PLACE = tuple(int(part) for part in ort.__version__.split(".")[:2]) >= (1, 31)
in_place = pytest.mark.skipif(not IN_PLACE, reason=f"NOT TESTED: onnxruntime {ort.__version__} copies the weights")

IDS = np.array([[0, 11, 399], [7, 7, 123]])


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Nothing warns but what a test expects, and this onnxruntime if it copies."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=r"onnxruntime [\d.]+ copies the weights")
        warnings.filterwarnings("ignore", message="decoding in numpy, which is slow")
        yield


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the package, to be damaged."""
    return Path(shutil.copytree(PACKAGE, tmp_path / "package"))


def check(session: ort.InferenceSession) -> None:
    """The session computes what the weights' formulas say, on another path than onnxruntime."""
    for ids in (IDS, np.zeros((1, 1), np.int64), np.arange(400).reshape(4, 100)):
        (scores,) = session.run(None, {"ids": ids})
        assert scores.dtype == np.float32
        np.testing.assert_allclose(scores, outputs(ids), rtol=0, atol=1e-5)


def test_a_session_is_an_onnxruntime_session() -> None:
    session = load(PACKAGE)
    assert isinstance(session, ort.InferenceSession)
    assert [(i.name, i.type, i.shape) for i in session.get_inputs()] == [
        ("ids", "tensor(int64)", ["batch", "sequence"])
    ]
    assert [(o.name, o.type, o.shape) for o in session.get_outputs()] == [
        ("scores", "tensor(float)", ["batch", "sequence", 40])
    ]
    assert session.get_providers() == ["CPUExecutionProvider"]
    check(session)
    scores = session.run(["scores"], {"ids": IDS}, ort.RunOptions())[0]
    assert scores[0, 0, :4].tolist() == pytest.approx([-0.193977, 0.075186, -0.049203, 0.205538], abs=1e-6)


@in_place
def test_the_arena_holds_every_tensor_at_its_place() -> None:
    arena = load(PACKAGE).arena
    assert (arena.dtype, arena.shape, arena.flags.writeable) == (np.uint8, (96704,), False)
    for (name, expected), offset in zip(weights().items(), (0, 76800, 90624, 90944), strict=True):
        assert arena[offset : offset + expected.nbytes].tobytes() == expected.tobytes(), name
    assert not arena[90912:90944].any()


@pytest.mark.parametrize("threads", [1, 2, 7, None])
def test_threads_are_for_decoding_and_for_the_session(threads: int | None) -> None:
    session = load(PACKAGE, threads=threads)
    assert session.get_session_options().intra_op_num_threads == (threads or 0)
    check(session)
    assert available_cores() >= 1


def test_threads_that_cannot_be() -> None:
    with pytest.raises(BsexportRuntimeError, match="threads is 0, expected at least 1, or None for all cores"):
        load(PACKAGE, threads=0)


def test_options_and_providers_are_passed_on() -> None:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 3
    options.add_session_config_entry("session.disable_prepacking", "0")
    providers = [("CPUExecutionProvider", {})]
    session = load(PACKAGE, sess_options=options, providers=providers, threads=1, disabled_optimizers=["GemmFusion"])
    used = session.get_session_options()
    assert used.intra_op_num_threads == 3
    assert used.get_session_config_entry("session.disable_prepacking") == "0"
    assert used.get_session_config_entry("session.use_external_initializer_file_buffers_directly") == "1"
    check(session)
    plain = load(PACKAGE).get_session_options()
    assert {key: plain.get_session_config_entry(key) for key in CONFIG} == CONFIG
    with pytest.warns(UserWarning, match="MagicExecutionProvider"):  # onnxruntime's own check, in its own words
        load(PACKAGE, providers=["MagicExecutionProvider", "CPUExecutionProvider"])


@in_place
def test_onnxruntime_says_nothing_of_what_is_meant_to_be(capfd: pytest.CaptureFixture[str]) -> None:
    """The Cast of a weight is not folded, as that would keep it twice; onnxruntime warns of it, for each node."""
    load(PACKAGE)
    assert capfd.readouterr() == ("", "")


@in_place
def test_options_cannot_be_used_for_a_second_session() -> None:
    options = ort.SessionOptions()
    session = load(PACKAGE, sess_options=options)
    with pytest.raises(BsexportRuntimeError, match=r"^sess_options belong to another session already; give each load"):
        load(PACKAGE, sess_options=options)
    check(session)


def test_io_binding() -> None:
    session = load(PACKAGE)
    binding = session.io_binding()
    binding.bind_cpu_input("ids", IDS)
    binding.bind_output("scores")
    session.run_with_iobinding(binding)
    np.testing.assert_allclose(binding.copy_outputs_to_cpu()[0], outputs(IDS), atol=1e-5)


@pytest.mark.skipif(IN_PLACE, reason="NOT TESTED: this onnxruntime uses the arena in place")
def test_an_onnxruntime_that_copies_sets_no_providers_later() -> None:
    session = load(PACKAGE)
    assert session.arena.size == 0
    with pytest.raises(BsexportRuntimeError, match=r"onnxruntime [\d.]+ cannot set providers later; give them to"):
        session.set_providers(["CPUExecutionProvider"])
    check(session)
    with pytest.raises(BsexportRuntimeError, match=r"onnxruntime [\d.]+ cannot use an arena in place; update it"):
        Session((PACKAGE / "decoded.onnx").read_bytes(), np.zeros(96704, np.uint8))


@in_place
def test_the_arena_lives_as_long_as_onnxruntime_can_reach_it() -> None:
    session = load(PACKAGE)
    arena = weakref.ref(session.arena)
    binding = session.io_binding()
    del session
    gc.collect()
    assert arena() is not None, "onnxruntime's session lives on in the binding"
    del binding
    gc.collect()
    assert arena() is None


@in_place
def test_the_session_survives_a_change_of_providers_and_a_cycle() -> None:
    session = load(PACKAGE)
    session.set_providers(["CPUExecutionProvider"])
    check(session)
    session.itself = session
    arena = weakref.ref(session.arena)
    del session
    gc.collect()
    assert arena() is None


def test_sessions_opened_and_dropped_leave_nothing() -> None:
    statm = Path("/proc/self/statm")
    if not statm.exists():
        pytest.skip("NOT TESTED: resident memory is read from /proc/self/statm")

    def resident() -> int:
        gc.collect()
        return int(statm.read_text().split()[1]) * 4096

    for _ in range(20):
        load(PACKAGE, threads=1)
    before = resident()
    for _ in range(200):
        check(load(PACKAGE, threads=1))
    assert resident() - before < 200 * 96704 / 4


@in_place
def test_two_sessions_side_by_side() -> None:
    first, second = load(PACKAGE), load(PACKAGE)
    assert not np.shares_memory(first.arena, second.arena)
    check(first)
    del first
    gc.collect()
    check(second)


def test_the_directory_is_not_needed_once_it_is_loaded(copy: Path) -> None:
    session = load(copy)
    shutil.rmtree(copy)
    check(session)
    if IN_PLACE:
        session.set_providers(["CPUExecutionProvider"])
        check(session)


def test_read_tensors() -> None:
    expected = weights()
    tensors = read_tensors(PACKAGE)
    assert list(tensors) == ["table", "first", "bias", "second"]
    for name, tensor in tensors.items():
        assert (tensor.dtype, tensor.shape) == (expected[name].dtype, expected[name].shape)
        assert tensor.tobytes() == expected[name].tobytes()
    some = read_tensors(PACKAGE, ["second", "bias"])
    assert {name: tensor.tobytes() for name, tensor in some.items()} == {
        name: expected[name].tobytes() for name in ("second", "bias")
    }
    assert read_tensors(PACKAGE, []) == {}
    with pytest.raises(PackageError, match=r"package: has no tensor 'third'; it has 4, see bsexport_runtime.inspect"):
        read_tensors(PACKAGE, ["bias", "third"])


def test_inspect_and_backend() -> None:
    found = inspect(PACKAGE)
    assert found["path"] == str(PACKAGE)
    assert found["backend"] == bsexport_runtime.backend()
    assert bsexport_runtime.backend().startswith(("native: libbsx ", "numpy"))
    assert (found["format"], found["version"], found["name"]) == ("bsexport", 0, "fixture")
    assert [tensor["name"] for tensor in found["tensors"]] == ["table", "first", "bias", "second"]


@pytest.mark.parametrize("name", ["table", "first", "bias", "second"])
def test_a_damaged_tensor_is_named_and_there_is_no_session(copy: Path, name: str) -> None:
    entry = next(tensor for tensor in inspect(copy)["tensors"] if tensor["name"] == name)
    content = bytearray((copy / "weights.bsx").read_bytes())
    content[entry["offset"] + entry["bytes"] - 1] ^= 0x10
    (copy / "weights.bsx").write_bytes(content)
    blocks = 2 if name == "table" else 1
    message = rf"weights.bsx: tensor {name}: blob: block {blocks - 1} of {blocks}: .* damaged; copy the package again$"
    with pytest.raises(PackageError, match=message):
        load(copy)
    with pytest.raises(PackageError, match=message):
        read_tensors(copy, [name])
    others = [other for other in weights() if other != name]
    assert list(read_tensors(copy, others)) == others


def test_verify_checks_the_files_that_loading_does_not_need(copy: Path) -> None:
    check(load(copy, verify=True))
    (copy / "config.json").write_bytes(b'{"model_type": "Fixture"}\n')
    with pytest.raises(PackageError, match=r"config.json: is not the file that was packed \(its sha256 differs\)"):
        load(copy, verify=True)
    check(load(copy))
    (copy / "decoded.onnx").write_bytes((copy / "model.onnx").read_bytes())
    with pytest.raises(PackageError, match=r"decoded.onnx: has \d+ bytes, the manifest says \d+; copy the package"):
        load(copy)


@pytest.mark.parametrize(
    ("true", "lie"),
    [
        pytest.param(b"76800", b"96000", marks=in_place, id="partly past the end of the arena"),
        pytest.param(b"90944", b"99999", marks=in_place, id="wholly past the end of the arena"),
        pytest.param(b"90624", b"-9062", marks=in_place, id="before the arena"),
        pytest.param(b"13824", b"13820", marks=in_place, id="too short"),
        pytest.param(b"5760", b"9999", marks=in_place, id="too long"),
        pytest.param(b"arena.bin", b"other.bin", marks=in_place, id="in another file, which is there"),
        (b"MatMul", b"MatNul"),
    ],
)
def test_a_graph_that_lies_is_refused(copy: Path, monkeypatch: pytest.MonkeyPatch, true: bytes, lie: bytes) -> None:
    graph = (copy / "decoded.onnx").read_bytes()
    assert graph.count(true) >= 1
    replace_graph(copy, graph.replace(true, lie))
    (copy / "other.bin").write_bytes(bytes(200_000))
    monkeypatch.chdir(copy)
    with pytest.raises(PackageError, match=r"decoded.onnx: onnxruntime [\d.]+ refuses it: .*") as caught:
        load(copy)
    assert "\n" not in str(caught.value)


@in_place
def test_a_graph_reads_no_file_even_if_there_are_no_weights(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """onnxruntime would read external data relative to the working directory, were it told of no buffer."""
    monkeypatch.chdir(copy)
    graph = (copy / "decoded.onnx").read_bytes().replace(b"arena.bin", b"other.bin")
    (copy / "other.bin").write_bytes(bytes(200_000))
    replace_graph(copy, graph)
    (copy / "weights.bsx").write_bytes(b"")
    rewrite(copy, lambda manifest: manifest.update(tensors=[], arena_bytes=0))
    with pytest.raises(PackageError, match=r"decoded.onnx: onnxruntime [\d.]+ refuses it: .*other.bin"):
        load(copy)


def replace_graph(package: Path, graph: bytes) -> None:
    """Another plain graph, with every checksum right."""
    (package / "decoded.onnx").write_bytes(graph)
    entry = {"bytes": len(graph), "sha256": hashlib.sha256(graph).hexdigest()}
    rewrite(package, lambda manifest: manifest["files"].update({"decoded.onnx": entry}))


@in_place
@pytest.mark.parametrize(
    ("version", "copies"),
    [("1.9.1", True), ("1.30.2", True), ("1.31.0", False), ("1.32.0.dev20270101", False), ("2.0.0", False)],
)
def test_an_onnxruntime_that_copies_is_named(monkeypatch: pytest.MonkeyPatch, version: str, copies: bool) -> None:
    monkeypatch.setattr(ort, "__version__", version)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        session = load(PACKAGE)
    check(session)
    assert session.arena.size == (0 if copies else 96704)
    expected = f"onnxruntime {version} copies the weights, so loading takes twice their memory; 1.31 does not"
    assert [str(w.message) for w in caught if "copies" in str(w.message)] == [expected] * copies
    assert all(w.filename == __file__ for w in caught if "copies" in str(w.message))


def test_the_import_is_light() -> None:
    """Neither the toolchain nor its dependencies are touched, and the runtime's own share of the import is small."""
    script = """
import sys, time
import numpy, onnxruntime
before = set(sys.modules)
start = time.perf_counter()
import bsexport_runtime
bsexport_runtime.backend()
seconds = time.perf_counter() - start
bsexport_runtime.load(sys.argv[1])
print(seconds, *sorted({name.partition(".")[0] for name in set(sys.modules) - before}))
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, str(PACKAGE)], capture_output=True, text=True, check=True
    )
    seconds, *modules = done.stdout.split()
    assert "bsexport_runtime" in modules
    assert not {"bsexport", "onnx", "torch", "transformers", "click", "google", "safetensors"} & set(modules)
    assert float(seconds) < 1.5  # 0.05 s on a quiet machine


@in_place
def test_a_session_can_be_made_without_a_package() -> None:
    """The pieces are public: a graph and an arena are enough."""
    arena = load(PACKAGE).arena
    session = Session((PACKAGE / "decoded.onnx").read_bytes(), arena, providers=["CPUExecutionProvider"])
    assert session.arena is arena
    check(session)
    check(Session(str(PACKAGE / "decoded.onnx"), arena, providers=["CPUExecutionProvider"]))


@pytest.fixture
def two_graphs(copy: Path) -> Path:
    add_encoder(copy)
    return copy


@in_place
@pytest.mark.parametrize("mode", ["float32", "coded"])
def test_the_encoder_of_an_encoder_decoder_lies_in_the_same_buffer(two_graphs: Path, mode: str) -> None:
    if (missing := MODES[mode].missing()) is not None:
        pytest.skip(f"NOT TESTED: {missing}")
    session = load(two_graphs, mode=mode)
    assert [output.name for output in session.get_outputs()] == ["scores"]
    check(session)
    assert session.encoder is not None
    assert session.encoder.arena is session.arena
    assert session.encoder.encoder is None
    assert [output.name for output in session.encoder.get_outputs()] == ["states"]
    check(session.encoder)
    assert load(PACKAGE, mode=mode).encoder is None


@in_place
def test_an_encoder_outlives_its_decoder(two_graphs: Path) -> None:
    encoder = load(two_graphs).encoder
    gc.collect()
    assert encoder is not None
    check(encoder)


@in_place
def test_two_sessions_are_foreseen(two_graphs: Path) -> None:
    graph = (PACKAGE / "decoded.onnx").stat().st_size
    alone, both = (predict(Package(path), "float32") for path in (PACKAGE, two_graphs))
    assert both - alone == SESSION_BYTES + GRAPH_FACTOR * graph


@in_place
def test_an_encoder_graph_that_is_missing_or_damaged(two_graphs: Path) -> None:
    graph = two_graphs / "encoder_decoded.onnx"
    content = graph.read_bytes()
    graph.write_bytes(content[:-1])
    with pytest.raises(PackageError, match=r"encoder_decoded.onnx: has \d+ bytes, the manifest says \d+; "):
        load(two_graphs)
    rewrite(two_graphs, lambda manifest: manifest["files"].pop("encoder_decoded.onnx"))
    with pytest.raises(PackageError, match=r"lists no file encoder_decoded\.onnx"):
        load(two_graphs)


def test_an_older_onnxruntime_has_no_two_graphs(two_graphs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bsexport_runtime.session.version", lambda: (1, 30))
    with pytest.raises(BsexportRuntimeError, match=r"two graphs over one buffer need onnxruntime 1\.31 or later"):
        load(two_graphs)
