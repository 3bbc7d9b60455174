"""The page of a class: its numbers by hand, students' text stays text, and what a browser does with it."""

from __future__ import annotations

import io
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from grader import grading
from grader.batch import run as batch
from grader.batch import work
from grader.batch.live import live
from grader.batch.returns import write_class
from grader.batch.store import PICTURES, Store
from grader.batch.work import Settings, key_of
from grader.checks.draw import Exhibits
from grader.engine.text import printable
from grader.report.class_page import Gallery, bars, pieces, size, write
from grader.report.class_summary import ClassSummary, histogram, point_biserial, quartiles, reason_of, tripping
from grader.report.entry import Entry
from grader.report.likeness import BlockSimilarity, Group, Pair, Side, Similarity
from grader.report.pictures import address, exhibits_of, strips
from grader.report.regrade import Before, Changes
from grader.report.result import CheckResult, QuestionResult, Result
from grader.submission import Submission

from .browser import CHROMIUM, DRIVER, ENTER, TAB, WIDE_FONT, Browser
from .test_html import CONTRAST, HOSTILE, SIZES, WIDER, Page

WORTH = {"2.1a": 9, "2.1b": 9, "2.2a": 10}


def result_of(statuses: Mapping[str, str], hint: str = "", message: str = "It is not right.", **fields: Any) -> Result:
    """A result with one check a question, by how that ended."""
    questions = []
    for question, status in statuses.items():
        worth = WORTH.get(question, 5)
        earned = worth if status == "passed" else 0
        failed = status != "passed"
        check = CheckResult(
            f"{question}/a", "A check", status, earned, worth, message * failed, hint * failed, 0.1, "student"
        )
        questions.append(QuestionResult(question, f"Question {question}", earned, worth, status, [check]))
    return Result(**{
        "schema": 1, "submission": "", "seed": 7, "device": "cpu", "environment": {}, "isolation": {},
        "score": sum(question.score for question in questions),
        "max_score": sum(question.max_score for question in questions),
        "bonus": 0, "seconds": 1.0, "notes": [], "output": "", "questions": questions,
    } | fields)  # fmt: skip


def summary_of(results: Sequence[Result | None], name: str = "Student {}") -> ClassSummary:
    summary = ClassSummary()
    for at, result in enumerate(results):
        error = "" if result else "Nothing was handed in."
        summary.add(Entry(f"s{at}", name.format(at), error=error), result)
    return summary


def page_of(summary: ClassSummary, *others: Any) -> str:
    return "".join(pieces(summary, *others))


# ---------------------------------------------------------------- numbers


def test_quartiles_are_interpolated() -> None:
    assert quartiles([4.0]) == (4, 4, 4)
    assert quartiles([0, 10]) == (2.5, 5, 7.5)
    assert quartiles([40, 10, 30, 20, 50]) == (20, 30, 40)


def test_scores_are_counted_in_equal_parts() -> None:
    assert histogram([0, 4.9, 5, 99.9, 100, 103, -1], 100) == [3, 1, *[0] * 17, 3]
    assert histogram([1, 2, 3], 4, bins=4) == [0, 1, 1, 1]
    assert histogram([0, 0], 0, bins=2) == [2, 0]


def test_discrimination_is_the_point_biserial_correlation() -> None:
    # Passed with 6 and 8 elsewhere, failed with 2 and 4: means 7 and 3, variance 5, p = 1/2.
    assert point_biserial([True, True, False, False], [6, 8, 2, 4]) == pytest.approx(4 / 5**0.5 / 2, abs=1e-15)
    assert point_biserial([True, False], [1, 0]) == 1
    assert point_biserial([True, False], [0, 1]) == -1
    # It is Pearson's correlation with the indicator.
    chance = random.Random(0)
    passed, rest = [chance.random() < 0.3 for _ in range(50)], [chance.random() for _ in range(50)]
    pearson = torch.corrcoef(torch.tensor([[float(x) for x in passed], rest], dtype=torch.float64))[0, 1].item()
    assert point_biserial(passed, rest) == pytest.approx(pearson, abs=1e-12)


@pytest.mark.parametrize(
    ("passed", "rest"), [([True, True], [1, 2]), ([False, False], [1, 2]), ([True, False], [3, 3]), ([], [])]
)
def test_discrimination_is_undefined_where_nothing_differs(passed: list[bool], rest: list[float]) -> None:
    assert point_biserial(passed, rest) is None


def test_a_question_in_a_class() -> None:
    summary = summary_of([
        result_of({"2.1a": "passed", "2.1b": "passed"}),
        result_of({"2.1a": "passed", "2.1b": "wrong"}, hint="The sign."),
        result_of({"2.1a": "wrong", "2.1b": "wrong"}, hint="The sign."),
        result_of({"2.1a": "grader_error", "2.1b": "passed"}),
        result_of({"2.1a": "not_attempted", "2.1b": "error"}, message="Raised.\n  File\nValueError: 3"),
        None,
    ])  # fmt: skip
    first, second = summary.question("2.1a"), summary.question("2.1b")
    assert first.counts == {"passed": 2, "not_attempted": 1, "wrong": 1, "grader_error": 1}
    assert (first.graded, first.passed, first.median, first.max_score) == (4, 2, 4.5, 9)
    assert first.discrimination == pytest.approx(4.5 / (9**2 * 3 / 16) ** 0.5 / 2)  # the rest is 9, 0, 0, 0
    assert [(reason.text, reason.students) for reason in first.reasons] == [("The sign.", [2])]
    assert (second.graded, second.passed, second.median) == (5, 2, 0)
    assert [(reason.text, reason.students) for reason in second.reasons] == [
        ("The sign.", [1, 2]),
        ("ValueError: 3", [4]),
    ]
    assert summary.scores == [18, 9, 0, 9, 0]
    assert {kind: [sign.row for sign in signs] for kind, signs in summary.signs.items()} == {
        "grader_error": [3],
        "error": [4],
    }


def test_who_was_not_asked_has_not_failed() -> None:
    left_out = summary_of([result_of({"1.6a": "skipped"})] * 2).question("1.6a")
    assert (left_out.graded, left_out.passed, left_out.median) == (0, 0, None)
    waiting = summary_of([result_of({"1.6a": "skipped"}), result_of({"1.6a": "passed"})]).question("1.6a")
    assert (waiting.graded, waiting.passed, waiting.median) == (2, 1, 2.5)


def test_reasons_are_the_same_where_only_numbers_differ() -> None:
    check = CheckResult("2.1a/a", "A check", "wrong", 0, 1, "With mu = -0.5 of shape (3, 4) it is 1e-3.", "", 0.1, "ta")
    assert reason_of(check)[0] == reason_of(replace(check, message="With mu = 7 of shape (5,) it is 2."))[0]
    assert reason_of(check)[0] != reason_of(replace(check, message="With logvar = 7 of shape (5,) it is 2."))[0]
    assert reason_of(replace(check, hint="Mind 2."))[0] != reason_of(replace(check, hint="Mind 3."))[0]
    assert reason_of(replace(check, message=""))[1] == "wrong"


def test_what_checks_say_of_one_mistake_with_other_numbers_counts_once() -> None:
    one = result_of({"2.1a": "wrong"}, "784 numbers come out; z_dim is 5.")
    check = one.questions[0].checks[0]
    more = [replace(check, hint="784 numbers come out; z_dim is 7."), replace(check, hint="Another one.")]
    several = replace(one, questions=[replace(one.questions[0], checks=[check, *more])])
    found = [(reason.text, reason.students) for reason in summary_of([several, one]).question("2.1a").reasons]
    assert found == [(check.hint, [0, 1]), ("Another one.", [0])]


def test_what_the_sandbox_refused_is_found() -> None:
    said = "Your code raised an exception.\n  File x\nPermissionError: [Errno 13] Permission denied: '/etc'"
    summary = summary_of([
        result_of({"2.1a": "error", "2.1b": "error"}, message=said),
        result_of({"2.1a": "passed"}, output="first\nsocket: Operation not permitted\n"),
        result_of({"2.1a": "crashed"}, message="The process of this submission broke the rules of the wire: x."),
        result_of({"2.1a": "passed"}, notes=["loss.py: code outside the blocks was changed, lines 1 to 2; it was graded as it is."]),
    ])  # fmt: skip
    told = {kind: [(sign.row, sign.question) for sign in signs] for kind, signs in summary.signs.items()}
    assert told["sandbox"] == [(0, "2.1a"), (0, "2.1b"), (1, ""), (2, "2.1a")]
    assert told["outside"] == [(3, "")]
    assert told["crashed"] == [(2, "2.1a")]
    assert summary.signs["sandbox"][0].text == "File x\nPermissionError: [Errno 13] Permission denied: '/etc'"
    assert summary.signs["error"][0].text == "PermissionError: [Errno 13] Permission denied: '/etc'"
    assert tripping("all is well") == ""


# ---------------------------------------------------------------- the run before


def changes_of(settings: Mapping[str, Any], keys: Mapping[str, str], kept: Mapping[str, Result]) -> Changes:
    before = Before(
        {"seed": 1, "grader": "x", "only": "", "training": True},
        keys,
        lambda key: kept[key].as_fields() if key in kept else None,
        lambda files, key: files.get("key") == key.encode(),
    )
    return Changes(before, before.settings | settings)


def test_changes_are_told_with_their_reasons() -> None:
    wrong, right = result_of({"2.1a": "wrong", "2.1b": "passed"}), result_of({"2.1a": "passed", "2.2a": "passed"})
    keys = {"a": "a0", "b": "b0", "c": "c0", "d": "d0"}
    changes = changes_of(
        {"seed": 2, "training": False, "grader": "y", "only": "2.1"}, keys, {"a0": wrong, "b0": wrong, "c0": wrong}
    )
    changes.add(0, "a", {}, "a1", right)
    changes.add(1, "b", {"key": b"b0"}, "b1", right)
    changes.add(2, "c", {}, "c1", wrong)
    changes.add(3, "d", {}, "d1", right)
    changes.add(4, "e", {}, "e1", right)
    changes.add(5, "b", {}, "b0", wrong)
    assert [(change.row, change.before, change.after, change.why) for change in changes.changed] == [
        (0, 9, 19, ("new hand-in", "settings")),
        (1, 9, 19, ("settings",)),
    ]
    assert [(check.id, check.before, check.after) for check in changes.changed[0].checks] == [
        ("2.1a/a", "wrong", "passed")
    ]
    assert (changes.same, changes.lost, changes.new) == (2, 1, [4])
    assert changes.other_settings() == [
        "seed: 2, before 1",
        "questions: 2.1, before all",
        "models are no longer trained",
        "the grader, the rubric or the data changed",
    ]


def test_a_new_hand_in_under_the_same_settings() -> None:
    changes = changes_of({}, {"a": "a0"}, {"a0": result_of({"2.1a": "wrong"})})
    changes.add(0, "a", {}, "a1", result_of({"2.1a": "passed"}))
    assert changes.changed[0].why == ("new hand-in",)
    assert changes.other_settings() == []
    page = Page(page_of(summary_of([result_of({"2.1a": "passed"})]), changes))
    assert " ".join(page.text.split()).count("Student 0 0 →to 9 +9, new hand-in 1 check ended otherwise") == 1


# ---------------------------------------------------------------- pictures and the store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(Store(tmp_path / "grades.sqlite")) as opened:
        yield opened


def exhibits() -> dict[str, Exhibits]:
    generator = torch.Generator().manual_seed(0)
    samples = torch.randint(256, (40, 3, 8, 6), generator=generator, dtype=torch.uint8)
    digits = torch.rand(3, 1, 28, 28, generator=generator)
    return {"2.4c/a": Exhibits({"Data, by class": digits, "Samples": samples}), "2.1a/a": Exhibits()}


def test_strips_are_small_and_the_same_every_time() -> None:
    made = strips(exhibits())
    assert [(strip.check, strip.title, strip.count) for strip in made] == [
        ("2.4c/a", "Data, by class", 3),
        ("2.4c/a", "Samples", 8),
    ]
    assert strips(exhibits()) == made
    assert all(strip.png.startswith(b"\x89PNG") for strip in made)
    assert len(made[1].png) < 8 * 8 * 6 + 300  # a byte a pixel, and the palette


def test_small_images_are_shown_larger() -> None:
    assert [size(strip) for strip in strips(exhibits())] == [(3 * 28, 28), (4 * 8 * 6, 4 * 8)]


def test_exhibits_come_back_from_strips() -> None:
    shown = exhibits_of(strips(exhibits()))["2.4c/a"].images
    digits = exhibits()["2.4c/a"].images["Data, by class"]
    assert torch.equal(shown["Data, by class"], (digits.double() * 255).round().byte().expand(3, 3, 28, 28))
    assert shown["Samples"].shape == (8, 3, 8, 6)


def test_pictures_are_kept_beside_a_result(store: Store, tmp_path: Path) -> None:
    kept = strips(exhibits())
    result = result_of({"2.1a": "passed"}).as_fields()
    store.save("a", result | {PICTURES: kept})
    store.save("b", result)
    assert (store.result("a"), store.pictures("a"), store.pictures("b")) == (result, kept, [])
    with closing(Store(tmp_path / "other.sqlite")) as other:
        other.save("b", result | {"seed": 3, PICTURES: kept})
        assert (other.merge(store.path), other.merge(store.path)) == (1, 0)
        assert (other.pictures("a"), other.pictures("b"), other.result("b")) == (kept, kept, result | {"seed": 3})
    store.save("a", {"score": 1, PICTURES: kept[:1]})
    assert store.pictures("a") == kept[:1]
    store.forget(["a"])
    assert (store.result("a"), store.pictures("a")) == (None, [])


def test_a_result_with_pictures_is_shown_while_a_class_is_graded(store: Store) -> None:
    graded = result_of({"2.1a": "passed"}).as_fields() | {PICTURES: strips(exhibits())}
    screen = io.StringIO()
    with live(1, {"s1": "k"}, Console(file=screen)) as tell:
        batch.carry_out(
            batch.Plan({"s1": "k"}, {"k": {}}), Settings(seed=0), store, 1, tell, lambda *_: iter([("k", graded)])
        )
    assert "passed 1" in screen.getvalue()
    assert store.pictures("k") == graded[PICTURES]


def test_pictures_travel_with_a_result(monkeypatch: pytest.MonkeyPatch, solution: Submission) -> None:
    monkeypatch.setattr(work, "_launcher", object())
    for shown, travels in ((exhibits(), strips(exhibits())), ({}, None)):
        result = result_of({"2.4c": "passed"}, exhibits=shown)
        monkeypatch.setattr(grading, "grade", lambda *_, result=result, **__: result)
        fields = work.grade_files(solution.sources, Settings(seed=0))
        assert fields.pop(PICTURES, None) == travels
        assert fields == result.as_fields()


def test_the_run_before_is_one_of_which_results_are_left(store: Store) -> None:
    assert store.run_before() is None
    for run, key in enumerate("abc"):
        store.begin(f'{{"seed": {run}}}', {"s": key})
    store.save("a", {})
    assert store.run_before() == (1, '{"seed": 0}')
    store.save("b", {})
    assert store.run_before() == (2, '{"seed": 1}')


def test_a_class_is_written_with_pictures_and_changes(store: Store, tmp_path: Path) -> None:
    entries = [
        Entry("anna", "Anna", {}, {"loss.py": b"new"}, late=True, attempt=2, notes=["An older one is not counted."]),
        Entry("bo_b", "Bo <b>", {}, {"loss.py": b"same"}),
        Entry("none", "Nobody", error="Nothing was handed in."),
    ]
    old, new = Settings(seed=1), Settings(seed=2)
    wrong, right = (result_of({"2.1a": status, "2.4c": "passed"}).as_fields() for status in ("wrong", "passed"))
    for settings, files, result in ((old, b"old", wrong), (new, b"new", right)):
        keys = {"anna": key_of({"loss.py": files}, settings), "bo_b": key_of(entries[1].files, settings)}
        store.begin(settings.text, keys)
        store.save(keys["anna"], result | {PICTURES: strips(exhibits())})
        store.save(keys["bo_b"], result)
    grades = write_class(entries, keys, store, tmp_path, "ta")
    assert [(grade.score, grade.max_score) for grade in grades] == [(14, 14), (14, 14), (None, 14)]
    page = Page((tmp_path / "index.html").read_text("utf-8"))
    told = " ".join(page.text.split())
    assert "2 students with another result, 0 with the same" in told
    assert "The settings are other: seed: 2, before 1." in told
    assert "Anna 5 →to 14 +9, new hand-in and settings" in told
    assert "Bo <b> 5 →to 14 +9, settings" in told
    assert {"feedback/anna.html", "feedback/bo_b.html"} <= set(page.attributes("href"))
    assert "feedback/none.html" not in page.attributes("href")
    assert page.attributes("src") == [address(strip.png) for strip in strips(exhibits())]  # the data, once, and hers
    shown = Page((tmp_path / "feedback" / "anna.html").read_text("utf-8")).attributes("src")
    assert len(shown) == 3  # of the page of a student: digits in one half, samples in two
    assert (tmp_path / "grades.csv").read_text("utf-8").count("\n") == 4


# ---------------------------------------------------------------- what is hostile


def alike(first: Side, second: Side) -> Similarity:
    pair = Pair("2.1a", 0.97, first, second)
    block = BlockSimilarity("2.1a", 10, (9, *[0] * 18, 1), (pair,))
    return Similarity(
        (block, BlockSimilarity("2.1b", 0, (0,) * 20, ())), (Group((first.student, second.student), (pair,)),)
    )


def everything_of(text: str) -> str:
    """A page with `text` wherever a submission had a hand in it."""
    failed = result_of(
        {"2.1a": "crashed", "2.1b": "wrong"}, hint=text, message=text, notes=[text], output=f"PermissionError {text}"
    )
    summary = ClassSummary()
    summary.add(Entry("s0", text, late=True, attempt=2, members=[text]), failed)
    summary.add(Entry("s1", text, error=text, notes=[text]), None)
    summary.add(Entry("s2", text), result_of({"2.1a": "grader_error"}, message=text))
    changes = changes_of({}, {"s0": "a0"}, {"a0": result_of({"2.1a": "passed"})})
    changes.add(0, "s0", {}, "a1", failed)
    gallery = Gallery(lambda student: strips(exhibits()))
    gallery.add(0, gallery.find("s0"))
    return page_of(summary, changes, alike(Side("s0", text), Side("s1", text)), gallery)


@pytest.mark.parametrize("text", [*HOSTILE, "</script><script>alert(1)</script>", "#s-0' onclick='alert(1)"])
def test_student_text_makes_no_element_and_no_attribute(text: str) -> None:
    hostile, harmless = Page(everything_of(text)), Page(everything_of("harmless"))
    names = [(tag, [name for name, _ in attributes]) for tag, attributes in hostile.elements]
    assert names == [(tag, [name for name, _ in attributes]) for tag, attributes in harmless.elements]
    for (_, found), (_, plain) in zip(hostile.elements, harmless.elements, strict=True):
        changed = {name for (name, value), (_, other) in zip(found, plain, strict=True) if value != other}
        assert changed <= {"aria-label"}
    assert hostile.text.count(printable(text, 300)[:250]) >= 20


def test_the_page_needs_no_network_and_runs_its_own_script_only() -> None:
    page = Page(everything_of("x"))
    policy = next(value for value in page.attributes("content") if value.startswith("default-src 'none'"))
    assert "script-src 'sha256-" in policy
    assert "unsafe-inline" not in policy.partition("script-src")[2]
    assert all(source.startswith("data:image/png;base64,") for source in page.attributes("src"))
    assert all(address.startswith(("#", "feedback/")) for address in page.attributes("href"))
    assert {tag for tag, _ in page.elements}.isdisjoint({"link", "iframe", "object", "base", "form"})
    assert not [name for _, attributes in page.elements for name, _ in attributes if name.startswith("on")]
    templates = Path(__file__).parents[1] / "report" / "templates"
    for name in ("base.css", "class.css", "class.js"):
        text = (templates / name).read_text("utf-8")
        assert not [bad for bad in ("url(", "@import", "fetch(", "innerHTML", "http") if bad in text], name


def test_links_lead_somewhere_and_no_name_is_given_twice() -> None:
    page = Page(everything_of("x"))
    ids = page.attributes("id")
    assert len(set(ids)) == len(ids)
    assert {address[1:] for address in page.attributes("href") if address.startswith("#")} <= set(ids)


def test_a_student_is_found_under_any_name() -> None:
    summary = ClassSummary()
    summary.add(Entry("\u5f20_\u4f1f@x", "\u5f20\u4f1f"), result_of({"2.1a": "passed"}))
    assert "feedback/%E5%BC%A0_%E4%BC%9F%40x.html" in Page(page_of(summary)).attributes("href")


@pytest.mark.parametrize(
    "results", [[], [None], [result_of({})], [result_of({"2.1a": "skipped"})], [result_of({"2.1a": "grader_error"})]]
)
def test_small_classes_have_a_page(results: list[Result | None]) -> None:
    page = Page(page_of(summary_of(results)))
    assert f"{len(results)} student" in page.text


def test_a_histogram_is_told_and_drawn() -> None:
    drawn = bars([1, 0, 2], 'a "b"', (0.5, 1.5, 6), 3.0)
    assert 'aria-label="a &#34;b&#34;"' in drawn
    assert [part.split(" ")[3] for part in drawn.split("<rect")[1:3]] == ['width="9"', 'width="9"']
    assert 'class="half" x="5.00" y="63" width="25.00"' in drawn


def test_the_same_class_gives_the_same_page() -> None:
    assert everything_of("x") == everything_of("x")


# ---------------------------------------------------------------- in a browser

QUESTIONS = [f"{part}.{number}" for part in (1, 2) for number in range(1, 9)]
HINTS = ["The sign of logvar is flipped.", "logvar / 2 stands where the standard deviation belongs.", "", "wide" * 60]


def classroom(count: int) -> tuple[ClassSummary, Gallery]:
    """A class of many kinds: right, wrong, broken, late and absent ones, with pictures."""
    chance, summary, made = random.Random(0), ClassSummary(), strips(exhibits())
    gallery = Gallery(lambda student: made)
    for at in range(count):
        names = chance.choice(
            ["passed", "passed wrong", "passed wrong error not_attempted", "wrong timeout crashed skipped"]
        ).split()
        statuses = {question: chance.choice(names) for question in QUESTIONS}
        result = result_of(
            statuses, chance.choice(HINTS), f"It is {at}, not right.\n  File", notes=["A note."] * (at % 7 == 0)
        )
        entry = Entry(f"s{at}", f"Student {at:03}" + " wide" * 9 * (at % 50 == 3), late=at % 9 == 0, attempt=1 + at % 2)
        absent = at % 25 == 24
        row = summary.add(
            replace(entry, error="Nothing was handed in.") if absent else entry, None if absent else result
        )
        if not absent:
            gallery.add(row.number, made)
    return summary, gallery


def write_classroom(path: Path, count: int) -> Path:
    summary, gallery = classroom(count)
    changes = changes_of(
        {"seed": 2}, {f"s{at}": "a0" for at in range(6)}, {"a0": result_of(dict.fromkeys(QUESTIONS, "wrong"))}
    )
    for at in range(6):
        changes.add(at, f"s{at}", {}, "a1", result_of(dict.fromkeys(QUESTIONS, "passed")))
    code = "        kl_divergence = 0.5 * (mu.pow(2) + logvar.exp() - 1 - logvar).flatten(1).sum(1)\n" * 3
    write(path, summary, changes, alike(Side("s1", code), Side("s2", code)), gallery)
    return path


in_a_browser = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None,
    reason="Chromium is not here: apt-get install chromium chromium-driver, and run this again",
)
SHOWN = "return [...document.querySelectorAll('tbody')].filter(e => e.checkVisibility()).map(e => e.id)"
TYPE = """
const control = document.getElementById(arguments[0]);
control.value = arguments[1];
control.dispatchEvent(new Event(control.tagName === "INPUT" ? "input" : "change", {bubbles: true}));
"""
PRESSED = "[...document.querySelectorAll('thead button')].find(e => e.textContent === arguments[0])"
FOCUSED = """
const on = document.activeElement;
return [on.tagName, on.textContent, getComputedStyle(on).outlineStyle, on.getAttribute("aria-expanded")];
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser for all tests of this file."""
    shown = Browser(tmp_path_factory.mktemp("profile"))
    yield shown
    shown.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a class of 60."""
    return write_classroom(tmp_path_factory.mktemp("class") / "index.html", 60)


def complaints(browser: Browser) -> list[dict[str, Any]]:
    return [entry for entry in browser.console() if entry["level"] in ("SEVERE", "WARNING")]


@in_a_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_it_can_be_read(browser: Browser, page: Path, size: str, scheme: str) -> None:
    browser.console()
    browser.open(page, *SIZES[size], scheme)
    browser.run("for (const name of document.querySelectorAll('button.name')) name.click()")
    seen, poor = browser.run(CONTRAST)  # opens every part of the page
    assert seen > 1000
    assert poor == []
    for widen in ("", WIDE_FONT):
        browser.run(widen)
        assert browser.run("return [document.scrollingElement.scrollWidth, innerWidth]") == [SIZES[size][0]] * 2
        assert browser.run(WIDER, "p, h1, h2, h3, li, dd, summary, figcaption, .more div") == []
    assert complaints(browser) == []


@in_a_browser
def test_it_is_sorted_by_any_column(browser: Browser, page: Path) -> None:
    browser.open(page, *SIZES["laptop"], "light")
    summary, _ = classroom(60)
    press = (
        PRESSED + ".click(); return [...document.querySelectorAll('thead th')].map(e => e.getAttribute('aria-sort'))"
    )
    orders = {
        "Score": lambda row: -1 if row.score is None else row.score,
        "2.3": lambda row: row.cells["2.3"].score if row.cells else -1,
        "Hand-in": lambda row: row.attempt + row.late / 2,
    }
    for column, key in orders.items():
        for told, sign in (("descending", -1), ("ascending", 1)):
            sorts = browser.run(press, column)
            assert [sort for sort in sorts if sort] == [told]
            ids = browser.run(SHOWN)
            values = [sign * key(summary.rows[int(name[2:])]) for name in ids]
            assert len(ids) == 60
            assert values == sorted(values)
    browser.run(press, "Name")
    assert browser.run(SHOWN) == [f"s-{at}" for at in range(60)]
    browser.run(press, "Name")
    assert browser.run(SHOWN) == [f"s-{at}" for at in reversed(range(60))]
    assert complaints(browser) == []


@in_a_browser
def test_it_is_searched_and_filtered(browser: Browser, page: Path) -> None:
    browser.open(page, *SIZES["laptop"], "light")
    rows = classroom(60)[0].rows
    browser.run(TYPE, "search", "02 STUDENT")
    assert browser.run(SHOWN) == ["s-2", *(f"s-{at}" for at in range(20, 30))]
    assert browser.run("return document.getElementById('shown').value") == "11 of 60 students"
    browser.run(TYPE, "search", "not handed in nowhere")
    assert browser.run(SHOWN) == []
    browser.run("document.getElementById('clear').click()")
    assert len(browser.run(SHOWN)) == 60
    browser.run(TYPE, "search", "handed in")
    assert browser.run(SHOWN) == ["s-24", "s-49"]
    browser.run(TYPE, "search", "")
    browser.run(TYPE, "question", "1.4")
    browser.run(TYPE, "status", "crashed")
    assert browser.run(SHOWN) == [
        f"s-{row.number}" for row in rows if row.cells and row.cells["1.4"].status == "crashed"
    ]
    browser.run(TYPE, "status", "not passed")
    assert browser.run(SHOWN) == [
        f"s-{row.number}" for row in rows if row.cells and row.cells["1.4"].status != "passed"
    ]
    browser.run("document.getElementById('clear').click()")
    browser.run(TYPE, "flag", "late")
    assert browser.run(SHOWN) == [f"s-{at}" for at in range(0, 60, 9)]
    assert complaints(browser) == []


@in_a_browser
def test_a_student_is_opened_by_keyboard(browser: Browser, page: Path) -> None:
    browser.open(page, *SIZES["laptop"], "light")
    assert browser.run("return [...document.querySelectorAll('.more')].filter(e => e.checkVisibility()).length") == 0
    browser.run("document.querySelector('thead th:last-child button').focus()")
    browser.press(TAB)
    assert browser.run(FOCUSED) == ["BUTTON", "Student 000", "solid", "false"]
    browser.press(ENTER)
    assert browser.run(FOCUSED)[3] == "true"
    assert browser.run("return document.getElementById('m-0').checkVisibility()")
    browser.press(TAB)
    assert browser.run("return document.activeElement.getAttribute('href')") == "feedback/s0.html"
    browser.run("document.querySelector('thead th:first-child button').focus()")
    browser.press(ENTER)
    assert browser.run("return document.querySelector('thead th').getAttribute('aria-sort')") == "ascending"
    assert complaints(browser) == []


@in_a_browser
def test_a_link_finds_a_student_that_the_search_hides(browser: Browser, page: Path) -> None:
    browser.open(page, *SIZES["phone"], "dark")
    browser.run(TYPE, "search", "nobody at all")
    assert browser.run(SHOWN) == []
    browser.run("document.querySelector('.reasons a[href=\"#s-11\"]').click()")
    assert len(browser.run(SHOWN)) == 60
    assert browser.run(FOCUSED)[1::2] == ["Student 011", "true"]
    top, height = browser.run("return [document.getElementById('s-11').getBoundingClientRect().top, innerHeight]")
    assert 0 <= top < height


@in_a_browser
def test_without_its_script_it_shows_everything(browser: Browser, page: Path, tmp_path: Path) -> None:
    silent = tmp_path / "index.html"
    silent.write_text(re.sub("<script>.*?</script>", "", page.read_text("utf-8"), flags=re.DOTALL), "utf-8")
    browser.open(silent, *SIZES["laptop"], "light")
    shown = "return [...document.querySelectorAll(arguments[0])].filter(e => e.checkVisibility()).length"
    assert [browser.run(shown, place) for place in ("tbody", ".more", ".controls", "button")] == [60, 60, 0, 0]


@in_a_browser
def test_hostile_text_runs_nothing(browser: Browser, tmp_path: Path) -> None:
    browser.console()
    for at, text in enumerate([*HOSTILE, "</script><script>document.title = 'pwned'</script>"]):
        path = tmp_path / f"{at}.html"
        path.write_text(everything_of(text), "utf-8")
        browser.open(path, *SIZES["laptop"], "light")
        assert browser.run("return [document.title, document.querySelectorAll('script').length]") == [
            "Grades of 3 students",
            2,
        ]
    assert complaints(browser) == []


@in_a_browser
def test_five_hundred_students_are_shown(browser: Browser, tmp_path: Path) -> None:
    path = write_classroom(tmp_path / "index.html", 500)
    browser.open(path, *SIZES["laptop"], "light")
    assert len(browser.run(SHOWN)) == 500
    assert complaints(browser) == []
