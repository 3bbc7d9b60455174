"""Grades go back into the very file that a system gave: nothing else of it changes, and nobody's row is guessed."""

from __future__ import annotations

import csv
import io
import random
from pathlib import Path

import pytest

from grader.report.entry import Entry, Grade
from grader.report.gradebook import (
    GradebookError,
    as_html,
    defused,
    fill_canvas,
    fill_gradescope,
    fill_moodle,
    write_grades,
)

CANVAS = (
    "\ufeffStudent,ID,SIS User ID,SIS Login ID,Section,HW1 (11),HW2 (12),Current Score\r\n"
    ",,,,,Manual Posting,,(read only)\r\n"
    "    Points Possible,,,,,10.0,100.0,(read only)\r\n"
    '"Li, Hua",501,s1,hua,"Monday, ""early""",3.5,{hua},88.1\r\n'
    "\"=cmd|'/c calc'!A1, 李\",502,s2,ming,Tuesday,,{ming},\r\n"
    '"O\'Neil, ""Bo""\nthe second",503,s3,bo@example.org,Tuesday,N/A,{bo},1e3\r\n'
    '"Student, Test",504,,0f3a,Monday,,{test},0\r\n'
)
MOODLE = (
    'Identifier,"Full name","ID number","Email address",Status,Grade,"Maximum Grade","Grade can be changed",'
    '"Last modified (submission)","Last modified (grade)","Feedback comments"\n'
    '"Participant 71","王 小明",=1+1,ming@example.org,"Submitted for grading, late",{ming},100.00,Yes,'
    '"Sunday, 3 May 2026, 10:04 PM",-,{ming_says}\n'
    '"Participant 7","王 小明",1002,ming2@example.org,"No submission",{other},100.00,Yes,-,-,{other_says}\n'
)
GRADESCOPE = (
    "First Name,Last Name,SID,Email,Sections,Total Score,Max Points,Status,Submission ID,Submission Time,"
    "Lateness (H:M:S),View Count,Submission Count\n"
    "小明,王,1001,Ming@Example.org,,{ming},100.0,Graded,99,2026-05-03 22:04:00 -0700,00:00:00,2,3\n"
    "+Jo,\"Ng, Jr.\",,jo@example.org,,{jo},100.0,Missing,,,,,\n"
)  # fmt: skip


def grade(student: str, score: float | None = 87.5, feedback: str = "Well done.", **keys: str) -> Grade:
    return Grade(Entry(student, "Li Hua", keys), score, 100, feedback)


def save(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def empty(template: str, **cells: str) -> str:
    """A file as the system gives it, with some cells filled and the others empty."""
    names = ("hua", "ming", "bo", "test", "ming_says", "other", "other_says", "jo")
    return template.format(**(dict.fromkeys(names, "") | cells))


# ---------------------------------------------------------------- Canvas


def test_canvas_gets_its_own_file_back_with_grades(tmp_path: Path) -> None:
    gradebook = save(tmp_path / "g.csv", empty(CANVAS, hua="1", test="2"))
    grades = [
        grade("hua", 90, canvas_id="501"),
        grade("ming", 66.666, sis_id="S2"),
        grade("bo", 0, email="bo@example.org"),
    ]
    filled = fill_canvas(gradebook, grades, "HW2")
    assert filled.text == empty(CANVAS, hua="90", ming="66.67", bo="0", test="2")
    assert (filled.matched, filled.unmatched, filled.notes) == (["hua", "ming", "bo"], {}, [])
    filled.write(gradebook)
    assert gradebook.read_bytes() == filled.text.encode()
    assert fill_canvas(gradebook, grades, "HW2 (12)").text == filled.text


def test_canvas_without_grades_is_the_same_file(tmp_path: Path) -> None:
    text = empty(CANVAS, hua="1")
    assert fill_canvas(save(tmp_path / "g.csv", text), [], "HW2").text == text


@pytest.mark.parametrize(
    ("assignment", "says"),
    [
        (None, "The gradebook has several assignments; say which of HW1 (11), HW2 (12)."),
        ("HW3", "The gradebook has no assignment called HW3; there are HW1 (11), HW2 (12)."),
    ],
)
def test_the_assignment_of_canvas_is_never_guessed(tmp_path: Path, assignment: str | None, says: str) -> None:
    with pytest.raises(GradebookError) as caught:
        fill_canvas(save(tmp_path / "g.csv", empty(CANVAS)), [], assignment)
    assert str(caught.value) == says


def test_the_only_assignment_of_canvas_needs_no_name(tmp_path: Path) -> None:
    text = "Student;ID;HW, 2 (3);Final Score\n    Points Possible;;10;\nA;5;{};\n"
    filled = fill_canvas(save(tmp_path / "g.csv", text.format("")), [grade("a", canvas_id="5")])
    assert filled.text == text.format("87.5")
    assert filled.notes == ["The file has 10 points for what is graded here with 100."]
    with pytest.raises(GradebookError, match="has no assignment, a column like"):
        fill_canvas(save(tmp_path / "g.csv", "Student,ID\n"), [])
    twice = save(tmp_path / "g.csv", "Student,ID,HW (3),HW (4)\n")
    with pytest.raises(GradebookError, match=r"has several assignments called HW; there are HW \(3\), HW \(4\)"):
        fill_canvas(twice, [], "HW")


def test_what_canvas_says_in_place_of_a_grade_stays(tmp_path: Path) -> None:
    text = empty(CANVAS, hua="EX", ming="N/A")
    filled = fill_canvas(
        save(tmp_path / "g.csv", text), [grade("hua", sis_id="s1"), grade("ming", login="ming")], "HW2"
    )
    assert filled.text == text
    assert filled.unmatched == {
        "hua": "The file says EX in place of a grade.",
        "ming": "The file says N/A in place of a grade.",
    }


# ---------------------------------------------------------------- who is who


def test_nobody_is_found_by_name_and_nobody_is_guessed(tmp_path: Path) -> None:
    text = empty(CANVAS)
    grades = [
        grade("named"),
        grade("stranger", canvas_id="999", email="x@example.org"),
        grade("torn", canvas_id="501", login="ming"),
        grade("one", canvas_id="503"),
        grade("two", login="BO@example.org"),
        grade("broken", None, canvas_id="504"),
    ]
    filled = fill_canvas(save(tmp_path / "g.csv", text), grades, "HW2")
    assert filled.text == text
    assert filled.matched == []
    assert filled.unmatched == {
        "named": "No row is theirs: no ID or SIS User ID or SIS Login ID is known of them.",
        "stranger": "No row is theirs: 999, x@example.org.",
        "torn": "Rows 4 and 5 could both be theirs.",
        "one": "Row 6 could belong to one and two.",
        "two": "Row 6 could belong to one and two.",
        "broken": "Nothing was graded: nothing was handed in.",
    }


def test_empty_keys_match_nothing_and_a_key_in_two_rows_is_ambiguous(tmp_path: Path) -> None:
    text = "Student,ID,SIS User ID,HW (1)\nA,1,,\nB,2,same,\nC,3,same,\n"
    filled = fill_canvas(save(tmp_path / "g.csv", text), [grade("a", sis_id=" "), grade("b", sis_id="same")])
    assert filled.text == text
    assert filled.unmatched["a"].startswith("No row is theirs")
    assert filled.unmatched["b"] == "Rows 3 and 4 could both be theirs."


# ---------------------------------------------------------------- Moodle and Gradescope


def test_moodle_gets_grade_and_feedback_and_nothing_else(tmp_path: Path) -> None:
    worksheet = save(tmp_path / "w.csv", empty(MOODLE))
    says = '=Sum: 3, "fine"\r\nC:\\ <script>好</script>'
    filled = fill_moodle(worksheet, [grade("ming", 87.5, says, moodle_id="71")])
    html = '"\'=Sum: 3, &quot;fine&quot;<br>C:&#92; &lt;script&gt;好&lt;/script&gt;"'
    assert defused(as_html(says)) == html.strip('"')
    assert filled.text == empty(MOODLE, ming="87.5", ming_says=html)
    assert (filled.matched, filled.unmatched, filled.notes) == (["ming"], {}, [])
    assert fill_moodle(save(worksheet, filled.text), [grade("ming", 87.5, says, moodle_id="71")]).text == filled.text


def test_gradescope_gets_scores(tmp_path: Path) -> None:
    table = save(tmp_path / "t.csv", empty(GRADESCOPE, ming="3.0"))
    filled = fill_gradescope(table, [grade("ming", 100, email="ming@example.org", sid="1001"), grade("x", sid="")])
    assert filled.text == empty(GRADESCOPE, ming="100")
    assert (filled.matched, list(filled.unmatched)) == (["ming"], ["x"])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"name,points\nA,3\n", "g.csv is not a grading worksheet of Moodle: it needs the columns one of Identifier, "),
        (
            b"Identifier,Gr\xe4de\n",
            "g.csv cannot be read: it is not in UTF-8. Give a grading worksheet of Moodle, as it",
        ),
        (b'Identifier,Grade\n"Participant 1,\n', "g.csv: a quote in row 2 is never closed. Download the file again."),
        (None, "g.csv cannot be read: No such file or directory. Give a grading worksheet of Moodle"),
    ],
)
def test_a_file_that_is_none_of_the_systems_is_a_sentence(tmp_path: Path, content: bytes | None, says: str) -> None:
    path = tmp_path / "g.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(GradebookError) as caught:
        fill_moodle(path, [])
    assert str(caught.value).startswith(f"{tmp_path}/{says}")


def test_a_row_that_is_cut_short_is_left_alone(tmp_path: Path) -> None:
    text = "Identifier,Grade,Feedback comments\nParticipant 1,\n"
    filled = fill_moodle(save(tmp_path / "w.csv", text), [grade("a", moodle_id="1")])
    assert (filled.text, filled.unmatched) == (text, {"a": "Row 2 ends before the column of the grade."})


# ---------------------------------------------------------------- any file


def random_cell(draw: random.Random, delimiter: str, quote_all: bool) -> str:
    """A cell as some system might write it, quotes and all."""
    value = "".join(
        draw.choices(["a", "李", "=", "+", "@", ",", ";", "\t", '"', "\n", "\r\n", " ", "\\", "0"], k=draw.randrange(6))
    )
    needed = quote_all or draw.random() < 0.3 or set(value) & {delimiter, '"', "\r", "\n"}
    return '"' + value.replace('"', '""') + '"' if needed else value


def test_any_file_comes_back_byte_for_byte_but_for_our_cells(tmp_path: Path) -> None:
    for seed in range(300):
        draw = random.Random(seed)
        delimiter, newline, mark = draw.choice(",;\t"), draw.choice(["\n", "\r\n"]), draw.choice(["", "\ufeff"])
        quote_all, width, end = draw.random() < 0.3, draw.randrange(5), draw.choice(["", newline])
        quote, at = '"' * quote_all, draw.randrange(width + 1)
        scores = {str(n): draw.choice([0, 12, 99.5]) for n in range(1, 6)}
        lines = []
        for key, score in [("ID", "HW (1)"), *((n, f"<{n}>") for n in scores)]:
            cells = [random_cell(draw, delimiter, quote_all) for _ in range(width)]
            cells[at:at] = [f"{quote}{key}{quote}", f"{quote}{score}{quote}"]
            lines.append(delimiter.join(cells))
        before = after = mark + newline.join(lines) + end
        for n, score in scores.items():
            before, after = before.replace(f"<{n}>", ""), after.replace(f"<{n}>", str(score))
        grades = [grade(n, score, canvas_id=n) for n, score in scores.items()]
        assert (seed, fill_canvas(save(tmp_path / "g.csv", before), grades, "HW").text) == (seed, after)


# ---------------------------------------------------------------- grades.csv


def test_grades_are_read_back_as_they_were(tmp_path: Path) -> None:
    hostile = Entry(
        "li", '=HYPERLINK("http://x", "李, 小\n明")', late=True, attempt=3, notes=["Two, and", 'a "third".']
    )
    broken = Entry("-bo", "\udcff", error="+ no archive")
    write_grades(
        tmp_path / "grades.csv",
        [Grade(hostile, 66.666, 100, ""), Grade(broken, None, 100, "")],
        ["2.1a", "2.1b"],
        {"li": {"2.1a": 9.0, "2.1b": 0.5}},
    )
    text = (tmp_path / "grades.csv").read_bytes().decode()
    assert list(csv.reader(io.StringIO(text, newline=""))) == [
        ["student", "name", "score", "max_score", "late", "attempt", "error", "notes", "2.1a", "2.1b"],
        [
            "li",
            '\'=HYPERLINK("http://x", "李, 小\n明")',
            "66.67",
            "100",
            "yes",
            "3",
            "",
            'Two, and a "third".',
            "9",
            "0.5",
        ],
        ["'-bo", "?", "", "100", "no", "1", "'+ no archive", "", "", ""],
    ]


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20"])
def test_formulas_are_defused(start: str) -> None:
    assert defused(f"{start}1") == f"'{start}1"
    assert defused(f"1{start}") == f"1{start}"
    assert defused("") == ""
