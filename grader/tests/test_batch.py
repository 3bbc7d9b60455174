"""A class is graded once each, whatever is killed meanwhile, and the same wherever it is graded."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from grader.assignment import REPOSITORY
from grader.bank import load_bank
from grader.batch import command as batch_command
from grader.batch import work
from grader.batch.run import carry_out, plan, shard
from grader.batch.store import Store, StoreError
from grader.batch.work import Settings, key_of
from grader.engine.isolation import WeakIsolationError
from grader.engine.launcher import ZygoteLauncher
from grader.report.entry import Entry
from grader.submission import Submission

from .conftest import filled

ONLY = "2.2b"
SETTINGS = Settings(seed=3, only=ONLY, training=False)


@pytest.fixture(scope="module")
def entries(handout: Submission) -> list[Entry]:
    """A small class: right and wrong fillings of one question, two students with the same, and one without any."""
    fillings = [filling for filling in load_bank() if filling.question == ONLY][:6]
    found = [
        Entry(f"s{n}", f"Student {n}", files=filled(handout, ONLY, filling.blocks).sources)
        for n, filling in enumerate(fillings)
    ]
    return [*found, replace(found[0], student="twin"), Entry("absent", "Nobody", error="Nothing was handed in.")]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(Store(tmp_path / "grades.sqlite")) as opened:
        yield opened


def grade_class(
    entries: list[Entry], store: Store, jobs: int, told: Callable[[dict], None] = lambda result: None, **options: Any
) -> dict[str, str]:
    planned = plan(entries, SETTINGS, store, **options)
    carry_out(planned, SETTINGS, store, jobs, lambda key, result: told(result))
    return planned.keys


def score_of(store: Store, key: str) -> float:
    result = store.result(key)
    assert result is not None
    return result["score"]


def test_a_class_is_graded_and_nothing_twice(entries: list[Entry], store: Store) -> None:
    graded: list[dict] = []
    keys = grade_class(entries, store, 2, graded.append)
    assert set(keys) == {entry.student for entry in entries if not entry.error}
    assert keys["twin"] == keys["s0"]
    assert len(graded) == len(set(keys.values())) == len(entries) - 2
    scores = {student: score_of(store, key) for student, key in keys.items()}
    assert scores["s0"] == scores["twin"] == 5
    again: list[dict] = []
    assert grade_class(entries, store, 2, again.append) == keys
    assert again == []
    grade_class(entries, store, 1, again.append, regrade=["s1"])
    assert without_times(again) == [without_times(store.result(keys["s1"]))]


def test_the_key_is_what_decides_about_a_result(entries: list[Entry], monkeypatch: pytest.MonkeyPatch) -> None:
    files = entries[0].files
    others = [
        key_of(files | {"loss.py": files["loss.py"] + b"\n"}, SETTINGS),
        key_of(files | {"more.py": b""}, SETTINGS),
        *(
            key_of(files, replace(SETTINGS, **{name: value}))
            for name, value in [
                ("seed", 4),
                ("device", "cuda"),
                ("only", "2.2a"),
                ("training", True),
                ("audience", "student"),
            ]
        ),
    ]
    monkeypatch.setattr(work, "grader_digest", lambda: "another rubric")
    others.append(key_of(files, SETTINGS))
    monkeypatch.undo()
    assert len({key_of(dict(reversed(files.items())), SETTINGS), key_of(files, SETTINGS)}) == 1
    assert len({key_of(files, SETTINGS), *others}) == len(others) + 1


def test_shards_part_the_work_and_merge_to_the_same(entries: list[Entry], store: Store, tmp_path: Path) -> None:
    keys = grade_class(entries, store, 1)
    parts = [shard(sorted(set(keys.values())), number, 2) for number in (0, 1)]
    assert sorted(parts[0] + parts[1]) == sorted(set(keys.values()))
    with closing(Store(tmp_path / "merged.sqlite")) as merged:
        for number in (0, 1):
            with closing(Store(tmp_path / f"{number}.sqlite")) as part:
                grade_class(entries, part, 1, only_shard=(number, 2))
            assert merged.merge(tmp_path / f"{number}.sqlite") == len(parts[number])
        assert {key: without_times(merged.result(key)) for key in keys.values()} == {
            key: without_times(store.result(key)) for key in keys.values()
        }
        assert merged.last_settings() == store.last_settings()
        with closing(Store(tmp_path / "other.sqlite")) as other:
            other.begin(replace(SETTINGS, seed=4).text, {})
        with pytest.raises(StoreError, match="another seed"):
            merged.merge(tmp_path / "other.sqlite")


def test_a_shard_needs_the_seed_of_the_others(store: Store) -> None:
    with pytest.raises(batch_command.CommandError, match="a shard needs --seed"):
        batch_command.class_seed(store, None, is_shard=True)
    store.begin(SETTINGS.text, {})
    assert batch_command.class_seed(store, None, is_shard=True) == SETTINGS.seed


def without_times(value: Any) -> Any:
    """A result without how long it took."""
    if isinstance(value, dict):
        return {name: without_times(x) for name, x in value.items() if name != "seconds"}
    return [without_times(x) for x in value] if isinstance(value, list) else value


KILLED = """
import sys
from contextlib import closing
from pathlib import Path
from grader.report.entry import Entry
from grader.batch.run import carry_out, plan
from grader.batch.store import Store
from grader.batch.work import Settings
if __name__ == "__main__":
    files = {path.name: path.read_bytes() for path in Path("handout").glob("*.py")}
    entries = [Entry(f"s{n}", "", files=files | {"own.py": f"number = {n}".encode()}) for n in range(30)]
    with closing(Store(Path(sys.argv[1]))) as store:
        settings = Settings(seed=0, only="2.2b", training=False)
        planned = plan(entries, settings, store)
        save = store.save
        store.save = lambda key, result: (save(key, result), print(key, flush=True))
        carry_out(planned, settings, store, 2, lambda key, result: None)
"""


def test_a_batch_that_is_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    """SIGKILL of the parent at random moments: what was printed is kept, and nothing is graded twice."""
    script, database = tmp_path / "batch.py", tmp_path / "grades.sqlite"
    script.write_text(KILLED, "utf-8")
    command = [sys.executable, str(script), str(database)]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    chance, printed = random.Random(0), []
    for _ in range(3):
        process = subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        printed += [process.stdout.readline().strip() for _ in range(chance.randint(1, 8))]
        process.send_signal(signal.SIGKILL)
        printed += process.stdout.read().split()
        process.wait()
        process.stdout.close()
        with closing(Store(database)) as store:
            assert set(printed) <= store.known()
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True)
    printed += done.stdout.split()
    assert len(printed) == len(set(printed))
    with closing(Store(database)) as store:
        assert len(store.known()) == 30


def test_a_process_that_dies_is_replaced_and_costs_nobody_a_grade(
    entries: list[Entry], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[int] = []

    def kill_one(result: dict) -> None:
        if not killed:
            children = subprocess.run(["pgrep", "-P", str(os.getpid())], capture_output=True, text=True, check=False)
            pool = [int(pid) for pid in children.stdout.split() if is_of_the_pool(int(pid))]
            killed.append(pool[0])
            os.kill(pool[0], signal.SIGKILL)

    keys = grade_class(entries, store, 2, kill_one)
    assert killed
    assert set(keys.values()) == store.known()
    assert score_of(store, keys["s0"]) == 5


def is_of_the_pool(pid: int) -> bool:
    return "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text("utf-8")


def test_no_database_is_an_error_in_words(tmp_path: Path) -> None:
    (tmp_path / "grades.sqlite").write_text("this is no database, however long it is made" * 20, "utf-8")
    with pytest.raises(StoreError, match="give OUT another folder"):
        Store(tmp_path / "grades.sqlite")


def test_a_full_disk_loses_nothing_that_was_there(tmp_path: Path) -> None:
    with closing(Store(tmp_path / "grades.sqlite")) as store:
        store.save("a", {"score": 1})
        store._connection.execute("PRAGMA max_page_count = 8")
        with pytest.raises(StoreError, match="what was graded before is safe"):
            store.save("b", {"text": "x" * 1_000_000})
    with closing(sqlite3.connect(tmp_path / "grades.sqlite")) as opened:
        assert [json.loads(text) for (text,) in opened.execute("SELECT result FROM results")] == [{"score": 1}]


# ---------------------------------------------------------------- the command


def hand_in(folder: Path, entries: list[Entry]) -> Path:
    """The class as a folder with a folder for everybody, and one that holds nothing."""
    for entry in entries:
        (folder / entry.student).mkdir(parents=True)
        for name, content in entry.files.items():
            (folder / entry.student / name).write_bytes(content)
    return folder


def test_a_class_from_hand_ins_to_the_gradebook(entries: list[Entry], tmp_path: Path) -> None:
    classroom, out = hand_in(tmp_path / "class", entries), tmp_path / "grades"
    gradebook = tmp_path / "gradebook.csv"
    rows = [f"{entry.student},,{entry.student},{entry.student},,\r\n" for entry in entries]
    gradebook.write_text("Student,ID,SIS User ID,SIS Login ID,Section,Homework (7)\r\n" + "".join(rows), "utf-8")
    roster = tmp_path / "roster.csv"
    roster.write_text("login,name\n" + "".join(f"{entry.student},{entry.name}\n" for entry in entries), "utf-8")
    command = [
        sys.executable,
        "-m",
        "grader",
        "batch",
        str(classroom),
        "--out",
        str(out),
        "--only",
        ONLY,
        "--no-training",
    ]
    command += ["--canvas", str(gradebook), "--roster", str(roster), "--seed", "3", "--jobs", "2"]
    for left in (len(entries) - 2, 0):
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert f"{left} left to grade" in done.stdout
    grades = (out / "grades.csv").read_text("utf-8").splitlines()
    assert len(grades) == len(entries) + 1
    scores = {line.split(",")[0]: line.split(",")[2] for line in grades[1:]}
    scores["absent"] = scores.pop("Nobody_absent")
    assert (scores["s0"], scores["twin"], scores["absent"]) == ("5", "5", "")
    filled_in = (out / "filled-gradebook.csv").read_text("utf-8").splitlines()
    assert {line.split(",")[0]: line.split(",")[-1] for line in filled_in[1:]} == scores
    assert (out / "feedback" / "s0.md").read_text("utf-8").startswith("# 5 of 5 points\n")
    assert "<title>" in (out / "feedback" / "s0.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere"], "nowhere"),
        (["handout", "--only", "9.9"], "there is no question 9.9"),
        (["handout", "--shard", "4/4"], "4/4 is no shard; write 0/4"),
    ],
)
def test_what_cannot_be_graded_is_said_in_one_line(tmp_path: Path, arguments: list[str], says: str) -> None:
    command = [sys.executable, "-m", "grader", "batch", *arguments, "--out", str(tmp_path / "grades")]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith("error: ")
    assert says in done.stderr


def test_a_class_is_not_run_where_it_could_do_harm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    weak = batch_command.Request(
        tmp_path, tmp_path / "out", None, None, None, ONLY, (), 1, 0, "", "ta", "cpu", False, False, batch_command.Gradebooks()
    )  # fmt: skip
    without = ZygoteLauncher(without=("landlock", "seccomp"))
    monkeypatch.setattr(batch_command, "default_launcher", lambda device: without)
    with pytest.raises(WeakIsolationError, match="--allow-weak-isolation"):
        batch_command.check_isolation(weak)
