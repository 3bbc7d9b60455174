"""Frames and values: what goes in comes out, and what is malformed is refused."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from grader.engine import wire
from grader.engine.wire import HEADER, MAGIC, Channel, Unusable, WireClosed, WireError, WireTimeout


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    a, b = socket.socketpair()
    with a, b:
        yield Channel(a), Channel(b)


def refuse(*what: Any) -> Any:
    raise WireError(str(what))


def through(value: Any) -> Any:
    tensors: wire.Packed = {}
    skeleton = wire.encode(value, tensors, lambda other: {"unusable": type(other).__name__})
    a, b = socket.socketpair()
    with a, b:
        Channel(a).send({"v": skeleton}, tensors)
        message, received = Channel(b).receive(time.monotonic() + 5)
    return wire.decode(message["v"], received, refuse)


@pytest.mark.parametrize("value", [None, True, 0, -3, 2**62, 1.5, "text", "é\u202e", (), (1, ("a", None)), {"k": (1,)}])
def test_plain_values_come_back(value: Any) -> None:
    assert through(value) == value


@pytest.mark.parametrize("dtype", sorted(wire.NAMES, key=str))
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3, 4)])
def test_tensors_come_back(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    x = torch.arange(24).reshape(2, 3, 4).to(dtype)
    x = (
        x
        if shape == (2, 3, 4)
        else x.flatten()[: max(1, sum(shape))].reshape(-1)[: shape[0] if shape else 1].reshape(shape)
    )
    back = through(x)
    assert back.dtype == dtype
    assert back.shape == x.shape
    assert torch.equal(back, x)


def test_views_and_gradients_come_back_as_plain_copies() -> None:
    x = torch.arange(12.0, requires_grad=True).reshape(3, 4).T[::2]
    back = through(x)
    assert torch.equal(back, x.detach())
    assert not back.requires_grad
    assert torch.equal(through(torch.ones(1).expand(5, 5)), torch.ones(5, 5))
    assert torch.equal(through(torch.tensor([1 + 2j]).conj().imag), torch.tensor([-2.0]))


def test_nan_and_infinity_come_back() -> None:
    assert torch.equal(through(torch.tensor([float("inf")])), torch.tensor([float("inf")]))
    assert through(float("inf")) == float("inf")
    assert through(float("nan")) != through(float("nan"))


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (torch.ones(2).to_sparse(), "a tensor of layout torch.sparse_coo"),
        (torch.ones(1).expand(1 << 40), "a tensor of 1,099,511,627,776 elements"),
        (torch.ones(2, dtype=torch.complex64), "a tensor of torch.complex64"),
        (torch.ones(2, device="meta"), "a tensor on the device meta"),
        (torch.ones((1,) * 17), "a tensor of 17 dimensions"),
        (torch.ones(0, 1 << 40), "an empty tensor of the shape (0, 1099511627776)"),
        (10**400, "an integer of over 64 bits"),
        ({1, 2}, "set"),
        ({1: 2}, "dict"),
    ],
)
def test_other_values_are_described(value: Any, what: str) -> None:
    assert through(value) == Unusable(what)


def test_deep_nesting_is_described_not_followed() -> None:
    value: Any = ()
    for _ in range(100):
        value = (value,)
    assert "tuple" in str(through(value))


@pytest.mark.parametrize(
    "skeleton",
    [
        None, 1, [], {}, {"value": 1, "tensor": "t0"}, {"value": []}, {"value": {}}, {"tensor": "t9"}, {"tensor": 0},
        {"sequence": {}}, {"sequence": [1]}, {"mapping": []}, {"unusable": 3}, {"object": 1}, {"remote": "x"},
        {"sequence": [{"value": 1}] * 1001},
    ],
)  # fmt: skip
def test_malformed_values_are_refused(skeleton: Any) -> None:
    with pytest.raises(WireError):
        wire.decode(skeleton, {}, refuse)


def frame(text: str, elements: bytes = b"") -> bytes:
    return HEADER.pack(MAGIC, len(text), len(elements)) + text.encode() + elements


def test_a_byte_that_is_no_bool_becomes_one(ends: tuple[Channel, Channel]) -> None:
    ends[0].socket.sendall(frame('{"tensors": {"x": "bool 3"}}', b"\x00\x01\x02"))
    message, tensors = ends[1].receive(time.monotonic() + 5)
    assert message == {}
    assert torch.equal(tensors["x"].to(torch.uint8), torch.tensor([0, 1, 1], dtype=torch.uint8))


@pytest.mark.parametrize(
    "data",
    [
        b"EVIL" + HEADER.pack(MAGIC, 2, 0)[4:] + b"{}",
        HEADER.pack(MAGIC, wire.MAX_JSON_BYTES + 1, 0),
        HEADER.pack(MAGIC, 2, wire.MAX_TENSOR_BYTES + 1),
        HEADER.pack(MAGIC, 2, 0) + b"[]",
        HEADER.pack(MAGIC, 2, 0) + b"{{",
        HEADER.pack(MAGIC, 3, 0) + b"\xff\xfe{",
        HEADER.pack(MAGIC, 100_000, 0) + b"[" * 100_000,
        HEADER.pack(MAGIC, 5_000, 0) + b'{"a":' + b"9" * 4_994 + b"}",
        frame("{}", b"elements of nothing"),
        frame('{"tensors": []}'),
        frame('{"tensors": {"x": []}}'),
        frame('{"tensors": {"x": ["float32", 1]}}', b"1234"),
        frame('{"tensors": {"x": ""}}', b"1234"),
        frame('{"tensors": {"x": "float32 1.0"}}', b"1234"),
        frame('{"tensors": {"x": "float32 1 "}}', b"1234"),
        frame('{"tensors": {"x": "float32\\n1"}}', b"1234"),
        frame('{"tensors": {"x": "float32 \u0661"}}', b"1234"),
        frame('{"tensors": {"x": "float32 -1 -1"}}', b"1234"),
        frame('{"tensors": {"x": "complex64 1"}}', b"12345678"),
        frame('{"tensors": {"x": "float32 2"}}', b"1234"),
        frame('{"tensors": {"x": "float32 1"}}', b"12345678"),
        frame('{"tensors": {"x": "uint8 4294967295 4294967295 4294967295"}}', b"1234"),
        frame('{"tensors": {"x": "uint8 0 4294967295 4294967295"}}'),
        frame('{"tensors": {"x": "uint8 ' + "9" * 5000 + '"}}', b"1"),
        frame('{"tensors": {"x": "uint8' + " 1" * 100 + '"}}', b"1"),
        frame('{"tensors": {' + ", ".join(f'"{n}": "uint8 0"' for n in range(1001)) + "}}"),
    ],
)
def test_malformed_frames_are_refused(ends: tuple[Channel, Channel], data: bytes) -> None:
    a, b = ends
    a.socket.sendall(data)
    a.socket.shutdown(socket.SHUT_WR)
    with pytest.raises(WireError):
        b.receive(time.monotonic() + 5)


def test_a_frame_that_stops_short_times_out_and_a_closed_wire_says_so(ends: tuple[Channel, Channel]) -> None:
    a, b = ends
    a.socket.sendall(HEADER.pack(MAGIC, 100, 0) + b'{"a":')
    with pytest.raises(WireTimeout):
        b.receive(time.monotonic() + 0.05)
    a.close()
    with pytest.raises(WireClosed):
        b.receive(time.monotonic() + 5)
    with pytest.raises(WireClosed):
        b.send({"a": "b" * 100})


def test_sending_to_a_side_that_does_not_read_times_out(ends: tuple[Channel, Channel]) -> None:
    with pytest.raises(WireTimeout):
        ends[0].send({}, {"x": ("uint8 4194304", bytes(1 << 22))}, time.monotonic() + 0.1)


def test_oversize_frames_are_not_sent(ends: tuple[Channel, Channel]) -> None:
    with pytest.raises(WireError, match="over the limits"):
        ends[0].send({"a": "b" * (wire.MAX_JSON_BYTES + 1)})
