"""A class gets its grades whatever one hand-in does: its result, its process, its pages, its archive."""

from __future__ import annotations

import csv
import io
import json
import random
import zipfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from grader.batch import command, intake, pool, returns, work
from grader.batch.live import live
from grader.batch.pool import on_a_pool
from grader.batch.problems import Problems
from grader.batch.returns import NOT_A_ZERO, NOT_SHOWN, write_class
from grader.batch.run import carry_out, plan
from grader.batch.schedule import (
    ATTEMPTS,
    ENDED,
    FIRST_SECONDS,
    LEAST_SECONDS,
    SLOW,
    Answer,
    Schedule,
    TooLong,
    Turn,
    Unfinished,
)  # fmt: skip
from grader.batch.store import MAX_RESULT_BYTES, PICTURES, Store, StoreError, UnusableError, usable
from grader.batch.work import Settings, attempt
from grader.bench.classroom import make_class
from grader.bench.hostile_class import hostile, mixed
from grader.cli import LEFT, app
from grader.engine.launcher import StartError
from grader.report import gradescope
from grader.report.entry import Entry
from grader.report.feedback import MAX_TEXT, as_text
from grader.report.gradebook import fill_canvas
from grader.report.pictures import Strip
from grader.submission import Submission

from .lanes import serve as fake_serve
from .test_batch import without_times
from .test_class_page import result_of

SETTINGS = Settings(seed=0, only="2.2b", training=False)
GOOD = result_of({"2.1a": "passed", "2.2b": "wrong"}).as_fields()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(Store(tmp_path / "grades.sqlite")) as opened:
        yield opened


def a_class(*students: str) -> list[Entry]:
    return [Entry(student, student.title(), {"sis_id": student}, {"loss.py": student.encode()}) for student in students]


def written(out: Path) -> dict[str, list[str]]:
    """Score, error and points of everybody in grades.csv."""
    with (out / "grades.csv").open(encoding="utf-8", newline="") as file:
        return {row["student"]: [row["score"], row["error"], row.get("2.1a", "")] for row in csv.DictReader(file)}


# ---------------------------------------------------------------- results that are none

DEEP: Any = []
for _ in range(100_000):
    DEEP = [DEEP]

UNUSABLE = {
    "NaN": GOOD | {"score": float("nan")},
    "infinite": GOOD | {"seconds": float("inf")},
    "not JSON": GOOD | {"notes": [object()]},
    "bytes": GOOD | {"output": b"text"},
    "deep": GOOD | {"notes": DEEP},
    "a large number": GOOD | {"score": 10**400},
    "too large": GOOD | {"output": "x" * (MAX_RESULT_BYTES + 1)},
    "a field missing": {name: value for name, value in GOOD.items() if name != "bonus"},
    "a field too many": GOOD | {"more": 1},
    "text for points": GOOD | {"score": "14"},
    "a number for a note": GOOD | {"notes": [1]},
    "no questions": GOOD | {"questions": []},
    "questions of another form": GOOD | {"questions": [1]},
    "a status that there is not": json.loads(json.dumps(GOOD).replace('"wrong"', '"splendid"')),
    "no mapping": [1],
    "nothing": None,
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_what_is_no_result_is_found(kind: str) -> None:
    with pytest.raises(UnusableError):
        usable(UNUSABLE[kind])


def test_a_result_stays_as_it_is_but_for_what_no_file_can_hold() -> None:
    assert usable(GOOD) == GOOD
    strips = [Strip("2.4a/x", "Data", 1, b"")]
    assert usable(GOOD | {PICTURES: strips}) == GOOD | {PICTURES: strips}
    assert usable(GOOD | {"notes": ["a \ud800 parameter"]})["notes"] == ["a ? parameter"]


@pytest.mark.parametrize("kind", UNUSABLE)
def test_a_submission_with_a_result_that_is_none_is_unfinished(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "grade_files", lambda *_: UNUSABLE[kind])
    answer = attempt({}, SETTINGS)
    assert isinstance(answer, Unfinished)
    assert (answer.why[:26], answer.again) == ("Its result cannot be kept:", False)
    assert "Traceback" in answer.details


@pytest.mark.parametrize(
    ("error", "again"),
    [(RecursionError("deep"), False), (ValueError("\ud800"), False), (MemoryError(), True), (StartError("no"), True)],
)
def test_whatever_grading_raises_is_that_submissions(
    error: Exception, again: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(work, "grade_files", fail)
    answer = attempt({}, SETTINGS)
    assert isinstance(answer, Unfinished)
    assert answer.again == again
    assert type(error).__name__ in answer.details
    assert type(error).__name__ not in answer.why


@pytest.mark.parametrize(
    "answer",
    [GOOD | {"score": float("nan")}, GOOD | {"notes": [object()]}, GOOD | {PICTURES: [Strip("a", "\ud800", 1, b"")]}],
)
def test_what_the_store_cannot_hold_costs_nobody_else(answer: dict[str, Any], store: Store) -> None:
    told: dict[str, Answer] = {}
    contents = {"bad": {}, "good": {}, "dead": {}}
    answers = [("bad", answer), ("good", GOOD), ("dead", ENDED)]
    planned = plan(a_class("x"), SETTINGS, store)
    planned = replace(planned, waiting=contents)
    left = carry_out(planned, SETTINGS, store, 1, told.__setitem__, lambda *_: iter(answers))
    assert set(left) == {"bad", "dead"}
    assert store.known() == {"good"}
    assert [isinstance(told[key], Unfinished) for key in contents] == [True, False, True]


def test_what_is_unfinished_is_seen_while_a_class_is_graded() -> None:
    screen = io.StringIO()
    with live(2, {"anna": "a", "ben": "b"}, Console(file=screen, force_terminal=True, width=120)) as tell:
        tell("a", Unfinished("It \x1b[2J ended."))
        tell("b", GOOD)
    last = screen.getvalue().rpartition("student ")[2]
    assert "It \\u001b[2J ended." in last
    assert "not graded 1" in last


# ---------------------------------------------------------------- what is stored, and cannot be shown

STORED = {
    "cut short": b'{"schema": 1',
    "not text": b"\xff\xfe\x00",
    "NaN": json.dumps(GOOD | {"score": float("nan")}).encode(),
    "deep": b"[" * 100_000,
    "of an older version": json.dumps({name: value for name, value in GOOD.items() if name != "isolation"}).encode(),
    "an empty blob": b"",
}


def test_a_result_in_which_the_grader_failed_is_graded_again(store: Store) -> None:
    entries = a_class("anna", "ben")
    keys = plan(entries, SETTINGS, store).keys
    failed = json.loads(json.dumps(GOOD))
    failed["questions"][0]["status"] = "grader_error"
    store.save(keys["anna"], failed)
    store.save(keys["ben"], GOOD)
    assert set(plan(entries, SETTINGS, store).waiting) == {keys["anna"]}


@pytest.mark.parametrize("kind", STORED)
def test_a_stored_result_that_cannot_be_shown_is_graded_again_and_blocks_nothing(
    kind: str, store: Store, tmp_path: Path
) -> None:
    entries = a_class("anna", "ben")
    keys = plan(entries, SETTINGS, store).keys
    for key in keys.values():
        store.save(key, GOOD)
    for value in (STORED[kind], STORED[kind].decode("latin-1")):
        with store._connection:
            store._connection.execute("UPDATE results SET result = ? WHERE key = ?", (value, keys["anna"]))
        assert set(plan(entries, SETTINGS, store).waiting) == {keys["anna"]}
        problems = Problems(tmp_path / "problems.log")
        write_class(entries, keys, store, tmp_path, "ta", {}, problems)
        assert written(tmp_path) == {
            "anna": [
                "",
                "Grading did not end: Its result could not be read, and the same command grades it again.",
                "",
            ],
            "ben": ["9", "", "9"],
        }
        assert problems.count == 1


def test_a_result_with_surrogates_of_an_older_version_is_shown(store: Store, tmp_path: Path) -> None:
    """They reached a message raw, and nobody had grades any longer."""
    entries = a_class("anna", "ben")
    keys = plan(entries, SETTINGS, store).keys
    hostile = json.loads(json.dumps(GOOD).replace("It is not right.", r"parameter \ud800 =1+1 <b>"))
    hostile["questions"][0]["title"] = "=\ud800"
    for student, result in (("anna", hostile), ("ben", GOOD)):
        store.save(keys[student], result)
    assert store.known() == set(keys.values())
    problems = Problems(tmp_path / "problems.log")
    grades = write_class(entries, keys, store, tmp_path, "ta", {}, problems)
    assert [grade.score for grade in grades] == [9, 9]
    assert problems.count == 0
    assert not problems.path.exists()
    assert "parameter ? =1+1" in (tmp_path / "feedback" / "anna.md").read_text("utf-8")


# ---------------------------------------------------------------- what cannot be shown


def in_a_class_of_three(store: Store, out: Path, left: bool = False) -> tuple[Problems, list[Any]]:
    """A class in which `bad` is to go wrong, written."""
    entries = a_class("anna", "bad", "zoe")
    keys = plan(entries, SETTINGS, store).keys
    for student, key in keys.items():
        if not (left and student == "bad"):
            store.save(key, GOOD | {"output": student, PICTURES: []})
    (out / "feedback").mkdir(exist_ok=True)
    (out / "feedback" / "bad.html").write_text("14 of 14 points", "utf-8")  # of a run before
    problems = Problems(out / "problems.log")
    why = {keys["bad"]: replace(ENDED, details="Traceback of ours")} if left else {}
    return problems, write_class(entries, keys, store, out, "ta", why, problems)


def fails_for_bad(original: Any) -> Any:
    """A function that raises where `bad` is concerned."""

    def run(*arguments: Any, **keywords: Any) -> Any:
        if any(word in str(argument) for argument in arguments for word in ("Bad", "'bad'")):
            raise RecursionError("a secret of the grader")
        return original(*arguments, **keywords)

    return run


@pytest.mark.parametrize("part", ["render", "as_markdown", "as_text", "visible_to"])
def test_feedback_that_cannot_be_written_costs_one_page(
    part: str, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(returns, part, fails_for_bad(getattr(returns, part)))
    problems, grades = in_a_class_of_three(store, tmp_path)
    assert {student: row[0] for student, row in written(tmp_path).items()} == {"anna": "9", "bad": "9", "zoe": "9"}
    assert problems.count == 1
    assert "a secret of the grader" in problems.path.read_text("utf-8")
    for kind in ("html", "md"):
        assert "9 of 14" in (tmp_path / "feedback" / f"zoe.{kind}").read_text("utf-8")
        page = (tmp_path / "feedback" / f"bad.{kind}").read_text("utf-8")
        assert NOT_SHOWN in page
        assert "secret" not in page
    assert grades[1].feedback == NOT_SHOWN
    assert "Zoe" in (tmp_path / "index.html").read_text("utf-8")


def test_a_student_without_a_result_is_said_to_have_none(store: Store, tmp_path: Path) -> None:
    problems, grades = in_a_class_of_three(store, tmp_path, left=True)
    said = "Grading did not end: The process that graded it ended, 3 times."
    assert written(tmp_path) == {"anna": ["9", "", "9"], "bad": ["", said, ""], "zoe": ["9", "", "9"]}
    assert "Traceback of ours" in problems.path.read_text("utf-8")
    for kind in ("html", "md"):
        page = (tmp_path / "feedback" / f"bad.{kind}").read_text("utf-8")
        assert said in page
        assert NOT_A_ZERO in page
        assert "Traceback" not in page
        assert "14 of 14" not in page
    index = (tmp_path / "index.html").read_text("utf-8")
    assert said in index
    assert "not graded to the end" in index
    gradebook = tmp_path / "canvas.csv"
    rows = "".join(f"{student},,{student},,,\n" for student in ("anna", "bad", "zoe"))
    gradebook.write_text(f"Student,ID,SIS User ID,SIS Login ID,Section,Homework (7)\n{rows}", "utf-8")
    filled = fill_canvas(gradebook, grades)
    assert [line.rpartition(",")[2] for line in filled.text.split()[-3:]] == ["9", "", "9"]
    assert filled.unmatched == {"bad": f"Nothing was graded: {said}"}


def test_pictures_that_are_none_and_changes_that_cannot_be_found_cost_themselves(store: Store, tmp_path: Path) -> None:
    entries, old = a_class("anna", "bad"), replace(SETTINGS, seed=1)
    before = plan(entries, old, store).keys
    keys = plan(entries, SETTINGS, store).keys
    for student in before:
        store.save(before[student], GOOD)
        store.save(keys[student], GOOD)
    with store._connection:
        store._connection.execute("UPDATE results SET result = '{}' WHERE key = ?", (before["bad"],))
        store._connection.execute(
            "INSERT INTO pictures VALUES (?, 0, '2.1a/x', 'Samples', 1, ?)", (keys["bad"], b"GIF")
        )
    problems = Problems(tmp_path / "problems.log")
    write_class(entries, keys, store, tmp_path, "ta", {}, problems)
    assert problems.count == 1
    assert "the pictures could not be shown" in problems.path.read_text("utf-8")
    assert [row[0] for row in written(tmp_path).values()] == ["9", "9"]
    assert "of 1 the earlier result is not kept" in (tmp_path / "index.html").read_text("utf-8")
    assert "9 of 14" in (tmp_path / "feedback" / "bad.html").read_text("utf-8")


@pytest.mark.parametrize("part", ["similarity", "changes_since"])
def test_the_page_of_a_class_does_without_a_part(
    part: str, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(returns, part, fail)
    problems, _ = in_a_class_of_three(store, tmp_path)
    assert problems.count == 1
    assert "Zoe" in (tmp_path / "index.html").read_text("utf-8")


def test_a_gallery_that_cannot_be_drawn_leaves_the_grades_on_the_page(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(returns.class_page.Gallery, "sheets", fail)
    problems, _ = in_a_class_of_three(store, tmp_path)
    assert problems.count == 1
    assert "Zoe" in (tmp_path / "index.html").read_text("utf-8")
    monkeypatch.setattr(returns.class_page, "write", fail)
    in_a_class_of_three(store, tmp_path)
    assert "The grades are in grades.csv" in (tmp_path / "index.html").read_text("utf-8")


def test_a_full_disk_is_everybodys(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(returns, "write_whole", full)
    with pytest.raises(OSError, match="No space left"):
        in_a_class_of_three(store, tmp_path)
    problems = Problems(tmp_path / "problems.log")
    with pytest.raises(StoreError), problems.noted("x", "y"):
        raise StoreError("full")
    with problems.noted("x", "y"):
        raise OSError(36, "File name too long")
    assert problems.count == 1


# ---------------------------------------------------------------- whose turn it is


def test_everybody_has_a_limited_turn_first_and_who_is_slow_comes_last() -> None:
    schedule, began = Schedule("abcd"), list[Turn]()
    while schedule.left:
        turn = begun(schedule)
        began.append(turn)
        late = turn.key in "ac" and turn.limit
        schedule.note(turn, TooLong(" a c".index(turn.key)) if late else GOOD, seconds=4.0)
    assert began == [
        Turn("a", FIRST_SECONDS),
        Turn("b", 2 * FIRST_SECONDS),  # all others so far took too long
        Turn("c", SLOW * 4),
        Turn("d"),  # nobody waits for it
        Turn("c", begun=3),
        Turn("a", begun=1),
    ]


def test_what_is_usual_is_the_median_and_never_too_little() -> None:
    schedule = Schedule("abcde")
    for seconds in (0.1, 0.2):
        turn = begun(schedule)
        schedule.note(turn, GOOD, seconds)
    assert schedule.next() == Turn("c", LEAST_SECONDS)


def begun(schedule: Schedule) -> Turn:
    """The next turn, which there is."""
    turn = schedule.next()
    assert turn is not None
    return turn


def test_what_ends_its_process_is_tried_again_and_the_last_time_alone() -> None:
    schedule = Schedule(["bad", "good"])
    assert schedule.note(begun(schedule), ENDED) is None
    other = begun(schedule)
    assert other == Turn("good")
    again = begun(schedule)
    assert again == Turn("bad", failures=1)
    assert schedule.note(again, ENDED) is None
    assert schedule.next() is None
    assert schedule.note(other, GOOD) == GOOD
    last = begun(schedule)
    assert last == Turn("bad", failures=ATTEMPTS - 1)
    assert schedule.next() is None
    assert schedule.note(last, ENDED) == ENDED
    assert not schedule.left


def test_nothing_begins_beside_a_last_attempt() -> None:
    schedule = Schedule(["bad", "slow"])
    for _ in range(ATTEMPTS - 1):
        bad, slow = begun(schedule), begun(schedule)
        bad, slow = sorted((bad, slow), key=lambda turn: turn.key)
        schedule.note(slow, TooLong())
        schedule.note(bad, ENDED)
    schedule.note(begun(schedule), GOOD)
    assert begun(schedule).failures == ATTEMPTS - 1
    assert schedule.next() is None


def test_what_fails_of_itself_is_not_tried_again() -> None:
    schedule = Schedule("a")
    turn = begun(schedule)
    failed = Unfinished("The grader failed.")
    assert schedule.note(turn, failed) == failed
    assert not schedule.left


def graded_by(lanes: int, monkeypatch: pytest.MonkeyPatch, *does: str) -> dict[str, Any]:
    """What a pool says of hand-ins, by what they do."""
    monkeypatch.setattr(pool, "serve", fake_serve)
    return dict(on_a_pool({do: {"do": do.encode()} for do in does}, SETTINGS, lanes))


def test_a_process_that_dies_concerns_what_it_was_grading(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    once = f"die once {tmp_path / 'died'}"
    answers = graded_by(2, monkeypatch, "die", "half", "a", once, "b", "slow", "c")
    assert (died := answers.pop("die")) == answers.pop("half") == ENDED
    assert died.details == "The last time with exit status 1."
    assert {do: (answer["did"], answer["limit"] is None) for do, answer in answers.items()} == {
        "a": ("a", False), "b": ("b", False), "c": ("c", True), "slow": ("slow", True), once: (once, True)
    }  # fmt: skip


def test_what_hangs_is_ended_and_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "GRACE", 0.0)
    monkeypatch.setattr(pool, "GRACE_SECONDS", 2.0)
    monkeypatch.setattr(pool, "LONGEST_SECONDS", 4.0)
    monkeypatch.setattr(pool, "LOOK_SECONDS", 0.1)
    answers = graded_by(1, monkeypatch, "hang", "a", "b")
    assert set(answers) == {"a", "b", "hang"}
    assert answers["hang"] == Unfinished("Grading it took more than 0 minutes.")


def test_a_pool_that_does_not_start_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "serve", fake_serve)
    with pytest.raises(work.GradingError, match="before it was ready"):
        list(on_a_pool({"a": {"do": b"a"}}, replace(SETTINGS, device="none"), 2))


# ---------------------------------------------------------------- the whole command


def test_a_first_turn_ends_in_time_and_gives_the_result_that_there_is_without(
    solution: Submission, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = dict(solution.sources)
    files["loss.py"] = b"import time\n" + files["loss.py"].replace(b"def ", b"time.sleep(0.3)\ndef ", 1)
    assert isinstance(attempt(files, SETTINGS, 0.2), TooLong)
    answer, limited = attempt(files, SETTINGS), attempt(files, SETTINGS, 300)
    assert without_times(answer) == without_times(limited)
    assert isinstance(answer, dict)
    assert answer["score"] == 5


def test_the_command_writes_what_it_can_and_says_that_something_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "class.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for student in ("anna", "bad", "zoe"):
            file.writestr(f"{student}/loss.py", f"# {student}\n")
    out = tmp_path / "grades"

    def answers(contents: Any, *_: Any) -> Iterator[tuple[str, Answer]]:
        for key, files in contents.items():
            yield key, ENDED if b"bad" in files["loss.py"] else GOOD

    monkeypatch.setattr(command, "on_a_pool", answers)
    monkeypatch.setattr(command, "check_isolation", lambda request: "strong")
    arguments = ["batch", str(archive), "--out", str(out), "--seed", "3"]
    for _ in range(2):
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == LEFT == 3, done.output
        assert "Without a grade, as grading did not end: bad." in " ".join(done.output.split())
        assert {student: row[0] for student, row in written(out).items()} == {
            "anna": "9", "bad": "", "zoe": "9"
        }  # fmt: skip
    monkeypatch.setattr(command, "on_a_pool", lambda contents, *_: iter([(key, GOOD) for key in contents]))
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert written(out)["bad"][0] == "9"
    assert not (out / "problems.log").exists()


def test_an_archive_that_breaks_reading_is_its_students(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "anna").mkdir()
    (tmp_path / "anna" / "loss.py").write_text("x = 1")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "loss.py").write_text("x = 2")
    read = intake._read

    def fail(found: Any, failures: Any) -> intake.Contents:
        contents = read(found, failures)
        if contents.files["loss.py"] == b"x = 2":
            raise RecursionError("a secret")
        return contents

    monkeypatch.setattr(intake, "_read", fail)
    entries = {entry.student: entry for entry in intake.intake(tmp_path).entries}
    assert entries["anna"].error == ""
    assert entries["bad"].error == "What was handed in cannot be read; pack the files again."
    assert "a secret" in entries["bad"].trouble


def test_a_result_on_gradescope_that_cannot_be_written_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    monkeypatch.setenv("AUTOGRADER_ROOT", str(tmp_path))
    monkeypatch.setattr(gradescope, "grade_submission", lambda *_: {"score": float("nan")})
    gradescope.main(only="", training=False, leaderboard=False)
    fields = json.loads((tmp_path / "results" / "results.json").read_text("utf-8"))
    assert (fields["score"], fields["output"]) == (0, gradescope.FAILED)


def test_feedback_as_text_has_the_length_of_a_cell() -> None:
    long = result_of(dict.fromkeys(("2.1a", "2.1b", "2.2a"), "wrong"))
    text = as_text(replace(long, notes=[f"{n} {'x' * 1000}" for n in range(30)]))
    assert len(text) == MAX_TEXT + len(" ...")
    assert text.startswith("0 of 28 points\n2.1a")


def test_the_worst_hand_ins_stand_among_the_others() -> None:
    ordinary, worst = make_class(3, spoil=False), hostile()
    assert len(worst) == 10
    assert all({"loss.py", "model.py", "diffusion.py"} <= set(files) for files in worst.values())
    made = mixed(ordinary, worst, random.Random(0))
    assert list(made) == sorted(made)
    assert {name.partition(" ")[2]: files for name, files in made.items()} == {**ordinary, **worst}
    assert all(name.partition(" ")[2] in worst for name in list(made)[:2])
    assert list(mixed(ordinary, {}, random.Random(0)).values()) == list(ordinary.values())
