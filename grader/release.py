"""Makes what students get from solution/: handout/, with every block emptied, and the bundle that they download.

The bundle has no solution, no bank, no hidden check and no formula that answers a question: of the closed forms it has
what they gave at the inputs of the public seed.
"""

from __future__ import annotations

import re
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from . import blocks
from .assignment import HANDOUT, PRISTINE, REPOSITORY, SOLUTION, handout_files
from .oracle.answers import ANSWERS, WITHHELD, Answers, recording
from .rubric import PUBLIC_SEED, load, seen_by

PUBLIC_TARGETS = ("help", "grade", "watch", "doctor", "clean")
NOT_OFFERED = re.compile(r" (?:SEED|AUDIENCE|ATTEMPT)=\S+")  # in the help: students have one seed and one audience
CARRIED = ("LICENSE", "pyproject.toml", "data/*.py", "data/*.png", "data/README.md", "grader/**/*")
LEFT_OUT = (
    *("bank", "batch", "bench", "checks/hidden", "figures", "selfcheck", "tests", "CALIBRATION.md", "CHANGELOG.md"),
    *("report/autograder", "report/gradebook.py", "report/gradescope.py"),
    *("report/class_page.py", "report/class_summary.py", "report/entry.py", "report/likeness.py", "report/regrade.py"),
    *(f"report/templates/class.{kind}" for kind in ("html", "css", "js")),
)
README = Path(__file__).with_name("README.students.md")
EARLIEST = (1980, 1, 1, 0, 0, 0)  # what a ZIP archive can say: the same bundle is the same archive


class FilledError(Exception):
    """The handout holds somebody's work; the message says where."""


class ReleaseError(Exception):
    """There is nothing that may be given out; the message says why."""


def make_handout(solution: Path = SOLUTION, handout: Path = HANDOUT, force: bool = False) -> list[str]:
    """Write the handout. Returns the names of the files that changed.

    Raises:
        FilledError: if a block of the handout is filled in, unless `force`.
    """
    wanted = handout_files(solution)
    filled = [
        f"{name} ({question})"
        for name in wanted
        if (handout / name).exists()
        for question, block in blocks.parse((handout / name).read_text("utf-8")).items()
        if block.attempted
    ]
    if filled and not force:
        raise FilledError(
            f"These blocks of the handout are filled in and would be lost: {', '.join(filled)}. "
            "Copy them elsewhere, or run again with FORCE=1."
        )
    handout.mkdir(exist_ok=True)
    changed = []
    for name, text in wanted.items():
        path = handout / name
        if not path.exists() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")
            changed.append(name)
    for path in [*handout.glob("*.py"), *handout.glob("*.md")]:
        if path.name not in wanted:
            path.unlink()
            changed.append(path.name)
    return changed


# ---------------------------------------------------------------- the bundle


def make_bundle(archive: Path) -> list[str]:
    """Write the bundle as a folder, and beside it as a ZIP archive. Returns the names of its files.

    Args:
        archive: where the archive goes; the folder has its name without `.zip`, and is made anew.

    Raises:
        ReleaseError: if the solution does not earn every public point, or the folder is somebody else's.
    """
    folder = archive.with_suffix("")
    if folder.exists() and not (folder / ANSWERS.relative_to(REPOSITORY)).exists():
        raise ReleaseError(f"{folder} is there already and is no bundle; give OUT another name.")
    answers = record_answers()
    shutil.rmtree(folder, ignore_errors=True)
    for source in carried():
        target = folder / source.relative_to(REPOSITORY)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    (folder / "Makefile").write_text(public_makefile((REPOSITORY / "Makefile").read_text("utf-8")), "utf-8")
    shutil.copyfile(README, folder / "README.md")
    for place in (folder / HANDOUT.name, folder / PRISTINE.relative_to(REPOSITORY)):
        place.mkdir()
        for name, text in handout_files().items():
            (place / name).write_text(text, "utf-8")
    answers.save(folder / ANSWERS.relative_to(REPOSITORY))
    return pack(folder, archive)


def carried() -> Iterator[Path]:
    """The files of this repository that students get as they are."""
    grader = REPOSITORY / "grader"
    left_out = [grader / name for name in LEFT_OUT] + [README]
    left_out += [grader / "oracle" / f"{module}.py" for module in WITHHELD.values()]
    for pattern in CARRIED:
        for path in sorted(REPOSITORY.glob(pattern)):
            places = {path, *path.parents}
            if path.is_file() and "__pycache__" not in path.parts and not places & set(left_out):
                yield path


def public_makefile(text: str) -> str:
    """The Makefile without the targets that need what students do not have, and without the variables of those."""
    kept = []
    for paragraph in text.split("\n\n"):
        target = re.match("([a-z-]+):", paragraph)
        if target and target[1] not in PUBLIC_TARGETS:
            continue
        if "\n.PHONY:" in paragraph:
            paragraph = paragraph.partition("\n.PHONY:")[0] + f"\n.PHONY: {' '.join(PUBLIC_TARGETS)}"
        kept.append(paragraph)
    made = "\n\n".join(kept).rstrip("\n") + "\n"
    lines = [line for line in made.splitlines(keepends=True) if _is_needed(line, made)]
    return "".join(NOT_OFFERED.sub("", line) if " ## " in line else line for line in lines)


def _is_needed(line: str, makefile: str) -> bool:
    """Whether a line of a Makefile is not the default of a variable that nothing there uses."""
    default = re.match(r"(\w+) \?=", line)
    return default is None or f"$({default[1]})" in makefile.replace(line, "")


def record_answers() -> Answers:
    """What the closed forms give at the inputs of the public checks. Raises ReleaseError."""
    from .engine.launcher import default_launcher
    from .grading import grade
    from .submission import read

    questions = seen_by(load(), "student")
    with closing(default_launcher()) as launcher, recording() as answers:
        result = grade(read(SOLUTION), questions, launcher, PUBLIC_SEED)
    failed = [check.id for question in result.questions for check in question.checks if check.status != "passed"]
    if failed:
        raise ReleaseError(f"solution/ does not pass {', '.join(failed)}: mend it before you give anything out.")
    return answers


def pack(folder: Path, archive: Path) -> list[str]:
    """Write a folder as a ZIP archive, the same bytes for the same files. Returns their names."""
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as made:
        for name in names:
            entry = zipfile.ZipInfo(f"{folder.name}/{name}", EARLIEST)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            made.writestr(entry, (folder / name).read_bytes())
    return names
