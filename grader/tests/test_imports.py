"""What a student's file can import, and what an import that takes too long or ends the process costs."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from grader.engine.imports import refusal
from grader.engine.launcher import ZygoteLauncher, boot_command, boot_environment
from grader.engine.student import Failure, Student
from grader.submission import Submission

from .conftest import Graded, by_id, with_source

Make = Callable[..., Student]


@pytest.fixture
def make(launcher: ZygoteLauncher, tmp_path: Path) -> Iterator[Make]:
    """Makes a student of files by their names without .py."""
    made: list[Student] = []

    def student(seconds: float = 30, wall: float = 120, **files: str) -> Student:
        folder = tmp_path.resolve() / str(len(made))
        folder.mkdir()
        for name, source in files.items():
            (folder / f"{name}.py").write_text(source, "utf-8")
        made.append(Student(folder, launcher, seconds, wall))
        made[-1].begin(0)
        return made[-1]

    yield student
    for one in made:
        one.close()


def failure(call: Callable[[], object]) -> Failure:
    with pytest.raises(Failure) as caught:
        call()
    return caught.value


def with_line(submission: Submission, file: str, line: str) -> Submission:
    """A submission with a line at the top of a file, below what must come first."""
    text = submission.text(file)
    assert text is not None
    return with_source(submission, file, text.replace("import torch\n", f"{line}\nimport torch\n", 1))


# ---------------------------------------------------------------- what can be imported

REFUSED = (
    *("PIL", "rich", "yaml", "matplotlib", "scipy", "pandas", "sklearn", "IPython", "einops", "sympy", "networkx"),
    *("jinja2", "typing_extensions", "grader", "engine", "pytest", "no_such_package"),
)


@pytest.mark.parametrize("name", REFUSED)
def test_other_packages_are_refused_whether_they_are_installed_or_not(name: str, make: Make) -> None:
    """Also those that torch has imported for itself: `sys.modules` does not matter."""
    student = make(
        mine=f"def f():\n    import {name}\ndef g():\n    import importlib\n    importlib.import_module('{name}.sub')\n"
    )
    assert f"ModuleNotFoundError: {refusal(name)}" in failure(student.mine.f).message
    assert f"ModuleNotFoundError: {refusal(f'{name}.sub')}" in failure(student.mine.g).message


@pytest.mark.parametrize("line", ["import matplotlib.pyplot as plt", "from matplotlib import pyplot", "import seaborn"])
def test_plots_are_to_be_taken_out(line: str, make: Make) -> None:
    problem = failure(make(mine=f"{line}\ndef f(): return 1\n").mine.f)
    assert (
        "cannot be imported in a graded file, only Python's own modules, torch, torchvision, numpy, tqdm"
        in problem.message
    )
    assert "take the plots out of this file" in problem.message


def test_what_torch_imports_for_itself_is_its_own_affair(make: Make) -> None:
    source = """
import torch
def f():
    import typing_extensions_of_nobody
def g():
    layer = torch.nn.Linear(2, 2)
    torch.optim.Adam(layer.parameters()).step()
    return 1
"""
    student = make(mine=source)
    assert student.mine.g() == 1
    assert "typing_extensions_of_nobody" in failure(student.mine.f).message


def test_optional_imports_and_files_of_ones_own_work(make: Make) -> None:
    source = """
from __future__ import annotations
import os, typing, dataclasses, multiprocessing, asyncio, numpy.linalg, torch.utils.data, mine_too
try:
    import matplotlib.pyplot as plt
except ImportError:
    plt = None
def f(): return mine_too.VALUE, plt
"""
    assert make(mine=source, mine_too="VALUE = 3").mine.f() == (3, None)


TQDM = """
import tqdm as whole
from tqdm import tqdm, trange
from tqdm.auto import tqdm as auto, trange as auto_trange
from tqdm.notebook import tqdm as notebook
from tqdm.contrib import tenumerate, tzip

def f():
    seen = list(tqdm([1, 2], desc="steps", leave=False)) + list(trange(2, 4)) + list(whole.tqdm((4,)))
    with tqdm(total=3) as bar:
        bar.update(2)
        bar.update()
        bar.set_postfix(loss=1.0)
        bar.set_postfix_str("x")
        bar.set_description("y")
        bar.refresh()
    bar = auto(reversed(range(2)), total=2)
    for i in bar:
        bar.set_description(f"{i}", refresh=False)
        seen.append(i)
    bar.close()
    tqdm.write("a line")
    seen += [i for i, _ in tenumerate("ab")] + [a + b for a, b in tzip([1], [2])] + list(notebook({5: 6}))
    return seen, len(tqdm([1, 2])), len(auto_trange(4)), bar.n
"""


def test_tqdm_lets_everything_pass(make: Make) -> None:
    student = make(mine=TQDM)
    assert student.mine.f() == ((1, 2, 2, 3, 4, 1, 0, 0, 1, 3, 5), 2, 4, 2)
    student.close()
    assert student.output == "a line\n"
    assert student.notes == []


@pytest.mark.skipif(find_spec("torchvision") is None, reason="torchvision is not installed")
@pytest.mark.parametrize(
    "line",
    [
        "from torchvision.utils import make_grid",
        "import torchvision.transforms as T",
        "from torchvision.transforms import v2",
    ],
)
def test_torchvision_works_where_a_submission_imports_it(line: str, solution: Submission) -> None:
    from grader.grading import grade

    from .conftest import QUESTIONS

    launcher = ZygoteLauncher()
    try:
        grade(solution, [QUESTIONS["2.2b"]], launcher, 0)
        assert launcher.imports == set()  # nobody else pays
        result = grade(with_line(solution, "loss.py", line), [QUESTIONS["2.2b"]], launcher, 0)
        assert "torchvision" in launcher.imports
    finally:
        launcher.close()
    assert result.score == result.max_score


# ---------------------------------------------------------------- what an import costs


def test_an_import_that_takes_too_long_is_paid_once_and_by_nobody_else(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("grader.engine.student.IMPORT_SECONDS", 1)
    student = make(slow="import time\ntime.sleep(100)\ndef f(): pass\n", mine="def f(): return 1\n", wall=3)
    problem = failure(student.slow.f)
    assert (problem.status, problem.message.splitlines()[0]) == (
        "timeout",
        "Importing slow.py took more than 1 s. It was here:",
    )
    assert "time.sleep(100)" in problem.message
    left = student._seconds_left
    assert left == 3  # the import was not charged
    assert failure(student.slow.f) is problem
    assert student._seconds_left == left
    student.begin(0)
    assert student.mine.f() == 1


def test_a_slow_import_within_another_is_blamed_on_its_own_file(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("grader.engine.student.IMPORT_SECONDS", 1)
    student = make(slow="import time\ntime.sleep(100)\n", mine="import fine\nimport slow\ndef f(): return 1\n", fine="")
    problem = failure(student.mine.f)
    assert problem.message.startswith("Importing slow.py took more than 1 s.")
    assert failure(student.slow.f) is problem


def test_a_slow_import_within_a_call_is_paid_once(make: Make) -> None:
    source = "def f():\n    import slow\n"
    student = make(mine=source, slow="import time\ntime.sleep(100)\n", seconds=1)
    problem = failure(student.mine.f)
    assert problem.message.startswith("Importing slow.py took more than 1 s.")
    assert failure(student.slow.f) is problem


@pytest.mark.parametrize("end", ["import os; os._exit(3)", "import ctypes; ctypes.string_at(0)"])
def test_a_file_that_ends_the_process_is_named(end: str, make: Make) -> None:
    student = make(bad=end + "\n", mine="import bad\ndef f(): return 1\n", fine="def f(): return 2\n")
    problem = failure(student.mine.f)
    assert (problem.status, "during import bad" in problem.message) == ("crashed", True)
    assert failure(student.bad.f) is problem
    assert student.fine.f() == 2


def test_an_import_is_charged_from_the_second_time_on(make: Make) -> None:
    """Else a submission whose every check ends the worker could take its time as often as there are checks."""
    student = make(mine="import os, time\ntime.sleep(0.2)\ndef leave(): os._exit(3)\n", wall=50)
    failure(student.mine.leave)
    first = 50 - student._seconds_left
    failure(student.mine.leave)
    assert 50 - student._seconds_left > first + 0.2


def test_a_file_that_sleeps_costs_its_own_questions(
    graded: Graded, solution: Submission, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("grader.engine.student.IMPORT_SECONDS", 1)
    asleep = with_line(solution, "loss.py", "import time\ntime.sleep(100)")
    found = by_id(graded(asleep, "2.1a", "2.2b", "2.1b", "2.3a"))
    assert [found[question].score for question in ("2.1a", "2.2b")] == [0, 0]
    assert all(check.message.startswith("Importing loss.py took more than 1 s.") for check in found["2.1a"].checks)
    assert [found[q].score for q in ("2.1b", "2.3a")] == [found[q].max_score for q in ("2.1b", "2.3a")]


# ---------------------------------------------------------------- a zygote that is closed early


def test_a_zygote_whose_other_side_is_gone_ends_in_silence() -> None:
    ours, theirs = socket.socketpair()
    ours.close()
    command = boot_command({"control": theirs.fileno(), "imports": []})
    with theirs:
        done = subprocess.run(
            command, env=boot_environment(), pass_fds=[theirs.fileno()], capture_output=True, text=True, timeout=120
        )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_launchers_that_are_closed_at_once_print_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    for _ in range(10):
        ZygoteLauncher().close()
    started = ZygoteLauncher()
    started.require(["json"])
    os.kill(started._process.pid, 0)
    started.close()
    assert capfd.readouterr() == ("", "")


# ---------------------------------------------------------------- text and keyboards


def test_text_that_cannot_be_encoded_is_told_all_the_same(make: Make) -> None:
    source = r"""
class Odd(Exception): pass
def say(): print("before \udc80 after")
def fail(): raise ValueError("a \ud800 b")
def odd(): raise Odd("\udfff")
def give(): return ["x\ud800y", {"k\udc00": "v\ud800"}, "\U0001f600"]
"""
    student = make(mine=source)
    student.mine.say()
    for call in (student.mine.fail, student.mine.odd):
        failure(call).message.encode()
    assert student.mine.give() == ("x\\ud800y", {"k\\udc00": "v\\ud800"}, "\U0001f600")
    student.close()
    assert student.output == "before ? after\n"


def test_a_file_at_whose_top_is_text_that_cannot_be_encoded(make: Make) -> None:
    failure(make(mine='raise ValueError("\\ud800")\n').mine.f).message.encode()


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("breakpoint()", "BreakpointError: breakpoint() waits for a keyboard"),
        ("input('> ')", "EOFError: EOF when reading a line"),
        ("exit()", "SystemExit"),
        ("quit(2)", "SystemExit: 2"),
        ("import sys; sys.exit('done')", "SystemExit: done"),
        ("import torch; torch.ones(1).cuda()", "Error: "),
        ("import torch; torch.ones(1, device='cuda')", "Error: "),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("import pdb; pdb.set_trace()", "BdbQuit"),
    ],
)
def test_code_that_waits_or_leaves_ends_in_an_error_and_costs_one_call(code: str, says: str, make: Make) -> None:
    student = make(mine=f"def f():\n    {code}\ndef g(): return 1\ndef h(): return input()\n")
    problem = failure(student.mine.f)
    assert (problem.status, says in problem.message) == ("error", True), problem.message
    assert student.mine.g() == 1
    assert "EOFError" in failure(student.mine.h).message  # exit() closes what input() reads from


def test_leaving_at_once_is_a_crash(make: Make) -> None:
    problem = failure(make(mine="import os\ndef f(): os._exit(0)\n").mine.f)
    assert (problem.status, "exit status 0" in problem.message) == ("crashed", True)
