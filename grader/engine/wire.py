"""The wire between the grader and a worker: frames of JSON and safetensors over a socket, never pickle.

A frame is a header (magic, length of the JSON, length of the safetensors), the JSON, the safetensors. A value
travels as a skeleton, a dictionary with one key that says what it is; its tensors travel beside it by name.
"""

from __future__ import annotations

import json
import select
import socket
import struct
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

MAGIC = b"DGM1"
HEADER = struct.Struct("<4sII")
MAX_JSON_BYTES = 1 << 20
MAX_TENSOR_BYTES = 64 << 20
MAX_TENSOR_TABLE_BYTES = 64 << 10  # some hundred tensors
MAX_DEPTH = 6
MAX_ITEMS = 1000
MAX_TEXT = 2000
MAX_INTEGER = 1 << 63
MAX_DIGITS = 20

DTYPES = {
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16,
    torch.int8, torch.uint8, torch.bool,
}  # fmt: skip

Tensors = dict[str, torch.Tensor]


class WireError(Exception):
    """The other side sent something that is no well-formed frame or value."""


class WireClosed(WireError):
    """The other side is gone."""


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

    def send(self, message: dict[str, Any], tensors: Tensors | None = None, deadline: float | None = None) -> None:
        """Send one frame. Raises WireClosed, WireTimeout, or WireError if the frame is over the limits."""
        text = json.dumps(message).encode()
        blob = save_tensors(tensors) if tensors else b""
        if len(text) > MAX_JSON_BYTES or len(blob) > MAX_TENSOR_BYTES:
            raise WireError(f"a frame of {len(text)} and {len(blob)} bytes is over the limits")
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
        text, blob = self._read(text_length, deadline), self._read(blob_length, deadline)
        if int.from_bytes(blob[:8], "little") > MAX_TENSOR_TABLE_BYTES:
            raise WireError("a frame has a malformed table of tensors")
        try:
            message = json.loads(text, parse_int=_small_integer)
            tensors = load_tensors(blob) if blob else {}
        except (ValueError, KeyError, RecursionError, SafetensorError) as error:
            raise WireError(f"a frame has a malformed body: {type(error).__name__}") from error
        if type(message) is not dict:
            raise WireError("a frame is not an object")
        return message, tensors

    def silent(self) -> bool:
        """Whether nothing lies unread: the other side has said nothing since the last frame."""
        readable, _, _ = select.select([self.socket], [], [], 0)
        return not readable

    def _read(self, length: int, deadline: float | None) -> bytes:
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
        return bytes(data)

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


def encode(value: Any, tensors: Tensors, other: Callable[[Any], dict[str, Any]], depth: int = 0) -> dict:
    """Describe `value` as a skeleton, and put its tensors into `tensors`.

    Args:
        value: anything. Numbers, text, None, tensors, and lists, tuples and dictionaries of them cross as data.
        tensors: gains one entry, a contiguous copy on the CPU, for every tensor found.
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


def _encode_tensor(x: torch.Tensor, tensors: Tensors) -> dict[str, Any]:
    """Look at layout, device, type and size before any operation on the elements."""
    if x.layout is not torch.strided:
        return {"unusable": f"a tensor of layout {x.layout}"}
    if x.device.type not in ("cpu", "cuda"):
        return {"unusable": f"a tensor on the device {x.device}"}
    if x.dtype not in DTYPES:
        return {"unusable": f"a tensor of {x.dtype}"}
    if x.numel() * x.element_size() > MAX_TENSOR_BYTES // 2:
        return {"unusable": f"a tensor of {x.numel():,} elements"}
    name = f"t{len(tensors)}"
    plain = x.detach().as_subclass(torch.Tensor)
    tensors[name] = plain.to("cpu", copy=True).contiguous()
    return {"tensor": name}


def decode(skeleton: Any, tensors: Tensors, other: Callable[[str, Any], Any], depth: int = 0) -> Any:
    """Rebuild a value from its skeleton. Sequences come back as tuples.

    Args:
        skeleton: what `encode` made, or what somebody forged.
        tensors: the tensors that came in the same frame.
        other: rebuilds a skeleton of any other kind from the kind and its content; raises WireError if it
            knows none such.

    Raises:
        WireError: if the skeleton is malformed.
    """
    if type(skeleton) is not dict or len(skeleton) != 1 or depth > MAX_DEPTH:
        raise WireError("a value is malformed")
    kind, content = next(iter(skeleton.items()))
    if kind == "value" and (content is None or type(content) in (bool, int, float, str)):
        return content
    if kind == "tensor" and type(content) is str and content in tensors:
        return tensors[content]
    if kind == "unusable" and type(content) is str:
        return Unusable(content[:MAX_TEXT])
    if kind == "sequence" and type(content) is list and len(content) <= MAX_ITEMS:
        return tuple(decode(item, tensors, other, depth + 1) for item in content)
    if kind == "mapping" and type(content) is dict and len(content) <= MAX_ITEMS:
        return {k: decode(v, tensors, other, depth + 1) for k, v in content.items()}
    return other(kind, content)
