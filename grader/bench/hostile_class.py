"""What ten hostile hand-ins cost a class of fifty others: nothing of their results, and how much of their time.

The class is graded alone and with the hostile ones among it, in little memory. The limit is that of a cgroup where one
can be made; else only the use is measured.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from grader.assignment import HANDOUT, REPOSITORY, SOLUTION, blocks_of
from grader.batch.work import Settings, key_of
from grader.bench.classroom import make_class, write_class
from grader.rubric import load
from grader.submission import Submission, read

MOST_TIME = 1.5
POLL_SECONDS = 0.1
SETTINGS = Settings(seed=0, training=False)
DIFFER = ("seconds", "environment")  # from run to run, and from machine to machine
EVERYWHERE = {  # by kind, what every block does
    "hangs in every question": "while True: pass",
    "uses up memory": "kept = []\nwhile True: kept.append(torch.ones(1 << 26))",
    "prints gigabytes": "while True: print('y' * (10 << 20))",
    "dies at each call": "import os\nos._exit(1)",
    "stops itself": "import os, signal\nwhile True: os.kill(os.getpid(), signal.SIGSTOP)",
}
LIES = """
import json, os, stat, struct
def is_socket(fd):
    try: return stat.S_ISSOCK(os.fstat(fd).st_mode)
    except OSError: return False
def lie(*arguments, **keywords):
    wire = next(fd for fd in range(3, 4096) if is_socket(fd))
    reply = {"ok": {"value": "\\ud800" * 100_000, "names": ["a" * 700_000] * 8}}
    text = json.dumps({"id": 0, "replies": [reply]}).encode()
    os.write(wire, struct.pack("<4sII", b"DGM1", len(text), 0) + text)
"""
DEEP = """
import math
class Generator(nn.Module):
    def __init__(self, z_dim, x_shape, hidden_dim):
        super().__init__()
        self.x_shape = x_shape
        layers = [nn.Linear(z_dim, hidden_dim), nn.ReLU()]
        for _ in range(200): layers += [nn.Linear(hidden_dim, hidden_dim), nn.ReLU()]
        self.net = nn.Sequential(*layers, nn.Linear(hidden_dim, math.prod(x_shape)), nn.Sigmoid())
    def forward(self, z):
        return self.net(z).reshape(len(z), *self.x_shape)
"""
NAMES = """
def renamed(before):
    def begin(self, *arguments, **keywords):
        before(self, *arguments, **keywords)
        for name in ("\\ud800", "\\x1b[2J\\x1b]0;7 / 7 passed\\x07", "\\u202e" + "a" * 700_000):
            self.register_parameter(name, nn.Parameter(torch.zeros(1)))
    return begin
for each in list(globals().values()):
    if isinstance(each, type) and issubclass(each, nn.Module) and each is not nn.Module:
        each.__init__ = renamed(each.__init__)
"""
CALLS_BACK = """
def sample(self, denoise_fn, shape, y):
    x, t = torch.randn(shape), torch.zeros(shape[0], dtype=torch.int64)
    while True: denoise_fn(x.repeat(1, 1, 16, 16), torch.arange(1 << 20), t)
GaussianDiffusion.sample = sample
"""
SLOW_STARTS = "import time\ntime.sleep(4)\n"


def hostile() -> dict[str, dict[str, bytes]]:
    """Files of the worst hand-in of each kind, by kind."""
    handout, right = read(HANDOUT), read(SOLUTION)
    made = {kind: everywhere(handout, code).sources for kind, code in EVERYWHERE.items()}
    made["starts workers again and again"] = ended(made["dies at each call"], before=SLOW_STARTS)
    made["lies in replies"] = ended(everywhere(handout, "lie()\nwhile True: pass").sources, before=LIES)
    made["has 200 layers"] = ended(right.sources, after=DEEP, only="model.py")
    made["has names with escapes"] = ended(right.sources, after=NAMES)
    made["fills the grader's memory"] = ended(right.sources, after=CALLS_BACK, only="diffusion.py")
    return {kind: dict(files) for kind, files in made.items()}


def everywhere(submission: Submission, code: str) -> Submission:
    """A submission with the same code in every block."""
    for question in load():
        submission = submission.filled(question.file, dict.fromkeys(blocks_of(question.id, question.file), code))
    return submission


def ended(files: Mapping[str, bytes], before: str = "", after: str = "", only: str = "") -> dict[str, bytes]:
    """Files with code at their beginning, below what must come first, and at their end."""
    first = b"from __future__ import annotations\n"
    made = {}
    for name, content in files.items():
        if only in ("", name):
            content = content.replace(first, b"")
            content = first + before.encode() + content + after.encode()
        made[name] = content
    return made


def mixed(ordinary: Mapping[str, Any], others: Mapping[str, Any], draw: random.Random) -> dict[str, Any]:
    """A class of both by student, two of the others first: whoever comes first finds nobody knows what is usual."""
    names, worst = list(ordinary), list(others)
    draw.shuffle(worst)
    places = [0, 1, *sorted(draw.sample(range(2, len(names) + len(worst)), max(len(worst) - 2, 0)))][: len(worst)]
    everybody = {**ordinary, **others}
    for place, kind in zip(places, worst, strict=True):
        names.insert(place, kind)
    return {f"{at:03} {name}": everybody[name] for at, name in enumerate(names)}


# ---------------------------------------------------------------- little memory


@contextmanager
def cgroup(limit: int) -> Iterator[Path | None]:
    """A group of processes within that of this one, with so many bytes of memory; None where none can be made."""
    folder, made = own_cgroup(), None
    if folder is not None:
        made = folder / f"bench-{os.getpid()}"
        try:
            made.mkdir()
            for name in ("memory.max", "memory.limit_in_bytes"):
                if (made / name).exists():
                    (made / name).write_text(str(limit))
        except OSError:
            made = None
    try:
        yield made
    finally:
        if made is not None:
            made.rmdir()


def own_cgroup() -> Path | None:
    """The folder of the group of this process that has to do with memory; None where there is none."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        root = "/sys/fs/cgroup/memory" if controllers == "memory" else "/sys/fs/cgroup"
        folder = Path(root + path)
        if controllers == "memory" or (controllers == "" and gives_memory(folder)):
            return folder
    return None


def gives_memory(folder: Path) -> bool:
    """Whether groups below one of version 2 may have limits of memory."""
    control = folder / "cgroup.subtree_control"
    return control.exists() and "memory" in control.read_text()


def most_memory(group: Path) -> int:
    """The most bytes that a group has used, with the pages of files that it read."""
    for name in ("memory.peak", "memory.max_usage_in_bytes"):
        if (group / name).exists():
            return int((group / name).read_text())
    return 0


def out_of_memory(group: Path) -> int:
    """How many of its processes the kernel has ended."""
    for name in ("memory.events", "memory.oom_control"):
        if (group / name).exists() and (found := re.search(r"oom_kill (\d+)", (group / name).read_text())):
            return int(found[1])
    return 0


def memory_of(pid: int) -> int:
    """The bytes that a process and all that it started use, what several share by shares."""
    total = 0
    try:
        found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
        total = int(found[1]) << 10 if found else 0
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return total
    return total + sum(memory_of(int(child)) for child in children)


# ---------------------------------------------------------------- one run


@dataclass
class Run:
    """One run of the batch.

    Attributes:
        ordinary: seconds until the last result of the ordinary hand-ins was there; None if it never was.
        seconds: until it ended.
        status: its exit status.
        memory: the most bytes that it used, measured as its limit is.
        killed: how many processes the kernel ended.
        results: of the ordinary hand-ins, as text without what differs, by key.
        rows: of grades.csv, by student.
    """

    ordinary: float | None = None
    seconds: float = 0.0
    status: int | None = None
    memory: int = 0
    killed: int = 0
    results: dict[str, str] = field(default_factory=dict)
    rows: dict[str, str] = field(default_factory=dict)


def run_batch(made: Mapping[str, Any], folder: Path, keys: set[str], jobs: int, limit: int, patience: float) -> Run:
    """Grade a class in so many bytes, and watch it for at most `patience` seconds after the ordinary ones are done."""
    run, out = Run(), folder / "grades"
    write_class(folder / "class", made)
    command = [sys.executable, "-m", "grader", "batch", str(folder / "class"), "--out", str(out)]
    command += ["--jobs", str(jobs), "--seed", str(SETTINGS.seed), "--no-training"]
    with cgroup(limit) as group, (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=REPOSITORY, stdout=log, stderr=log, start_new_session=True,
            preexec_fn=None if group is None else lambda: enter(group),
        )  # fmt: skip
        try:
            watch(run, process, out / "grades.sqlite", keys, patience, measure=group is None)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if group is not None:
            run.memory, run.killed = most_memory(group), out_of_memory(group)
            while (group / "cgroup.procs").read_text():  # the kernel ends them, which takes it a moment
                time.sleep(POLL_SECONDS)
    run.results = {key: text for key, text in results(out / "grades.sqlite") if key in keys}
    if (out / "grades.csv").exists():
        lines = (out / "grades.csv").read_text("utf-8").splitlines()[1:]
        run.rows = {student: rest for student, _, rest in (line.partition(",") for line in lines)}
    return run


def enter(group: Path) -> None:
    """Join a group of processes."""
    (group / "cgroup.procs").write_text("0")


def watch(run: Run, process: subprocess.Popen, database: Path, keys: set[str], patience: float, measure: bool) -> None:
    """Note what happens to a batch and when, until it ends or has been watched for long enough."""
    started = time.monotonic()
    while run.status is None:
        run.status = process.poll()
        run.seconds = time.monotonic() - started
        if run.ordinary is None and keys <= known(database):
            run.ordinary = run.seconds
        if measure:
            run.memory = max(run.memory, memory_of(process.pid))
        if run.ordinary is not None and run.seconds - run.ordinary > patience:
            return
        time.sleep(POLL_SECONDS)


def known(database: Path) -> set[str]:
    """The keys of the results in a database that another process may be writing."""
    return {key for key, _ in rows(database, "SELECT key, 0 FROM results")}


def results(database: Path) -> Iterator[tuple[str, str]]:
    """Keys and results, as text without what differs from run to run."""
    for key, text in rows(database, "SELECT key, result FROM results"):
        yield key, json.dumps(without(json.loads(text)), sort_keys=True)


def rows(database: Path, query: str) -> list[tuple[str, Any]]:
    """The rows of a query; none where there is no database yet."""
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as opened:
            return opened.execute(query).fetchall()
    except sqlite3.OperationalError:
        return []


def without(value: Any) -> Any:
    """A result without what differs from run to run."""
    if isinstance(value, dict):
        return {name: without(each) for name, each in value.items() if name not in DIFFER}
    return [without(each) for each in value] if isinstance(value, list) else value


# ---------------------------------------------------------------- the command


def told(name: str, run: Run) -> str:
    """One run in a line."""
    last = "never" if run.ordinary is None else f"after {run.ordinary:.1f} s"
    ended = f"ended with status {run.status}" if run.rows else "was ended here"
    return (
        f"{name:18} last ordinary result {last}; {ended} after {run.seconds:.1f} s; at most "
        f"{run.memory / 2**30:.2f} GB, {run.killed} processes ended by the kernel"
    )


def main(
    students: Annotated[int, typer.Option(help="Ordinary hand-ins.")] = 50,
    kinds: Annotated[str, typer.Option(help="Part of the names of the hostile ones; all by default.")] = "",
    jobs: Annotated[int, typer.Option(help="How many are graded at once.")] = 2,
    memory: Annotated[float, typer.Option(help="GB of memory for everything.")] = 4.0,
    patience: Annotated[float, typer.Option(help="Seconds to wait for the hostile ones at the end.")] = 3600.0,
    seed: Annotated[int, typer.Option(help="Of the class, and of its order.")] = 0,
) -> None:
    """Print what was measured. Exit status 1 if a result differs, or the others wait half as long again for theirs."""
    ordinary, limit = make_class(students, seed, spoil=False), int(memory * 2**30)
    worst = {kind: files for kind, files in hostile().items() if kinds in kind}
    keys = {key_of(files, SETTINGS) for files in ordinary.values()}
    with cgroup(limit) as group:
        print(f"{memory:g} GB of memory: {'the limit of a cgroup' if group else 'only measured, without a cgroup'}")
    with TemporaryDirectory() as name:
        alone, among = Path(name) / "alone", Path(name) / "among"
        alone.mkdir()
        among.mkdir()
        quiet = run_batch(mixed(ordinary, {}, random.Random(seed)), alone, keys, jobs, limit, patience)
        print(told(f"{students} alone", quiet), flush=True)
        loud = run_batch(mixed(ordinary, worst, random.Random(seed)), among, keys, jobs, limit, patience)
        print(told(f"with {len(worst)} hostile", loud), flush=True)
        log = (among / "log").read_text("utf-8", "replace")
    for student, row in loud.rows.items():
        if student.split("_", 1)[1] not in ordinary:
            print(f"  {student}: {row[:150]}")
    same = quiet.results == loud.results and len(quiet.results) == len(keys)
    print(f"results of the {len(quiet.results)}: {'the same to the byte' if same else 'NOT the same'}")
    if quiet.ordinary is None or loud.ordinary is None:
        print(log[-2000:])
        raise typer.Exit(1)
    factor = loud.ordinary / quiet.ordinary
    print(f"{factor:.2f} times the time; the target is at most {MOST_TIME}")
    if not same or factor > MOST_TIME:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
