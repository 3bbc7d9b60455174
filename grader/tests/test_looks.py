"""What a file looks like is not a mistake: right code earns its points however it is laid out, named and encoded.

Each row changes a file of the solution and says which notes there must be. Rows are graded together, each on a file of
its own and by a question of that file.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from grader import blocks
from grader.assignment import SOLUTION, pristine, student_files
from grader.batch.archives import folder_members
from grader.batch.intake import read_hand_in
from grader.submission import Submission, SubmissionError, from_files, read

from .conftest import EXACT, Graded
from .test_intake import on_disk, zipped

RULER = "#" * 72
SOLVED = {name: (SOLUTION / name).read_text("utf-8") for name in student_files()}
CODE = {name: text.encode() for name, text in SOLVED.items()}
GIVEN = {name: text.encode() for name, text in pristine().items()}
QUESTION = {  # the one with the fewest checks of each file
    file: min((q for q in EXACT if q.file == file), key=lambda question: len(question.checks)).id for file in SOLVED
}


def in_blocks(change: Callable[[str, str], str]) -> Callable[[str, str], str]:
    """A change of the lines of every block, given with the name of the block."""

    def changed(text: str, file: str) -> str:
        for name, block in blocks.parse(text).items():
            text = blocks.fill(text, name, change(blocks.parse(text)[name].body, name))
        return text

    return changed


def around_blocks(change: Callable[[list[str]], list[str]]) -> Callable[[str, str], str]:
    """A change of the lines of every block, rulers and all."""

    def changed(text: str, file: str) -> str:
        lines = text.split("\n")
        for block in reversed(blocks.parse(text).values()):
            first = max(at for at in range(block.start) if "Your code here" in lines[at])
            lines[first : block.end + 1] = change(lines[first : block.end + 1])
        return "\n".join(lines)

    return changed


def formatted(text: str, file: str, width: int) -> str:
    """A file as Black, Ruff and others lay it out."""
    command = [sys.executable, "-m", "ruff", "format", "--isolated", "--line-length", str(width), "-"]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout


def without(pattern: str) -> Callable[[str, str], str]:
    return lambda text, file: "\n".join(line for line in text.split("\n") if not re.search(pattern, line))


def indent_of(body: str) -> str:
    return body[: len(body) - len(body.lstrip())]


def first_line(text: str, needle: str) -> int:
    return next(at for at, line in enumerate(text.split("\n"), 1) if needle in line)


def placeholder(name: str) -> str:
    return f'raise NotImplementedError("{name}")'


def left(text: str, file: str) -> list[str]:
    """The notes on placeholders that were left in all blocks."""
    return [
        f"{file}: delete the line that raises in block {name}, line {first_line(text, placeholder(name))}; it was left out here."
        for name in blocks.parse(SOLVED[file])
    ]


def twice(text: str, file: str) -> list[str]:
    found = blocks.parse(text)
    return [
        f"{file}: block {name} is there twice; lines {block.start + 1} to {block.end} count."
        for name, block in found.items()
    ]


def nothing(text: str, file: str) -> list[str]:
    return []


def said(*sentences: str) -> Callable[[str, str], list[str]]:
    return lambda text, file: [f"{file}{sentence}" for sentence in sentences]


@dataclass(frozen=True)
class Look:
    """A change of a file, the notes that there must be, and how the text becomes bytes."""

    change: Callable[[str, str], str]
    notes: Callable[[str, str], list[str]] = nothing
    encode: Callable[[str], bytes] = str.encode


def same(text: str, file: str) -> str:
    return text


def heading(line: str) -> Callable[[str, str], str]:
    return lambda text, file: f"{line}\n{text}"


def read_as(name: str) -> Callable[[str, str], list[str]]:
    return said(f" is not UTF-8; it was read as {name}. Save it as UTF-8 in your editor.")


LOOKS = {
    "as it is": Look(same),
    "rulers in blocks": Look(in_blocks(lambda body, name: f"{indent_of(body)}{'#' * 20}\n{body}\n{indent_of(body)}{RULER}")),
    "banners in blocks": Look(in_blocks(lambda body, name: f"{indent_of(body)}{'#' * 30} mine {'#' * 30}\n{indent_of(body)}{'#' * 25}\n{body}")),
    "a ruler before each line": Look(in_blocks(lambda body, name: re.sub(r"(?m)^( *)(?=(?:[\w.]+ = (?!.*[(\[]$)|return |for ))", rf"\1{RULER}\n\1", body))),
    "TODO deleted": Look(without(r"^ *# TODO\(")),
    "TODO done": Look(lambda text, file: re.sub(r"TODO\(\S+\)", "DONE", text)),
    "TODO of another number": Look(lambda text, file: text.replace("TODO(1.", "TODO(4.").replace("TODO(2.", "TODO(1.")),
    "rulers with spaces": Look(lambda text, file: re.sub(r"(?m)(#{20,})$", r"\1  \t", text)),
    "rulers shortened": Look(lambda text, file: text.replace(RULER, "#" * 9)),
    "rulers at the margin": Look(lambda text, file: re.sub(rf"(?m)^ +(?={RULER}|#+ Your code)", "", text)),
    "rulers further in": Look(lambda text, file: re.sub(rf"(?m)^ +(?={RULER}|#+ Your code)", " " * 17, text)),
    "first rulers edited": Look(lambda text, file: text.replace("Your code here", "my code, done")),
    "first rulers deleted": Look(without("Your code here")),
    "second rulers deleted": Look(around_blocks(lambda lines: [*lines[: lines.index(lines[-1])], *lines[lines.index(lines[-1]) + 1 :]])),
    "last rulers deleted": Look(around_blocks(lambda lines: lines[:-1])),
    "all rulers deleted": Look(without("#{20,}")),
    "all comments deleted": Look(without("^ *#")),
    "blocks twice": Look(around_blocks(lambda lines: lines + lines), twice),
    "a copy that is not filled": Look(around_blocks(lambda lines: [*lines, *lines[: lines.index(lines[-1]) + 1], f"{indent_of(lines[0])}raise NotImplementedError", lines[-1]]), twice),
    "placeholders below": Look(in_blocks(lambda body, name: f"{body}\n{indent_of(body)}{placeholder(name)}"), left),
    "placeholders above": Look(in_blocks(lambda body, name: f"{indent_of(body)}{placeholder(name)}  # later\n{body}"), left),
    "pass above": Look(in_blocks(lambda body, name: f"{indent_of(body)}pass\n{indent_of(body)}...\n{body}")),
    "a byte order mark": Look(same, encode=lambda text: b"\xef\xbb\xbf" + text.encode()),
    "CRLF": Look(lambda text, file: text.replace("\n", "\r\n")),
    "CR": Look(lambda text, file: text.replace("\n", "\r")),
    "form feeds": Look(lambda text, file: text.replace("\n\n\n", "\n\f\n\f\n")),
    "tabs": Look(lambda text, file: re.sub(r"(?m)^(?: {4})+", lambda found: "\t" * (len(found[0]) // 4), text)),
    "laid out in 60 columns": Look(lambda text, file: formatted(text, file, 60)),
    "laid out in 88 columns": Look(lambda text, file: formatted(text, file, 88)),
    "laid out in 300 columns": Look(lambda text, file: formatted(text, file, 300)),
    "no blank lines": Look(lambda text, file: re.sub(r"\n{2,}", "\n", text)),
    "single quotes": Look(lambda text, file: re.sub(r'(?<!")"([\w ]*)"(?!")', r"'\1'", text)),
    "docstrings deleted": Look(lambda text, file: re.sub(r'(?s)(:\n +)"""(?:(?!""").)*"""\n(?= +\S)', r"\1\n", text)),
    "declared as GBK": Look(heading("# -*- coding: gbk -*- 损失函数"), encode=lambda text: text.encode("gbk")),
    "declared as Latin-1": Look(heading("# vim: set fileencoding=latin-1 : größe"), encode=lambda text: text.encode("latin-1")),
    "GBK": Look(heading("# 先计算每张图片的损失，然后求平均"), read_as("GBK"), lambda text: text.encode("gbk")),
    "a little GBK": Look(heading("# 你好"), read_as("GBK"), lambda text: text.encode("gbk")),
    "Latin-1": Look(heading("# für jedes Bild, déjà vu"), read_as("Windows-1252 (Latin-1)"), lambda text: text.encode("latin-1")),
    "Windows-1252": Look(heading("# the “sum” – of all"), read_as("Windows-1252 (Latin-1)"), lambda text: text.encode("cp1252")),
    "Shift-JIS": Look(heading("# 損失を計算する"), read_as("Shift-JIS"), lambda text: text.encode("shift_jis")),
    "UTF-16": Look(same, read_as("UTF-16"), lambda text: text.encode("utf-16")),
    "UTF-16 without a mark": Look(same, read_as("UTF-16"), lambda text: text.encode("utf-16-le")),
    "written by a notebook": Look(heading("%%writefile mine.py"), said(": `%%writefile mine.py` is a command of a notebook, not Python (line 1); delete the line.")),
    "cells of a notebook": Look(
        lambda text, file: f"!pip install 'einops'\n# In[1]:\nget_ipython().run_line_magic(\n    'matplotlib', 'inline')\n{text}\nif 1:\n    %time 1 + 1\n",
        lambda text, file: [
            f"{file}: `!pip install 'einops'`, `get_ipython().run_line_magic(`, `%time 1 + 1` are commands of a notebook, not Python "
            f"(lines 1, 3 and {first_line(text, '%time')}); delete the lines.",
            f"{file}: outside the blocks, code outside functions and classes was {'changed' if re.search('^[A-Z]', text, re.M) else 'added'}; the file was graded as it is.",
        ],
    ),
    "code that runs as a script": Look(lambda text, file: f'{text}\nif __name__ == "__main__":\n    print(1 / 0)\n'),
    "no line end at the end": Look(lambda text, file: text.rstrip("\n")),
}  # fmt: skip


def made(rows: Mapping[str, str]) -> tuple[dict[str, bytes], list[str]]:
    """The files with a row for some of them, and the notes there must be."""
    files, notes = dict(CODE), list[str]()
    for file, row in rows.items():
        look = LOOKS[row]
        text = look.change(SOLVED[file], file)
        files[file] = look.encode(text)
        notes += look.notes(text, file)
    return files, notes


@pytest.mark.parametrize("file", SOLVED)
@pytest.mark.parametrize("row", LOOKS)
def test_notes_say_what_is_true_and_nothing_else(row: str, file: str) -> None:
    files, notes = made({file: row})
    submission = from_files("anna", files)
    assert submission.notes == notes
    assert not submission.absent
    assert all(block.attempted for block in submission.blocks(file).values())
    assert submission.blocks(file).keys() == blocks.parse(SOLVED[file]).keys()


ROUNDS = [list(LOOKS)[at :: -(-len(LOOKS) // len(SOLVED))] for at in range(-(-len(LOOKS) // len(SOLVED)))]


@pytest.mark.parametrize("rows", ROUNDS, ids=lambda rows: rows[0])
def test_right_code_earns_its_points_whatever_it_looks_like(rows: list[str], graded: Graded) -> None:
    files, notes = made(dict(zip(SOLVED, rows, strict=False)))
    result = graded(from_files("anna", files), *QUESTION.values())
    assert {
        q.id: [c.message for c in q.checks if c.status != "passed"] for q in result.questions if q.score < q.max_score
    } == {}
    assert sorted(result.notes) == sorted(notes)
