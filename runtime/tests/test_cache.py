"""The slots of a session, and that nothing of them is copied."""

from __future__ import annotations

import weakref

import numpy as np
import onnxruntime as ort
import pytest
from make_package import LANGUAGE_PACKAGE, PACKAGE

from bsexport_runtime import BsexportRuntimeError, Session, load
from bsexport_runtime.cache import Cache, Slots, slots_of
from bsexport_runtime.decoder import Decoder


@pytest.fixture(scope="module")
def session() -> Session:
    return load(LANGUAGE_PACKAGE, threads=1)


def test_what_a_session_wants(session: Session) -> None:
    size = (2, 16, np.dtype(np.float32))
    assert slots_of(session) == [
        Slots("past_key_values.0.key", "present.0.key", *size),
        Slots("past_key_values.0.value", "present.0.value", *size),
    ]
    assert slots_of(load(PACKAGE)) == []
    with pytest.raises(BsexportRuntimeError, match=r"has no cache: expected inputs such as past_key_values\.0\.key"):
        Cache(load(PACKAGE), 1, 1)
    with pytest.raises(BsexportRuntimeError, match="a cache of 1 rows and 0 tokens: expected at least 1 of each"):
        Cache(session, 1, 0)
    with pytest.raises(BsexportRuntimeError, match=r"too little memory for the cache of keys and values: 1 x \d+"):
        Cache(session, 1, 1 << 60)


def test_it_grows_in_steps_and_keeps_what_is_there(session: Session) -> None:
    cache = Cache(session, 3, 1)
    assert cache.capacity == 64
    for number, array in enumerate(cache.feeds.values(), 1):
        assert array.shape == (3, 2, 64, 16)
        assert not array.any()
        array[:] = number
    cache.reserve(64)
    assert cache.capacity == 64
    cache.reserve(65)
    assert cache.capacity == 128
    for number, array in enumerate(cache.feeds.values(), 1):
        assert array.shape == (3, 2, 128, 16)
        assert (array[:, :, :64] == number).all()
        assert not array[:, :, 64:].any()


def test_what_it_has_outgrown_is_gone_before_more_is_made(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it is bound: of all buffers but one, no second is there."""
    cache = Cache(session, 1, 64)
    binding = session.io_binding()
    cache.bind(binding)
    old = [weakref.ref(array) for array in cache.feeds.values()]
    there = []
    zeros = np.zeros
    monkeypatch.setattr(
        np, "zeros", lambda *given: (there.append([each() is not None for each in old]), zeros(*given))[1]
    )
    cache.reserve(65)
    assert there == [[True, True], [False, True]]
    assert [each() for each in old] == [None, None]


def test_the_graph_writes_where_it_reads(session: Session) -> None:
    """A run changes the slots of its tokens in place, and no other byte."""
    cache = Cache(session, 2, 64)
    before = {name: array.copy() for name, array in cache.feeds.items()}
    places = {name: array.ctypes.data for name, array in cache.feeds.items()}
    binding = session.io_binding()
    for name, value in (("input_ids", [[5], [6]]), ("position_ids", [[3], [60]]), ("logits_to_keep", [[0], [0]])):
        binding.bind_cpu_input(name, np.array(value))
    binding.bind_output("logits", "cpu")
    cache.bind(binding)
    session.run_with_iobinding(binding)
    for name, array in cache.feeds.items():
        assert array.ctypes.data == places[name]
        changed = (array != before[name]).any((1, 3))
        assert np.argwhere(changed).tolist() == [[0, 3], [1, 60]]


def test_a_step_binds_nothing_anew(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """But once the cache has grown, at slot 64."""
    decoder = Decoder(session, 1)
    decoder.prefill([np.array([1, 2, 3])], 256)
    bound: list[str] = []
    bind = ort.IOBinding.bind_ortvalue_input
    monkeypatch.setattr(
        ort.IOBinding, "bind_ortvalue_input", lambda self, name, value: (bound.append(name), bind(self, name, value))
    )
    steps = {}
    for position in range(3, 70):
        decoder.step(np.array([1]))
        steps[position] = bound.copy()
        bound.clear()
    assert [position for position, names in steps.items() if names] == [64]
    assert steps[64] == ["past_key_values.0.key", "past_key_values.0.value"]


def test_a_text_goes_on_from_an_earlier_place(session: Session) -> None:
    """What lay in the slots beyond is not seen."""
    decoder = Decoder(session, 1)
    decoder.prefill([np.arange(40)], 256)
    decoder.token.positions[:] = 3
    again = decoder.step(np.array([7])).copy()
    other = Decoder(session, 1)
    other.prefill([np.arange(3)], 256)
    np.testing.assert_array_equal(again, other.step(np.array([7])))
