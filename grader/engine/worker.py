"""The worker: a process that holds nothing but the submission, and does what the trusted side asks.

It serves requests, some at once: load a student's file, call a function, read or set an attribute. Values go back as
data; objects stay here and are named by number. Nothing that it says is believed.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import io
import os
import random
import sys
from collections.abc import Iterator
from typing import Any

import numpy
import torch

from . import bars, elsewhere, imports, promises, sandbox  # noqa: F401  checks call `elsewhere` by its name
from .state import EVERYTHING, RECURSION, Changes, State, generators, write_generators
from .student_files import StudentFiles
from .watchdog import ran_out_of_memory
from .wire import Channel, Packed, Tensors, WireClosed, WireError, decode, encode

KEPT_OUTPUT = 64 << 10
MAX_ELEMENTS = 1 << 26  # of a result to differentiate: expanded tensors can claim any number
MAX_DESCRIPTORS = 4096
MAX_WORDS = 20  # for what one question or file has changed
TRACE = 2  # where the stack is written at a crash or a time-out, after the request and the file at hand
REACHED = b"%7d %-56b\n"  # the number of the request, and the name of the student's module that is being imported


class MissingNameError(Exception):
    """The submission lacks a name of the handout."""


class BreakpointError(Exception):
    """Student code called breakpoint(), which stops for somebody at a keyboard."""


class NoInput(io.TextIOBase):
    """What student code reads from: nothing, also after exit(), which closes it."""

    def readable(self) -> bool:
        """Always."""
        return True

    def readline(self, size: int | None = -1) -> str:  # type: ignore[override]
        """The end of the file."""
        return ""

    def read(self, size: int | None = -1) -> str:
        """The end of the file."""
        return ""

    def close(self) -> None:
        """Stays open."""


def refuse_breakpoint(*arguments: Any, **keywords: Any) -> None:
    """What breakpoint() does. Raises BreakpointError."""
    raise BreakpointError("breakpoint() waits for a keyboard, and there is none; delete that line")


class Output(io.TextIOBase):
    """What the student prints: the file keeps its last 64 to 128 KB, however much is printed. Written by lines."""

    def __init__(self, descriptor: int):
        self.descriptor = descriptor
        self.pending = ""
        self.tail = b""
        self.written = 0

    encoding = "utf-8"

    def writable(self) -> bool:
        """Always."""
        return True

    def reconfigure(self, **options: Any) -> None:
        """Stays as it is."""

    def write(self, text: str) -> int:
        """Take `text`; whole lines go to the file at once, so that a crash loses less than one."""
        self.pending += text
        if "\n" in text or len(self.pending) > KEPT_OUTPUT:
            self.flush()
        return len(text)

    def flush(self) -> None:
        """Write what is pending, and drop all but the end of the file where it grows over its bound."""
        data, self.pending = self.pending.encode("utf-8", "replace"), ""
        self.tail = (self.tail + data[-KEPT_OUTPUT:])[-KEPT_OUTPUT:]
        self.written += len(data)
        with contextlib.suppress(OSError):  # student code closed the file: then what it prints is lost
            if self.written > 2 * KEPT_OUTPUT:
                os.ftruncate(self.descriptor, 0)
                os.lseek(self.descriptor, 0, os.SEEK_SET)
                data, self.written = self.tail, len(self.tail)
            os.write(self.descriptor, data)


class Worker:
    """Serves requests about the submission in `directory` over `channel` until the other side is gone.

    What student code prints goes to `output`; tensors and modules are handed to it on `device`.
    """

    def __init__(self, channel: Channel, files: StudentFiles, directory: str, output: Output, device: str):
        self.device = device
        self.files = files
        self.channel = channel
        self.output = output
        self.directory = directory
        self.objects: dict[int, Any] = {}
        self.number = 0  # of the request at hand
        self.module = ""  # that is being imported
        self.changed: dict[str, Changes] = {}  # by the student's module that made them, "" for a call
        self.state = State()
        self.depth = sys.getrecursionlimit()

    def serve(self) -> None:
        """Answer messages, one at a time. Returns when the channel closes."""
        while True:
            try:
                message, tensors = self._receive()
            except WireClosed:
                return
            out: Packed = {}
            replies = self._answer_all(message["requests"], tensors, out)
            if sys.getrecursionlimit() < self.depth:  # to answer takes a few frames
                sys.setrecursionlimit(self.depth)
                self._add("", Changes([RECURSION]))
            self.output.flush()
            try:
                self.channel.send({"id": message["id"], "replies": replies}, out)
            except WireError as error:
                if isinstance(error, WireClosed):
                    return
                too_large = ValueError("the result is too large to send")
                replies[-1] = {"error": describe_error(too_large, self.directory)}
                self.channel.send({"id": message["id"], "replies": replies})

    def _answer_all(self, requests: list[dict[str, Any]], tensors: Tensors, out: Packed) -> list[dict[str, Any]]:
        """The replies to requests, up to the first that fails; then there are no tensors."""
        replies = []
        for number, request in enumerate(requests):
            try:
                self.number = number
                self._say_where(self.module)
                replies.append(self._answer(request, tensors, out))
                if "stale" in replies[-1]:
                    return replies
            except BaseException as error:  # whatever student code raises, SystemExit included, is an answer
                out.clear()
                return [*replies, {"error": describe_error(error, self.directory)}]
        return replies

    def _say_where(self, module: str) -> None:
        """Leave word of the request at hand and of the module that is being imported, "" for none."""
        self.module = module
        os.pwrite(TRACE, REACHED % (self.number, module.encode("ascii", "replace")[:56]), 0)

    @contextlib.contextmanager
    def importing(self, module: str) -> Iterator[None]:
        """Put back what a file of the student's changes in the process while it is imported, and keep account of it."""
        outer, before, drawn = self.module, State(self.state), generators(self.device)
        self._say_where(module)
        try:
            yield
        finally:
            changes = before.restore(keep_new=True)
            self.state.accept()
            write_generators(drawn)
            self._add(module, changes)
            self._say_where(outer)

    def _add(self, module: str, changes: Changes) -> None:
        """Keep account of what has changed."""
        if changes.put_back or changes.stuck:
            before = self.changed.setdefault(module, Changes())
            before.put_back += changes.put_back
            before.stuck += changes.stuck

    def _changes(self) -> dict[str, Any]:
        """What has changed since the last time, by what did it."""
        changed, self.changed = self.changed, {}
        told = {module: [one.put_back[:MAX_WORDS], one.stuck[:MAX_WORDS]] for module, one in changed.items()}
        return encode(told, {}, self._refer)

    def _receive(self) -> tuple[dict[str, Any], Tensors]:
        message, tensors = self.channel.receive()
        return message, {name: x.to(self.device) for name, x in tensors.items()}

    def _answer(self, request: dict[str, Any], tensors: Tensors, out: Packed) -> dict[str, Any]:
        operation = request["operation"]
        if operation == "begin":
            self.files.emptied.update(request["emptied"])
            return self._begin(request["seed"])
        if operation == "load":
            importlib.import_module(request["module"])
            return {"ok": self._changes(), "fault": self.files.faults.get(request["module"])}
        if operation == "settle":
            return {"ok": {"value": None}}
        if operation == "get":
            return {"ok": self._encode([self._resolve(one["root"], one["path"]) for one in request["of"]], out)}
        target = self._resolve(request["root"], request["path"])
        if operation == "set":
            setattr(target, request["name"], self._decode(request["value"], tensors))
            return {"ok": {"value": None}}
        if operation == "each":
            cases = [[self._decode(argument, tensors) for argument in case] for case in request["cases"]]
            return {"ok": self._encode([target(*case) for case in cases], out)}
        if operation == "make":
            arguments, keywords = self._arguments(request, tensors)
            value = self._keep(request["number"], target(*arguments, **keywords))
            is_object = "object" in encode(value, {}, self._describe)
            return {"ok": {"value": is_object}}
        if operation == "call":
            return self._call(target, request, tensors, out)
        raise WireError(f"no operation {operation!r}")

    def _begin(self, seed: int) -> dict[str, Any]:
        """Forget all objects, put back what was changed, and seed every generator student code may draw from.

        Where something cannot be put back the answer is that this worker is stale.
        """
        self.objects.clear()
        changes = self._restore()
        self._add("", changes)
        if changes.stuck:
            return {"stale": self._changes()}
        torch.default_generator.manual_seed(seed)  # torch.manual_seed formats a stack for CUDA in every call
        if self.device != "cpu":
            torch.cuda.manual_seed_all(seed)
        numpy.random.seed([seed % 2**32, seed >> 32])
        random.seed(seed)
        return {"ok": self._changes()}

    def _restore(self) -> Changes:
        """Put back what was changed; all of it is stuck if that fails."""
        try:
            return self.state.restore()
        except Exception:
            return Changes(stuck=[EVERYTHING])

    def _resolve(self, root: str | int, path: list[str]) -> Any:
        """The object that a module or number and a path of attributes name."""
        value = module_called(root) if isinstance(root, str) else self.objects[root]
        for name in path:
            if not hasattr(value, name):
                owner = root if isinstance(root, str) else type(value).__name__
                raise MissingNameError(f"{owner} has no {name}")
            value = getattr(value, name)
        return value

    def _arguments(self, request: dict[str, Any], tensors: Tensors) -> tuple[list[Any], dict[str, Any]]:
        """The arguments of a call, by position and by name."""
        arguments = [self._decode(argument, tensors) for argument in request["arguments"]]
        return arguments, {name: self._decode(value, tensors) for name, value in request["keywords"].items()}

    def _call(self, function: Any, request: dict[str, Any], tensors: Tensors, out: Packed) -> dict[str, Any]:
        """Call `function`, and differentiate the sum of its first result, weighted by the cotangent."""
        leaves = [tensors[name].requires_grad_() for name in request["gradients"]]
        arguments, keywords = self._arguments(request, tensors)
        result = function(*arguments, **keywords)
        reply = {"ok": self._encode(result, out)}
        if leaves:
            cotangent = self._decode(request["cotangent"], tensors)
            reply["gradients"] = self._encode(gradients(result, leaves, cotangent), out)
        if request["echo"]:
            reply["arguments"] = self._encode(arguments, out)
        return reply

    def _encode(self, value: Any, out: Packed) -> dict[str, Any]:
        return encode(value, out, self._refer)

    def _refer(self, value: Any) -> dict[str, Any]:
        """Name an object that stays here, or say why it is of no use to the grader."""
        described = self._describe(value)
        if "object" in described:
            self._keep(described["object"], value)
        return described

    def _describe(self, value: Any) -> dict[str, Any]:
        """What an object would be named, or why it is of no use to the grader."""
        if isinstance(value, numpy.ndarray | numpy.generic):
            return {"unusable": "a NumPy array"}
        if isinstance(value, (list, tuple, dict, set, frozenset)):
            return {"unusable": f"a {type(value).__name__} of {len(value)} items"}
        return {"object": len(self.objects)}

    def _keep(self, number: int, value: Any) -> Any:
        """Keep an object under a number. Returns it."""
        if self.device != "cpu" and isinstance(value, torch.nn.Module):
            value.to(self.device)
        self.objects[number] = value
        return value

    def _decode(self, skeleton: dict[str, Any], tensors: Tensors) -> Any:
        return decode(skeleton, tensors, lambda kind, content: self._other(kind, content, tensors))

    def _other(self, kind: str, content: Any, tensors: Tensors) -> Any:
        """An object that stays here, one to be built here, or a function of the trusted side."""
        if kind == "remote":
            return self._resolve(content["root"], content["path"])
        if kind == "built":
            arguments = [self._decode(argument, tensors) for argument in content["arguments"]]
            return self._resolve(content["root"], content["path"])(*arguments)
        if kind == "function":
            return lambda *arguments, **keywords: self._call_back(content, arguments, keywords)
        raise WireError(f"no kind of value {kind!r}")

    def _call_back(self, function: int, arguments: tuple, keywords: dict[str, Any]) -> Any:
        """Ask the trusted side for the value of one of its functions."""
        out: Packed = {}
        message = {
            "callback": function,
            "arguments": [self._encode(argument, out) for argument in arguments],
            "keywords": {name: self._encode(value, out) for name, value in keywords.items()},
        }
        self.channel.send(message, out)
        reply, tensors = self._receive()
        return self._decode(reply["result"], tensors)


def module_called(name: str) -> Any:
    """A module, which is looked up the quick way first."""
    return sys.modules.get(name) or importlib.import_module(name)


def gradients(result: Any, leaves: list[torch.Tensor], cotangent: torch.Tensor | None) -> list[Any]:
    """Gradients of (first result * cotangent).sum() by each leaf; None where none arrives."""
    first = result[0] if isinstance(result, (tuple, list)) and result else result
    if not isinstance(first, torch.Tensor) or not first.requires_grad or first.numel() > MAX_ELEMENTS:
        return [None] * len(leaves)
    total = first.sum() if cotangent is None else (first * cotangent).sum()
    return list(torch.autograd.grad(total, leaves, allow_unused=True))


def describe_error(error: BaseException, directory: str) -> dict[str, Any]:
    """What was raised, and where in the student's files: type, message, and (file, line, function) frames."""
    try:
        message = str(error)[:2000]
    except BaseException:  # a hostile __str__
        message = "(its message cannot be shown)"
    kind = "exception"
    if isinstance(error, MissingNameError):
        kind = "missing"
    elif ran_out_of_memory(error):
        kind = "memory"
    frames = []
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if os.path.dirname(code.co_filename) == directory:  # noqa: PTH120 (student code may have patched Path)
            frames.append([os.path.basename(code.co_filename), trace.tb_lineno, code.co_name])  # noqa: PTH119
        trace = trace.tb_next
    if isinstance(error, SyntaxError) and error.filename and error.lineno:  # the lines that led there say nothing
        frames = [[os.path.basename(error.filename), error.lineno, "<module>"]]  # noqa: PTH119
    return {"kind": kind, "type": type(error).__name__[:200], "message": message, "frames": frames[-8:]}


def run(channel: Channel, policy: sandbox.Policy, output: int, trace: int) -> None:
    """Become a worker: redirect output, put on the layers, say hello, serve. Does not return.

    Args:
        channel: the wire to the trusted side.
        policy: what it may see; its directory is the absolute path of the staged submission.
        output: descriptor of a file open for writing, for what student code prints.
        trace: the same, for the stack at a crash or a time-out.
    """
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(trace, TRACE)
    wire = channel.socket.fileno()
    os.closerange(3, wire)
    os.closerange(wire + 1, MAX_DESCRIPTORS)
    sys.stdin, sys.breakpointhook = NoInput(), refuse_breakpoint
    sys.stdout = sys.stderr = printed = Output(1)
    faulthandler.enable(file=TRACE)
    if sandbox.SHOW_STACK is not None:
        faulthandler.register(sandbox.SHOW_STACK, file=TRACE)
    sys.dont_write_bytecode = True
    os.chdir(policy.directory)
    files = StudentFiles(policy.directory)
    sys.meta_path.insert(0, files)
    bars.install()
    imports.restrict(files.files.keys())
    layers = sandbox.apply(policy)
    try:
        torch.zeros(1, device=policy.device)
    except (RuntimeError, AssertionError) as error:
        channel.send({"failed": f"it cannot use the device {policy.device}: {error}"})
        os._exit(1)
    channel.send({"hello": {"layers": layers, "stopped": promises.check(policy)}})
    os.write(TRACE, REACHED % (0, b""))
    worker = Worker(channel, files, policy.directory, printed, policy.device)
    files.around = worker.importing
    worker.serve()
    os._exit(0)
