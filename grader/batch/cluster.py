"""Grades a class on a Dask cluster: one-thread workers on lab machines, in jobs of a scheduler or in pods.

Every worker needs this grader, and runs the same code as a process of the local pool. It is examined before it grades,
and compares itself with what was agreed again at every submission, since a worker may join or be replaced at any time.
A worker that dies is Dask's to replace: what it was grading is started again elsewhere. `CLUSTER.md` says how to set
one up.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import uuid4

from distributed import CancelledError, Client, Future, KilledWorker, Security, wait
from distributed.threadpoolexecutor import ThreadPoolExecutor

from grader.report.result import environment

from . import work
from .schedule import ENDED, Answer, TooLong, Turn, schedule_of
from .work import Contents, GradingError, Settings, grader_digest

if TYPE_CHECKING:
    from .command import Scheduler

IN_FLIGHT = 2  # submissions a worker has at hand, so that none waits for the parent
CONNECT_SECONDS = 10.0
PATIENCE_SECONDS = 60.0  # without any worker; a nanny replaces one in five
LOOK_SECONDS = 2.0  # between looks at who is there, when no result comes
SAME = ("python", "torch", "numpy")  # what words a traceback, and what rounds
SAID_IN_SENTENCES = ("distributed", "distributed.client")  # what these log, with a traceback, of lost connections
SHOWN = 3  # workers of whom is told why they were refused
RESUME = "run the same command again: what was graded is kept."


class ClusterError(GradingError):
    """The cluster cannot grade, or no longer; the message says what to do."""


@dataclass(frozen=True)
class Terms:
    """What a worker has to have in common with the process that asks, for the same results to the byte.

    Attributes:
        digest: of the grader.
        versions: by the names in SAME.
        allow_weak_isolation: whether a worker may grade where a submission could do harm.
    """

    digest: str
    versions: Mapping[str, str]
    allow_weak_isolation: bool

    def objection(self, worker: Mapping[str, Any]) -> str:
        """What speaks against a worker that described itself; empty if nothing does."""
        if worker["digest"] != self.digest:
            return "has another grader: give it this one (the same commit, nothing changed), and start it again"
        for name, wanted in self.versions.items():
            if worker["versions"][name] != wanted:
                return f"has {name} {worker['versions'][name]} and not {wanted}, so results could differ: install that"
        if not (worker["strong"] or self.allow_weak_isolation):
            return (
                f"has isolation that is {worker['isolation']}. `make doctor` there says what is missing; "
                "--allow-weak-isolation grades on it all the same"
            )
        return ""


def own_terms(allow_weak_isolation: bool) -> Terms:
    """What results of this process rest on."""
    return Terms(grader_digest(), {name: environment()[name] for name in SAME}, allow_weak_isolation)


# ---------------------------------------------------------------- in a worker

# Grading has a thread of its own, which lives as long as the worker: the zygote dies with the thread that started it,
# and serves one at a time. Dask's own tasks and coroutines only wait for it.
_grading_thread = ThreadPoolExecutor(1, thread_name_prefix="grading")


async def describe(device: str) -> dict[str, Any]:
    """What this worker is, in plain data: of its grader, its versions, its machine and its isolation."""
    return await asyncio.wrap_future(_grading_thread.submit(_describe, device))


def grade_as_agreed(
    files: Mapping[str, bytes], settings: Settings, terms: Terms, limit: float | None
) -> tuple[Answer | TooLong, float]:
    """Grade one submission as the local pool does. Raises ClusterError on a worker that may not.

    Returns:
        The answer, and the seconds that it took.
    """
    return _grading_thread.submit(_grade_as_agreed, files, settings, terms, limit).result()


def _grade_as_agreed(
    files: Mapping[str, bytes], settings: Settings, terms: Terms, limit: float | None
) -> tuple[Answer | TooLong, float]:
    objection = terms.objection(_describe(settings.device))
    if objection:
        raise ClusterError(f"a worker on {platform.node()} joined that {objection}. Then {RESUME}")
    _be_ready(settings.device)
    started = time.monotonic()
    return work.attempt(files, settings, limit), time.monotonic() - started


@cache
def _describe(device: str) -> dict[str, Any]:
    _be_ready(device)
    import torch

    with TemporaryDirectory() as name:
        process = work._launcher.spawn(Path(name).resolve())
        process.end()
    return {
        "digest": grader_digest(),
        "versions": {name: environment()[name] for name in SAME},
        "machine": f"{environment()['platform']} with {torch.backends.cpu.get_cpu_capability()}",
        "isolation": process.isolation.summary,
        "strong": process.isolation.strong,
    }


def _be_ready(device: str) -> None:
    """Have a launcher for a device; a worker outlives a batch, and the next may want another."""
    if work._launcher is not None and work._launcher.device != device:
        work._launcher.close()
        work._launcher = None
    if work._launcher is None:
        work.begin(device)


# ---------------------------------------------------------------- in the parent


@dataclass(frozen=True)
class Cluster:
    """Workers that were examined, ready to grade.

    Attributes:
        client: the connection to their scheduler.
        terms: what they have to have in common with this process.
        notes: sentences on what was found, and what to mind.
    """

    client: Client
    terms: Terms
    notes: Sequence[str]

    def grade(self, contents: Contents, settings: Settings, jobs: int = 0) -> Iterator[tuple[str, Answer]]:
        """Grade contents by key, with few in flight, so that memory does not grow with their number.

        Yields:
            Keys and answers, as they come.

        Raises:
            ClusterError: if the cluster can go on no longer.
        """
        schedule, running = schedule_of(contents, settings.training), dict[Future, Turn]()
        try:
            with in_words():
                while schedule.left:
                    room = IN_FLIGHT * count_workers(self.client)
                    while len(running) < room and (turn := schedule.next()):
                        running[self._submit(contents[turn.key], settings, turn.limit)] = turn
                    for future in finished(running):
                        turn = running.pop(future)
                        answer = schedule.note(turn, *answer_of(future))
                        if answer is not None:
                            yield turn.key, answer
        finally:
            self.client.cancel(list(running))

    def _submit(self, files: Mapping[str, bytes], settings: Settings, limit: float | None) -> Future:
        name = f"grade-{uuid4().hex}"  # one of its own: a result that another client asked for is not ours
        return self.client.submit(grade_as_agreed, files, settings, self.terms, limit, key=name, pure=False)


def answer_of(future: Future) -> tuple[Answer | TooLong, float]:
    """What a worker answered, and the seconds that it took. Raises ClusterError if it could not."""
    try:
        return future.result()
    except KilledWorker:
        return ENDED, 0.0
    except OSError as error:
        raise ClusterError(f"a worker could not grade: {error}. Put that right; then {RESUME}") from error


@contextmanager
def connect(scheduler: Scheduler, device: str, allow_weak_isolation: bool) -> Iterator[Cluster]:
    """Find the workers of a scheduler and examine them. Raises ClusterError."""
    for name in SAID_IN_SENTENCES:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with reach(scheduler) as client:
        terms = own_terms(allow_weak_isolation)
        yield Cluster(client, terms, [*exposure(scheduler.address), *examine(client, terms, device)])


def reach(scheduler: Scheduler) -> Client:
    """Connect to a scheduler. Raises ClusterError."""
    address = scheduler.address
    scheme, host = parts_of(address)
    if scheme not in ("tcp", "tls") or not host:
        raise ClusterError(f"{address} is no scheduler; write tcp://host:8786, or tls://host:8786 with certificates.")
    files = {
        "tls_ca_file": scheduler.tls_ca_file,
        "tls_client_cert": scheduler.tls_cert,
        "tls_client_key": scheduler.tls_key,
    }
    given = {name: str(path) for name, path in files.items() if path is not None}
    try:
        security = Security(**given)  # what is not given comes from Dask's own configuration
        if scheme == "tls" and security.get_connection_args("client").get("ssl_context") is None:
            raise ClusterError(f"{address} wants certificates: give --tls-ca-file, --tls-cert and --tls-key.")
        return Client(address, security=security, timeout=CONNECT_SECONDS)
    except (OSError, TypeError, ValueError, RuntimeError) as error:
        said = f"{address} cannot be reached: {error}. `dask scheduler` starts one; CLUSTER.md says how."
        raise ClusterError(said) from error


def parts_of(address: str) -> tuple[str, str]:
    """Scheme and host of an address; empty where it has none."""
    try:
        parts = urlsplit(address)
        return parts.scheme, parts.hostname or ""
    except ValueError:  # a bracket that is not closed
        return "", ""


def exposure(address: str) -> list[str]:
    """A warning if whoever can reach an address could do what a grader can; none if there is no reason for it."""
    scheme, host = parts_of(address)
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = host == "localhost"
    if local or scheme == "tls":
        return []
    return [
        f"{address} is open to its network: whoever reaches a port of the cluster can read submissions and run code "
        "as you. Use tls:// with certificates; CLUSTER.md says how."
    ]


def examine(client: Client, terms: Terms, device: str) -> list[str]:
    """Have every worker describe itself. Returns sentences on what was found; raises ClusterError to refuse some."""
    with in_words():
        count_workers(client)
        threads = client.nthreads()
        found = client.run(describe, device, on_error="return")
    # One that left meanwhile is no reason to stop, and one that comes is examined when it grades.
    found = {address: answer for address, answer in found.items() if not isinstance(answer, OSError)}
    refused = [
        f"{address} {objection}."
        for address, answer in sorted(found.items())
        if (objection := objection_to(answer, threads.get(address, 1), terms))
    ]
    if refused or not found:
        more = f" {len(refused) - SHOWN} more were refused." if len(refused) > SHOWN else ""
        raise ClusterError(
            " ".join(refused[:SHOWN]) + more if refused else f"every worker left. Start some; then {RESUME}"
        )
    isolation = sorted({answer["isolation"] for answer in found.values()})
    machines = sorted({answer["machine"] for answer in found.values()})
    said = [f"Workers: {len(found)}. Their isolation: {'; '.join(isolation)}."]
    if len(machines) > 1:
        said.append(f"They differ, and so may the last digits of what they measure: {'; '.join(machines)}.")
    return said


def objection_to(answer: Any, threads: int, terms: Terms) -> str:
    """What speaks against a worker that answered, or failed to."""
    if isinstance(answer, BaseException):
        return f"cannot grade ({answer}): start it in a checkout of this grader, with the packages that it needs"
    if threads != 1:
        return f"has {threads} threads, and would grade on one: start it with --nthreads 1, and --nworkers for more"
    return terms.objection(answer)


def count_workers(client: Client) -> int:
    """How many workers there are; if there is none, one is awaited. Raises ClusterError if none comes."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (count := len(client.nthreads())):
        if time.monotonic() > deadline:
            raise ClusterError(f"the cluster has had no worker for {PATIENCE_SECONDS:.0f} s. Start some; then {RESUME}")
        time.sleep(0.1)
    return count


def finished(running: Mapping[Future, Turn]) -> list[Future]:
    """Those of some futures that have ended, once one has or it is time to look at who is there."""
    try:
        return list(wait(list(running), timeout=LOOK_SECONDS, return_when="FIRST_COMPLETED").done)
    except asyncio.TimeoutError:
        return []


@contextmanager
def in_words() -> Iterator[None]:
    """Turn what Dask raises when a connection ends into a ClusterError."""
    try:
        yield
    except (CancelledError, OSError, asyncio.TimeoutError) as error:
        raise ClusterError(
            f"the scheduler is gone or does not answer. Start it and its workers; then {RESUME}"
        ) from error
