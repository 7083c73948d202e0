"""Names of models, and what open_source does with what is no model."""

from __future__ import annotations

from pathlib import Path

import pytest

from bsexport.errors import SourceError
from bsexport.source import default_name, open_source


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("model", "model"),
        ("org/model", "model"),
        ("path/to/model/", "model"),
        ("path/to/model/.", "model"),
        ("model.onnx", "model"),
        ("MODEL.ONNX", "MODEL"),
        ("model-v1.5", "model-v1.5"),
        ("model.onnx.zip", "model.onnx.zip"),
        ("m\udcff.onnx", "m_"),
        ("\udc80dir\udcfe", "_dir_"),
        ("größe.onnx", "größe"),
    ],
)
def test_default_name(model: str, name: str) -> None:
    assert default_name(model) == name


def test_default_name_of_where_one_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "outer" / "inner").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "outer" / "inner")
    assert default_name(".") == default_name("") == default_name("./") == "inner"
    assert default_name("..") == default_name("../") == default_name("../../outer") == "outer"


def test_default_name_does_not_follow_links(tmp_path: Path) -> None:
    (tmp_path / "latest.onnx").symlink_to("a.onnx")
    (tmp_path / "a.onnx").write_bytes(b"")
    assert default_name(str(tmp_path / "latest.onnx")) == "latest"


def test_a_name_in_capitals_is_an_onnx_file_too(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"MODEL\.ONNX: no such file$"):
        open_source(str(tmp_path / "MODEL.ONNX"))


@pytest.mark.parametrize("model", ["x" * 300, "x/" * 3000])
def test_a_name_that_is_too_long(model: str) -> None:
    with pytest.raises(
        SourceError, match=rf"^{model.rstrip('/')}: cannot be looked up: File name too long; give a Hugging Face dir"
    ) as caught:
        open_source(model)
    assert "\n" not in str(caught.value)
