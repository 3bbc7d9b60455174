"""A cluster gives the results of the local pool, whatever is killed, and no worker grades that would give others."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from distributed import Client, Security

from grader.assignment import REPOSITORY
from grader.bank import load_bank
from grader.batch import cluster as on_dask
from grader.batch import work
from grader.batch.cluster import (
    Cluster,
    ClusterError,
    Terms,
    connect,
    exposure,
    grade_as_agreed,
    objection_to,
    own_terms,
)
from grader.batch.command import Scheduler, cluster_of
from grader.batch.run import carry_out, plan
from grader.batch.store import Store
from grader.batch.work import GradingError, Settings, key_of
from grader.report.entry import Entry
from grader.submission import Submission

from .conftest import filled
from .test_batch import without_times

ONLY = "2.1a"
SETTINGS = Settings(seed=3, only=ONLY, training=False)
START_SECONDS = 60.0


@dataclass
class Daemons:
    """A scheduler and workers as processes on this machine, on free ports of loopback.

    Attributes:
        folder: of what they write.
        tls: options that give them certificates.
    """

    folder: Path
    tls: list[str] = field(default_factory=list)
    processes: list[subprocess.Popen] = field(default_factory=list)

    def scheduler(self) -> Scheduler:
        """Start a scheduler, and wait until it says where it is."""
        file = self.folder / "scheduler.json"
        file.write_text("", "utf-8")
        self._start(REPOSITORY, "scheduler", "--port", "0", "--scheduler-file", str(file))
        until(lambda: file.read_text("utf-8").rstrip().endswith("}"))
        self.address = json.loads(file.read_text("utf-8"))["address"]
        return Scheduler(self.address)

    def worker(self, client: Client, checkout: Path = REPOSITORY) -> subprocess.Popen:
        """Start a worker with the grader of a checkout, and wait until the scheduler of `client` has it."""
        before = len(client.nthreads())
        process = self._start(
            checkout, "worker", self.address, "--nthreads", "1", "--no-nanny", "--local-directory", str(self.folder)
        )
        until(lambda: len(client.nthreads()) > before)
        return process

    def _start(self, checkout: Path, *arguments: str) -> subprocess.Popen:
        command = [
            sys.executable,
            "-m",
            "dask",
            *arguments,
            "--host",
            "127.0.0.1",
            "--dashboard-address",
            "127.0.0.1:0",
        ]
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen([*command, *self.tls], cwd=checkout, stdout=log, stderr=log)
        self.processes.append(process)
        return process

    def end(self) -> None:
        """End all of them; workers first, which would look for their scheduler."""
        for process in reversed(self.processes):
            kill(process)


def kill(process: subprocess.Popen) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


def until(true: Callable[[], bool]) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + START_SECONDS
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def daemons(tmp_path: Path) -> Iterator[Daemons]:
    started = Daemons(tmp_path)
    yield started
    started.end()


@contextmanager
def client_of(scheduler: Scheduler) -> Iterator[Client]:
    with Client(scheduler.address, set_as_default=False) as client:
        yield client


@pytest.fixture(scope="module")
def entries(handout: Submission) -> list[Entry]:
    """A dozen hand-ins of one question, right and wrong."""
    fillings = [filling for filling in load_bank() if filling.question == ONLY][:4]
    files = [filled(handout, ONLY, filling.blocks).sources for filling in fillings]
    return [Entry(f"s{n}", "", files=files[n % 4] | {"own.py": f"n = {n}".encode()}) for n in range(12)]


@pytest.fixture(scope="module")
def graded_here(entries: list[Entry], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The results of the local pool, as text by key."""
    with closing(Store(tmp_path_factory.mktemp("here") / "grades.sqlite")) as store:
        planned = plan(entries, SETTINGS, store)
        carry_out(planned, SETTINGS, store, 1, lambda key, result: None)
        return texts(store)


def texts(store: Store) -> dict[str, str]:
    """Results without their times, to be compared by the byte."""
    return {key: json.dumps(without_times(store.result(key))) for key in store.known()}


def grade_class(
    entries: list[Entry], store: Store, cluster: Cluster, told: Callable[[dict[str, Any]], None] = lambda result: None
) -> None:
    carry_out(plan(entries, SETTINGS, store), SETTINGS, store, 1, lambda key, result: told(result), cluster.grade)


@pytest.mark.parametrize("starts_again", [3, 0])
def test_a_worker_that_is_killed_changes_no_result(
    entries: list[Entry],
    graded_here: dict[str, str],
    daemons: Daemons,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    starts_again: int,
) -> None:
    """Whether Dask starts its work again elsewhere, or gives it up at once and leaves that to us."""
    monkeypatch.setenv("DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES", str(starts_again))
    scheduler = daemons.scheduler()
    graded: list[dict[str, Any]] = []

    with client_of(scheduler) as client, closing(Store(tmp_path / "grades.sqlite")) as store:
        first, _ = daemons.worker(client), daemons.worker(client)

        def kill_one(result: dict[str, Any]) -> None:
            if not graded:
                kill(first)
            graded.append(result)

        with connect(scheduler, "cpu", allow_weak_isolation=False) as cluster:
            assert cluster.notes[0].startswith("Workers: 2. Their isolation: strong")
            grade_class(entries, store, cluster, kill_one)
        until(lambda: len(client.nthreads()) == 1)
        assert len(graded) == len(entries)
        assert texts(store) == graded_here


def test_a_cluster_that_is_lost_is_a_sentence_and_another_goes_on(
    entries: list[Entry], graded_here: dict[str, str], daemons: Daemons, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First the only worker is lost, then the scheduler; what was graded is kept, and not graded again."""
    monkeypatch.setattr(on_dask, "PATIENCE_SECONDS", 1.0)
    monkeypatch.setattr(on_dask, "CONNECT_SECONDS", 5.0)
    graded: list[dict[str, Any]] = []

    def losing(process: subprocess.Popen) -> Callable[[dict[str, Any]], None]:
        def told(result: dict[str, Any]) -> None:
            graded.append(result)
            kill(process)

        return told

    scheduler = daemons.scheduler()
    losses = {"worker": "no worker for 1 s. Start some", "scheduler": "the scheduler is gone or does not answer"}
    with closing(Store(tmp_path / "grades.sqlite")) as store:
        for lost, says in losses.items():
            with client_of(scheduler) as client:
                worker = daemons.worker(client)
            told = losing(worker if lost == "worker" else daemons.processes[0])
            with (
                connect(scheduler, "cpu", False) as cluster,
                pytest.raises(ClusterError, match=rf"{says}.* run the same command again"),
            ):
                grade_class(entries, store, cluster, told)
        assert 2 <= len(graded) == len(store.known()) < len(entries)
        assert texts(store).items() <= graded_here.items()


def test_a_worker_with_another_grader_never_grades(entries: list[Entry], daemons: Daemons, tmp_path: Path) -> None:
    """Whether it is there from the start or joins later."""
    other = tmp_path / "other"
    for name in ("grader", "handout", "solution", "data"):
        shutil.copytree(REPOSITORY / name, other / name, ignore=shutil.ignore_patterns("__pycache__", "runs"))
    with (other / "grader" / "rubric.toml").open("a") as rubric:
        rubric.write("# another rubric\n")
    scheduler = daemons.scheduler()
    with client_of(scheduler) as client, closing(Store(tmp_path / "grades.sqlite")) as store:
        right = daemons.worker(client)
        with connect(scheduler, "cpu", False) as cluster:
            daemons.worker(client, other)
            kill(right)
            with pytest.raises(ClusterError, match=r"joined that has another grader.* run the same command again"):
                grade_class(entries, store, cluster)
        assert not store.known()
        (wrong,) = client.nthreads()
        with (
            pytest.raises(ClusterError, match=f"^{wrong} has another grader: give it this one"),
            connect(scheduler, "cpu", False),
        ):
            pass


DESCRIBED = {
    "digest": "d", "versions": {"torch": "2.0", "numpy": "1.0"}, "machine": "m", "isolation": "weak: a submission could x", "strong": False,
}  # fmt: skip


def test_what_starts_sandboxes_outlives_the_thread_that_asked(
    entries: list[Entry], graded_here: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A zygote dies with the thread that started it, and Dask says nothing of how long its threads live."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(work, "_launcher", None)
    results: list[Any] = []
    zygotes = []
    try:
        for _ in range(2):
            arguments = (entries[0].files, SETTINGS, own_terms(False), None)
            asking = threading.Thread(target=lambda given: results.append(grade_as_agreed(*given)), args=(arguments,))
            asking.start()
            asking.join()
            zygotes.append(work._launcher._process.pid)
    finally:
        work._launcher.close()
        on_dask._describe.cache_clear()
    assert zygotes[0] == zygotes[1]
    assert [json.dumps(without_times(result)) for result, _ in results] == [
        graded_here[key_of(entries[0].files, SETTINGS)]
    ] * 2


@pytest.mark.skipif(shutil.which("openssl") is None, reason="certificates are made with openssl")
def test_the_command_grades_over_tls_and_not_without_certificates(
    entries: list[Entry], daemons: Daemons, tmp_path: Path
) -> None:
    certify(tmp_path)
    ca, cert, key = (str(tmp_path / name) for name in ("ca.pem", "cert.pem", "key.pem"))
    options = ["--tls-ca-file", ca, "--tls-cert", cert, "--tls-key", key]
    daemons.tls = ["--protocol", "tls", *options]
    address = daemons.scheduler().address
    assert address.startswith("tls://127.0.0.1:")
    security = Security(tls_ca_file=ca, tls_client_cert=cert, tls_client_key=key)
    with Client(address, security=security, set_as_default=False) as client:
        daemons.worker(client)
    for entry in entries[:2]:
        (tmp_path / "class" / entry.student).mkdir(parents=True)
        for name, content in entry.files.items():
            (tmp_path / "class" / entry.student / name).write_bytes(content)
    command = [
        sys.executable,
        "-m",
        "grader",
        "batch",
        str(tmp_path / "class"),
        "--out",
        str(tmp_path / "out"),
        "--only",
        ONLY,
    ]
    command += ["--no-training", "--cluster", address]
    refused = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "wants certificates: give --tls-ca-file" in refused.stderr
    done = subprocess.run([*command, *options], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Workers: 1. Their isolation: strong" in done.stdout
    assert len((tmp_path / "out" / "grades.csv").read_text("utf-8").splitlines()) == 3


def certify(folder: Path) -> None:
    """Make an authority, and a certificate of it, as CLUSTER.md says."""
    document = (REPOSITORY / "grader" / "batch" / "CLUSTER.md").read_text("utf-8")
    for line in [line for line in document.splitlines() if line.startswith("openssl ")]:
        subprocess.run(line.split(), cwd=folder, capture_output=True, check=True)


@pytest.mark.parametrize(
    ("changed", "threads", "says"),
    [
        ({"strong": True}, 1, ""),
        ({"digest": "e"}, 1, "has another grader"),
        ({"versions": {"torch": "2.1", "numpy": "1.0"}}, 1, "has torch 2.1 and not 2.0, so results could differ"),
        ({}, 1, "has isolation that is weak: a submission could x. `make doctor` there"),
        ({"strong": True}, 8, "has 8 threads, and would grade on one: start it with --nthreads 1"),
    ],
)
def test_what_speaks_against_a_worker(changed: dict[str, Any], threads: int, says: str) -> None:
    terms = Terms("d", {"torch": "2.0", "numpy": "1.0"}, allow_weak_isolation=False)
    objection = objection_to(DESCRIBED | changed, threads, terms)
    assert objection.startswith(says)
    assert bool(objection) == bool(says)


def test_weak_isolation_is_allowed_where_it_was_asked_for() -> None:
    assert objection_to(DESCRIBED, 1, Terms("d", {}, allow_weak_isolation=True)) == ""


def test_a_worker_without_the_grader_is_told_where_to_start() -> None:
    objection = objection_to(Exception("No module named 'grader'"), 1, Terms("d", {}, True))
    assert objection.startswith("cannot grade (No module named 'grader'): start it in a checkout of this grader")


@pytest.mark.parametrize(
    ("address", "warned"),
    [
        ("tcp://127.0.0.1:8786", False),
        ("tcp://localhost:8786", False),
        ("tcp://[::1]:8786", False),
        ("tls://lab1:8786", False),
        ("tcp://lab1:8786", True),
        ("tcp://10.0.0.1:8786", True),
    ],
)
def test_an_open_cluster_is_warned_of(address: str, warned: bool) -> None:
    assert bool(exposure(address)) == warned


@pytest.mark.parametrize("address", ["lab1:8786", "http://lab1:8786", "tcp://", "tcp://[::1"])
def test_what_is_no_address_is_said(address: str) -> None:
    with (
        pytest.raises(ClusterError, match="is no scheduler; write tcp://host:8786"),
        connect(Scheduler(address), "cpu", False),
    ):
        pass


def test_a_scheduler_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_dask, "CONNECT_SECONDS", 0.5)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        with (
            pytest.raises(ClusterError, match=r"cannot be reached: .*CLUSTER.md"),
            connect(Scheduler(address), "cpu", False),
        ):
            pass


def test_a_missing_library_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    monkeypatch.delitem(sys.modules, "grader.batch.cluster")
    with pytest.raises(GradingError, match=r"pip install '\.\[cluster\]'"):
        cluster_of(SETTINGS, Scheduler("tcp://127.0.0.1:8786"))  # type: ignore[arg-type]
