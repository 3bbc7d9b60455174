"""How close right code comes to failing at many seeds, and how surely wrong code fails: `make calibrate`.

The solution and every right filling of the bank are graded at every seed, at every fiftieth with two threads of torch
in the worker, which take several times as long where cores are few. Of every check the closest call is kept, by the
kind of tolerance: 1 is all of it. A worker is kept for many seeds, since a check begins by forgetting and seeding.
Wrong fillings get a new worker for every seed, as some of them depend on what happened before, and are graded up to the
first check that fails. What was graded is kept in build/, by a digest of the grader: a run that was ended goes on.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import platform
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import astuple, dataclass, field
from datetime import date
from math import inf
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Annotated

import torch
import typer

from grader.assignment import HANDOUT, REPOSITORY, SOLUTION
from grader.bank import load_bank
from grader.batch.work import grader_digest
from grader.engine.launcher import OPTIMIZERS, Launcher, default_launcher
from grader.grading import in_order, session
from grader.report.result import write_whole
from grader.rubric import Question, load, select
from grader.submission import Submission, read

CALIBRATION = Path(__file__).parents[1] / "CALIBRATION.md"
SEEDS_OF_A_WORKER = 50
TWO_THREADS = 50  # every so many seeds
_launcher: Launcher


@dataclass(frozen=True)
class Job:
    """A submission to grade at some seeds.

    Attributes:
        name: of the filling, or "solution".
        submission: what to grade.
        questions: those to grade.
        seeds: one grading each.
        threads: of torch in the worker.
        right: whether it must earn every point; otherwise it must lose some.
    """

    name: str
    submission: Submission
    questions: tuple[Question, ...]
    seeds: Sequence[int]
    threads: int = 1
    right: bool = True

    def key(self, device: str) -> str:
        """The same for the same submission, questions, seeds and threads, on the same grader."""
        asked = [question.id for question in self.questions], list(self.seeds), self.threads, self.right, device
        digest = hashlib.sha256(f"{grader_digest()} {self.name} {asked}".encode())
        for name, source in sorted(self.submission.sources.items()):
            digest.update(f"{name}\0{len(source)}\0".encode() + source)
        return digest.hexdigest()


@dataclass(frozen=True)
class Call:
    """The closest call: the share of a tolerance that was used, and by what."""

    used: float
    by: str


@dataclass
class Found:
    """What came of some jobs.

    Attributes:
        calls: the closest calls of right submissions, by check and kind of tolerance.
        runs: how often right submissions were graded.
        lost: a sentence for every check that they failed.
        caught: by wrong filling, at how many seeds it lost points.
    """

    calls: dict[tuple[str, str], Call] = field(default_factory=dict)
    runs: int = 0
    lost: list[str] = field(default_factory=list)
    caught: Counter[str] = field(default_factory=Counter)

    def add(self, other: Found) -> None:
        """Take in what came of other jobs."""
        for key, call in other.calls.items():
            if key not in self.calls or call.used > self.calls[key].used:
                self.calls[key] = call
        self.runs += other.runs
        self.lost += other.lost
        self.caught.update(other.caught)

    def to_json(self) -> str:
        """One line with everything that was found."""
        calls = [[*key, *astuple(call)] for key, call in self.calls.items()]
        return json.dumps([calls, self.runs, self.lost, self.caught])

    @classmethod
    def from_json(cls, text: str) -> Found:
        """What `to_json` made a line of."""
        calls, runs, lost, caught = json.loads(text)
        found = {(check, kind): Call(used, by) for check, kind, used, by in calls}
        return cls(found, runs, lost, Counter(caught))


# ---------------------------------------------------------------- grading


def plan(questions: Sequence[Question], seeds: int, power_seeds: int) -> Iterator[Job]:
    """What to grade: the solution and the right fillings at `seeds` seeds, the wrong ones at `power_seeds`."""
    handout, by_id = read(HANDOUT), {question.id: question for question in questions}
    cases = [("solution", read(SOLUTION), tuple(questions), True)]
    for filling in load_bank():
        if filling.question in by_id:
            question = by_id[filling.question]
            cases.append((str(filling), handout.filled(question.file, filling.blocks), (question,), filling.right))
    for name, submission, asked, right in cases:
        if not right:
            yield Job(name, submission, asked, range(power_seeds), right=False)
            continue
        for threads in (1, 2):
            of_threads = [seed for seed in range(seeds) if (seed % TWO_THREADS == 1) == (threads == 2)]
            for first in range(0, len(of_threads), SEEDS_OF_A_WORKER):
                yield Job(name, submission, asked, of_threads[first : first + SEEDS_OF_A_WORKER], threads)


def grade_right(job: Job, launcher: Launcher) -> Found:
    """Grade what is right at every seed, in one worker."""
    found = Found()
    with session(job.submission, list(job.questions), launcher, 0, wall_seconds=inf) as current:
        for seed in job.seeds:
            current.seed = seed
            current.outcomes.clear()
            current.student.judging_seconds = inf
            current.student.torch.set_num_threads(job.threads)
            by = f"{job.name}, seed {seed}"
            for check in in_order(list(job.questions)):
                outcome = current.run(check)
                if outcome.status != "passed":
                    found.lost.append(f"{by}: {check.id} {outcome.status}: {outcome.message}")
                    continue
                found.add(Found({(check.id, kind): Call(used, by) for kind, used in outcome.margins.items()}))
            found.runs += 1
    return found


def grade_wrong(job: Job, launcher: Launcher) -> Found:
    """Grade what is wrong at every seed, each in a worker of its own, up to the first check that fails."""
    caught = 0
    for seed in job.seeds:
        with session(job.submission, list(job.questions), launcher, seed) as current:
            caught += any(current.run(check).status != "passed" for check in in_order(list(job.questions)))
    return Found(caught=Counter({job.name: caught}))


def start(device: str) -> None:
    """Prepare a process for jobs."""
    global _launcher
    torch.set_num_threads(1)
    _launcher = default_launcher(device)
    _launcher.require(OPTIMIZERS)
    Finalize(None, _launcher.close, exitpriority=1)  # atexit is not for a process of a pool


def do(job: Job) -> tuple[Found, float]:
    """Do a job in a process that was prepared. Returns what came of it, and the seconds it took."""
    started = time.perf_counter()
    found = (grade_right if job.right else grade_wrong)(job, _launcher)
    return found, time.perf_counter() - started


def grade_all(jobs: Sequence[Job], device: str, processes: int) -> tuple[Found, float]:
    """Do jobs, those that were done before excepted. Returns what came of all, and the seconds of one process each."""
    kept = REPOSITORY / "build" / f"calibration-{grader_digest()[:16]}"
    kept.mkdir(parents=True, exist_ok=True)
    places = [kept / f"{job.key(device)}.json" for job in jobs]
    left = [(job, place) for job, place in zip(jobs, places, strict=True) if not place.exists()]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, initializer=start, initargs=(device,)) as pool:
        results = pool.map(do, [job for job, _ in left])
        for number, ((job, place), (part, seconds)) in enumerate(zip(left, results, strict=True), 1):
            write_whole(place, f"{seconds}\n{part.to_json()}")
            came = f"caught at {part.caught[job.name]}" if not job.right else f"{len(part.lost)} checks failed"
            print(f"{number}/{len(left)} {job.name}: {len(job.seeds)} seeds, {seconds:.1f} s, {came}", flush=True)
    found, spent = Found(), 0.0
    for place in places:
        took, text = place.read_text().splitlines()
        found.add(Found.from_json(text))
        spent += float(took)
    return found, spent


# ---------------------------------------------------------------- report


def hardware(device: str) -> str:
    """The processor, the GPU if one was used, and the version of torch, in words."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    chips = [names[0] if names else platform.processor() or platform.machine()]
    chips += [torch.cuda.get_device_name(0)] if device == "cuda" else []
    return f"{', '.join(chips)}; torch {torch.__version__}"


def render(found: Found, questions: Sequence[Question], header: str, power_seeds: int) -> str:
    """The report, in Markdown."""
    checks = [check.id for question in questions for check in in_order([question])]
    rows = sorted(found.calls.items(), key=lambda row: (checks.index(row[0][0]), row[0][1]))
    exact = [check for check in checks if not any(check == key[0] for key in found.calls)]
    missed = [f"- {name}: caught at {n} of {power_seeds} seeds" for name, n in found.caught.items() if n < power_seeds]
    lines = [
        "# Calibration",
        "",
        header,
        "",
        f"Right submissions were graded {found.runs:,} times and failed {len(found.lost)} checks. In the worker torch "
        f"had two threads at every {TWO_THREADS}th seed, from seed 1, and one at the others.",
        *(f"- {sentence}" for sentence in found.lost),
        "",
        "## Closest calls",
        "",
        "By check and kind of tolerance, the greatest share of the tolerance that anything right has used: 1 is all of "
        "it. A rate is the probability that right code goes beyond the tolerance.",
        "",
        "| check | tolerance | used | by |",
        "|---|---|---|---|",
        *(f"| {check} | {kind} | {call.used:.2g} | {call.by} |" for (check, kind), call in rows),
        "",
        "Checks without a tolerance (shapes, orders, labels): " + (", ".join(exact) or "none") + ".",
        "",
        "## Power",
        "",
        f"{len(found.caught)} wrong fillings were graded at {power_seeds} seeds each; {len(missed)} were missed at "
        "one or more.",
        *missed,
        "",
    ]
    return "\n".join(lines)


def main(
    seeds: Annotated[int, typer.Option(help="Seeds for what is right, from 0.")] = 1000,
    power_seeds: Annotated[int, typer.Option(help="Seeds for what is wrong, from 0.")] = 100,
    only: Annotated[str, typer.Option(help="Questions, as in `make grade`; the report is printed, not written.")] = "",
    device: Annotated[str, typer.Option(help="Where student code computes: cpu or cuda.")] = "cpu",
    processes: Annotated[int, typer.Option(help="How many grade at once.")] = 2,
) -> None:
    """Write CALIBRATION.md. Exit status 1 if anything right failed, or anything wrong was missed at some seed."""
    questions = [question for question in select(load(), only) if not question.needs]
    jobs = list(plan(questions, seeds, power_seeds))
    found, spent = grade_all(jobs, device, processes)
    command = f"make calibrate SEEDS={seeds} POWER_SEEDS={power_seeds} DEVICE={device}"
    header = (
        f"Made by `{command}{f' ONLY={only}' if only else ''}` on {date.today()}: {spent / 3600:.1f} core-hours on "
        f"{hardware(device)}; seeds from 0."
    )
    report = render(found, questions, header, power_seeds)
    if only:
        print(report)
    else:
        CALIBRATION.write_text(report, "utf-8")
    if found.lost or any(n < power_seeds for n in found.caught.values()):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
