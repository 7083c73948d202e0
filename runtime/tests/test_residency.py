"""Coded sessions and the choice of a mode: what they compute, what they refuse, and that faults end in one line."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from make_package import PACKAGE, outputs

import bsexport_runtime
from bsexport_runtime import BsexportRuntimeError, Package, PackageError, load, residency

MISSING = residency.MODES["coded"].missing()
coded_only = pytest.mark.skipif(MISSING is not None, reason=f"NOT TESTED: mode coded cannot be had: {MISSING}")
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="NOT TESTED: Linux's /proc and signals")

IDS = np.array([[0, 11, 399], [7, 7, 123]])


def check(session: ort.InferenceSession, ids: np.ndarray = IDS) -> None:
    (scores,) = session.run(None, {"ids": ids})
    np.testing.assert_allclose(scores, outputs(ids), rtol=0, atol=1e-5)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(PACKAGE, tmp_path / "package"))


@coded_only
@pytest.mark.parametrize("threads", [1, 2, None])
def test_a_coded_session_computes_what_the_weights_say(threads: int | None) -> None:
    session = load(PACKAGE, mode="coded", threads=threads)
    assert isinstance(session, ort.InferenceSession)
    check(session)
    check(session, np.zeros((1, 1), np.int64))
    check(session, np.arange(400).reshape(4, 100))
    check(session, np.arange(-400, 0).reshape(4, 100))
    assert session.run(None, {"ids": np.zeros((2, 0), np.int64)})[0].shape == (2, 0, 40)


@coded_only
def test_the_coded_graph_runs_in_plain_onnxruntime() -> None:
    options = ort.SessionOptions()
    options.register_custom_ops_library(bsexport_runtime.ops_library())
    check(ort.InferenceSession(PACKAGE / "model.onnx", options))


@coded_only
def test_other_paths_of_a_coded_session() -> None:
    session = load(PACKAGE, mode="coded")
    session.set_providers(["CPUExecutionProvider"])
    check(session)
    binding = session.io_binding()
    binding.bind_cpu_input("ids", IDS)
    binding.bind_output("scores")
    session.run_with_iobinding(binding)
    np.testing.assert_allclose(binding.copy_outputs_to_cpu()[0], outputs(IDS), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "size"),
    [(1000, 1000), ("1000", 1000), ("512MB", 512_000_000), ("64 MiB", 67_108_864), ("1.5gb", 1_500_000_000)],
)
def test_limits_are_bytes_or_texts(text: int | str, size: int) -> None:
    assert residency.parse_limit(text) == size


@pytest.mark.parametrize("text", [0, -1, True, "", "MB", "12 parsecs", "1e3", "-5MB", "nan"])
def test_limits_that_are_none(text: int | str) -> None:
    with pytest.raises(BsexportRuntimeError, match=r"memory_limit is .*, expected bytes above 0"):
        load(PACKAGE, memory_limit=text)


def test_the_fastest_mode_that_fits_is_taken() -> None:
    package = Package(PACKAGE)
    assert residency.choose(package, None, None) == "float32"
    assert residency.choose(package, None, residency.predict(package, "float32")) == "float32"
    assert residency.choose(package, "auto", None) == "float32"
    check(load(PACKAGE, memory_limit="1GB"))


def test_a_limit_that_nothing_fits_names_every_need() -> None:
    with pytest.raises(BsexportRuntimeError) as caught:
        load(PACKAGE, memory_limit="1kB")
    line = str(caught.value)
    assert line.startswith(f"{PACKAGE}: no mode fits into 1,000 bytes: float32 needs ")
    assert ", coded " in line and "\n" not in line


def test_modes_that_cannot_be() -> None:
    with pytest.raises(
        BsexportRuntimeError, match="mode is 'dense', expected one of 'float32', 'int8', 'coded', 'auto'"
    ):
        load(PACKAGE, mode="dense")
    with pytest.raises(BsexportRuntimeError, match=r"mode float32 needs [\d.]+ MB, memory_limit is 0.1 MB"):
        load(PACKAGE, mode="float32", memory_limit=100_000)


def test_an_older_onnxruntime_has_no_coded_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "__version__", "1.30.2")
    with pytest.raises(BsexportRuntimeError, match=r"it needs onnxruntime 1.31 or later, this is 1.30.2: update it"):
        load(PACKAGE, mode="coded")


def elsewhere(tmp_path: Path, library: bytes | None, asked: str = "mode='coded'") -> str:
    """What a process says that loads the package with another library, or none, in the runtime's folder."""
    source = Path(bsexport_runtime.__file__).parent
    copied = tmp_path / "bsexport_runtime"
    shutil.copytree(source, copied, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    if library is not None:
        (copied / "libbsx.so").write_bytes(library)
    program = f"import bsexport_runtime; bsexport_runtime.load({str(PACKAGE)!r}, {asked})"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONWARNINGS": "ignore"}
    environment.pop("BSEXPORT_REQUIRE_NATIVE", None)  # else it is refused before it is looked for
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert done.returncode == 1
    return done.stderr.strip().rpartition("\n")[2]


def test_without_the_library_coded_is_refused_with_the_reason(tmp_path: Path) -> None:
    line = elsewhere(tmp_path, None)
    assert "mode coded cannot be had: its operators are in the native library: libbsx.so is not installed" in line


def test_without_the_library_a_limit_says_so_too(tmp_path: Path) -> None:
    line = elsewhere(tmp_path, None, "memory_limit=1000")
    assert "no mode fits into 1,000 bytes: float32 needs " in line
    assert "coded cannot be had (its operators are in the native library: libbsx.so is not installed" in line


@coded_only
@linux_only
def test_a_library_of_the_wrong_architecture(tmp_path: Path) -> None:
    library = bytearray(Path(bsexport_runtime.ops_library()).read_bytes())
    library[18:20] = (22).to_bytes(2, "little")  # ELF's e_machine: S/390, which no test runs on
    line = elsewhere(tmp_path, bytes(library))
    assert "mode coded cannot be had: its operators are in the native library: libbsx.so cannot be loaded: " in line


@coded_only
def test_a_damaged_block_is_named_when_it_is_used(copy: Path) -> None:
    tensor = next(t for t in Package(copy).tensors if t.name == "first")
    content = bytearray((copy / "weights.bsx").read_bytes())
    content[tensor.offset + tensor.nbytes - 1] ^= 1
    (copy / "weights.bsx").write_bytes(content)
    session = load(copy, mode="coded")
    with pytest.raises(Exception, match=r"EGMatMul .*block 0 of its blob is damaged.*copy the package again"):
        check(session)


@coded_only
def test_a_file_that_was_cut_short_is_refused_and_one_that_was_replaced_is_not(copy: Path) -> None:
    weights = copy / "weights.bsx"
    size = weights.stat().st_size
    session = load(copy, mode="coded")
    other = copy / "other"
    other.write_bytes(b"short")
    other.replace(weights)  # another file under its name: the mapping is still the old one
    check(session)
    shutil.copy(PACKAGE / "weights.bsx", weights)
    session = load(copy, mode="coded")
    os.truncate(weights, 100)
    with pytest.raises(PackageError, match=f"weights.bsx: was cut short to 100 of {size} bytes while a session uses"):
        check(session)


@coded_only
@linux_only
def test_a_file_cut_behind_the_check_ends_the_process(copy: Path) -> None:
    """Between the check and the products: no wrong numbers."""
    program = (
        "import os, sys, numpy, onnxruntime, bsexport_runtime as r\n"
        "s = r.load(sys.argv[1], mode='coded', threads=1)\n"
        "os.truncate(sys.argv[1] + '/weights.bsx', 0)\n"
        "print(onnxruntime.InferenceSession.run(s, None, {'ids': numpy.zeros((1, 1), 'int64')}))\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(copy)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (-signal.SIGBUS, "")


@coded_only
def test_sixteen_threads_call_one_session() -> None:
    session = load(PACKAGE, mode="coded", threads=2)
    inputs = [np.arange(i, i + 30).reshape(3, 10) for i in range(200)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda ids: check(session, ids), inputs))


@coded_only
@linux_only
def test_a_thousand_sessions_leave_nothing() -> None:
    def resident() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))

    def open_files() -> int:
        return sum(1 for _ in Path("/proc/self/fd").iterdir())

    def open_and_drop(times: int) -> None:
        for _ in range(times):
            load(PACKAGE, mode="coded", threads=1).run(None, {"ids": IDS})

    open_and_drop(200)
    before, files = resident(), open_files()
    open_and_drop(1000)
    assert resident() - before < 2000  # kB: a page that each kept would be 4000
    assert open_files() == files


@coded_only
@linux_only
@pytest.mark.parametrize(("threads", "expected"), [(1, "right"), (2, "refused")])
def test_fork_after_load(threads: int, expected: str) -> None:
    program = (
        "import os, sys, numpy, bsexport_runtime as r\n"
        "sys.path.insert(0, sys.argv[2]); from make_package import outputs\n"
        f"s = r.load(sys.argv[1], mode='coded', threads={threads}); ids = numpy.array([[1, 2, 3]])\n"
        "s.run(None, {'ids': ids})\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    try: print('right' if abs(s.run(None, {'ids': ids})[0] - outputs(ids)).max() < 1e-5 else 'wrong')\n"
        "    except r.BsexportRuntimeError as e: print('refused' if 'before a fork' in str(e) else e)\n"
        "    sys.stdout.flush(); os._exit(0)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
    )
    command = [sys.executable, "-c", program, str(PACKAGE), str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == [expected], done.stderr
