"""A class to measure with: right, wrong, missing, broken and hostile code of the bank, in the mix of a real one."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from grader.assignment import HANDOUT
from grader.bank import Filling, load_bank
from grader.rubric import Question, load
from grader.submission import Submission, read

RIGHT, WRONG = 0.75, 0.2  # shares of the answers to a question; the rest is not attempted
AMBITIOUS = 0.1  # of the students, who answer optional questions too
BROKEN = ("def f(:\n", "import no_such_package\n", "raise SystemExit\n", "x = 1 / 0\n")
BROKEN_SHARE, HOSTILE_SHARE = 0.02, 0.01  # of the students
HOSTILE = (  # none that takes memory or minutes, which `hostile_class` measures
    "import os\nos._exit(0)\n",
    "import torch\nfor name in ('allclose', 'equal', 'isclose'): setattr(torch, name, lambda *a, **k: True)\n",
    "import builtins\nbuiltins.all = builtins.any = lambda *a: True\n",
    "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\n",
)


def make_class(students: int, seed: int = 0, spoil: bool = True) -> dict[str, dict[str, bytes]]:
    """What a class hands in: files by student, no two of them with the same contents; none is broken unless `spoil`."""
    draw, handout = random.Random(seed), read(HANDOUT)
    questions = [question for question in load() if not question.needs]
    required, optional = ([q for q in questions if q.optional == bonus] for bonus in (False, True))
    fillings = {question.id: [f for f in load_bank() if f.question == question.id] for question in questions}
    made = {}
    for number in range(students):
        submission, of_their_own = answered(handout, required, fillings, draw), random.Random(f"{seed} {number}")
        if of_their_own.random() < AMBITIOUS:
            submission = answered(submission, optional, fillings, of_their_own)
        files = spoiled(submission.sources, draw) if spoil else dict(submission.sources)
        made[f"student-{number:04}"] = files | {"loss.py": files["loss.py"] + f"# {number}\n".encode()}
    return made


def answered(
    submission: Submission, questions: Sequence[Question], fillings: Mapping[str, list[Filling]], draw: random.Random
) -> Submission:
    """A submission with most of some questions answered, and most of these right."""
    for question in questions:
        share = draw.random()
        if share < RIGHT + WRONG:
            filling = draw.choice([f for f in fillings[question.id] if f.right == (share < RIGHT)])
            submission = submission.filled(question.file, filling.blocks)
    return submission


def spoiled(files: Mapping[str, bytes], draw: random.Random) -> dict[str, bytes]:
    """The files of a student, whom little may have escaped, or everything."""
    share = draw.random()
    name = draw.choice(["loss.py", "model.py", "diffusion.py"])
    if share < BROKEN_SHARE:
        return {**files, name: draw.choice(BROKEN).encode() + files[name]}
    if share < BROKEN_SHARE + HOSTILE_SHARE:
        return {**files, "loss.py": draw.choice(HOSTILE).encode() + files["loss.py"]}
    return dict(files)


def write_class(folder: Path, made: Mapping[str, Mapping[str, bytes]]) -> None:
    """A folder for every student."""
    for student, files in made.items():
        (folder / student).mkdir(parents=True)
        for name, content in files.items():
            (folder / student / name).write_bytes(content)
