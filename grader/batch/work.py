"""Grades one hand-in, in any process: its result, or a sentence that says why it has none."""

from __future__ import annotations

import atexit
import hashlib
import json
import math
import os
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

from grader.assignment import REPOSITORY, pristine
from grader.rubric import Question, load, seen_by, select

from .schedule import Answer, TooLong, Unfinished
from .store import PICTURES, PROBLEMS, UnusableError, usable

KEPT_MEMORY = {-3: 32 << 20, -1: 128 << 20}  # M_MMAP_THRESHOLD and M_TRIM_THRESHOLD of mallopt(3), in bytes
PART = 0.5  # of a limit, for one check
Contents = Mapping[str, Mapping[str, bytes]]  # files by name, by the key of their result
DECIDES = ("grader/*.py", "grader/*.toml", "grader/checks/**/*.py", "grader/oracle/*.py", "grader/engine/*.py")
DECIDES_TOO = ("grader/report/result.py", "data/*.py", "data/*.png")


class GradingError(Exception):
    """A class cannot be graded for reasons of ours; the message says what to do."""


class _TooLongError(Exception):
    """A hand-in has to make room for others; `begun` is how many checks it had begun."""

    def __init__(self, begun: int):
        super().__init__()
        self.begun = begun


@dataclass(frozen=True)
class Settings:
    """What is asked of every submission of a class.

    Attributes:
        seed: of the inputs that the checks draw.
        device: where student code computes.
        audience: the checks to run, those that these may see.
        only: questions, as of `rubric.select`.
        training: whether to train models.
    """

    seed: int
    device: str = "cpu"
    audience: str = "ta"
    only: str = ""
    training: bool = True

    @property
    def text(self) -> str:
        """One line that names them, and what grades: the same text, the same results."""
        return json.dumps(asdict(self) | {"grader": grader_digest()}, sort_keys=True)


@cache
def grader_digest() -> str:
    """A digest of everything that decides about a result: checks, oracle, engine, rubric, data and handout."""
    digest = hashlib.sha256()
    paths = {path for pattern in (*DECIDES, *DECIDES_TOO) for path in REPOSITORY.glob(pattern)}
    parts = {str(path.relative_to(REPOSITORY)): path.read_bytes() for path in paths}
    parts |= {f"pristine/{name}": text.encode() for name, text in pristine().items()}
    for name, content in sorted(parts.items()):
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def key_of(files: Mapping[str, bytes], settings: Settings) -> str:
    """The key of a result: a digest of a submission's files and of what it is asked."""
    return key_under(files, settings.text)


def key_under(files: Mapping[str, bytes], settings: str) -> str:
    """The key of a result under settings whose text is given, those of a run before say."""
    digest = hashlib.sha256(settings.encode())
    for name, content in sorted(files.items()):
        digest.update(f"{name}\0{len(content)}\0".encode("utf-8", "surrogatepass") + content)
    return digest.hexdigest()


# ---------------------------------------------------------------- one hand-in

_launcher: Any = None


def _keep_freed_memory() -> None:
    """Have the C library keep what is freed for the next tensors: to ask the kernel for pages again takes longer."""
    from grader.engine.landlock import LIBC

    if LIBC is not None and hasattr(LIBC, "mallopt"):  # glibc
        for option, size in KEPT_MEMORY.items():
            LIBC.mallopt(option, size)


def begin(device: str) -> None:
    """Make a process ready to grade: torch here and in its zygote, side by side."""
    global _launcher
    _keep_freed_memory()
    os.environ["OMP_NUM_THREADS"] = "1"  # a core a process; torch reads it once
    from grader.engine.launcher import OPTIMIZERS, default_launcher

    _launcher = default_launcher(device)
    _launcher.require(OPTIMIZERS)
    atexit.register(_launcher.close)
    import torch

    torch.set_num_threads(1)


@cache
def _questions(settings: Settings) -> list[Question]:
    """What to grade."""
    return select(seen_by(load(), settings.audience), settings.only)


def grade_files(files: Mapping[str, bytes], settings: Settings, limit: float | None = None) -> dict[str, Any]:
    """Grade one submission.

    Args:
        files: contents by name.
        settings: what is asked.
        limit: seconds after which to give up, or after PART of them in one check. A result that is there in time is the
            one that there is without a limit.

    Returns:
        The fields of its results.json, without a name, and if there is something to show, strips under PICTURES;
        under PROBLEMS what those who grade should know of the grader's own failures.

    Raises:
        _TooLongError: if that takes longer than `limit`.
    """
    from grader.engine.student import CALL_SECONDS, WALL_SECONDS
    from grader.grading import grade
    from grader.report.pictures import strips
    from grader.submission import from_files

    if _launcher is None:
        begin(settings.device)
    seconds = limit or math.inf
    expect_time = _expect_time(seconds)
    result = grade(
        from_files("", files),
        _questions(settings),
        _launcher,
        settings.seed,
        expect_time,
        call_seconds=min(CALL_SECONDS, PART * seconds),
        wall_seconds=min(WALL_SECONDS, seconds),
        training=settings.training,
    )
    expect_time()
    shown = strips(result.exhibits)
    beside = {PICTURES: shown, PROBLEMS: result.log}
    return result.as_fields() | {name: value for name, value in beside.items() if value}


def _expect_time(seconds: float) -> Callable[..., None]:
    """What is to be called before every check and after the last, and raises _TooLongError once there is no time left.

    That a call was cut because of `seconds` is never missed: its check took at least as long.
    """
    began = last = time.monotonic()
    begun = 0

    def expect_time(check: object = None) -> None:
        nonlocal last, begun
        now = time.monotonic()
        if now - began >= seconds or now - last >= PART * seconds:
            raise _TooLongError(begun)
        last, begun = now, begun + 1

    return expect_time


def attempt(files: Mapping[str, bytes], settings: Settings, limit: float | None = None) -> Answer | TooLong:
    """Grade one submission; every failure is an answer.

    Returns:
        The fields of a result that can be kept, or why there is none.
    """
    from grader.engine.launcher import StartError

    try:
        return usable(grade_files(files, settings, limit))
    except _TooLongError as error:
        return TooLong(error.begun)
    except (MemoryError, OSError, StartError):
        return Unfinished("The grader could not start what runs it.", traceback.format_exc(), again=True)
    except UnusableError as error:
        return Unfinished(f"Its result cannot be kept: {error}.", traceback.format_exc())
    except Exception:
        return Unfinished("The grader failed.", traceback.format_exc())
