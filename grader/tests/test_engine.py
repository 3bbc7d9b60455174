"""The proxy of a submission: calls, gradients, callbacks, and what becomes of a worker that misbehaves."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from grader.assignment import REPOSITORY
from grader.engine.launcher import FreshLauncher, Launcher, Process, StartError, ZygoteLauncher
from grader.engine.student import (
    Built,
    Failure,
    Student,
    at_once,
    call_each,
    fetch,
    gather,
    later,
    observe,
    observe_each,
    overwrite,
)
from grader.engine.tracebacks import read_error, read_reached, read_stack
from grader.engine.watchdog import Watchdog
from grader.engine.wire import Unusable, WireError

MODULE = """
import torch

class Counter:
    def __init__(self, start=0):
        self.count = start
    def add(self, n=1):
        self.count += n
        return self.count

class Hostile:
    def __str__(self): raise RuntimeError("no")
    __repr__ = __str__

class BadError(Exception):
    def __str__(self): raise RuntimeError("no")

def square(x, y=None): return x ** 2
def pair(x): return x * 2, [x.sum(), "text", None, {"k": 3}]
def forget(x): return x.detach() * 2
def unused(x, y): return x.sum()
def scale_(x): return x.mul_(2)
def alias(x): return x
def call(f, n): return [f(torch.tensor([i]), k=i) for i in range(n)]
def call_wrongly(f): return f(1, 2, 3)
def swallow(f):
    try: f(torch.zeros(1))
    except BaseException: pass
    return 1
def boom(): return 1 / 0
def deep(n=10000): return deep(n)
def leave(code=3): import os; os._exit(code)
def leave_politely(): raise SystemExit(3)
def segfault(): import ctypes; ctypes.string_at(0)
def abort(): import os; os.abort()
def stop(): import os, signal; os.kill(os.getpid(), signal.SIGSTOP)
def spin():
    while True: pass
def stubborn():
    import signal
    for s in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP): signal.signal(s, signal.SIG_IGN)
    while True:
        try: spin()
        except BaseException: pass
def sleep(seconds): import time; time.sleep(seconds); return 1
def ten_tebibytes(): return torch.zeros(10 << 40)
def fill():
    kept = []
    while True: kept.append(torch.ones(1 << 26))
def creep():
    kept = []
    while True: kept.append(torch.empty(1 << 28, dtype=torch.uint8))
def shout(n):
    for _ in range(n): print("y" * 99)
    print("the end")
    return n
def quiet(text): print(text)
def raise_hostile(): raise BadError()
def hostile(): return Hostile()
def numpy_array(): import numpy; return numpy.zeros(3)
def huge(): return torch.ones(1).expand(1 << 40)
def thousands(): return list(range(5000))
def random(): import random as r, numpy; return [r.random(), float(numpy.random.rand()), torch.rand(())]
def modules(*roots): import sys; return [name for name in sys.modules if name.partition(".")[0] in roots]
def path(): import sys; return list(sys.path)
def environment(): import os; return dict(os.environ)
def descriptors():
    import os, stat
    found = []
    for fd in range(4096):
        try: mode = os.fstat(fd).st_mode
        except OSError: continue
        found.append("socket" if stat.S_ISSOCK(mode) else "file" if stat.S_ISREG(mode) else "device")
    return found
def everything():
    import gc
    return sum("grader" in str(getattr(o, "__module__", "")) for o in gc.get_objects() if isinstance(o, type))
"""


@pytest.fixture(scope="module", params=[ZygoteLauncher, FreshLauncher], ids=["forked", "fresh"])
def any_launcher(request: pytest.FixtureRequest) -> Iterator[Launcher]:
    started = request.param()
    yield started
    started.close()


Make = Callable[..., Student]


@pytest.fixture
def make(launcher: ZygoteLauncher, tmp_path: Path) -> Iterator[Make]:
    """Makes a student of a file `code.py`, with a short deadline."""
    made: list[Student] = []

    def student(source: str = MODULE, using: Launcher = launcher, seconds: float = 5, wall: float = 60) -> Student:
        folder = tmp_path.resolve() / str(len(made))
        folder.mkdir()
        (folder / "code.py").write_text(source, "utf-8")
        made.append(Student(folder, using, seconds, wall))
        return made[-1]

    yield student
    for one in made:
        one.close()


@pytest.fixture
def student(make: Make) -> Student:
    return make()


def failure(call: Callable[[], object]) -> Failure:
    with pytest.raises(Failure) as caught:
        call()
    return caught.value


# ---------------------------------------------------------------- calls


def test_both_ways_to_start_a_worker_do_the_same(make: Make, any_launcher: Launcher) -> None:
    student = make(using=any_launcher, seconds=30)
    assert torch.equal(student.code.square(torch.tensor([3.0])), torch.tensor([9.0]))
    assert failure(student.code.segfault).status == "crashed"
    assert failure(student.code.boom).status == "error"
    assert student.code.call(lambda x, k: x + k, 3)[2].item() == 4
    student.code.quiet("kept")
    student.close()
    assert "kept" in student.output


def test_objects_stay_in_the_worker_and_keep_their_state(student: Student) -> None:
    counter = student.code.Counter(5)
    assert [counter.add(), counter.add(n=3), fetch(counter.count)] == [6, 9, (9,)]
    counter.count = 1
    assert counter.add() == 2
    assert fetch(counter.count, counter.count) == (2, 2)
    assert call_each(counter.add, [{"n": 1}, {"n": 10}, {}]) == (3, 13, 14)
    assert failure(lambda: fetch(counter.no_such_name)).message == "Counter has no no_such_name."


def count_round_trips(student: Student, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that gains the number of requests of every round trip."""
    made: list[int] = []
    exchange = student._exchange
    monkeypatch.setattr(
        student,
        "_exchange",
        lambda requests, *more, **how: made.append(len(requests)) or exchange(requests, *more, **how),
    )
    return made


def test_steps_share_a_round_trip_and_are_judged_one_by_one(student: Student, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step makes an object, and asks what becomes of it: with all of its answers, and the object is there after."""
    trips = count_round_trips(student, monkeypatch)
    judged: list[int] = []

    def step(start: int) -> tuple:
        counter = later(student.code.Counter, start)
        observed = observe(student.code.pair, {"x": torch.full((2,), float(start))})
        judged.append(start)
        return counter, observed

    other = student.code.Counter(7)
    steps = at_once(other, [partial(step, start) for start in (1, 2, 3)])
    counter, observed = next(steps)
    assert (judged, trips) == ([1], [1, 7])  # a file to import; an object before, and three times two
    assert torch.equal(observed.value[0], torch.full((2,), 2.0))
    assert torch.equal(observed.gradients["x"], torch.full((2,), 2.0))
    (_, second), (_, third) = steps
    assert torch.equal(second.arguments["x"], torch.full((2,), 2.0))
    assert torch.equal(third.value[0], torch.full((2,), 6.0))
    assert [counter.add(), other.add()] == [2, 8]
    assert len(trips) == 4


def test_where_a_step_fails_each_is_taken_by_itself(student: Student, monkeypatch: pytest.MonkeyPatch) -> None:
    trips = count_round_trips(student, monkeypatch)
    counter = student.code.Counter()
    steps = at_once(counter, [partial(student.code.square, torch.ones(1)), student.code.boom, counter.add])
    assert torch.equal(next(steps), torch.ones(1))
    assert "division by zero" in failure(lambda: next(steps)).message
    assert len(trips) == 4  # the import, all of them, and two alone

    def first_fails() -> list:
        return list(at_once(counter, [partial(student.code.Counter(nothing=1).add), student.code.boom]))

    assert "nothing" in failure(first_fails).message  # what was asked before the steps
    assert len(trips) == 5
    assert failure(lambda: list(at_once(counter, [student.code.leave, counter.add]))).status == "crashed"
    assert len(trips) == 6


def test_a_step_that_asks_nothing_is_a_mistake_of_the_grader(student: Student) -> None:
    with pytest.raises(TypeError, match="asked nothing"):
        next(at_once(student.code.square, [lambda: 1]))
    assert torch.equal(student.code.square(torch.ones(1)), torch.ones(1))
    within = partial(next, at_once(student.code.square, [partial(student.code.square, torch.ones(1))]))
    with pytest.raises(TypeError, match="steps of its own"):
        next(at_once(student.code.square, [within]))


def test_a_step_is_told_its_answer_and_not_asked_again(student: Student, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it passes crosses once, though it is run twice."""
    crossed: list[object] = []
    encode = student._encode
    monkeypatch.setattr(student, "_encode", lambda value, tensors: crossed.append(value) or encode(value, tensors))
    counter = student.code.Counter()

    def step(n: int) -> tuple:
        counter.count = n
        return later(student.code.Counter, n), counter.add(n)

    assert [added for _, added in at_once(counter, [partial(step, 1), partial(step, 2)])] == [2, 4]
    assert [value for value in crossed if value is not None] == [1, 1, 1, 2, 2, 2]


def test_observing_several_calls_takes_one_round_trip(student: Student, monkeypatch: pytest.MonkeyPatch) -> None:
    trips = count_round_trips(student, monkeypatch)
    seen = observe_each(student.code.square, [{"x": torch.full((2,), value)} for value in (1.0, 2.0)])
    assert [one.gradients["x"].tolist() for one in seen] == [[2.0, 2.0], [4.0, 4.0]]
    assert len(trips) == 2  # the import, and all of them


def test_tensors_of_the_worker_are_overwritten_where_they_are(student: Student) -> None:
    """Also those that are laid out another way, and where something else shares their memory."""
    there = student.torch
    layer = there.nn.Linear(3, 2)
    shares = later(there.zeros, (2, 3))
    turned = later(there.Tensor.t, shares)
    both = gather(there, [layer.weight.data, turned])
    overwrite(there, both, [torch.ones(2, 3), torch.arange(6.0).reshape(3, 2)])
    overwrite(there, [layer.bias.data], [torch.full((2,), 0.5)])
    assert torch.equal(layer(torch.ones(1, 3)), torch.full((1, 2), 3.5))
    assert torch.equal(fetch(shares)[0], torch.arange(6.0).reshape(3, 2).T)


def test_an_answer_is_for_no_other_question(student: Student) -> None:
    """A step that asks nothing the second time leaves its answer behind; the next check does not get it."""
    asked: list[int] = []

    def once() -> object:
        asked.append(1)
        return student.code.square(torch.ones(1)) if len(asked) == 1 else None

    assert next(at_once(student.code.square, [once])) is None
    student.begin(0)
    assert torch.equal(student.code.square(torch.full((1,), 3.0)), torch.full((1,), 9.0))


def test_results_of_many_kinds(student: Student) -> None:
    doubled, (total, text, none, mapping) = student.code.pair(torch.ones(2))
    assert (doubled.tolist(), total.item(), text, none, mapping) == ([2, 2], 2, "text", None, {"k": 3})
    assert student.code.numpy_array() == Unusable("a NumPy array")
    assert student.code.huge() == Unusable("a tensor of 1,099,511,627,776 elements")
    assert student.code.thousands() == Unusable("a list of 5000 items")


def test_gradients_reach_what_an_argument_is_built_from(student: Student) -> None:
    mean, std = torch.tensor([1.0, 2.0]), torch.tensor([1.0, 0.5])
    normal = student.torch.distributions.Normal
    built = {
        "q": Built(normal, {"mean": mean, "std": std}),
        "p": Built(normal, {"m": torch.zeros(1), "s": torch.ones(1)}),
    }
    seen = observe(student.torch.distributions.kl_divergence, built)
    torch.testing.assert_close(seen.gradients["mean"], mean)
    torch.testing.assert_close(seen.gradients["std"], std - 1 / std)
    assert {"mean", "std", "m", "s"} == set(seen.gradients)
    nested = Built(student.torch.add, {"a": Built(student.torch.mul, {"x": mean, "y": std}), "b": mean})
    assert student.code.square(nested).tolist() == [4, 9]


def test_the_state_of_a_module_crosses_by_name(student: Student) -> None:
    layer = student.torch.nn.Linear(2, 1)
    weights = {"weight": torch.tensor([[1.0, 2.0]]), "bias": torch.tensor([3.0])}
    layer.load_state_dict(weights)
    assert {name: x.tolist() for name, x in layer.state_dict().items()} == {n: x.tolist() for n, x in weights.items()}
    assert layer(torch.ones(1, 2)).tolist() == [[6]]


def test_gradients_by_name_with_a_cotangent(student: Student) -> None:
    x, weights = torch.tensor([1.0, 2.0]), torch.tensor([1.0, 10.0])
    seen = observe(student.code.square, {"x": x, "y": None}, weights)
    assert seen.value.tolist() == [1, 4]
    assert seen.gradients["x"].tolist() == [2, 40]
    assert observe(student.code.forget, {"x": x}).gradients == {"x": None}
    assert observe(student.code.unused, {"x": x, "y": x}).gradients["y"] is None


def test_arguments_after_a_call_show_damage_and_the_callers_stay_whole(student: Student) -> None:
    x = torch.tensor([1.0, 2.0])
    seen = observe(student.code.scale_, {"x": x}, differentiate=False)
    assert (x.tolist(), seen.arguments["x"].tolist()) == ([1, 2], [2, 4])
    assert observe(student.code.alias, {"x": x}).gradients["x"].tolist() == [1, 1]


def test_begin_seeds_every_generator(student: Student) -> None:
    draws = []
    for seed in (1, 1, 2**55 + 2):
        student.begin(seed)
        a, b, c = student.code.random()
        draws.append((a, b, c.item()))
    assert draws[0] == draws[1] != draws[2]
    assert all(x != y for x, y in zip(draws[0], draws[2], strict=True))


# ---------------------------------------------------------------- callbacks


def test_callbacks_see_arguments_and_answer(student: Student) -> None:
    seen = []

    def f(x: torch.Tensor, k: int) -> torch.Tensor:
        seen.append((x.item(), k))
        return x * 10

    assert [x.item() for x in student.code.call(f, 3)] == [0, 10, 20]
    assert seen == [(0, 0), (1, 1), (2, 2)]


def test_callbacks_called_wrongly_are_the_students_error(student: Student) -> None:
    problem = failure(lambda: student.code.call_wrongly(lambda x: x))
    assert problem.status == "error"
    assert "wrongly: too many positional arguments" in problem.message


def test_a_failure_in_a_callback_cannot_be_swallowed(student: Student) -> None:
    def f(x: torch.Tensor) -> None:
        raise Failure("wrong", "seen")

    assert failure(lambda: student.code.swallow(f)).message == "seen"
    assert student.code.square(torch.ones(1)).item() == 1


def test_an_error_of_the_grader_in_a_callback_is_not_the_students(student: Student) -> None:
    def f(x: torch.Tensor) -> None:
        raise KeyError("ours")

    with pytest.raises(KeyError):
        student.code.swallow(f)


def test_time_in_callbacks_does_not_count(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, minutes = time.monotonic, []

    def slow(x: torch.Tensor, k: int) -> torch.Tensor:
        minutes.append(60.0)
        return x

    monkeypatch.setattr(time, "monotonic", lambda: clock() + sum(minutes))
    assert len(make(seconds=30).code.call(slow, 4)) == 4


# ---------------------------------------------------------------- failures


@pytest.mark.parametrize(
    ("name", "status", "says"),
    [
        ("boom", "error", 'File "code.py", line'),
        ("boom", "error", "ZeroDivisionError: division by zero"),
        ("deep", "error", "RecursionError"),
        ("leave_politely", "error", "SystemExit: 3"),
        ("raise_hostile", "error", "BadError: (its message cannot be shown)"),
        ("no_such_name", "error", "code has no no_such_name"),
        ("leave", "crashed", "exit status 3"),
        ("segfault", "crashed", "ended by SIGSEGV"),
        ("segfault", "crashed", "def segfault(): import ctypes; ctypes.string_at(0)"),
        ("abort", "crashed", "ended by SIGABRT"),
        ("spin", "timeout", "code.spin had not returned after 1 s"),
        ("spin", "timeout", "while True: pass"),
        ("stubborn", "timeout", "had not returned"),
        ("stop", "timeout", "had not returned"),
        ("ten_tebibytes", "out_of_memory", "more memory than there is"),
        ("creep", "out_of_memory", "more memory than there is"),
    ],
)
def test_failures_have_a_verdict_and_cost_one_call(make: Make, name: str, status: str, says: str) -> None:
    student = make(seconds=1 if status == "timeout" else 10)
    problem = failure(getattr(student.code, name))
    assert problem.status == status
    assert says in problem.message
    assert student.code.square(torch.tensor([2.0])).item() == 4


@pytest.mark.parametrize(
    ("source", "status", "says"),
    [
        ("def f(:\n", "error", 'File "code.py", line 1'),
        ("def f(:\n", "error", "SyntaxError"),
        (
            "import no_such_package\n",
            "error",
            "ModuleNotFoundError: no_such_package cannot be imported in a graded file",
        ),
        ("x = 1 / 0\n", "error", "ZeroDivisionError"),
        ("import os; os._exit(0)\n", "crashed", "exit status 0"),
        ("while True: pass\n", "timeout", "Importing code.py took more than 2 s."),
        ("raise SystemExit\n", "error", "SystemExit"),
        ("\x00\n", "error", "null bytes"),
        ("x = " + "(" * 1000 + "\n", "error", "SyntaxError"),
        ("x = " + "-" * 200_000 + "1\n", "", ""),
    ],
)
def test_files_that_cannot_be_imported_are_tried_once(
    make: Make, monkeypatch: pytest.MonkeyPatch, source: str, status: str, says: str
) -> None:
    student = make(source, seconds=2)
    first = failure(student.code.f)
    assert first.status == status or not status
    assert says in first.message
    trips = count_round_trips(student, monkeypatch)
    again = failure(student.code.f)
    assert (again.status, again.message) == (first.status, first.message)
    assert trips == [] or not status


def test_the_budget_of_a_submission_ends(make: Make) -> None:
    student = make(seconds=1, wall=1.5)
    assert failure(student.code.spin).status == "timeout"
    assert failure(student.code.spin).status == "timeout"
    problem = failure(student.code.boom)
    assert (problem.status, problem.message[:8]) == ("timeout", "Not run:")


def test_twenty_megabytes_of_printing_leave_the_end(make: Make) -> None:
    student = make(seconds=60)
    assert student.code.shout(200_000) == 200_000
    student.close()
    assert student.output.endswith("the end\n")
    assert len(student.output) <= 64 << 10


def test_what_was_printed_before_a_crash_is_kept(student: Student) -> None:
    student.code.quiet("before")
    failure(student.code.leave)
    student.code.quiet("after")
    student.close()
    assert student.output.split() == ["before", "after"]


def test_a_worker_that_outgrows_its_memory_is_ended_by_the_watchdog(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU the address space cannot be limited; here the watchdog watches a worker on the CPU."""
    launcher = ZygoteLauncher()
    spawn = launcher.spawn

    def watched(directory: Path) -> Process:
        process = spawn(directory)
        process.watchdog = Watchdog(process.handle, 2 << 30)
        process.watchdog.start()
        return process

    monkeypatch.setattr(launcher, "spawn", watched)
    student = make(using=launcher, seconds=60)
    assert failure(student.code.fill).status == "out_of_memory"
    assert student.code.square(torch.tensor([2.0])).item() == 4
    assert failure(student.code.leave).status == "crashed"
    student.close()
    launcher.close()


# ---------------------------------------------------------------- what a worker holds


def test_nothing_of_the_grader_is_in_the_worker(student: Student) -> None:
    """The engine's own modules are, which hold no secret; rubric, oracle, checks and solution are not."""
    ours = set(student.code.modules("grader", "engine", "oracle", "checks", "rubric", "solution", "pytest"))
    files = (
        "bars",
        "boot",
        "elsewhere",
        "imports",
        "landlock",
        "promises",
        "sandbox",
        "seccomp",
        "state",
        "student_files",
        "watchdog",
        "wire",
        "worker",
        "zygote",
    )
    assert ours == {"engine", *(f"engine.{file}" for file in files)}
    assert student.code.everything() == 0
    repository = str(Path(__file__).parents[2])
    assert [p for p in student.code.path() if p.startswith(repository) and "site-packages" not in p] == []


def test_the_environment_of_the_worker_holds_no_secret(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    fresh = FreshLauncher()
    student = make(using=fresh, seconds=30)
    environment = student.code.environment()
    assert "hunter2" not in environment.values()
    assert environment["OMP_NUM_THREADS"] == "1"


def test_the_worker_holds_no_descriptor_but_its_own(student: Student) -> None:
    """An empty input, what it prints, its last stack, and the wire."""
    assert student.code.descriptors() == ("device", "file", "file", "socket")


COLLAPSE = """
from pathlib import Path
from grader.engine.zygote import use_huge_pages
kept = b"x" * (64 << 20)
def huge():
    return next(line for line in Path("/proc/self/smaps_rollup").open() if line.startswith("AnonHugePages")).split()[1]
before = huge()
use_huge_pages()
assert set(kept) == {ord("x")}
print(before, huge())
"""


def collapses() -> bool:
    """Whether this kernel has huge pages and moves memory to them when it is asked."""
    version = tuple(map(int, re.findall(r"\d+", platform.release())[:2]))
    return sys.platform == "linux" and version >= (6, 1) and Path("/sys/kernel/mm/transparent_hugepage").exists()


@pytest.mark.skipif(not collapses(), reason="Linux moves memory to huge pages on request from 6.1 on")
def test_the_memory_of_a_zygote_moves_to_huge_pages() -> None:
    run = subprocess.run([sys.executable, "-c", COLLAPSE], cwd=REPOSITORY, check=True, capture_output=True, text=True)
    before, after = map(int, run.stdout.split())
    assert after > before  # how many of them the kernel finds is its affair


def test_closing_leaves_no_process_behind(make: Make) -> None:
    launcher = ZygoteLauncher()
    student = make(using=launcher, seconds=1)
    student.code.square(torch.ones(1))
    worker = student._process.handle
    zygote = launcher._process.pid
    launcher.close()
    for pid in (worker, zygote):
        deadline = time.monotonic() + 10
        while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    with pytest.raises(StartError):
        student.close()


def test_a_zygote_that_died_is_the_graders_fault_and_replaced(make: Make) -> None:
    launcher = ZygoteLauncher()
    student = make(using=launcher, seconds=30)
    student.code.square(torch.ones(1))
    launcher._process.kill()
    launcher._process.wait()
    with pytest.raises(StartError):
        student.close()
    assert student.code.square(torch.tensor([3.0])).item() == 9
    student.close()
    launcher.close()


def test_a_zygote_that_lost_step_is_replaced(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupt between a request and its reply must not shift the replies that follow."""
    launcher = ZygoteLauncher()
    student = make(using=launcher, seconds=30)
    student.code.square(torch.ones(1))
    student.close()

    def interrupted() -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(launcher, "_reply", interrupted)
        with pytest.raises(KeyboardInterrupt):
            student.code.square(torch.ones(1))
    assert student.code.square(torch.tensor([3.0])).item() == 9
    student.close()
    launcher.close()


def test_a_fresh_worker_that_cannot_start_is_the_graders_fault(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    student = make(using=FreshLauncher(), seconds=30)
    with monkeypatch.context() as patch:
        patch.setattr("sys.executable", "/no/such/python")
        with pytest.raises(StartError, match="no process could be started"):
            student.code.square(torch.ones(1))
    with monkeypatch.context() as patch:
        patch.setattr("grader.engine.launcher.BOOT", "raise SystemExit('ended at once')")
        with pytest.raises(StartError, match="ended at once"):
            student.code.square(torch.ones(1))
    assert student.code.square(torch.tensor([3.0])).item() == 9


# ---------------------------------------------------------------- what is said of where it was


@pytest.mark.parametrize(
    "error",
    [
        None,
        {},
        {"kind": "exception", "type": "E", "message": "m"},
        {"kind": "other", "type": "E", "message": "m", "frames": []},
        {"kind": "exception", "type": 1, "message": "m", "frames": []},
        {"kind": "exception", "type": "E", "message": "m", "frames": {}},
        *(
            {"kind": "exception", "type": "E", "message": "m", "frames": [frame]}
            for frame in (
                None,
                ["f", float("inf"), "g"],
                ["f", "1", "g"],
                ["f", True, "g"],
                ["f", -1, "g"],
                ["f", 10**19, "g"],
                ["f", 1],
                [1, 1, 1],
            )
        ),
    ],
)
def test_an_error_of_another_form_is_refused(error: object) -> None:
    with pytest.raises(WireError):
        read_error(error)


def test_names_in_a_traceback_are_safe() -> None:
    error = {"kind": "exception", "type": "E", "message": "m", "frames": [["\0\ud800" + "x" * 999, 1, "\u202e"]] * 99}
    frames = read_error(error).frames
    assert len(frames) == 8
    assert frames[0] == ("\\u0000\\ud800" + "x" * 108 + " ...", 1, "\\u202e")


@pytest.mark.parametrize(
    ("trace", "reached"),
    [
        ("      3 loss                                                    \n", (3, "loss")),
        ("      3                                                         \n", (3, "")),
        ("", (None, "")),
        ("9" * 60_000 + " loss\n", (None, "")),
        ("      ² loss\n", (None, "")),
        ("      3 lo\ud800ss\n", (None, "")),
    ],
)
def test_where_a_worker_was_is_read_strictly(trace: str, reached: tuple[int | None, str]) -> None:
    assert read_reached(trace) == reached


def test_a_stack_has_no_line_of_many_digits() -> None:
    trace = f'Timeout\n  File "/a/x.py", line {"9" * 5000} in f\n  File "/a/y.py", line 3 in g\n'
    assert list(read_stack(trace)) == [("/a/y.py", 3, "g")]


def test_the_first_start_of_a_worker_is_nobodys_time_and_those_after_it_are_the_submissions(
    make: Make, launcher: ZygoteLauncher
) -> None:
    def spawn(directory: Path) -> Process:
        time.sleep(0.5)
        return launcher.spawn(directory)

    parts = {name: getattr(launcher, name) for name in ("require", "expect", "reap", "show_stack")}
    student = make(using=SimpleNamespace(device="cpu", spawn=spawn, **parts), wall=5)
    student.code.square(torch.ones(1))
    left = student._seconds_left
    student.drop()
    student.code.square(torch.ones(1))
    assert student._seconds_left <= left - 0.5


def test_files_are_quoted_as_they_were_before_student_code_ran(make: Make, tmp_path: Path) -> None:
    student = make("def fail():\n    raise ValueError('x')  # here\n")
    (student.directory / "code.py").unlink()
    assert (
        "# here"
        in student._student_error(
            {"kind": "exception", "type": "ValueError", "message": "x", "frames": [["code.py", 2, "fail"]]}
        ).message
    )
