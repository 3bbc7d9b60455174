"""Hostile submissions: none earns a point it should not, harms another question, or reaches out of its process.

The suite runs in the mode that the machine gives: as an ordinary user, as root with a user of its own for every
worker, or as root where Python's files are closed to other users; the first test says which.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from grader.assignment import REPOSITORY, SOLUTION
from grader.bank import load_bank
from grader.engine import promises, sandbox, seccomp
from grader.engine.isolation import Isolation, WeakIsolationError
from grader.engine.landlock import LIBC
from grader.engine.launcher import FreshLauncher, Launcher, StartError, ZygoteLauncher
from grader.engine.text import printable
from grader.grading import grade
from grader.submission import Submission

from .conftest import QUESTIONS, Graded, by_id, filled, with_source
from .redteam import WIRE, Attack, load_attacks

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the layers under attack are those of Linux")

ATTACKS = load_attacks()
SECRET = "hunter2-" + os.urandom(8).hex()
KERNEL = Path(__file__).with_name("redteam").joinpath("kernel.py").read_text("utf-8")
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


# ---------------------------------------------------------------- the filter of system calls, in every mode

MODES: dict[str, tuple[type, list[str]]] = {
    "forked": (ZygoteLauncher, []),
    "fresh": (FreshLauncher, []),
    "sealed": (ZygoteLauncher, ["landlock"]),
    "sealed-fresh": (FreshLauncher, ["landlock"]),
    "landlock-1": (ZygoteLauncher, ["landlock>1"]),
    "landlock-2": (ZygoteLauncher, ["landlock>2"]),
    "landlock-4": (ZygoteLauncher, ["landlock>4"]),
    "same-user": (ZygoteLauncher, ["user"]),
    "same-user-fresh": (FreshLauncher, ["user", "landlock>1"]),
}
IPC_CREATE, IPC_REMOVE, IPC_STATUS, GET_VALUE = 0o1600, 0, 2, 12


@pytest.fixture
def victim() -> Iterator[subprocess.Popen]:
    """A process of the user who grades."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as started:
        yield started
        started.kill()


@pytest.fixture
def services() -> Iterator[dict[str, socket.socket]]:
    """Services of this machine, by address, that take a datagram from anybody."""
    with TemporaryDirectory(prefix="s") as folder:  # an address has a hundred characters at most
        place = Path(folder) / "service"
        found = {str(place): socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)}
        found[f"\0grader-tests-{os.getpid()}"] = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        for address, service in found.items():
            service.bind(address)
            service.setblocking(False)
        Path(folder).chmod(0o755)
        place.chmod(0o666)
        yield found
        for service in found.values():
            service.close()


@pytest.fixture
def shared() -> Iterator[dict[str, int]]:
    """A segment of memory, a queue and a lock (System V) of another program."""
    made = {
        "segment": LIBC.shmget(0, 4096, IPC_CREATE),
        "queue": LIBC.msgget(0, IPC_CREATE),
        "lock": LIBC.semget(0, 1, IPC_CREATE),
    }
    yield made
    assert LIBC.shmctl(made["segment"], IPC_REMOVE, None) == 0
    assert LIBC.msgctl(made["queue"], IPC_REMOVE, None) == 0
    assert LIBC.semctl(made["lock"], 0, GET_VALUE, 0) == 0
    assert LIBC.semctl(made["lock"], 0, IPC_REMOVE, 0) == 0


def imported(launcher: Launcher, folder: Path) -> tuple[Isolation, str]:
    """What a worker found on its start, and what it printed as it imported `mine.py`."""
    process = launcher.spawn(folder)
    try:
        process.channel.send({"id": 0, "requests": [{"operation": "load", "module": "mine"}]})
        reply, _ = process.channel.receive(time.monotonic() + 60)
    finally:
        _, printed, _ = process.end()
    assert "ok" in reply["replies"][0], reply
    return process.isolation, printed


@pytest.mark.parametrize("mode", MODES)
def test_no_system_call_gets_through(
    mode: str,
    tmp_path: Path,
    victim: subprocess.Popen,
    services: dict[str, socket.socket],
    shared: dict[str, int],
) -> None:
    """All calls that are not on the list, and those on it with other arguments; nothing outside has changed after."""
    start, without = MODES[mode]
    other, folder = tmp_path / "gradebook.csv", tmp_path.resolve() / "submission"
    folder.mkdir()
    other.write_text("anna,100", "utf-8")
    tmp_path.chmod(0o777)
    for path in (other, folder):
        path.chmod(0o777)
    sealed = "landlock" in without
    column = seccomp.MACHINES[platform.machine()]
    by_name = {name: pair[column] for name, pair in seccomp.TRIED.items()}
    by_name |= {
        name: call.numbers[column] for name, call in seccomp.checked(platform.machine(), 1, False, False).items()
    }
    allowed = [*seccomp.ALLOWED.values(), *([] if sealed else [seccomp.FILES])]
    service, abstract = services
    targets = by_name | shared | {
        "allowed": sorted({pair[column] for table in allowed for pair in table.values()} - {None}),
        "victim": victim.pid,
        "file": str(other),
        "service": service,
        "abstract": abstract[1:],
    }  # fmt: skip
    source = KERNEL.replace("TARGETS: dict[str, Any] = {}", f"TARGETS: dict[str, Any] = {targets!r}")
    (folder / "mine.py").write_text(source, "utf-8")
    cores, priority = os.sched_getaffinity(victim.pid), os.getpriority(os.PRIO_PROCESS, victim.pid)
    launcher = start(without=without)
    try:
        isolation, printed = imported(launcher, folder)
    finally:
        launcher.close()
    assert [line for line in printed.splitlines() if line.startswith("THROUGH")] == []
    assert int(printed.rpartition("TRIED: ")[2]) > 3000
    assert isolation.strong or (isolation.open == ["be root"] and "user" in without)
    assert victim.poll() is None
    assert os.sched_getaffinity(victim.pid) == os.sched_getaffinity(0) == cores
    assert os.getpriority(os.PRIO_PROCESS, victim.pid) == priority
    assert other.read_text("utf-8") == "anna,100"
    assert (folder / "mine.py").read_text("utf-8") == source
    for one in services.values():
        with pytest.raises(BlockingIOError):
            one.recv(100)


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root, and setpriv of util-linux")
def test_the_same_as_an_ordinary_user(tmp_path: Path) -> None:
    """Who can read root's Python, by the one right that root's workers have as well."""
    right = "-all,+dac_read_search"
    become = ["setpriv", f"--reuid={sandbox.FIRST_USER}", f"--regid={sandbox.FIRST_USER}", "--clear-groups"]
    become += [f"--inh-caps={right}", f"--ambient-caps={right}", "env", f"HOME={tmp_path}", f"TMPDIR={tmp_path}"]
    names = [
        f"{Path(__file__)}::test_no_system_call_gets_through[{mode}]" for mode in ("fresh", "sealed", "landlock-1")
    ]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--basetemp", str(tmp_path / "b"), *names]
    for folder, rights in {tmp_path: 0o777, tmp_path.parent: 0o711, tmp_path.parents[1]: 0o711}.items():
        folder.chmod(rights)
    done = subprocess.run([*become, *command], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout


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


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("without", [[], ["landlock"], ["landlock>1"]], ids=str)
def test_every_promise_is_kept_on_every_device(device: str, without: list[str], tmp_path: Path) -> None:
    """The layers alone, without torch; a GPU's driver is allowed more."""
    policy = {"directory": str(tmp_path), "canary": __file__, "grader": os.getpid(), "device": device}
    script = f"""
import sys
sys.path.insert(0, {str(REPOSITORY / "grader")!r})
from engine import promises, sandbox
policy = sandbox.Policy(**{policy | {"without": without}!r})
print(sandbox.apply(policy))
print([what for what, kept in promises.check(policy).items() if not kept])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1:] == ["[]"], done.stdout + done.stderr


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
    checked = {name: call.numbers for name, call in seccomp.checked("x86_64", 1, sealed=False, cuda=True).items()}
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
