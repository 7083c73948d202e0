"""The backends that the codec's tests run on: each such test runs on both, unless BSEXPORT_BACKEND asks for one."""

from __future__ import annotations

import os

import pytest

from bsexport_runtime import codec
from bsexport_runtime.codec import Codec
from bsexport_runtime.errors import BackendError


@pytest.fixture(params=["numpy", "native"], scope="session")
def coder(request: pytest.FixtureRequest) -> Codec:
    """The codec on one backend. Without the native library its tests are skipped, or fail if it is required."""
    return codec.numpy_codec() if request.param == "numpy" else _native()


@pytest.fixture(scope="session")
def coders() -> list[Codec]:
    """The codec on each backend that is there, numpy first."""
    try:
        return [codec.numpy_codec(), _native()]
    except pytest.skip.Exception:
        return [codec.numpy_codec()]


def _native() -> Codec:
    if os.environ.get("BSEXPORT_BACKEND", "") == "numpy":
        pytest.skip("NOT TESTED on the native backend: BSEXPORT_BACKEND asks for numpy")
    try:
        return codec.native_codec()
    except BackendError as error:
        if os.environ.get("BSEXPORT_REQUIRE_NATIVE", "") == "1":
            raise
        pytest.skip(f"NOT TESTED on the native backend: {error}")
