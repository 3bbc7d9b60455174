"""The wire between the grader and a worker: frames of JSON and of the elements of tensors, never pickle.

A frame is a header (magic, length of the JSON, length of the elements), the JSON, the elements. A value travels as a
skeleton, a dictionary with one key that says what it is; its tensors travel beside it by name. The JSON is a message
whose "tensors", if there are any, says of each by name its kind, as in "float32 3 4", in the order of their elements.
"""

from __future__ import annotations

import json
import math
import re
import select
import socket
import struct
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import torch

MAGIC = b"DGM1"
HEADER = struct.Struct("<4sII")
MAX_JSON_BYTES = 1 << 20
MAX_TENSOR_BYTES = 64 << 20
MAX_DIMENSIONS = 16
MAX_DEPTH = 6
MAX_ITEMS = 1000
MAX_TEXT = 2000
MAX_INTEGER = 1 << 63
MAX_DIGITS = 20
LENGTH = re.compile(r"[0-9]{1,10}")

DTYPES = {
    "float64": torch.float64, "float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16,
    "int64": torch.int64, "int32": torch.int32, "int16": torch.int16, "int8": torch.int8, "uint8": torch.uint8,
    "bool": torch.bool,
}  # fmt: skip
NAMES = {dtype: name for name, dtype in DTYPES.items()}

Tensors = dict[str, torch.Tensor]  # those of a frame that came
Packed = dict[str, tuple[str, bytes]]  # those of a frame that goes: kind and elements


class WireError(Exception):
    """The other side sent something that is no well-formed frame or value."""


class WireClosed(WireError):
    """The other side is gone."""


class WireFull(WireError):
    """A frame of this side is over the limits; nothing was sent."""


class WireTimeout(WireError):
    """The deadline passed before a whole frame went through."""


@dataclass(frozen=True)
class Unusable:
    """Stands for a value that cannot cross the wire; `what` describes it ("a NumPy array")."""

    what: str


class Channel:
    """Sends and receives frames. Deadlines are in seconds on the clock of `time.monotonic`."""

    def __init__(self, sock: socket.socket):
        self.socket = sock

    def close(self) -> None:
        """Close the socket; closing twice is harmless."""
        self.socket.close()

    def send(self, message: dict[str, Any], tensors: Packed | None = None, deadline: float | None = None) -> None:
        """Send one frame, with tensors as `encode` makes them.

        Raises:
            WireClosed, WireTimeout: if the other side is gone, or does not read.
            WireFull: if the frame is over the limits.
        """
        if tensors:
            message = message | {"tensors": {name: kind for name, (kind, _) in tensors.items()}}
        text, blob = json.dumps(message).encode(), b"".join([elements for _, elements in (tensors or {}).values()])
        if len(text) > MAX_JSON_BYTES or len(blob) > MAX_TENSOR_BYTES:
            raise WireFull(f"a frame of {len(text)} and {len(blob)} bytes is over the limits")
        try:
            self._set_timeout(deadline)
            self.socket.sendall(HEADER.pack(MAGIC, len(text), len(blob)) + text + blob)
        except TimeoutError as error:
            raise WireTimeout("the other side did not read in time") from error
        except OSError as error:
            raise WireClosed("the other side is gone") from error

    def receive(self, deadline: float | None = None) -> tuple[dict[str, Any], Tensors]:
        """Receive one frame. Raises WireClosed, WireTimeout, or WireError if it is malformed."""
        magic, text_length, blob_length = HEADER.unpack(self._read(HEADER.size, deadline))
        if magic != MAGIC or text_length > MAX_JSON_BYTES or blob_length > MAX_TENSOR_BYTES:
            raise WireError("a frame has a malformed header")
        body = self._read(text_length + blob_length, deadline)
        try:
            message = JSON.decode(body[:text_length].decode())
        except (ValueError, RecursionError) as error:
            raise WireError(f"a frame has a malformed body: {type(error).__name__}") from error
        if type(message) is not dict:
            raise WireError("a frame is not an object")
        return message, _unpack(message.pop("tensors", {}), memoryview(body)[text_length:])

    def silent(self) -> bool:
        """Whether nothing lies unread: the other side has said nothing since the last frame."""
        readable, _, _ = select.select([self.socket], [], [], 0)
        return not readable

    def _read(self, length: int, deadline: float | None) -> bytearray:
        data = bytearray(length)
        view = memoryview(data)
        try:
            while view:
                self._set_timeout(deadline)
                received = self.socket.recv_into(view, min(len(view), 1 << 20))
                if received == 0:
                    raise WireClosed("the other side is gone")
                view = view[received:]
        except TimeoutError as error:
            raise WireTimeout("the deadline passed") from error
        except OSError as error:
            raise WireClosed("the other side is gone") from error
        return data

    def _set_timeout(self, deadline: float | None) -> None:
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            raise TimeoutError
        self.socket.settimeout(left)


def _small_integer(digits: str) -> int:
    """An integer of at most 64 bits. Raises WireError for longer ones, whose conversion takes quadratic time."""
    if len(digits) > MAX_DIGITS:
        raise WireError("a frame has a number of too many digits")
    return int(digits)


JSON = json.JSONDecoder(parse_int=_small_integer)


class Kind(NamedTuple):
    """What is known of a tensor before its elements, and how many bytes these are."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    size: int


@lru_cache(1 << 12)
def _say_kind(dtype: torch.dtype, shape: torch.Size) -> str:
    """A kind in words: "float32 3 4"."""
    return " ".join([NAMES[dtype], *map(str, shape)])


@lru_cache(1 << 12)
def _read_kind(text: str) -> Kind:
    """The kind that a text says. Raises WireError if it says none."""
    name, *lengths = text.split(" ")
    if name not in DTYPES or len(lengths) > MAX_DIMENSIONS or not all(map(LENGTH.fullmatch, lengths)):
        raise WireError("a frame has a malformed table of tensors")
    dtype, shape = DTYPES[name], tuple(map(int, lengths))
    if _span(shape) > MAX_TENSOR_BYTES:
        raise WireError("a frame has a tensor over the limits")
    return Kind(dtype, shape, math.prod(shape) * dtype.itemsize)


def _unpack(table: Any, elements: memoryview) -> Tensors:
    """New tensors from a table and their elements. Raises WireError unless these are as many as the table says."""
    if type(table) is not dict or len(table) > MAX_ITEMS:
        raise WireError("a frame has a malformed table of tensors")
    tensors, at = {}, 0
    for name, text in table.items():
        if type(text) is not str:
            raise WireError("a frame has a malformed table of tensors")
        kind = _read_kind(text)
        if at + kind.size > len(elements):
            raise WireError("a frame has fewer elements than its table of tensors says")
        tensors[name] = _read_tensor(kind, elements, at)
        at += kind.size
    if at != len(elements):
        raise WireError("a frame has more elements than its table of tensors says")
    return tensors


def _span(shape: Sequence[int]) -> int:
    """The product of the lengths that are not 0: torch makes no tensor where this overflows, not even an empty one."""
    return math.prod(filter(None, shape))


def _read_tensor(kind: Kind, elements: memoryview, at: int) -> torch.Tensor:
    """A new tensor, whose elements begin at byte `at`."""
    dtype, shape, size = kind
    if size == 0:
        return torch.empty(shape, dtype=dtype)
    if dtype is torch.bool:  # a byte that is neither 0 nor 1 makes a bool that is neither true nor false
        return torch.frombuffer(elements, dtype=torch.uint8, count=size, offset=at).view(shape).bool()
    return torch.frombuffer(elements, dtype=dtype, count=size // dtype.itemsize, offset=at).view(shape).clone()


def encode(value: Any, tensors: Packed, other: Callable[[Any], dict[str, Any]], depth: int = 0) -> dict:
    """Describe `value` as a skeleton, and put its tensors into `tensors`.

    Args:
        value: anything. Numbers, text, None, tensors, and lists, tuples and dictionaries of them cross as data.
        tensors: gains one entry for every tensor found: its kind, and a copy of its elements in the order of rows.
        other: describes a value of any other type.
    """
    if value is None or type(value) in (bool, float):
        return {"value": value}
    if type(value) is int:
        return {"value": value} if abs(value) < MAX_INTEGER else {"unusable": "an integer of over 64 bits"}
    if type(value) is str:
        return {"value": value[:MAX_TEXT]}
    if isinstance(value, torch.Tensor):
        return _encode_tensor(value, tensors)
    if depth < MAX_DEPTH and isinstance(value, (list, tuple)) and len(value) <= MAX_ITEMS:
        return {"sequence": [encode(item, tensors, other, depth + 1) for item in value]}
    is_mapping = type(value) in (dict, OrderedDict)  # a state_dict is ordered
    if depth < MAX_DEPTH and is_mapping and len(value) <= MAX_ITEMS and all(type(k) is str for k in value):
        return {"mapping": {k[:MAX_TEXT]: encode(v, tensors, other, depth + 1) for k, v in value.items()}}
    return other(value)


def _encode_tensor(x: torch.Tensor, tensors: Packed) -> dict[str, Any]:
    """Look at layout, device, type and size before any operation on the elements."""
    if x.layout is not torch.strided:
        return {"unusable": f"a tensor of layout {x.layout}"}
    if x.device.type not in ("cpu", "cuda"):
        return {"unusable": f"a tensor on the device {x.device}"}
    if x.dtype not in NAMES:
        return {"unusable": f"a tensor of {x.dtype}"}
    if x.numel() * x.element_size() > MAX_TENSOR_BYTES // 2:
        return {"unusable": f"a tensor of {x.numel():,} elements"}
    if x.dim() > MAX_DIMENSIONS:
        return {"unusable": f"a tensor of {x.dim()} dimensions"}
    if x.numel() == 0 and _span(x.shape) > MAX_TENSOR_BYTES:
        return {"unusable": f"an empty tensor of the shape {tuple(x.shape)}"}
    name = f"t{len(tensors)}"
    plain = x.detach()
    if type(plain) is not torch.Tensor:
        plain = plain.as_subclass(torch.Tensor)
    if plain.dtype is torch.bfloat16:  # which NumPy has not
        plain = plain.view(torch.int16)
    tensors[name] = _say_kind(x.dtype, x.shape), plain.resolve_neg().cpu().numpy().tobytes()
    return {"tensor": name}


def decode(
    skeleton: Any,
    tensors: Tensors,
    other: Callable[[str, Any], Any],
    text: Callable[[str], str] = str,
    depth: int = 0,
) -> Any:
    """Rebuild a value from its skeleton. Sequences come back as tuples.

    Args:
        skeleton: what `encode` made, or what somebody forged.
        tensors: the tensors that came in the same frame.
        other: rebuilds a skeleton of any other kind from the kind and its content; raises WireError if it
            knows none such.
        text: makes every text in it, the names of mappings too, safe for this side; by default they stay.

    Raises:
        WireError: if the skeleton is malformed.
    """
    if type(skeleton) is not dict or len(skeleton) != 1 or depth > MAX_DEPTH:
        raise WireError("a value is malformed")
    kind, content = next(iter(skeleton.items()))
    if kind == "value" and type(content) is str:
        return text(content)
    if kind == "value" and (content is None or type(content) in (bool, int, float)):
        return content
    if kind == "tensor" and type(content) is str and content in tensors:
        return tensors[content]
    if kind == "unusable" and type(content) is str:
        return Unusable(text(content))
    if kind == "sequence" and type(content) is list and len(content) <= MAX_ITEMS:
        return tuple(decode(item, tensors, other, text, depth + 1) for item in content)
    if kind == "mapping" and type(content) is dict and len(content) <= MAX_ITEMS:
        return {text(k): decode(v, tensors, other, text, depth + 1) for k, v in content.items()}
    return other(kind, content)
