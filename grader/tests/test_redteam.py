"""Hostile submissions: none earns a point it should not, harms another question, or reaches out of its process.

The suite runs in the mode that the machine gives: as an ordinary user, as root with a user of its own for every
worker, or as root where Python's files are closed to other users; the first test says which.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from grader.assignment import REPOSITORY, SOLUTION
from grader.bank import load_bank
from grader.engine import promises, sandbox, seccomp
from grader.engine.isolation import Isolation, WeakIsolationError
from grader.engine.launcher import FreshLauncher, StartError, ZygoteLauncher
from grader.engine.text import printable
from grader.grading import grade
from grader.submission import Submission

from .conftest import QUESTIONS, Graded, by_id, filled, with_source
from .redteam import WIRE, Attack, load_attacks

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the layers under attack are those of Linux")

ATTACKS = load_attacks()
SECRET = "hunter2-" + os.urandom(8).hex()
MARK = "987654"  # in the command line of every program that an attack starts
MEMORY_GROWTH_BYTES = 200 << 20


@pytest.fixture(scope="module")
def zygote() -> Iterator[ZygoteLauncher]:
    """A launcher of its own, with a secret in the grader's environment."""
    os.environ["GRADER_SECRET"] = SECRET
    started = ZygoteLauncher()
    yield started
    started.close()
    del os.environ["GRADER_SECRET"]


@pytest.fixture(scope="module")
def base(handout: Submission) -> Submission:
    """A submission whose other questions are right."""
    for filling in load_bank():
        if filling.right and filling.name in ("std_times_noise", "from_alphas_cumprod"):
            handout = filled(handout, filling.question, filling.blocks)
    return handout


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A service on this machine that nobody may reach."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        yield server


def children(pid: int) -> list[int]:
    """Processes whose parent is `pid`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        found += [int(path.parent.name)] if int(fields[1]) == pid else []
    return found


def marked() -> list[str]:
    """Command lines with the mark of an attack."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace"))
        except OSError:
            continue
    return [line for line in lines if f"sleep {MARK}" in line]


def entries(folder: str) -> int:
    """Number of files in a folder."""
    return sum(1 for _ in Path(folder).iterdir())


def resident_bytes() -> int:
    """Memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def armed(base: Submission, attack: Attack, places: dict[str, str]) -> Submission:
    """`base` with an attack in it, its placeholders filled in."""
    code, prelude = attack.code, attack.prelude
    for name, value in places.items():
        code, prelude = code.replace(f"{{{name}}}", value), prelude.replace(f"{{{name}}}", value)
    submission = filled(base, "2.2b", code)
    text = submission.text("loss.py")
    assert text is not None
    return with_source(submission, "loss.py", text.replace("import torch\n", f"{prelude}\nimport torch\n", 1))


def strings(value: object) -> Iterator[str]:
    """Every text in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in (*value.keys(), *value.values()):
            yield from strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)


def test_the_isolation_of_this_machine_is_strong(graded: Graded, solution: Submission, capsys) -> None:
    isolation = graded(solution, "2.2b").isolation
    with capsys.disabled():
        who = "root" if os.geteuid() == 0 else "an ordinary user"
        print(f"\nred team as {who}, isolation: {isolation['summary']}; user: {isolation['user']}")
    assert isolation["summary"].startswith("strong")


def test_there_are_enough_attacks_with_names_of_their_own() -> None:
    assert len(ATTACKS) >= 60
    assert len({str(attack) for attack in ATTACKS}) == len(ATTACKS)
    families = Counter(attack.family for attack in ATTACKS)
    assert set(families) == {"ending", "exhausting", "escaping", "stealing", "forging", "defacing"}


@pytest.mark.parametrize("attack", ATTACKS, ids=str)
def test_attack(
    attack: Attack, base: Submission, zygote: ZygoteLauncher, listener: socket.socket, tmp_path: Path
) -> None:
    secret, target = tmp_path / "secret.txt", tmp_path / "target"
    secret.write_text(SECRET, "utf-8")
    tmp_path.chmod(0o777)
    places = {
        "repository": str(REPOSITORY),
        "secret": str(secret),
        "target": str(target),
        "grader": str(os.getpid()),
        "port": str(listener.getsockname()[1]),
        "wire": WIRE,
    }
    submission = armed(base, attack, places)
    questions = [QUESTIONS[question] for question in ("2.2b", "2.1b", "2.3a")]
    before = resident_bytes()
    result = grade(submission, questions, zygote, 0, call_seconds=2.0, wall_seconds=20.0)

    graded = by_id(result)
    reasons = [f"{check.status}: {check.message}" for check in graded["2.2b"].checks]
    assert graded["2.2b"].score <= attack.earns, reasons
    assert "grader_error" not in {question.status for question in result.questions}, reasons
    if attack.spares:
        assert {q: graded[q].score for q in ("2.1b", "2.3a")} == {"2.1b": 9, "2.3a": 13}
    assert zygote._process.poll() is None
    assert children(zygote._process.pid) == []
    assert marked() == []
    assert not target.exists()
    assert secret.read_text("utf-8") == SECRET
    with pytest.raises(BlockingIOError):
        listener.accept()
    text = result.to_json()
    solved = SOLUTION.joinpath("diffusion.py").read_text("utf-8")
    for stolen in (SECRET, "signal = extract(self.sqrt_alphas_cumprod", "kl_one_variable = 2"):
        assert stolen in SECRET + solved + (REPOSITORY / "grader" / "rubric.toml").read_text("utf-8")
        assert stolen not in text
    assert all(printable(shown, len(shown)) == shown for shown in strings(json.loads(text)))
    assert len(text) < 300_000
    assert resident_bytes() - before < MEMORY_GROWTH_BYTES


# ---------------------------------------------------------------- layers one by one


@pytest.mark.parametrize("start", [ZygoteLauncher, FreshLauncher], ids=["forked", "fresh"])
def test_without_landlock_the_process_is_sealed_and_the_solution_still_passes(solution: Submission, start) -> None:
    launcher = start(without=["landlock"])
    try:
        result = grade(solution, list(QUESTIONS.values()), launcher, 0)
    finally:
        launcher.close()
    assert result.score == 120
    assert result.isolation["summary"].startswith("strong")
    assert "sealed" in result.isolation["landlock"]


@pytest.mark.parametrize(
    ("without", "could"),
    [
        (["seccomp"], "start a process"),
        (["landlock", "seccomp"], "read the grader's files"),
        (["user", "capabilities", "landlock", "seccomp"], "signal other processes"),
        pytest.param(["user"], "be root", marks=pytest.mark.skipif(os.geteuid() != 0, reason="only root can be")),
    ],
)
def test_a_missing_layer_is_said(solution: Submission, without: list[str], could: str) -> None:
    launcher = ZygoteLauncher(without=without)
    try:
        with solution.staged() as folder:
            process = launcher.spawn(folder)
            isolation = process.isolation
            process.end()
    finally:
        launcher.close()
    assert not isolation.strong
    assert could in isolation.open
    assert isolation.summary.startswith("weak: a submission could ")
    with pytest.raises(WeakIsolationError, match="--allow-weak-isolation"):
        isolation.require_strong()


def test_what_security_md_promises_is_what_every_worker_tries() -> None:
    rows = [line.split("|")[1].strip() for line in (REPOSITORY / "SECURITY.md").read_text("utf-8").splitlines()
            if line.startswith("| ")]  # fmt: skip
    assert rows[rows.index("a submission cannot") + 1 : rows.index("kernel")] == list(promises.PROMISES)
    assert "[SECURITY.md](SECURITY.md)" in (REPOSITORY / "README.md").read_text("utf-8")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root is refused nothing")
def test_where_nothing_stops_it_every_attempt_says_so() -> None:
    policy = sandbox.Policy("/tmp", str(REPOSITORY / "README.md"), os.getpid())
    for what, attempts in promises.PROMISES.items():
        assert [promises.stopped(attempt, policy) for attempt in attempts] == [False] * len(attempts), what


def test_isolation_is_weak_until_a_worker_has_shown_otherwise() -> None:
    assert not Isolation({}, {}).strong
    assert Isolation({"seccomp": "on"}, {"x": True}).summary == "strong (seccomp; 1/1)"
    assert not Isolation.from_hello({"layers": {}, "stopped": {"x": "yes"}}).strong
    with pytest.raises((TypeError, KeyError, AttributeError)):
        Isolation.from_hello([1])


def test_the_numbers_of_system_calls_are_those_of_the_kernels_headers() -> None:
    headers = {0: "/usr/include/x86_64-linux-gnu/asm/unistd_64.h", 1: "/usr/include/asm-generic/unistd.h"}
    checked = {name: call.numbers for name, call in seccomp.checked(1, sealed=False, cuda=True).items()}
    single = checked | {"clone3": (seccomp.CLONE3, seccomp.CLONE3)}
    tables = [*seccomp.ALLOWED.values(), seccomp.FILES, seccomp.CUDA, seccomp.TRIED, single]
    compared = 0
    for column, header in headers.items():
        if not Path(header).exists():
            continue
        words = [line.split() for line in Path(header).read_text().splitlines() if line.startswith("#define __NR")]
        numbers = {w[1].replace("__NR3264_", "__NR_")[5:]: int(w[2]) for w in words if len(w) > 2 and w[2].isdigit()}
        numbers["newfstatat"] = numbers.get("newfstatat", numbers.get("fstatat"))
        for name, pair in (item for table in tables for item in table.items()):
            if name in numbers:
                assert pair[column] == numbers[name], name
                compared += 1
    if not compared:
        pytest.skip("no kernel headers are installed to compare with")


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_is_a_program_whose_jumps_stay_inside(machine: str) -> None:
    for sealed in (False, True):
        for cuda in (False, True):
            program = seccomp.instructions(machine, 1234, sealed, cuda)
            assert len(program) < 256
            for at, (code, then, otherwise, _) in enumerate(program):
                if code in (seccomp.EQUAL, seccomp.ABOVE):
                    assert max(then, otherwise) < 256
                    assert at + 1 + max(then, otherwise) < len(program)
            assert program[-1] == seccomp.give(seccomp.ALLOW)


# ---------------------------------------------------------------- many workers, and the end


def test_many_workers_leave_nothing_behind(solution: Submission, zygote: ZygoteLauncher) -> None:
    """A hundred workers; `make bench-workers` runs a thousand."""
    with solution.staged() as folder:
        for _ in range(10):
            zygote.spawn(folder).end()
        descriptors, memory = entries("/proc/self/fd"), resident_bytes()
        of_zygote = entries(f"/proc/{zygote._process.pid}/fd") if os.geteuid() == 0 else 0
        for _ in range(100):
            zygote.spawn(folder).end()
    assert entries("/proc/self/fd") == descriptors
    assert resident_bytes() - memory < 4 << 20
    assert children(zygote._process.pid) == []
    if os.geteuid() == 0:
        assert entries(f"/proc/{zygote._process.pid}/fd") == of_zygote


@pytest.mark.parametrize("fresh", [False, True], ids=["forked", "fresh"])
def test_killing_the_grader_leaves_no_survivor(base: Submission, tmp_path: Path, fresh: bool) -> None:
    """The grader is killed while a submission loops with every signal blocked."""
    attack = next(attack for attack in ATTACKS if attack.name == "hang with blocked signals")
    folder = tmp_path / "loop"
    folder.mkdir()
    for name, source in armed(base, attack, {}).sources.items():
        (folder / name).write_bytes(source)
    command = [sys.executable, "-m", "grader", "grade", str(folder), "--only", "2.2b"]
    command += ["--results", str(tmp_path / "r.json"), *(["--fresh"] if fresh else [])]
    grader = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    family: list[int] = []
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and len(family) < (1 if fresh else 2):
        time.sleep(0.1)
        family = children(grader.pid)
        family += [pid for child in family for pid in children(child)]
    time.sleep(1)
    assert grader.poll() is None
    grader.kill()
    grader.wait()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and any(Path(f"/proc/{pid}").exists() for pid in family):
        time.sleep(0.05)
    assert [pid for pid in family if Path(f"/proc/{pid}").exists()] == []


def test_a_zygote_that_is_gone_does_not_pass_for_a_wrong_answer(base: Submission) -> None:
    launcher = ZygoteLauncher()
    launcher.close()
    launcher._start = lambda: None  # type: ignore[method-assign]
    with base.staged() as folder, pytest.raises(StartError):
        launcher.spawn(folder)
