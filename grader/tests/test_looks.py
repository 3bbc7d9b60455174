"""What a file looks like is not a mistake: right code earns its points however it is laid out, named and encoded.

Each row changes a file of the solution and says which notes there must be. Rows are graded together, each on a file of
its own and by a question of that file.
"""

from __future__ import annotations

import io
import os
import re
import struct
import subprocess
import sys
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from grader import blocks
from grader.assignment import SOLUTION, pristine, student_files
from grader.batch.archives import Budget, archive_members, folder_members
from grader.batch.intake import read_hand_in
from grader.submission import from_files, read

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
        for name in blocks.parse(text):
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
    "GBK": Look(heading("# 先计算每张图片的损失然后求平均"), read_as("GBK"), lambda text: text.encode("gbk")),
    "a little GBK": Look(heading("# 你好"), read_as("GBK"), lambda text: text.encode("gbk")),
    "Latin-1": Look(heading("# für jedes Bild, déjà vu"), read_as("Windows-1252 (Latin-1)"), lambda text: text.encode("latin-1")),
    "Windows-1252": Look(heading("# the “sum” of all…"), read_as("Windows-1252 (Latin-1)"), lambda text: text.encode("cp1252")),
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


# ---------------------------------------------------------------- where files are, and what they are called


OLDER = {name: data + b"\n# an older answer\n" for name, data in CODE.items()}
RELEASE = {f"grader/pristine/{name}": data for name, data in GIVEN.items()} | {
    "grader/rubric.toml": b"",
    "grader/cli.py": b"",
    "data/glyphs.py": b"",
}


def below(folder: str, files: Mapping[str, bytes]) -> dict[str, bytes]:
    return {f"{folder}/{name}": data for name, data in files.items()}


def named(**names: str) -> dict[str, bytes]:
    """The solution with files under other names."""
    return {names.get(name.removesuffix(".py"), name): data for name, data in CODE.items()}


def but(*names: str) -> dict[str, bytes]:
    return {name: data for name, data in CODE.items() if name not in names}


NEWER = ["loss.py", "model.py"]
PLACES: dict[str, tuple[dict[str, bytes], set[str], list[str]]] = {  # files, the newer of them, notes
    "a handout as given out beside it": (below("hw/handout", GIVEN) | below("hw/my_solution", CODE), set(), []),
    "a release worked in its handout": (below("hw", RELEASE | below("handout", CODE)), set(), []),
    "a release worked at its top": (RELEASE | below("handout", GIVEN) | CODE, set(), []),
    "a release worked in my_work": (below("hw", RELEASE | below("handout", GIVEN) | below("my_work", CODE)), set(), []),
    "two newer files at the top": (
        below("hw/handout", CODE | {name: OLDER[name] for name in NEWER}) | below("hw", {name: CODE[name] for name in NEWER}),
        {f"hw/{name}" for name in NEWER},
        [
            "Left out, though blocks are filled in: hw/handout/loss.py and hw/handout/model.py; hw/loss.py and hw/model.py, which are newer, count instead.",
            "loss.py was taken from hw.",
            "model.py was taken from hw.",
        ],
    ),
    "another name": (named(loss="loss (1).py", model="Model.py"), set(), ["Model.py was taken for model.py.", "loss (1).py was taken for loss.py."]),
    "a suffix": (named(loss="loss.py.txt"), set(), ["loss.py.txt was taken for loss.py."]),
    "a hyphen": (named(loss="loss-1.py"), set(), ["loss-1.py was taken for loss.py."]),
    "final": (named(loss="my_loss_final.py"), set(), ["my_loss_final.py was taken for loss.py."]),
    "a copy": (named(loss="loss copy.py"), set(), ["loss copy.py was taken for loss.py."]),
    "full-width letters": (named(loss="\uff4c\uff4f\uff53\uff53.py"), set(), ["\uff4c\uff4f\uff53\uff53.py was taken for loss.py."]),
    "an invisible letter": (named(loss="lo\u200bss.py"), set(), ["lo\\u200bss.py was taken for loss.py."]),
    "a copy of an untouched file": (CODE | {"loss.py": GIVEN["loss.py"], "loss (1).py": CODE["loss.py"]}, set(), ["loss (1).py was taken for loss.py."]),
    "hidden and installed folders": (
        CODE | {"venv/pyvenv.cfg": b"", "venv/lib/a.py": b"", ".venv/b.py": b"", ".git/c.py": b"", "node_modules/d.py": b"", ".ipynb_checkpoints/loss.py": OLDER["loss.py"]},
        set(),
        [],
    ),
    "a module in a folder": (CODE | {"utils/helpers.py": b"x = 1\n"}, set(), ["Left out: utils/helpers.py."]),
}  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("packed", [False, True])
def test_files_are_found_wherever_they_are(tmp_path: Path, place: str, packed: bool) -> None:
    files, newer, notes = PLACES[place]
    folder = on_disk(tmp_path / "anna", files)
    for path in files:
        os.utime(folder / path, (1e9, 1e9 + 1e6 * (path in newer)))
    if packed and not newer:
        taken = read_hand_in(folder_members(on_disk(tmp_path / "class", {"anna.zip": zipped(files)}))[0])
        notes = [
            re.sub(r"((?:from|out:) )(?=\w)|^(?=[\w ().\\-]+ was taken for)", r"\1anna.zip/", note) for note in notes
        ]
    else:
        taken = read_hand_in(folder_members(folder)[0])
        submission = read(folder)
        assert {name: submission.sources[name] for name in CODE} == CODE
        assert submission.notes == notes
    assert {name: taken.files[name] for name in CODE} == CODE
    assert [note for note in taken.notes if not note.startswith("Left out: ") or note in notes] == notes


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (but("loss.py"), "loss.py is missing."),
        (
            but("loss.py") | {"loss_a.py": CODE["loss.py"], "loss_b.py": OLDER["loss.py"]},
            "loss.py is missing; loss_a.py and loss_b.py look like it. Hand in one of them as loss.py.",
        ),
        (
            but("loss.py") | {"loss2.py": b"x = 1\n"},
            "loss.py is missing; loss2.py looks like it. Hand it in as loss.py.",
        ),
        (CODE | {"loss.py": b"\x00\x01\x02"}, "loss.py is not a text file: it has null bytes. Save it again in your editor as UTF-8."),
        (
            CODE | {"loss.py": "# 손실 함수를 계산한다".encode("euc_kr")},
            "loss.py is not UTF-8, but probably GBK or EUC-KR. Open it in your editor as GBK or EUC-KR, save it as UTF-8 and hand it in again.",
        ),
        (CODE | {"loss.py": b"# \x81\xff\x98"}, "loss.py is not UTF-8. Open it in your editor, save it as UTF-8 and hand it in again."),
        (CODE | {"loss.py": b"\xff\xfe\x00"}, "loss.py begins like UTF-16 and is damaged. Open it in your editor as UTF-16, save it as UTF-8 and hand it in again."),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_used_is_one_sentence(files: dict[str, bytes], says: str, graded: Graded) -> None:
    submission = from_files("anna", files)
    assert submission.notes == [says]
    [result] = graded(submission, "2.2b").questions
    assert {(check.status, check.message) for check in result.checks} == {("error", says)}


def test_filled_blocks_that_do_not_count_are_said_first(tmp_path: Path) -> None:
    folder = on_disk(tmp_path, CODE | {"loss copy.py": OLDER["loss.py"]} | below("old", OLDER) | {"utils/a.py": b""})
    for path in folder.rglob("*.py"):
        os.utime(path, (1e9, 1e9))
    for notes in (read(folder).notes, read_hand_in(folder_members(folder)[0]).notes):
        assert notes[0].startswith(
            "Left out, though blocks are filled in: old/average.py, old/diffusion.py, old/enhanced.py, "
        )
        assert "loss copy.py" in notes[0] or " more" in notes[0]


def zip_of(info: zipfile.ZipInfo) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(info, b"")
    return out.getvalue()


def test_names_that_zips_spell_in_an_extra_field() -> None:
    for name, codec in (("김철수", "cp949"), ("Jörg Müller", "cp1252"), ("ガ", "shift_jis"), ("e\u0301", "cp1252")):
        raw = name.encode(codec, "replace")
        field = b"\x01" + struct.pack("<I", zlib.crc32(raw + b"/loss.py")) + f"{name}/loss.py".encode()
        info = zipfile.ZipInfo("#" * len(raw) + "/loss.py")
        info.extra = struct.pack("<HH", 0x7075, len(field)) + field
        data = zip_of(info).replace(b"#" * len(raw), raw)
        assert [member.path for member in archive_members(io.BytesIO(data), "a.zip", Budget())] == [
            unicodedata.normalize("NFC", f"{name}/loss.py")
        ]
        wrong = zip_of(info).replace(b"#" * len(raw), b"x" * len(raw))  # a field that an older program left as it was
        assert [member.path for member in archive_members(io.BytesIO(wrong), "a.zip", Budget())] == [
            "x" * len(raw) + "/loss.py"
        ]


def test_code_is_read_out_of_a_large_archive(tmp_path: Path) -> None:
    images = {f"hw/data/train/{at}.png": b"" for at in range(10_001)} | {
        f"hw/.git/{at}.py": b"" for at in range(10_001)
    }
    stored = io.BytesIO()
    with zipfile.ZipFile(stored, "w") as archive:
        archive.writestr("data/cifar.bin", bytes(130 << 20))  # more than what is usually read of a hand-in
        archive.writestr("hw.zip", zipped(below("hw", CODE)))
    for at, data in enumerate((zipped(below("hw", CODE) | images), stored.getvalue())):
        taken = read_hand_in(folder_members(on_disk(tmp_path / str(at), {"anna.zip": data}))[0])
        assert (taken.files, taken.error) == (CODE, "")
        assert taken.notes[0].startswith("Left out: anna.zip/")


def test_a_block_that_is_empty_is_named(graded: Graded) -> None:
    parts = [name for name in blocks.parse(SOLVED["model.py"]) if name.startswith("1.1")]
    text = blocks.fill(SOLVED["model.py"], parts[-1], f'raise NotImplementedError("{parts[-1]}")')
    [result] = graded(from_files("anna", CODE | {"model.py": text.encode()}), "1.1").questions
    assert 0 < result.score < result.max_score
    assert result.status == "error"
    assert {check.message for check in result.checks if check.status != "passed"} == {f"Block {parts[-1]} is empty."}
    [result] = graded(from_files("anna", CODE | {"loss.py": GIVEN["loss.py"]}), "2.2b").questions
    assert {(check.status, check.message) for check in result.checks} == {("not_attempted", "Block 2.2b is empty.")}
    [result] = graded(from_files("anna", CODE | {"model.py": GIVEN["model.py"]}), "1.1").questions
    assert {check.message for check in result.checks} == {"Blocks 1.1a, 1.1b and 1.1c are empty."}


def test_what_students_raise_in_their_own_code_stays() -> None:
    inner = 'def mine():\n    raise NotImplementedError("2.2b")\n\nif fake is None:\n    raise NotImplementedError("2.2b")\nloss = -fake'
    text = blocks.fill(SOLVED["loss.py"], "2.2b", inner)
    submission = from_files("anna", CODE | {"loss.py": text.encode()})
    assert submission.text("loss.py") == text
    assert submission.notes == []


@pytest.mark.parametrize(
    "text",
    [
        "(" * 100_000,
        "-" * 200_000,
        "not " * 50_000,
        "x = " + "a." * 80_000 + "a",
        "x = " + "[" * 190 + "]" * 190,
        "\n".join(" " * at + "if x:" for at in range(600)),
        "if x:\n  pass\n" + "elif x:\n  pass\n" * 10_000,
        "x = " + "a if b else " * 20_000 + "c",
        "x = " + '"""' * 50_000,
        "f'" + "{f'" * 50_000,
        "x = " + "\\\n" * 100_000,
        "class A:\n" * 20_000,
        "import " + "a, " * 60_000 + "a",
        "from " + "a." * 40_000 + "a import " + "b, " * 40_000 + "b",
        "import " + "a." * 80_000 + "a",
        "%" * 200_000,
        "#" * 200_000 + "\n" + "####################\n" * 5_000,
    ],
    ids=range(17),
)
def test_hostile_text_is_read_like_any_other(text: str) -> None:
    submission = from_files("anna", CODE | {"loss.py": f"{SOLVED['loss.py']}\n{text}".encode()})
    assert len(submission.notes) >= 1
    assert all(len(note) < 1000 for note in submission.notes)
