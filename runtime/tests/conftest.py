"""The backends that the codec's tests run on: each such test runs on both."""

from __future__ import annotations

import os

import pytest

from bsexport_runtime import codec
from bsexport_runtime.codec import Codec
from bsexport_runtime.errors import BackendError


@pytest.fixture(params=["numpy", "native"], scope="session")
def coder(request: pytest.FixtureRequest) -> Codec:
    """The codec on one backend. Without the native library its tests are skipped, or fail if it is required."""
    if request.param == "numpy":
        return codec.numpy_codec()
    try:
        return codec.native_codec()
    except BackendError as error:
        if os.environ.get("BSEXPORT_REQUIRE_NATIVE", "") == "1":
            raise
        pytest.skip(f"NOT TESTED on the native backend: {error}")


@pytest.fixture(scope="session")
def coders() -> list[Codec]:
    """The codec on each backend that is there, numpy first."""
    found = [codec.numpy_codec()]
    try:
        found.append(codec.native_codec())
    except BackendError:
        if os.environ.get("BSEXPORT_REQUIRE_NATIVE", "") == "1":
            raise
    return found
