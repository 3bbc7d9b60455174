"""Intake: whatever the system and whatever the archive, one entry a student, and nothing on disk."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import random
import re
import stat
import struct
import tarfile
import tracemalloc
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from grader.assignment import student_files
from grader.batch.archives import decoded, normalised
from grader.batch.intake import Intake, IntakeError, file_names, intake
from grader.report.entry import Entry
from grader.submission import MAX_FILES, from_files, read

CODE = {name: f"# {name}\n".encode() for name in student_files()}
NONE = "None of average.py, diffusion.py, enhanced.py, flow.py, gan.py, guidance.py, loss.py, model.py, visualize.py was handed in; ask for these files."
Files = Mapping[str, bytes] | Iterable[tuple[str, bytes]]


def below(folder: str, files: Mapping[str, bytes] = CODE) -> dict[str, bytes]:
    return {f"{folder}/{name}": data for name, data in files.items()}


def pairs(files: Files) -> list[tuple[str, bytes]]:
    return list(files.items()) if isinstance(files, Mapping) else list(files)


def zipped(files: Files) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that are there twice
        for name, data in pairs(files):
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return out.getvalue()


def tarred(files: Files, *more: tarfile.TarInfo, mode: str = "w", **options: int) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode, **options) as archive:  # type: ignore[call-overload]
        for name, data in pairs(files):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for info in more:
            archive.addfile(info)
    return out.getvalue()


def entry_of(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def on_disk(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def archived(tmp_path: Path, data: bytes, name: str = "class.zip") -> Path:
    path = tmp_path / name
    path.write_bytes(data)
    return path


def by_student(taken: Intake) -> dict[str, Entry]:
    assert [entry.student for entry in taken.entries] == sorted(entry.student for entry in taken.entries)
    return {entry.student: entry for entry in taken.entries}


def handed_in(tmp_path: Path, data: bytes, name: str = "anna.zip") -> Entry:
    """What a class gives of a student who handed in an archive, beside one whose hand-in is in order."""
    taken = by_student(intake(on_disk(tmp_path / "class", {name: data} | below("ben"))))
    assert taken["ben"].files == CODE
    assert not taken["ben"].error
    [student] = taken.keys() - {"ben"}
    return taken[student]


# ---------------------------------------------------------------- layouts

CANVAS = {f"nganna_1234_{9000 + i}_{name}": data for i, (name, data) in enumerate(CODE.items())}


@pytest.mark.parametrize("pack", ["folder", "zip", "tar", "tar.gz", "tar.bz2", "tar.xz", "wrapped"])
def test_a_canvas_download_however_it_is_packed(tmp_path: Path, pack: str) -> None:
    files = CANVAS | {"lovelaceada_LATE_77_8_hw.zip": zipped(CODE), "anon_Xy3z9_12_hw.zip": zipped(below("hw"))}
    if pack == "folder":
        path = on_disk(tmp_path / "submissions", files)
    elif pack == "zip":
        path = archived(tmp_path, zipped(files))
    elif pack == "wrapped":
        path = archived(tmp_path, zipped(below("submissions", files)))
    else:
        path = archived(tmp_path, tarred(files, mode=f"w:{pack[4:]}"), f"class.{pack}")
    taken = intake(path)
    assert taken.layout == "a Canvas download"
    assert taken.notes == []
    assert taken.entries == [
        Entry("anon_Xy3z9", "anon_Xy3z9", {}, CODE),
        Entry("lovelaceada_77", "lovelaceada", {"canvas_id": "77"}, CODE, late=True),
        Entry("nganna_1234", "nganna", {"canvas_id": "1234"}, CODE),
    ]


def test_canvas_resubmissions_count_by_file(tmp_path: Path) -> None:
    again = {"nganna_1234_9100_loss-1.py": b"old", "nganna_1234_9200_loss-2.py": b"new"}
    [anna] = intake(on_disk(tmp_path, CANVAS | again)).entries
    assert anna.files == CODE | {"loss.py": b"new"}
    assert anna.attempt == 3
    assert anna.notes == ["Not counted: nganna_1234_9006_loss.py, nganna_1234_9100_loss-1.py; there is a newer one."]


def test_a_canvas_archive_that_was_handed_in_again(tmp_path: Path) -> None:
    files = {"nganna_1_2_hw.tar.gz": b"broken", "nganna_1_3_hw.tar-1.gz": tarred(CODE, mode="w:gz")}
    [anna] = intake(on_disk(tmp_path, files)).entries
    assert (anna.files, anna.attempt, anna.error) == (CODE, 2, "")


def test_a_canvas_page_of_text_is_no_code(tmp_path: Path) -> None:
    [anna] = intake(on_disk(tmp_path, {"nganna_LATE_1_text.html": b"<p>see my repository</p>"})).entries
    assert (anna.error, anna.notes, anna.late) == (NONE, ["Left out: text.html."], True)


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("slash", ["_/", "/"])
def test_a_moodle_download(tmp_path: Path, flat: bool, slash: str) -> None:
    between = "_" if flat else slash
    files = {
        f"{person}_assignsubmission_file{between}{name}": data
        for person in ("Anna Ng_501", "王小明_502", "Default group")
        for name, data in CODE.items()
    } | {f"Ben Ray_503_assignsubmission_onlinetext{between}onlinetext.html": b"hello"}
    taken = intake(archived(tmp_path, zipped(files)))
    assert taken.layout == "a Moodle download"
    assert [(entry.student, entry.name, entry.keys) for entry in taken.entries] == [
        ("Anna_Ng_501", "Anna Ng", {"moodle_id": "501"}),
        ("Ben_Ray_503", "Ben Ray", {"moodle_id": "503"}),
        ("Default_group", "Default group", {}),
        ("王小明_502", "王小明", {"moodle_id": "502"}),
    ]
    assert [entry.error for entry in taken.entries] == ["", NONE, "", ""]
    assert taken.entries[3].files == CODE


METADATA = """---
submission_11:
  :submitters:
  - :name: "Ng, Anna \\"A\\""
    :sid: 00123
    :email: anna@x.edu
  :created_at: 2025-11-01 10:00:00.000000000 Z
  :score: 3.0
  :history:
  - :id: 5
    :created_at: 2025-10-30 09:00:00.000000000 Z
  :results: !ruby/hash:ActiveSupport::HashWithIndifferentAccess
    tests: []
submission_12:
  :submitters:
  - :name: 王小明
    :sid: '7'
    :email: wang@x.edu
  - :name: Ben Ray
    :sid: '8'
    :email: ben@x.edu
submission_13:
  :submitters:
  - :name: Cleo Roy
    :sid:
    :email: cleo@x.edu
"""


def test_a_gradescope_export_with_a_group(tmp_path: Path) -> None:
    files = below("submission_11") | {"submission_12/hw.zip": zipped(CODE), "submission_99/loss.py": b""}
    files["submission_metadata.yml"] = METADATA.encode()
    taken = intake(archived(tmp_path, zipped(below("assignment_42_export", files))))
    assert taken.layout == "a Gradescope export"
    assert taken.notes == ["submission_99/loss.py is nobody's; it was left out."]
    assert by_student(taken) == {
        "Ben_Ray_8": Entry("Ben_Ray_8", "Ben Ray", {"sid": "8", "email": "ben@x.edu"}, CODE, members=["王小明"]),
        "Cleo_Roy_13": Entry("Cleo_Roy_13", "Cleo Roy", {"email": "cleo@x.edu"}, error="Nothing was handed in."),
        "Ng_Anna_A_00123": Entry(
            "Ng_Anna_A_00123",
            'Ng, Anna "A"',
            {"sid": "00123", "email": "anna@x.edu"},
            CODE,
            attempt=2,
            notes=["Not counted: older attempts of 2025-10-30 09:00:00.000000000 Z."],
        ),
        "王小明_7": Entry("王小明_7", "王小明", {"sid": "7", "email": "wang@x.edu"}, CODE, members=["Ben Ray"]),
    }


@pytest.mark.parametrize("text", ["a: [", "[" * 100_000, "- 1\n- 2\n", "", "\0", "&a [*a, *a]", "a: " + "{a: " * 3000])
def test_a_gradescope_export_whose_metadata_is_broken_is_one_sentence(tmp_path: Path, text: str) -> None:
    with pytest.raises(IntakeError, match=r"^submission_metadata\.yml "):
        intake(on_disk(tmp_path, {"submission_metadata.yml": text.encode()} | below("submission_1")))


def test_repositories_of_github_classroom(tmp_path: Path) -> None:
    files = (
        below("hw-2-anna-w") | below("hw-2-ben/src") | {"hw-2-ben/.gitignore": b"", "hw-2-ben/.git/config": b"[core]"}
    )
    taken = intake(on_disk(tmp_path, files))
    assert taken.layout == "GitHub Classroom repositories of hw-2"
    assert taken.entries == [
        Entry("anna-w", "anna-w", {"login": "anna-w"}, CODE),
        Entry("ben", "ben", {"login": "ben"}, CODE),
    ]


def test_the_roster_says_where_the_name_of_an_assignment_ends(tmp_path: Path) -> None:
    path = on_disk(tmp_path / "class", below("hw-anna-b") | below("hw-anna-c"))
    assert [entry.name for entry in intake(path).entries] == ["b", "c"]
    roster = archived(tmp_path, b"github_username\nanna-b\nanna-c\n", "roster.csv")
    assert [entry.name for entry in intake(path, roster=roster).entries] == ["anna-b", "anna-c"]


def test_numbered_folders_are_no_repositories(tmp_path: Path) -> None:
    taken = intake(on_disk(tmp_path, below("group-1") | below("group-2")))
    assert taken.layout == "one folder or archive per student"
    assert [entry.student for entry in taken.entries] == ["group-1", "group-2"]


def test_plain_folders_and_archives(tmp_path: Path) -> None:
    files = below("anna") | {"ben.zip": zipped(CODE), "cleo.tar.gz": tarred(CODE, mode="w:gz"), "README.md": b""}
    taken = intake(archived(tmp_path, zipped(below("all/hand-ins", files))))
    assert taken.layout == "one folder or archive per student"
    assert taken.notes == ["README.md is nobody's; it was left out."]
    assert taken.entries == [Entry(name, name, {}, CODE) for name in ("anna", "ben", "cleo")]


def test_an_archive_beside_the_folder_it_was_unpacked_to(tmp_path: Path) -> None:
    [anna, _] = intake(on_disk(tmp_path, below("anna") | {"anna.zip": zipped(CODE)} | below("ben"))).entries
    assert (anna.files, anna.notes) == (CODE, ["Left out: anna.zip."])


def test_a_template_overrides(tmp_path: Path) -> None:
    files = {f"anna_w_{attempt}_{name}": f"{attempt}".encode() for attempt in (1, 2, 10) for name in CODE}
    taken = intake(on_disk(tmp_path, files | {"notes.txt": b""}), template="{login}_{attempt}_{file}")
    assert taken.layout == "the template {login}_{attempt}_{file}"
    assert taken.notes == ["notes.txt is nobody's; it was left out."]
    assert taken.entries == [
        Entry(
            "anna_w",
            "anna_w",
            {"login": "anna_w"},
            dict.fromkeys(CODE, b"10"),
            attempt=10,
            notes=["Not counted: attempt 1, 2; attempt 10 is newer."],
        )
    ]


@pytest.mark.parametrize(
    ("template", "path", "name", "keys", "late"),
    [
        ("hw1-{login}", "hw1-anna-w", "anna-w", {"login": "anna-w"}, False),
        ("hw1-{login}", "hw1-anna-w/src", "anna-w", {"login": "anna-w"}, False),
        ("{name} ({id}){late}", "Anna Ng (17)_late", "Anna Ng", {"sid": "17"}, True),
        ("{any}/{email}/{file}", "section 1/a@x.edu", "a@x.edu", {"email": "a@x.edu"}, False),
    ],
)
def test_templates_of_folders(
    tmp_path: Path, template: str, path: str, name: str, keys: dict[str, str], late: bool
) -> None:
    [entry] = intake(on_disk(tmp_path, below(path)), template=template).entries
    assert (entry.name, entry.keys, entry.late, entry.files) == (name, keys, late, CODE)


def test_a_template_of_archives(tmp_path: Path) -> None:
    [entry] = intake(on_disk(tmp_path, {"hw1-anna.tar.gz": tarred(CODE, mode="w:gz")}), template="hw1-{login}").entries
    assert (entry.name, entry.files) == ("anna", CODE)


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{user}", "The template has a field {user}; there are name,"),
        ("{login}{login}", "The template has {login} twice;"),
        ("{attempt}_{file}", "The template names nobody;"),
        ("{login", "is no pattern like {login}_{attempt}_{file}."),
        ("{login}_{any}_{any}_{any}", "over 3 fields"),
        ("{name}_x_{file}", "holds nothing that was handed in, read as the template"),
    ],
)
def test_templates_that_are_none_are_one_sentence(tmp_path: Path, template: str, says: str) -> None:
    with pytest.raises(IntakeError, match=re.escape(says)):
        intake(on_disk(tmp_path, below("anna")), template=template)


def test_a_hostile_name_does_not_hold_a_template_up(tmp_path: Path) -> None:
    path = on_disk(tmp_path, below("a_1_2") | {"_" * 250: b"", "_1" * 120: b""})
    assert len(intake(path, template="{name}_{sid}_{login}").entries) == 3  # and ends


def test_a_layout_can_be_named(tmp_path: Path) -> None:
    path = on_disk(tmp_path, below("hw-anna") | below("hw-ben"))
    assert intake(path).layout.startswith("GitHub")
    assert [entry.student for entry in intake(path, layout="folders").entries] == ["hw-anna", "hw-ben"]
    for layout, says in {
        "gradescope": "This is no download of the layout gradescope;",
        "moodle": "holds nothing that was handed in, read as a Moodle download;",
        "blackboard": "There is no layout blackboard;",
    }.items():
        with pytest.raises(IntakeError, match=says):
            intake(path, layout=layout)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda p: p / "nowhere", "does not exist; give the folder"),
        (lambda p: on_disk(p, CODE), "is one submission, and no class"),
        (lambda p: archived(p, zipped(CODE)), "is one submission, and no class"),
        (lambda p: p, "holds nothing that was handed in"),
        (lambda p: archived(p, zipped({})), "holds nothing that was handed in"),
        (lambda p: archived(p, b""), "is an empty file"),
        (lambda p: archived(p, b"no archive at all" * 100), "is no zip and no tar"),
        (lambda p: archived(p, b"7z\xbc\xaf\x27\x1c" * 9, "class.7z"), "is a 7z archive; download it again"),
        (lambda p: archived(p, zipped(CANVAS)[:-30]), "damaged or cut short; download it again"),
        (lambda p: on_disk(p, {"notes.txt": b""}), "holds nothing that was handed in"),
    ],
)
def test_paths_that_are_no_class_are_one_sentence(tmp_path: Path, make, says: str) -> None:
    with pytest.raises(IntakeError, match=says) as caught:
        intake(make(tmp_path))
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- what is in a hand-in

PACKINGS = {
    "files": CODE,
    "a folder": below("hw"),
    "folders in folders": below("a/b/c"),
    "a zip": {"hw.zip": zipped(CODE)},
    "a tar": {"hw.tar": tarred(below("./hw"))},
    "a tar.bz2": {"hw.tbz2": tarred(CODE, mode="w:bz2")},
    "a tar.xz": {"hw.tar.xz": tarred(CODE, mode="w:xz")},
    "a wrong suffix": {"hw.zip": tarred(CODE, mode="w:gz")},
    "a zip in a folder of a zip": {"hw.zip": zipped({"hw/inner.zip": zipped(below("src"))})},
    "a zip that unpacks itself": {"hw.zip": b"#!/bin/sh\nexit\n" * 50 + zipped(CODE)},
    "backslashes": {"hw.zip": zipped({f"hw\\{name}": data for name, data in CODE.items()})},
    "absolute paths": {"hw.tar": tarred(below("/home/anna/hw"))},
    "drive letters": {"hw.zip": zipped({f"C:\\Users\\anna\\{name}": data for name, data in CODE.items()})},
    "old tar headers": {"hw.tar": tarred(CODE, format=tarfile.USTAR_FORMAT)},
    "long names of GNU tar": {"hw.tar": tarred(below("d" * 120), format=tarfile.GNU_FORMAT)},
    "long names of POSIX tar": {"hw.tar": tarred(below("é" * 120), format=tarfile.PAX_FORMAT)},
    "litter": CODE | {"__MACOSX/._loss.py": b"\0", "._loss.py": b"\0", ".DS_Store": b"\0", ".git/HEAD": b""},
    "litter in a zip": {"hw.zip": zipped(below("hw") | {"__MACOSX/hw/._loss.py": b"\0", "hw/.DS_Store": b"\0"})},
    "git": {"hw.zip": zipped(below("hw") | {"hw/.git/HEAD": b"", "hw/__pycache__/loss.pyc": b""})},
}


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("whole", ["folder", "zip", "tar.gz"])
def test_however_files_are_packed_they_are_found(tmp_path: Path, packing: str, whole: str) -> None:
    files = below("anna", PACKINGS[packing]) | below("ben")
    if whole == "folder":
        path = on_disk(tmp_path, files)
    else:
        data = zipped(files) if whole == "zip" else tarred(files, mode="w:gz")
        path = archived(tmp_path, data)
    assert intake(path).entries == [Entry("anna", "anna", {}, CODE), Entry("ben", "ben", {}, CODE)]


def test_notebooks_and_papers_are_left_out_and_said(tmp_path: Path) -> None:
    more = {"report.pdf": b"%PDF", "hw.ipynb": b"{}", "helper.py": b"x = 1\n", "old/loss.py": b"old", "data/a.csv": b""}
    anna = handed_in(tmp_path, zipped(CODE | more | {"b.txt": b"", "c.txt": b""}))
    assert anna.files == CODE | {"helper.py": b"x = 1\n"}
    assert anna.notes == [
        "Left out: anna.zip/report.pdf, anna.zip/hw.ipynb, anna.zip/old/loss.py, anna.zip/data/a.csv, anna.zip/b.txt and 1 more."
    ]


def test_the_folder_with_most_of_the_code_counts(tmp_path: Path) -> None:
    handout = below("handout", {name: CODE[name] for name in ("loss.py", "model.py")})
    anna = handed_in(tmp_path, zipped(handout | below("my work")))
    assert (anna.files, len(anna.notes)) == (CODE, 1)


def test_a_file_that_lies_elsewhere_is_taken_from_there(tmp_path: Path) -> None:
    rest = {name: data for name, data in CODE.items() if name != "model.py"}
    files = below("anna", rest) | {"anna/rest.zip": zipped({"x/model.py": b"mine"})} | below("ben")
    [anna, _] = intake(on_disk(tmp_path, files)).entries
    assert anna.files == CODE | {"model.py": b"mine"}
    assert anna.notes == ["model.py was taken from rest.zip/x."]


def test_an_archive_that_cannot_be_read_beside_code_is_a_note(tmp_path: Path) -> None:
    files = below("anna", {"loss.py": b"mine", "data.zip": b"PK\x03\x04 broken"}) | below("ben")
    [anna, _] = intake(on_disk(tmp_path, files)).entries
    assert (anna.files, anna.error) == ({"loss.py": b"mine"}, "")
    assert anna.notes == ["data.zip is damaged or cut short; pack the files and hand them in again."]


def test_archives_beside_all_of_the_code_are_not_opened(tmp_path: Path) -> None:
    [anna, _] = intake(on_disk(tmp_path, below("anna", CODE | {"data.zip": b"broken"}) | below("ben"))).entries
    assert (anna.files, anna.notes) == (CODE, ["Left out: data.zip."])


def test_nothing_but_a_notebook(tmp_path: Path) -> None:
    anna = handed_in(tmp_path, zipped({"hw.ipynb": b"{}"}))
    assert (anna.error, anna.notes, anna.files) == (NONE, ["Left out: anna.zip/hw.ipynb."], {})


def test_a_file_of_no_bytes_is_a_file(tmp_path: Path) -> None:
    assert handed_in(tmp_path, zipped(CODE | {"loss.py": b""})).files["loss.py"] == b""


def test_entries_are_submissions(tmp_path: Path) -> None:
    for entry in intake(
        on_disk(tmp_path, below("anna") | below("ben", CODE | {"large.py": b"#" * (300 << 10)}))
    ).entries:
        folder = read(tmp_path / entry.student)
        assert from_files(entry.student, entry.files) == folder


def test_more_files_than_count_leave_the_assignments_own(tmp_path: Path) -> None:
    many = {f"a{i:03}.py": b"" for i in range(MAX_FILES)} | CODE
    submission = from_files("anna", many)
    assert submission == read(on_disk(tmp_path / "anna", many))
    assert len(submission.sources) == MAX_FILES
    assert submission.sources.keys() > CODE.keys()


# ---------------------------------------------------------------- hostile archives


def patched(data: bytes, at: bytes, offset: int, value: bytes) -> bytes:
    """Bytes with `value` at `offset` after every `at`."""
    out = bytearray(data)
    for found in re.finditer(re.escape(at), data):
        place = found.start() + offset
        out[place : place + len(value)] = value
    return bytes(out)


def encrypted(data: bytes) -> bytes:
    return patched(patched(data, b"PK\x03\x04", 6, b"\x01\x00"), b"PK\x01\x02", 8, b"\x01\x00")


def link(name: str, target: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return info


def nested(depth: int) -> bytes:
    data = zipped(CODE)
    for i in range(depth):
        data = zipped({f"{i}.zip": data})
    return data


def quoted_bomb() -> bytes:
    """A zip of 1 MB that says its files are one."""
    return zipped({f"{i}.zip": zipped({"zeros.zip": bytes(20 << 20)}) for i in range(40)})


ZEROS = bytes(200 << 20)
PACK = "pack the files and hand them in again."
HOSTILE = {
    "an empty file": (lambda: b"", "anna.zip is an empty file; hand it in again."),
    "an empty zip": (lambda: zipped({}), "anna.zip holds no files; hand it in again."),
    "an empty tar": (lambda: tarred({}), "anna.zip holds no files; hand it in again."),
    "only litter": (lambda: zipped({"__MACOSX/a": b"", ".DS_Store": b""}), "anna.zip holds no files; hand it in again."),
    "no archive": (lambda: b"hello" * 1000, "anna.zip is no zip and no tar, whatever its name says; pack the files again, as a zip."),
    "rar": (lambda: b"Rar!\x1a\x07\x01\0" * 9, "anna.zip is a RAR archive; hand in a zip."),
    "zstd": (lambda: b"\x28\xb5\x2f\xfd" * 9, "anna.zip is packed by Zstandard; hand in a zip."),
    "a gz of no tar": (lambda: gzip.compress(b"print()\n" * 99), "anna.zip is no zip and no tar, whatever its name says; pack the files again, as a zip."),
    "encrypted": (lambda: encrypted(zipped(CODE)), "anna.zip is encrypted; hand in a zip without a password."),
    "a cut zip": (lambda: zipped(CODE)[:-40], f"anna.zip is damaged or cut short; {PACK}"),
    "a cut tar": (lambda: tarred(CODE)[:-9000], f"anna.zip is damaged or cut short; {PACK}"),
    "a tar cut at a header": (lambda: tarred(CODE)[: 4 * 512], f"anna.zip is damaged or cut short; {PACK}"),
    "a cut tar.gz": (lambda: tarred(CODE, mode="w:gz")[:-20], f"anna.zip is damaged or cut short; {PACK}"),
    "a cut tar.xz": (lambda: tarred(CODE, mode="w:xz")[:-20], f"anna.zip is damaged or cut short; {PACK}"),
    "a broken tar header": (lambda: patched(tarred(CODE), b"loss.py", 0, b"boss.py"), f"anna.zip is damaged; {PACK}"),
    "a wrong checksum": (lambda: patched(zipped(CODE), b"PK\x01\x02", 16, b"\0\0\0\0"), f"average.py in anna.zip is damaged or cut short; {PACK}"),
    "a size too small": (lambda: patched(zipped(CODE), b"PK\x01\x02", 24, b"\1\0\0\0"), f"average.py in anna.zip is damaged or cut short; {PACK}"),
    "an unknown method": (lambda: patched(zipped(CODE), b"PK\x01\x02", 10, b"\x63\0"), "anna.zip is packed in a way that few programs read; hand in a plain zip."),
    "a tar size below zero": (lambda: patched_size(-512), f"anna.zip is damaged; {PACK}"),
    "a tar size of 8 EB": (lambda: patched_size(1 << 63), "anna.zip is over 512 MB unpacked, or 200 times its size; hand in the code only."),
    "dot dot": (lambda: zipped(CODE | {"../evil.py": b""}), "anna.zip holds evil.py, but its path leads out of its folder; pack the files again."),
    "dot dot with backslashes": (lambda: zipped(CODE | {"a\\..\\..\\evil.py": b""}), "anna.zip holds a/evil.py, but its path leads out of its folder; pack the files again."),
    "dot dot in litter": (lambda: zipped(CODE | {"__MACOSX/../../e": b""}), "anna.zip holds __MACOSX/e, but its path leads out of its folder; pack the files again."),
    "dot dot in a tar": (lambda: tarred(CODE | {"../../evil.py": b""}), "anna.zip holds evil.py, but its path leads out of its folder; pack the files again."),
    "control characters": (lambda: zipped(CODE | {"a\x1b[2Jb.py": b""}), "anna.zip holds a\\u001b[2Jb.py, but its name holds control characters; pack the files again."),
    "a newline": (lambda: tarred(CODE | {"a\nb.py": b""}), "anna.zip holds a b.py, but its name holds control characters; pack the files again."),
    "NUL": (lambda: patched(zipped(CODE | {"nul#.py": b""}), b"nul#", 3, b"\0"), "anna.zip holds nul\\u0000.py, but its name holds control characters; pack the files again."),
    "300 characters": (lambda: zipped(CODE | {"a" * 300: b""}), f"anna.zip holds {'a' * 60} ..., but its name is too long; pack the files again."),
    "a path of 2000 characters": (lambda: zipped(CODE | {"a/" * 1000 + "b": b""}), f"anna.zip holds {'/'.join('a' * 10)}, but its name is too long; pack the files again."),
    "a tar name of 100 kB": (lambda: tarred(CODE | {"a" * 100_000: b""}), "anna.zip holds a name that is too long; pack the files again, as a zip."),
    "a name twice": (lambda: zipped([*CODE.items(), ("loss.py", b"other")]), "loss.py is there twice; hand in one of them."),
    "a name twice in a tar": (lambda: tarred([*CODE.items(), ("./loss.py", b"other")]), "loss.py is there twice; hand in one of them."),
    "names alike but for case": (lambda: zipped(CODE | {"Loss.py": b""}), "loss.py and Loss.py are one name on most systems; hand in one of them."),
    "names alike but for accents": (lambda: zipped(CODE | {"\u00e9.py": b"", "e\u0301.py": b""}), "\u00e9.py is there twice; hand in one of them."),
    "a file where a folder is": (lambda: zipped(CODE | {"loss.py/x.txt": b""}), "loss.py is both a file and a folder; hand in the file alone."),
    "too many entries": (lambda: zipped({f"{i}.txt": b"" for i in range(10_001)}), "anna.zip holds over 10,000 files; hand in the code only."),
    "too many entries in a tar": (lambda: tarred({f"{i}.txt": b"" for i in range(10_001)}, mode="w:gz"), "anna.zip holds over 10,000 files; hand in the code only."),
    "a bomb in a zip": (lambda: zipped(CODE | {"loss.py": ZEROS}), "loss.py in anna.zip is over 1 MB; hand in the code only."),
    "a bomb in a tar.gz": (lambda: tarred({"loss.py": ZEROS}, mode="w:gz"), "anna.zip is over 512 MB unpacked, or 200 times its size; hand in the code only."),
    "a bomb in a tar.bz2": (lambda: tarred({"loss.py": ZEROS}, mode="w:bz2"), "anna.zip is over 512 MB unpacked, or 200 times its size; hand in the code only."),
    "a bomb in a tar.xz": (lambda: tarred({"loss.py": ZEROS}, mode="w:xz"), "anna.zip is over 512 MB unpacked, or 200 times its size; hand in the code only."),
    "a bomb in a zip in a zip": (lambda: zipped({"inner.zip": ZEROS}), "inner.zip in anna.zip unpacks to over 200 times its size; hand in the code only."),
    "bombs that are one": (quoted_bomb, "zeros.zip in anna.zip/0.zip unpacks to over 200 times its size; hand in the code only."),
    "much code": (lambda: zipped(CODE | {f"{i}.py": os.urandom(1 << 19).hex().encode()[: 1 << 19] for i in range(9)}), "7.py in anna.zip brings what was handed in to more than can be read; hand in the code only."),
    "archives without end": (lambda: nested(40), NONE),
    "links to the code": (lambda: tarred({"a.txt": b""}, *[entry_of(name, tarfile.SYMTYPE, "/etc/passwd") for name in CODE]), NONE),
}  # fmt: skip


def patched_size(size: int) -> bytes:
    """A tar whose first header gives a size in the binary form of GNU tar, with a checksum that is right."""
    block = bytearray(tarred(CODE)[:512])
    field = bytes([0xFF if size < 0 else 0x80]) + size.to_bytes(11, "big", signed=True)
    block[124:136] = field
    block[148:156] = b" " * 8
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    return bytes(block) + tarred(CODE)[512:]


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_archive_is_the_error_of_its_student(tmp_path: Path, kind: str) -> None:
    make, says = HOSTILE[kind]
    data = make()
    before = sorted(tmp_path.rglob("*"))
    assert before == []
    tracemalloc.start()
    anna = handed_in(tmp_path, data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert anna.error == says
    assert anna.files == {}
    assert peak < 64 << 20
    assert len(list((tmp_path / "class").iterdir())) == 2


@pytest.mark.parametrize("kind", [k for k in HOSTILE if k not in ("an empty file",)])
def test_the_same_in_the_archive_of_a_class(tmp_path: Path, kind: str) -> None:
    make, says = HOSTILE[kind]
    path = archived(tmp_path, zipped(below("ben") | {"anna.zip": make()}))
    anna, ben = intake(path).entries
    assert (anna.error, ben.files) == (says, CODE)


def test_links_and_devices_are_left_out(tmp_path: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(link("passwd.py", "/etc/passwd"), "/etc/passwd")
        for name, data in CODE.items():
            archive.writestr(name, data)
    anna = handed_in(tmp_path, out.getvalue())
    assert (anna.files, anna.notes) == (CODE, ["anna.zip/passwd.py was left out: it is a link or no plain file."])
    kinds = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE)
    odd = [entry_of(f"{i}.py", kind, "/etc/passwd") for i, kind in enumerate(kinds)]
    ben = handed_in(tmp_path / "again", tarred(CODE, *odd), "anna.tar")
    assert ben.files == CODE
    assert ben.notes == [f"anna.tar/{i}.py was left out: it is a link or no plain file." for i in range(5)]


def test_a_tar_of_deep_links_leads_nowhere(tmp_path: Path) -> None:
    """The archive that escapes from tar's own filter: links whose paths are too long to be resolved."""
    links, path = [], ""
    for letter in "abcdefghijklmnop":
        links.append(entry_of(path + "d" * 60, tarfile.DIRTYPE))
        links.append(entry_of(path + letter, tarfile.SYMTYPE, "d" * 60))
        path += letter + "/"
    links += [
        entry_of("escape", tarfile.SYMTYPE, path + "../" * 16 + "etc"),
        entry_of("loss.py", tarfile.LNKTYPE, "escape/passwd"),
    ]
    anna = handed_in(tmp_path, tarred(below("escape/hw"), *links))
    assert anna.files == CODE
    assert anna.notes[0] == "anna.zip/a was left out: it is a link or no plain file."


def test_links_on_disk_are_not_followed(tmp_path: Path) -> None:
    secret = on_disk(tmp_path / "secret", {"helper.py": b"secret"})
    path = on_disk(tmp_path / "class", below("anna") | below("ben"))
    (path / "anna" / "helper.py").symlink_to(secret / "helper.py")
    (path / "anna" / "more").symlink_to(secret)
    (path / "cleo").symlink_to(secret)
    os.mkfifo(path / "anna" / "pipe.py")
    taken = intake(path)
    assert [(entry.student, entry.files) for entry in taken.entries] == [("anna", CODE), ("ben", CODE)]
    assert len(taken.entries[0].notes) == 3
    assert taken.notes == ["cleo is nobody's; it was left out."]


def test_a_hostile_name_in_the_archive_of_a_class_is_its_students(tmp_path: Path) -> None:
    names = ("anna/../../evil.py", "anna/a\x1b.py", "anna/" + "b" * 300 + ".py")
    path = archived(tmp_path, zipped(below("anna") | dict.fromkeys(names, b"") | below("ben") | {"../x.py": b""}))
    taken = intake(path)
    assert [entry.files for entry in taken.entries] == [CODE, CODE]
    assert taken.entries[0].notes == [
        "evil.py was left out: its path leads out of its folder.",
        "a\\u001b.py was left out: its name holds control characters.",
        f"{'b' * 60} ... was left out: its name is too long.",
    ]
    assert taken.notes == ["x.py is nobody's; it was left out."]


@pytest.mark.parametrize("name", ["loss.py", "Loss.py"])
def test_one_name_twice_in_the_archive_of_a_class_is_its_students(tmp_path: Path, name: str) -> None:
    path = archived(tmp_path, zipped([*below("anna").items(), (f"anna/{name}", b""), *below("ben").items()]))
    anna, ben = intake(path).entries
    assert ("hand in one of them." in anna.error, anna.files, ben.files) == (True, {}, CODE)


def test_students_whose_names_differ_in_case_are_two(tmp_path: Path) -> None:
    first, second = intake(archived(tmp_path, zipped(below("Anna") | below("anna")))).entries
    assert {first.name, second.name} == {"Anna", "anna"}
    assert first.student.casefold() != second.student.casefold()
    assert first.files == second.files == CODE


ENCODINGS = [
    ("王小明", "gbk", "王小明"),
    ("王小明", "utf-8", "王小明"),
    ("李喆", "gbk", "李喆"),
    ("J\u00f6rg", "cp437", "J\u00f6rg"),
    ("Ren\u00e9e", "cp437", "Ren\u00e9e"),
    ("Stra\u00dfe", "cp437", "Stra\u00dfe"),
    ("anna", "ascii", "anna"),
]


@pytest.mark.parametrize(("name", "encoding", "reads"), ENCODINGS)
def test_names_in_any_encoding(tmp_path: Path, name: str, encoding: str, reads: str) -> None:
    raw = name.encode(encoding)
    stand_in = "#" * len(raw)
    data = zipped(below(stand_in) | below("ben"))
    anna = next(e for e in intake(archived(tmp_path, data.replace(stand_in.encode(), raw))).entries if e.name != "ben")
    assert (anna.name, anna.files) == (reads, CODE)
    assert decoded(raw + b"/loss.py") == f"{reads}/loss.py"


def test_paths_are_normalised() -> None:
    assert normalised("./a//b/./c.py") == ("a/b/c.py", "")
    assert normalised("\\\\server\\share\\c.py") == ("server/share/c.py", "")
    assert normalised("C:loss.py") == ("loss.py", "")
    assert normalised("/") == ("", "")
    assert normalised("a/../b")[1] == "its path leads out of its folder"
    assert normalised("a\u202eb.py") == ("a\u202eb.py", "")


def hostile(random_: random.Random) -> bytes:
    """A random archive: hostile names and kinds, packed somehow, perhaps with some bytes changed or cut."""
    names = [
        *CODE, "../evil.py", "/tmp/evil.py", "..\\evil.py", "C:\\evil.py", "a/b/../../../evil.py", "evil.py/", "loss.py/evil.py", "\0.py",
        "a" * 300, "LOSS.PY", "submission_metadata.yml", "x_1_2_loss.py", "x_1_2_loss-1.py", "A B_1_assignsubmission_file_/loss.py", "hw-a/loss.py",
        "hw-b/.git/HEAD", "__MACOSX/._loss.py", "inner.zip", "inner.tar.gz", "\u202e.py", "\ufeff.py", "con/loss.py", "~/.bashrc", "a//b", "", ".", "..",
    ]  # fmt: skip
    contents = [
        b"",
        b"x",
        b"import os\n",
        bytes(5 << 20),
        b"&a [*a]",
        b"PK\x03\x04",
        zipped(CODE),
        tarred(CODE, mode="w:gz"),
        nested(3),
    ]
    files = [(random_.choice(names), random_.choice(contents)) for _ in range(random_.randrange(8))]
    if random_.random() < 0.5:
        data = zipped([(name or "?", content) for name, content in files])
    else:
        kinds = (
            tarfile.SYMTYPE,
            tarfile.LNKTYPE,
            tarfile.CHRTYPE,
            tarfile.FIFOTYPE,
            tarfile.DIRTYPE,
            tarfile.GNUTYPE_SPARSE,
        )
        links = [
            entry_of(random_.choice(names), random_.choice(kinds), random_.choice(names))
            for _ in range(random_.randrange(4))
        ]
        data = tarred(files, *links, format=random_.choice((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)))
        data = random_.choice((bytes, gzip.compress, bz2.compress, lzma.compress))(data)
    out = bytearray(data)
    for _ in range(random_.choice((0, 0, 1, 3, 30))):
        out[random_.randrange(len(out))] = random_.randrange(256)
    return bytes(out[: random_.randrange(len(out))] if random_.random() < 0.15 else out)


def test_no_hostile_archive_raises_or_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random_ = random.Random(7)
    work = tmp_path / "a" / "b" / "work"
    work.mkdir(parents=True)
    monkeypatch.chdir(work)
    monkeypatch.setattr("tempfile.gettempdir", lambda: pytest.fail("a temporary file was asked for"))
    outside = {folder: sorted(os.listdir(folder)) for folder in ("/", Path.home())}  # noqa: PTH208
    ended = {"entries": 0, "errors": 0, "refused": 0}
    for i in range(200):
        data = hostile(random_)
        inner = i % 2
        path = archived(work, zipped(below("ben") | {"anna.zip": data}) if inner else data)
        said = ""
        try:
            taken = intake(path)
        except IntakeError as error:
            said = str(error)
            ended["refused"] += 1
        else:
            for entry in taken.entries:
                assert SAFE.fullmatch(entry.student)
                assert bool(entry.error) != bool(entry.files)
                assert all("/" not in name and name.endswith(".py") for name in entry.files)
                ended["errors" if entry.error else "entries"] += 1
        assert not said or (said.endswith(".") and "\n" not in said and not inner)
        assert sorted(tmp_path.rglob("*")) == [tmp_path / "a", tmp_path / "a/b", work, path]
    assert {folder: sorted(os.listdir(folder)) for folder in outside} == outside  # noqa: PTH208
    assert min(ended.values()) > 20, ended


@pytest.mark.parametrize(
    "record",
    [
        b"0 path=x\n",
        b"1 path=x\n",
        b" path=x\n",
        b"-5 path=x\n",
        b"99999999999 path=x\n",
        b"\xff",
        b"9" * 5000,
        b"9 size=-1\n",
    ],
)
def test_an_extended_header_that_lies_is_damage(tmp_path: Path, record: bytes) -> None:
    block = tarfile.TarInfo("x")
    block.type, block.size = tarfile.XHDTYPE, len(record)
    data = block.tobuf() + record.ljust(-(-len(record) // 512) * 512, b"\0") + tarred(CODE)
    assert handed_in(tmp_path, data, "anna.tar").error == f"anna.tar is damaged or cut short; {PACK}"


def test_a_zip_whose_extra_field_is_broken_is_damage(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("loss.py")
    info.extra = struct.pack("<HH", 1, 4) + b"\0\0\0\0"
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(info, b"x")
    data = patched(out.getvalue(), b"PK\x01\x02", 24, b"\xff\xff\xff\xff")
    assert handed_in(tmp_path, data).error == f"anna.zip is damaged or cut short; {PACK}"


# ---------------------------------------------------------------- names

SAFE = re.compile(
    r"(?!(?i:con|prn|aux|nul|com\d|lpt\d)(?:\.|$))[^\W][\w.@-]{0,78}[^\W.]?|_?\w[\w.@-]{0,78}", re.UNICODE
)
BAD_NAMES = [
    "../../etc/passwd", "a/b", "a\\b", ".hidden", "..", ".", "", " ", "con", "CON.txt", "nul", "COM1", "lpt9.py", "aux.", "=cmd|'/c calc'!A0",
    "-rf", "a" * 300, "王" * 300, "\x00", "a\nb", "\u202egnp.exe", "<b>x</b>", "a:b", "x.", "x ", "\ud800", "e\u0301", "\u00e9", "Anna", "anna", "\u212a", "K",
    "com\u00b9", "\U0001f600", "a" * 79 + "." + "b",
]  # fmt: skip


def test_names_for_files_are_safe_and_unlike() -> None:
    names = file_names({f"owner {i}": label for i, label in enumerate(BAD_NAMES)})
    assert len({name.casefold() for name in names.values()}) == len(BAD_NAMES)
    for name in names.values():
        assert SAFE.fullmatch(name), name
        assert 1 <= len(name) <= 80
        assert len(name.encode()) <= 240
        assert not name.endswith(".")
        assert name[0] not in ".-= "
    assert names == file_names({f"owner {i}": label for i, label in enumerate(BAD_NAMES)})
    assert file_names({"a": "Ng, Anna (7)"}) == {"a": "Ng_Anna_7"}
    assert file_names({"a": "con"}) == {"a": "_con"}
    assert file_names({"a": "anna"}, ["Anna"])["a"].startswith("anna-")


def test_hostile_names_are_kept_as_they_are(tmp_path: Path) -> None:
    name = '=HYPERLINK("x"), <b>\u202e'
    metadata = f'submission_1:\n  :submitters:\n  - :name: {name!r}\n    :sid: "../../x"\n'
    metadata = metadata.replace("\\u202e", "\u202e")
    [entry] = intake(on_disk(tmp_path, below("submission_1") | {"submission_metadata.yml": metadata.encode()})).entries
    assert entry.name == name
    assert entry.student == "HYPERLINK_x_b_.._.._x"
    assert entry.keys == {"sid": "../../x"}


# ---------------------------------------------------------------- rosters


def with_roster(tmp_path: Path, files: Mapping[str, bytes], roster: str | bytes) -> Intake:
    data = roster if isinstance(roster, bytes) else roster.encode()
    return intake(on_disk(tmp_path / "class", files), roster=archived(tmp_path, data, "roster.csv"))


def test_a_canvas_gradebook_is_a_roster(tmp_path: Path) -> None:
    roster = (
        "Student,ID,SIS User ID,SIS Login ID,Section,HW (9)\n    Points Possible,,,,,100\n"
        '"Ng, Anna",1234,s1,anna@x.edu,A,\n"Ray, Ben",55,s2,ben@x.edu,A,\n"Student, Test",99,,,A,\n'
    )
    taken = with_roster(tmp_path, CANVAS, roster)
    assert taken.notes == []
    assert taken.entries == [
        Entry(
            "Ray_Ben_55",
            "Ray, Ben",
            {"canvas_id": "55", "sis_id": "s2", "login": "ben@x.edu"},
            error="Nothing was handed in.",
        ),
        Entry("nganna_1234", "Ng, Anna", {"canvas_id": "1234", "sis_id": "s1", "login": "anna@x.edu"}, CODE),
    ]


def test_a_moodle_worksheet_is_a_roster(tmp_path: Path) -> None:
    files = below("Anna Ng_501_assignsubmission_file_")
    roster = (
        "\ufeffIdentifier,Full name,ID number,Email address,Status,Grade\nParticipant 501,Anna Ng,77,a@x.edu,Submitted,\n"
        "Participant 502,王小明,78,w@x.edu,No submission,\n"
    )
    anna, wang = with_roster(tmp_path, files, roster).entries
    assert anna.keys == {"moodle_id": "501", "sid": "77", "email": "a@x.edu"}
    assert (wang.student, wang.name, wang.keys["moodle_id"]) == ("王小明_502", "王小明", "502")


def test_gradescope_grades_are_a_roster_that_knows_who_was_late(tmp_path: Path) -> None:
    roster = (
        "First Name,Last Name,SID,Email,Sections,Total Score,Lateness (H:M:S)\nAnna,Ng,00123,anna@x.edu,,1,01:02:03\n"
        "Ben,Ray,8,ben@x.edu,,1,00:00:00\nDora,Lee,9,dora@x.edu,,,\n"
    )
    files = below("submission_11") | below("submission_12") | {"submission_metadata.yml": METADATA.encode()}
    taken = by_student(with_roster(tmp_path, files, roster))
    assert {name: entry.late for name, entry in taken.items()} == {
        "Ben_Ray_8": False, "Cleo_Roy_13": False, "Dora_Lee_9": False, "Ng_Anna_A_00123": True, "王小明_7": False,
    }  # fmt: skip
    assert taken["Dora_Lee_9"].error == "Nothing was handed in."


@pytest.mark.parametrize(
    "roster",
    [
        "login;email\nANNA;anna@x.edu\nben;ben@x.edu\ncleo;\n",
        "id\temail\nanna\tanna@x.edu\nben\tben@x.edu\ncleo\t\n",
        "Student Number,Full Name\n1,Anna\n2,Ben\n3,cleo\n",
        "identifier,github_username,name\n1,anna,\n2,ben,\n3,cleo,\n",
        "E-Mail Address,Username\nanna@x.edu,anna\nben@x.edu,ben\n,cleo\n",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_rosters_of_many_kinds(tmp_path: Path, roster: str, encoding: str) -> None:
    taken = with_roster(tmp_path, below("anna") | below("ben") | below("dora"), roster.encode(encoding))
    assert [entry.error for entry in taken.entries].count("Nothing was handed in.") == 1
    assert len(taken.entries) == 4
    assert taken.notes == ["Not on the roster: dora."]


def test_names_find_their_rows_if_nothing_else_does(tmp_path: Path) -> None:
    files = {f"{who}_{name}": data for who in ("müllerjörg_1_2", "weißanna_3_4") for name, data in CODE.items()}
    taken = with_roster(tmp_path, files, "Name\nJörg Müller\nAnna Weiß\n".encode("cp1252"))
    assert {entry.name for entry in taken.entries} == {"Jörg Müller", "Anna Weiß"}
    assert taken.notes == []


def test_two_of_one_name_are_not_mixed_up(tmp_path: Path) -> None:
    taken = with_roster(tmp_path, below("Anna Ng") | below("ben"), "name,sid\nAnna Ng,1\nAnna Ng,2\nben,3\n")
    assert [(entry.student, entry.keys) for entry in taken.entries] == [
        ("Anna_Ng", {}), ("Anna_Ng_1", {"sid": "1"}), ("Anna_Ng_2", {"sid": "2"}), ("ben", {"sid": "3"}),
    ]  # fmt: skip
    assert taken.notes == ["Not on the roster: Anna Ng."]


@pytest.mark.parametrize(
    ("roster", "says"),
    [
        (b"", "has no column for id, login, email or name"),
        (b"colour,size\nred,1\n", "has no column for id, login, email or name"),
        (b"name\nAnna\0Ng\n" + b"\0" * 10, None),
        (b"name\n" + b"x" * 200_000, "is no CSV file"),
        (bytes(range(256)), "has no column"),
        (None, "cannot be read"),
    ],
)
def test_a_roster_that_is_none_is_one_sentence(tmp_path: Path, roster: bytes | None, says: str | None) -> None:
    path = on_disk(tmp_path / "class", below("anna") | below("ben"))
    place = tmp_path / "roster.csv" if roster is None else archived(tmp_path, roster, "roster.csv")
    if says is None:
        try:
            intake(path, roster=place)
        except IntakeError:
            return
    else:
        with pytest.raises(IntakeError, match=says):
            intake(path, roster=place)


# ---------------------------------------------------------------- a large class


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_five_hundred_students(tmp_path: Path, kind: str) -> None:
    code = {name: os.urandom(7000).hex().encode() for name in CODE}
    files = {f"student{i:03}_{1000 + i}_{9000 + i}_hw.zip": zipped(below("hw", code)) for i in range(500)}
    path = archived(tmp_path, zipped(files) if kind == "zip" else tarred(files, mode="w:gz"))
    taken = intake(path)
    assert len(taken.entries) == 500
    assert all(entry.files == code for entry in taken.entries)


def test_large_archives_are_in_memory_one_at_a_time(tmp_path: Path) -> None:
    paper = os.urandom(4 << 20)
    files = {f"student{i}.zip": zipped(CODE | {"report.pdf": paper}) for i in range(20)}
    path = archived(tmp_path, zipped(files))
    del files
    tracemalloc.start()
    taken = intake(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(taken.entries) == 20
    assert peak < 24 << 20
