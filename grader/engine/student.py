"""The trusted proxy of a submission: `student.loss.KLDivergenceLoss()(mu, logvar)` runs in the worker.

An attribute of a proxy costs nothing, a call is one round trip. What comes back is plain data, or a proxy of an
object that stays in the worker. What gives no data waits for the next request that does, and goes with it: the call of
a class, a name with a capital, which gives a proxy or fails; the setting of an attribute; and `later`. Student code
that fails raises Failure here, with a verdict; the worker is replaced when it has to be, so that one check is lost and
no more.
"""

from __future__ import annotations

import inspect
import os
import re
import secrets
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch

from .advice import advise
from .changes import Changes
from .isolation import Isolation
from .launcher import Launcher, Process, StartError
from .text import clean, printable
from .tracebacks import Frame, read_error, read_reached, read_stack
from .wire import Packed, Tensors, Unusable, WireClosed, WireError, WireFull, WireTimeout, decode, encode

CALL_SECONDS = 10.0
IMPORT_SECONDS = 5.0
CHECK_SECONDS = 100.0
WALL_SECONDS = 180.0
JUDGING_SECONDS = 120.0
MAX_CALLBACKS = 20_000
KEPT_OUTPUT = 64 << 10
MAX_ARGUMENTS = 16
LINES_BEFORE = 8  # of code that may have led to an exception
SHOWN_LINE = 200  # characters of one that is quoted
MAX_LINE = 500  # characters of a line that are searched: the time that a pattern takes grows with their square
KEEP_NAMES = "Keep the names and signatures of the handout."
ADDRESS = re.compile(r"\b0x[0-9a-f]{6,16}\b")
Result = TypeVar("Result")
Answer = tuple[dict[str, Any], Tensors]  # the reply to a request, and its tensors


class Failure(Exception):
    """A check that did not pass.

    Attributes:
        status: the verdict, one of those of `grader.checks.runner`.
        message: what was measured, in a sentence for the student; safe to show, as all its texts are.
        hint: what the mistake is, and what to do about it, or "".
        where: where it shows, as which term, axis, image or step, or "".
    """

    def __init__(self, status: str, message: str, hint: str = "", where: str = ""):
        super().__init__(message)
        self.status = status
        self.message, self.hint, self.where = clean((message, hint, where))

    def told(self, hint: str) -> Failure:
        """The same failure with another hint."""
        return Failure(self.status, self.message, hint, self.where)


@dataclass(frozen=True)
class Observation:
    """One call and what it left: its result, gradients by argument name, and its arguments afterwards."""

    value: Any
    gradients: dict[str, torch.Tensor | None]
    arguments: dict[str, torch.Tensor]


@dataclass(frozen=True)
class Built:
    """An argument that the worker builds for one call: what something callable in the worker makes of arguments.

    Gradients of the call reach tensors among the arguments, which they do not through an object that was there before.
    """

    constructor: Remote
    arguments: Mapping[str, Any]


class Remote:
    """Something in the worker: a module or an object, and a path of attributes from it."""

    __slots__ = ("_label", "_path", "_root", "_student")
    _student: Student
    _root: str | int
    _path: tuple[str, ...]
    _label: str

    def __init__(self, student: Student, root: str | int, path: tuple[str, ...] = (), label: str = ""):
        object.__setattr__(self, "_student", student)
        object.__setattr__(self, "_label", label or str(root))
        object.__setattr__(self, "_root", root)
        object.__setattr__(self, "_path", path)

    def __getattr__(self, name: str) -> Remote:
        return Remote(self._student, self._root, (*self._path, name), self._label)

    def __setattr__(self, name: str, value: Any) -> None:
        self._student.set(self, name, value)

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        if self._path and self._path[-1][0].isupper():
            return self._student.make(self, arguments, keywords, is_class=True)
        return self._student.call(self, arguments, keywords).value

    def __repr__(self) -> str:
        return ".".join([self._label, *self._path])


def of(remote: Remote, name: str) -> Remote:
    """A part of a remote by its name with dots, as those of parameters are: only ever looked up in the worker."""
    return Remote(remote._student, remote._root, (*remote._path, *name.split(".")), remote._label)


def later(remote: Remote, *arguments: Any) -> Remote:
    """Call something whose result stays in the worker, when the next call with a result is made."""
    return remote._student.make(remote, arguments, {})


def gather(remote: Remote, remotes: Sequence[Remote]) -> Remote:
    """A list of objects, which stays in the worker; `remote` is anything of the student whose objects they are."""
    return later(remote._student.builtins.list, remotes)


def overwrite(remote: Remote, tensors: Remote | Sequence[Remote], values: Sequence[torch.Tensor]) -> None:
    """Copy values into tensors of the worker, when the next call with a result is made; it fails if one does not fit.

    Args:
        remote: anything of the student whose tensors they are.
        tensors: of any shape and memory layout; several, or what `gather` made of them.
        values: one for each, shaped like it.
    """
    student = remote._student
    copied = Built(student.builtins.map, {"copy": student.torch.Tensor.copy_, "to": tensors, "from": values})
    later(student.collections.deque, copied, 0)  # which takes one after another, and keeps none


def fetch(*remotes: Remote) -> tuple:
    """The values of attributes and objects, as data, in one round trip. Raises Failure if one is missing."""
    return remotes[0]._student.get(remotes)


def call_each(remote: Remote, cases: Sequence[Mapping[str, Any]]) -> tuple:
    """Call once for every case, in one round trip; arguments are passed by position.

    Returns:
        The results, in the order of the cases.

    Raises:
        Failure: if a call has no result; then none of them has.
    """
    return remote._student.each(remote, cases)


def at_once(remote: Remote, steps: Sequence[Callable[[], Result]]) -> Iterator[Result]:
    """Run functions of the grader, each of which makes one request with a result, with one round trip for all of them.

    A step is run once to see what it asks, as far as that, and once more with the answer, when it is its turn; so it
    draws no random numbers, and nothing else waits for a request meanwhile. Where anything asked has no result, the
    steps are run one after another as they are.

    Args:
        remote: anything of the student whom the steps ask.
        steps: functions without arguments.

    Returns:
        What they return.

    Raises:
        Failure: of what was asked before the first step; when the worker is gone; and what a step raises.
    """
    return remote._student.at_once(steps)


def observe(
    remote: Remote,
    inputs: Mapping[str, Any],
    cotangent: torch.Tensor | None = None,
    differentiate: bool = True,
) -> Observation:
    """Call something, and see what the call did to its arguments.

    Args:
        remote: what to call.
        inputs: the arguments, passed by position in this order; the names label what is observed. The arguments of
            one that is built in the worker have names of their own.
        cotangent: weights of the elements of the (first) result, whose weighted sum is differentiated; all one
            by default.
        differentiate: whether to ask for the gradients by every floating-point tensor.

    Raises:
        Failure: if the call has no result.
    """
    flat: dict[str, Any] = {}
    for name, value in inputs.items():
        flat |= value.arguments if isinstance(value, Built) else {name: value}
    floating = [name for name, x in flat.items() if isinstance(x, torch.Tensor) and x.is_floating_point()]
    wanted = floating if differentiate else []
    return remote._student.call(remote, tuple(inputs.values()), {}, list(inputs), wanted, cotangent)


def observe_each(remote: Remote, cases: Sequence[Mapping[str, Any]]) -> list[Observation]:
    """`observe` once for every case, in one round trip. Raises Failure as it does."""
    return list(at_once(remote, [partial(observe, remote, inputs) for inputs in cases]))


@dataclass(frozen=True)
class Request:
    """Something asked of the worker.

    Attributes:
        message: the fields that go there.
        what: what it runs, in the student's words; "" where it runs nothing of the student's.
        is_class: whether it must give an object.
    """

    message: dict[str, Any]
    what: str = ""
    is_class: bool = False

    @property
    def operation(self) -> str:
        """What is to be done."""
        return self.message["operation"]

    @property
    def parts(self) -> set[str]:
        """Those of its reply."""
        asked = {"ok": True, "gradients": self.message.get("gradients"), "arguments": self.message.get("echo")}
        asked["fault"] = self.operation == "load"
        return {part for part, wanted in asked.items() if wanted}


class _AskedError(BaseException):
    """A step has come to its request, which waits; no check is to catch this."""


class _StaleError(Exception):
    """The worker holds what a check changed and what cannot be put back."""


class Student:
    """A submission, staged in a folder, and the worker that runs it.

    Args:
        directory: absolute path of the staged submission: only what student code may see.
        launcher: starts the workers.
        call_seconds: longest a call may take, the trusted side's own work in callbacks not counted.
        wall_seconds: longest all calls together may take.
        imports: modules that some check will ask for, to be made ready beside the first checks.
        always: modules that the submission imports, and that a worker must have imported before it starts.

    Attributes:
        answered: whether the worker has said anything since the check began: what goes wrong after that may be due to
            what it said.
        doing: what it said that about, in the student's words.
        judging_seconds: those of the processor that are left to judge what it gives back.
    """

    def __init__(
        self,
        directory: Path,
        launcher: Launcher,
        call_seconds: float = CALL_SECONDS,
        wall_seconds: float = WALL_SECONDS,
        imports: Sequence[str] = (),
        always: Sequence[str] = (),
    ):
        self.directory = directory
        self.isolation = Isolation({}, {})
        self.output = ""
        self.answered = False
        self.doing = ""
        self.judging_seconds = JUDGING_SECONDS
        self._launcher = launcher
        self._expected_imports = imports
        self._always = always
        self._call_seconds = call_seconds
        self._seconds_left = wall_seconds
        self._check_seconds_left = CHECK_SECONDS
        self._process: Process | None = None
        self._request_id = 0
        self._called = ""
        self._trace = ""
        self._outgrown = False
        self._functions: list[tuple[Callable[..., Any], inspect.Signature]] = []
        self._waiting: list[Request] = []
        self._tensors: Packed = {}
        self._made = 0
        self._looks_ahead = False
        self._answer: Answer | None = None
        self._at: Request | None = None
        self.faults: dict[str, str] = {}
        self._changes = Changes(self._is_students)
        self._question = self._asked_last = ""
        self._load_failures: dict[str, Failure] = {}
        self._imported_once: set[str] = set()
        self._importing = ""
        self._loaded: set[str] = set()
        # As they are before any code of the submission runs, which could keep others from opening its files.
        self._files = {path.name: path.read_text("utf-8", "replace") for path in directory.glob("*.py")}

    def __getattr__(self, module: str) -> Remote:
        if module.startswith("_"):
            raise AttributeError(module)
        return Remote(self, module)

    @property
    def device(self) -> str:
        """Where student code computes, "cpu" or "cuda"."""
        return self._launcher.device

    def failed_to_import(self, file: str) -> bool:
        """Whether a file was tried and could not be imported; it is not tried again, so that it takes no time."""
        return file.removesuffix(".py") in self._load_failures

    @property
    def notes(self) -> list[str]:
        """What student code changed in its process, in sentences; complete once it is closed."""
        return self._changes.notes()

    def printed(self) -> str:
        """The end of what student code has printed so far."""
        return self._with_output(self._process.printed()) if self._process is not None else self.output

    def begin(self, seed: int, imports: Sequence[str] = (), question: str = "") -> None:
        """Start a check: forget the objects of the last one, put back what it changed, and seed the generators.

        Args:
            seed: of the worker's generators.
            imports: modules the check needs that take long to import, or need rights to: a worker that was started
                without them is replaced.
            question: that of the check; that of the one before by default.
        """
        self._question = question or self._question
        self.answered, self.doing = False, ""
        self._check_seconds_left = CHECK_SECONDS
        imports = [*imports, *self._always]
        self._launcher.require(imports)
        if self._process is not None and not self._process.imports.issuperset(imports):
            self._end()
        self._forget()
        emptied = sorted(self._load_failures)  # others import them too, by way of the recipes
        self._waiting = [Request({"operation": "begin", "seed": seed, "emptied": emptied})]

    def drop(self) -> None:
        """End the worker where it is, in the middle of a request say, after what no check expects."""
        self._functions, self._looks_ahead = [], False
        self._forget()
        if self._process is not None:
            with suppress(StartError):  # what starts workers may have been interrupted as well; it starts again
                self._end()

    def close(self) -> None:
        """End the worker, and keep what it printed and what the last check changed."""
        if self._process is not None:
            with suppress(Failure, _StaleError):
                self._exchange([Request({"operation": "begin", "seed": 0, "emptied": []})], {})
        if self._process is not None:
            self._end()

    def get(self, remotes: Sequence[Remote]) -> tuple:
        """Read attributes and objects; see `fetch`."""
        reply, received = self._ask(
            lambda: Request({"operation": "get", "of": [self._address(remote) for remote in remotes]})
        )
        return self._read_sequence(reply["ok"], received, len(remotes))

    def set(self, remote: Remote, name: str, value: Any) -> None:
        """Set an attribute, before the next request with a result."""
        if self._answer is None:
            fields = {"operation": "set", "name": name, "value": self._encode(value, self._tensors)}
            self._waiting.append(Request(self._address(remote) | fields))

    def make(self, remote: Remote, arguments: tuple, keywords: dict[str, Any], is_class: bool = False) -> Remote:
        """Call something before the next request with a result; what it gives stays in the worker."""
        self._made += 1
        what = repr(remote)
        if self._answer is None:
            message = self._address(remote) | {
                "operation": "make",
                "number": -self._made,  # the worker's own numbers are not negative
                "arguments": [self._encode(argument, self._tensors) for argument in arguments],
                "keywords": {name: self._encode(value, self._tensors) for name, value in keywords.items()},
            }
            self._waiting.append(Request(message, what, is_class))
        return Remote(self, -self._made, label=what)

    def settle(self) -> None:
        """Have everything done that waits for a request with a result. Raises Failure if something of it fails."""
        if any(request.what for request in self._waiting):
            self._ask(lambda: Request({"operation": "settle"}))

    def each(self, remote: Remote, cases: Sequence[Mapping[str, Any]]) -> tuple:
        """Call something once for every case; see `call_each`."""

        def request() -> Request:
            encoded = [[self._encode(argument, self._tensors) for argument in case.values()] for case in cases]
            return Request(self._address(remote) | {"operation": "each", "cases": encoded}, repr(remote))

        reply, received = self._ask(request)
        return self._read_sequence(reply["ok"], received, len(cases))

    def call(
        self,
        remote: Remote,
        arguments: tuple,
        keywords: dict[str, Any],
        names: list[str] | None = None,
        gradients: list[str] | None = None,
        cotangent: torch.Tensor | None = None,
    ) -> Observation:
        """Call something in the worker; see `observe`, which is the way to ask for gradients."""
        names, gradients = names or [], gradients or []
        self._called = repr(remote)

        def request() -> Request:
            tensors = self._tensors
            encoded = [self._encode(argument, tensors) for argument in arguments]
            message = self._address(remote) | {
                "operation": "call",
                "arguments": encoded,
                "keywords": {name: self._encode(value, tensors) for name, value in keywords.items()},
                "gradients": [_tensor_names(names, arguments, encoded)[name] for name in gradients],
                "cotangent": self._encode(cotangent, tensors),
                "echo": bool(names),
            }
            return Request(message, self._called)

        reply, received = self._ask(request)
        value = self._read(reply["ok"], received)
        found = self._read_sequence(reply["gradients"], received, len(gradients)) if gradients else ()
        after = self._read_sequence(reply["arguments"], received, len(names)) if names else ()
        return Observation(value, dict(zip(gradients, found, strict=True)), dict(zip(names, after, strict=True)))

    def at_once(self, steps: Sequence[Callable[[], Result]]) -> Iterator[Result]:
        """Run functions with one round trip for all of them; see `at_once`."""
        made, answers = self._answers(steps)
        for number, step in enumerate(steps):
            if answers:
                self._made, self._answer = made[number], answers[number]
            yield step()

    def _answers(self, steps: Sequence[Callable[[], Any]]) -> tuple[list[int], list[Answer]]:
        """How many objects were made before each step, and the answers to what the steps ask; none if one fails."""
        before, made, ends = len(self._waiting), [], []
        if self._looks_ahead:
            raise TypeError("a step takes steps of its own")
        self._looks_ahead = True
        try:
            for step in steps:
                made.append(self._made)
                try:
                    step()
                except _AskedError:
                    ends.append(len(self._waiting) - 1)
                else:
                    raise TypeError("a step asked nothing")
        finally:
            self._looks_ahead = False
        requests, tensors = self._waiting, self._tensors
        self._forget()
        try:
            replies, received = self._send(requests, tensors)
        except Failure:
            if self._process is None or any(self._at is request for request in requests[:before]):
                raise
            return made, []
        return made, [(replies[end], received) for end in ends]

    def _address(self, remote: Remote) -> dict[str, Any]:
        """Where a remote is; its file is imported first if it is a student's that is not imported yet."""
        root = remote._root
        if isinstance(root, str) and root not in self._loaded and self._is_students(root):
            if root in self._load_failures:  # one that cannot be imported is not tried again
                raise self._load_failures[root]
            self._waiting.append(_load(root))
            self._loaded.add(root)
        return {"root": root, "path": list(remote._path)}

    def _is_students(self, module: str) -> bool:
        """Whether a module is one of the submission's files."""
        return f"{module}.py" in self._files

    def _ask(self, request: Callable[[], Request]) -> Answer:
        """Send what waits and a request, in one round trip, with the callbacks in it.

        A step that has its answer already is not asked what it requests.

        Raises:
            Failure: with the verdict, if any of them has no result.
        """
        if self._answer is not None:
            answer = self._answer
            self._forget()
            return answer
        self._waiting.append(request())
        if self._looks_ahead:
            raise _AskedError
        requests, tensors = self._waiting, self._tensors
        self._forget()
        replies, received = self._send(requests, tensors)
        return replies[-1], received

    def _send(self, requests: list[Request], tensors: Packed) -> tuple[list[dict[str, Any]], Tensors]:
        """The replies to requests, and their tensors, from another worker if this one is stale. Raises Failure."""
        loaded = sorted(self._loaded)
        try:
            return self._send_in_parts(requests, [], tensors)
        except _StaleError:
            if self._process is not None:
                self._end()
            return self._send_in_parts(requests, [_load(module) for module in loaded], tensors)
        finally:
            self._functions = []

    def _send_in_parts(
        self, requests: list[Request], loads: list[Request], tensors: Packed
    ) -> tuple[list[dict[str, Any]], Tensors]:
        """The replies to requests; files are imported first, those of `loads` too, each in a round trip of its own."""
        sent = [request for request in requests[:1] if request.operation == "begin"]
        imports = loads + [request for request in requests if request.operation == "load"]
        for number, load in enumerate(imports):
            self._import(load, sent if number == 0 else [])
        sent = [*sent, *imports] if imports else []
        rest = [request for request in requests if not any(request is one for one in sent)]
        answers, received = self._exchange(rest, tensors) if rest else ([], {})
        left = iter(answers)
        return [{} if any(request is one for one in sent) else next(left) for request in requests], received

    def _import(self, load: Request, before: list[Request]) -> None:
        """Import a file, which has a time of its own and is charged for it from the second time on.

        Raises:
            Failure: which is noted, so that the file at fault, this or one that it imports, is not tried again.
        """
        module = load.message["module"]
        seconds = min(IMPORT_SECONDS, self._call_seconds)
        try:
            self._exchange([*before, load], {}, seconds, charged=module in self._imported_once)
        except Failure as failure:
            if self._at is load and not self._importing:
                failure.hint = failure.hint or f"{module}.py could not be imported; try `python {module}.py`."
                self._load_failures[module] = failure
            raise
        self._imported_once.add(module)
        self._loaded.add(module)

    def _noted(self, failure: Failure) -> Failure:
        """Remember the Failure for the file that the worker was importing when it was ended, if it was. Returns it."""
        if self._importing:
            self._load_failures[self._importing] = failure
        return failure

    def _forget(self) -> None:
        """Drop what waits, and an answer that was not asked for."""
        self._loaded -= {request.message["module"] for request in self._waiting if request.operation == "load"}
        self._waiting, self._tensors, self._answer = [], {}, None

    def _exchange(
        self, requests: list[Request], tensors: Packed, seconds: float | None = None, charged: bool = True
    ) -> tuple[list[dict[str, Any]], Tensors]:
        """One round trip of at most `seconds`, which count as the submission's if `charged`.

        Raises:
            Failure: then `_at` is the request that failed, if it was one of them.
        """
        self._at, self._importing = None, ""
        if self._seconds_left <= 0:
            raise Failure("timeout", "Not run: the checks before this one used up the time of this submission.")
        if self._check_seconds_left <= 0:
            raise Failure("timeout", f"Your code had not done what this check asks after {CHECK_SECONDS:.0f} s.")
        process = self._process = self._process or self._spawn()
        self._request_id = secrets.randbits(62)  # not to be guessed by a frame sent ahead of its question
        seconds = min(seconds or self._call_seconds, self._seconds_left, self._check_seconds_left)
        message = {"id": self._request_id, "requests": [r.message for r in requests]}
        started, trusted_seconds = time.monotonic(), 0.0
        try:
            if not process.channel.silent():
                raise WireError("it spoke without being asked")
            process.channel.send(message, tensors, started + seconds)
            for _ in range(MAX_CALLBACKS):
                reply, received = process.channel.receive(started + seconds + trusted_seconds)
                self.answered, self.doing = True, requests[-1].what
                if "callback" not in reply:
                    try:
                        return self._checked(requests, reply), received
                    finally:
                        self._asked_last = self._question
                entered = time.monotonic()
                answer, answer_tensors = self._run_callback(reply, received)
                trusted_seconds += time.monotonic() - entered
                process.channel.send(answer, answer_tensors, started + seconds + trusted_seconds)
            raise WireTimeout("too many callbacks")
        except WireTimeout:
            process.show_stack()
            self._end()
            raise self._noted(self._overdue(self._reached(requests), seconds)) from None
        except WireClosed:
            status = self._end()
            raise self._noted(self._crash(self._reached(requests), status)) from None
        except WireFull:
            raise Failure(
                "error",
                "This check would have to send more to your code than fits: your networks have too many parts.",
                "Make the networks of the size that the handout asks for.",
            ) from None
        except WireError as error:
            raise self._irregular(str(error)) from None
        finally:
            if charged:
                self._charge(time.monotonic() - started - trusted_seconds)

    def _charge(self, seconds: float) -> None:
        """Take seconds from what the check, and the submission, have left."""
        self._check_seconds_left -= seconds
        self._seconds_left -= seconds

    def _reached(self, requests: list[Request]) -> str:
        """What a worker that was ended had come to, as far as it said; and the file that it was importing."""
        number, module = read_reached(self._trace)
        self._at = requests[-1 if number is None else min(number, len(requests) - 1)]
        self._importing = module if self._is_students(module) else ""
        return f"import {self._importing}" if self._importing else self._at.what

    def _overdue(self, what: str, seconds: float) -> Failure:
        """The Failure for what did not end."""
        if self._importing:
            return Failure(
                "timeout",
                f"Importing {self._importing}.py took more than {seconds:.0f} s.{self._last_line()}",
                "Code outside of functions and classes runs at every import: move it into a function, or take it out.",
            )
        return Failure(
            "timeout",
            f"{what or 'Your code'} had not returned after {seconds:.0f} s.{self._last_line()}",
            "Look for a loop that does not end, or for one over elements where a tensor operation would do.",
        )

    def _checked(self, requests: list[Request], reply: dict[str, Any]) -> list[dict[str, Any]]:
        """What a reply says about each request; raises the Failure it reports, if it reports one."""
        if set(reply) != {"id", "replies"} or reply["id"] != self._request_id:
            raise WireError("an answer to no question")
        replies = reply["replies"]
        if type(replies) is not list or not 0 < len(replies) <= len(requests) or {type(r) for r in replies} != {dict}:
            raise WireError("an answer with missing parts")
        for request, part in zip(requests, replies, strict=False):
            self._at = request
            if request.operation == "begin" and set(part) == {"stale"}:
                self._changes.add(part["stale"], self._asked_last)
                raise _StaleError
            if set(part) == {"error"}:
                raise self._student_error(part["error"])
            if request.is_class and part != {"ok": {"value": True}}:
                raise Failure("error", f"{request.what} is no class: calling it gives no object.", KEEP_NAMES)
            if set(part) != request.parts:
                raise WireError("an answer with other parts than were asked for")
            if request.operation in ("begin", "load"):
                self._changes.add(part["ok"], self._asked_last)
            if request.operation == "load" and type(part["fault"]) is str:
                self.faults[request.message["module"]] = printable(self._steady(part["fault"]))
        if len(replies) != len(requests):
            raise WireError("an answer with other parts than were asked for")
        return replies

    def _run_callback(self, reply: dict[str, Any], received: Tensors) -> tuple[dict[str, Any], Packed]:
        """Call the trusted function the worker asks for. A Failure it raises ends the worker, mid-call as it is."""
        if set(reply) != {"callback", "arguments", "keywords"}:
            raise WireError("a malformed callback")
        number, arguments, keywords = reply["callback"], reply["arguments"], reply["keywords"]
        if type(number) is not int or not 0 <= number < len(self._functions):
            raise WireError("a callback of no function")
        if type(arguments) is not list or type(keywords) is not dict or len(arguments) + len(keywords) > MAX_ARGUMENTS:
            raise WireError("a callback with malformed arguments")
        function, signature = self._functions[number]
        tensors: Packed = {}
        try:
            positional = [self._decode(argument, received) for argument in arguments]
            named = {printable(name): self._decode(value, received) for name, value in keywords.items()}
            expect_signature(function, signature, positional, named)
            value = function(*positional, **named)
        except BaseException:
            self._end()
            raise
        return {"result": self._encode(value, tensors)}, tensors

    def _spawn(self) -> Process:
        """Start a worker. The first start is the machine's time, and those after it are the submission's."""
        started, is_first = time.monotonic(), not self.isolation.layers
        process = self._launcher.spawn(self.directory)
        self._launcher.expect(self._expected_imports)
        self.isolation = process.isolation
        if not is_first:
            self._charge(time.monotonic() - started)
        return process

    def _end(self) -> int:
        """End the worker and keep what it printed. Returns its exit status."""
        process, self._process = self._process, None
        assert process is not None
        watchdog = process.watchdog
        self._loaded.clear()
        self._forget()
        status, printed, self._trace = process.end()
        self.output = self._with_output(printed)
        self._outgrown = watchdog is not None and watchdog.tripped
        return status

    def _crash(self, what: str, status: int) -> Failure:
        if self._outgrown:
            return Failure("out_of_memory", "Your code asked for more memory than there is.")
        names = {-number: number.name for number in signal.Signals}
        reason = f"ended by {names.get(status, f'signal {-status}')}" if status < 0 else f"exit status {status}"
        return Failure(
            "crashed",
            f"The Python process ended during {what or 'this check'} ({reason}).{self._last_line()}",
            "Your code must return, not end the interpreter: look for exit(), or for memory that ran out.",
        )

    def _irregular(self, why: str) -> Failure:
        """End a worker that sent what no worker sends; the Failure is the submission's."""
        if self._process is not None:
            self._end()
        return Failure("crashed", f"The process of this submission broke the rules of the wire: {why}.")

    def _with_output(self, printed: str) -> str:
        """What was printed before, and this, cut to its end."""
        return (self.output + self._steady(printed))[-KEPT_OUTPUT:]

    def _steady(self, text: str) -> str:
        """Text of the worker less what differs from run to run: where objects are in memory, and the staged folder."""
        return ADDRESS.sub("0x...", text.replace(f"{self.directory}{os.sep}", "").replace(str(self.directory), "."))

    def _last_line(self) -> str:
        """Where in the student's files the worker last said it was, as a sentence."""
        for path, line, function in read_stack(self._trace):
            if os.path.dirname(path) == str(self.directory):  # noqa: PTH120 (not every text is a path)
                return f" It was here:\n{self._quote(Frame(os.path.basename(path), line, function))}"  # noqa: PTH119
        return ""

    def _quote(self, frame: Frame) -> str:
        """A line of the student's own file, as a traceback shows it."""
        source = self._lines(frame.file)
        text = source[frame.line - 1].strip() if 0 < frame.line <= len(source) else ""
        place = f'  File "{frame.file}", line {frame.line}, in {frame.function}'
        return f"{place}\n    {printable(text, SHOWN_LINE)}" if text else place

    def _student_error(self, error: Any) -> Failure:
        """The Failure for an exception in the worker, told with the student's own lines."""
        kind, name, message, frames = read_error(error)
        raised = printable(self._steady(f"{name}: {message}"))
        if kind == "missing":
            return Failure("error", printable(message) + ".", KEEP_NAMES)
        if name == "NotImplementedError" and re.fullmatch(r"\d\.\d\w?", message, re.ASCII):
            return Failure("not_attempted", f"Your code runs into question {message}, which is not filled in.")
        trace = "\n".join([*(self._quote(frame) for frame in frames[-3:]), raised])
        if kind == "memory":
            return Failure("out_of_memory", f"Your code asked for more memory than there is.\n{trace}")
        hint = self._why_not_imported(frames, message) or self._what_is_missing(name, frames)
        return Failure("error", f"Your code raised an exception.\n{trace}", hint or self._advise(raised, frames))

    def _advise(self, raised: str, frames: list[Frame]) -> str:
        """What to change where an exception was raised, as far as it is known; see `advise`."""
        file, line, _ = frames[-1] if frames else ("", 0, "")
        source = self._lines(file)
        before = source[max(0, line - LINES_BEFORE) : line]
        return advise(raised, before[-1] if before else "", "\n".join(before), "\n".join(source))

    def _lines(self, file: str) -> list[str]:
        """The lines of one of the student's files, by its name, none of them endless; none where it is not there."""
        return [line[:MAX_LINE] for line in self._files.get(file, "").splitlines()]

    def _why_not_imported(self, frames: list[Frame], message: str) -> str:
        """Which file stopped an import, and where, as a sentence; "" where something else was asked for."""
        if self._at is None or "module" not in self._at.message:
            return ""
        lacking = re.match(r"cannot import name '(\w+)' from '(\w+)'", message)
        if lacking:
            return f"{lacking[2]}.py must define {lacking[1]}. {KEEP_NAMES}"
        for file, line, function in reversed(frames):
            if function == "<module>":
                return f"{file} could not be imported: look at line {line}."
        return ""

    def _what_is_missing(self, name: str, frames: list[Frame]) -> str:
        """Why a name is not defined in a file that was imported block by block, as a sentence; "" otherwise."""
        module = frames[-1][0].removesuffix(".py") if frames and name == "NameError" else ""
        return f"{module}.py cannot be imported as it is: {self.faults[module]}." if module in self.faults else ""

    def _encode(self, value: Any, tensors: Packed) -> dict[str, Any]:
        return encode(value, tensors, lambda other: self._refer(other, tensors))

    def _refer(self, value: Any, tensors: Packed) -> dict[str, Any]:
        """Remotes travel as addresses, functions as numbers to call back."""
        if isinstance(value, Remote):
            return {"remote": self._address(value)}
        if isinstance(value, Built):
            arguments = [self._encode(argument, tensors) for argument in value.arguments.values()]
            return {"built": self._address(value.constructor) | {"arguments": arguments}}
        if callable(value):
            self._functions.append((value, inspect.signature(value)))
            return {"function": len(self._functions) - 1}
        raise TypeError(f"a check passed a {type(value).__name__}, which cannot cross to the worker")

    def _read(self, skeleton: Any, tensors: Tensors) -> Any:
        """A value of an answer. Raises Failure, and ends the worker, if it is malformed."""
        try:
            return self._decode(skeleton, tensors)
        except WireError as error:
            raise self._irregular(str(error)) from None

    def _read_sequence(self, skeleton: Any, tensors: Tensors, length: int) -> tuple:
        """A sequence of an answer, of a known length."""
        values = self._read(skeleton, tensors)
        if type(values) is not tuple or len(values) != length:
            raise self._irregular("an answer with missing parts")
        return values

    def _decode(self, skeleton: Any, tensors: Tensors) -> Any:
        return decode(skeleton, tensors, self._other, printable)

    def _other(self, kind: str, content: Any) -> Remote:
        if kind == "object" and type(content) is int and 0 <= content < 1 << 31:
            return Remote(self, content, label=self._called)
        raise WireError("a value of no known kind")


def _load(module: str) -> Request:
    """The request to import a student's file."""
    return Request({"operation": "load", "module": module}, f"import {module}")


def _tensor_names(names: list[str], arguments: tuple, encoded: list[dict[str, Any]]) -> dict[str, str]:
    """Under which name the tensors among some arguments, and among what those are built from, travel."""
    found: dict[str, str] = {}
    for name, argument, skeleton in zip(names, arguments, encoded, strict=True):
        if isinstance(argument, Built):
            parts = zip(argument.arguments, skeleton["built"]["arguments"], strict=True)
            found |= {part: inner["tensor"] for part, inner in parts if "tensor" in inner}
        elif "tensor" in skeleton:
            found[name] = skeleton["tensor"]
    return found


def expect_signature(
    function: Callable[..., Any], signature: inspect.Signature, arguments: list[Any], keywords: dict[str, Any]
) -> None:
    """Raise Failure if student code called a function of the grader, one of plain parameters, with other arguments."""
    if len(arguments) == len(signature.parameters) and not keywords:  # which is nearly always so, and quickly seen
        return
    try:
        signature.bind(*arguments, **keywords)
    except TypeError as error:
        raise Failure("error", f"Your code called {function.__name__}{signature} wrongly: {error}.") from None


__all__ = [
    "Built",
    "Failure",
    "Observation",
    "Remote",
    "Student",
    "Unusable",
    "at_once",
    "call_each",
    "fetch",
    "gather",
    "later",
    "observe",
    "observe_each",
    "of",
    "overwrite",
]
