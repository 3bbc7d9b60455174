"""What one question changes in the process does not reach the next, and is named."""

from __future__ import annotations

import random
import textwrap
import timeit
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from grader.checks.runner import Check
from grader.engine import state
from grader.engine.changes import Changes
from grader.engine.launcher import ZygoteLauncher
from grader.engine.student import Failure, Student
from grader.engine.wire import WireError
from grader.grading import in_order, session
from grader.submission import Submission

from .conftest import EXACT, Graded, filled, with_source

PROBE = """
import builtins, copy, decimal, gc, locale, math, os, random, signal, sys, threading, time, warnings
import numpy
import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import Normal, kl_divergence

def change():
{change}

def look():
    x = torch.ones(3, requires_grad=True)
    with warnings.catch_warnings(record=True) as seen:
        warnings.warn("look")
    return [
        str(torch.ones(1).dtype), str(torch.ones(1).device), (x * 2).requires_grad, torch.is_inference_mode_enabled(),
        torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), torch.is_anomaly_enabled(),
        str(nn.Linear(3, 2)(torch.ones(1, 3)).dtype), str(torch.mm(torch.ones(2, 2), torch.ones(2, 2)).dtype),
        torch.get_float32_matmul_precision(), torch.backends.mkldnn.enabled, str(torch.tensor([1.23456789])),
        float(torch.tensor(2.3e-308, dtype=torch.float64) / 4) > 0, str(numpy.geterr()), str(numpy.array([1 / 3])),
        len(seen), sys.getrecursionlimit(), list(sys.path), sorted(os.environ.items()), os.getcwd(), gc.isenabled(),
        gc.get_threshold()[0], locale.setlocale(locale.LC_ALL), str(decimal.Decimal(1) / 3), sys.gettrace() is None,
        sys.getprofile() is None, type(sys.stdout).__name__, sys.getswitchinterval(),
        str(signal.getsignal(signal.SIGTERM)), signal.getitimer(signal.ITIMER_REAL)[1], threading.active_count(),
        float(F.relu(torch.tensor(-1.0))), float(torch.exp(torch.tensor(0.0))), float(torch.tensor(2.0).add(1)),
        float(torch.tensor(2.0) + 1), math.sqrt(4), float(numpy.sqrt(4.0)), divmod(7, 2),
        float(nn.Identity()(torch.tensor(2.0))), float(Normal(0.0, 1.0).log_prob(torch.tensor(0.0))),
        float(kl_divergence(Normal(0.0, 1.0), Normal(1.0, 1.0))), copy.deepcopy([1]), random.uniform(1, 1),
        hasattr(torch, "left_behind"), float(x.sigmoid().sum().detach()), sys.modules["torch"] is torch,
    ]
"""

CHANGES = {
    "torch.set_default_dtype(torch.float64)": "the default dtype of torch",
    "torch.set_default_device('meta')": "the default device of torch",
    "torch.device('meta').__enter__()": "the modes of torch functions",
    "torch.set_grad_enabled(False)": "whether torch records gradients",
    "torch.no_grad().__enter__()": "whether torch records gradients",
    "globals()['mode'] = torch.inference_mode(); mode.__enter__()": "the inference mode of torch",
    "torch.autocast('cpu').__enter__()": "autocast",
    "torch.set_num_threads(2)": "the number of threads of torch",
    "torch.use_deterministic_algorithms(True)": "the deterministic algorithms of torch",
    "torch.autograd.set_detect_anomaly(True)": "the anomaly mode of torch",
    "torch.set_float32_matmul_precision('medium')": "the precision of matrix products in torch",
    "torch.backends.mkldnn.enabled = False": "a switch of torch.backends",
    "torch.set_printoptions(precision=2)": "how torch prints tensors",
    "torch.set_flush_denormal(True)": "how torch treats denormal numbers",
    "nn.modules.module.register_module_forward_hook(lambda m, i, o: o * 2)": "the hooks of all modules or optimizers",
    "torch.autograd.graph.saved_tensors_hooks(lambda x: x, lambda x: x * 2).__enter__()": "the hooks on saved tensors",
    "torch.distributions.register_kl(Normal, Normal)(lambda p, q: p.mean * 7)": "the functions behind kl_divergence",
    "numpy.seterr(all='raise')": "numpy's error state",
    "numpy.set_printoptions(precision=2)": "numpy's print options",
    "warnings.simplefilter('error')": "the filters of warnings",
    "warnings.filters = [('error', None, Warning, None, 0)]": "warnings.filters",
    "sys.setrecursionlimit(5000)": "the recursion limit",
    "sys.path.insert(0, '/nowhere')": "sys.path",
    "sys.path = []": "sys.path",
    "os.environ['LEFT'] = 'behind'": "os.environ",
    "del os.environ['OMP_NUM_THREADS']": "os.environ",
    "os.environ = {}": "os.environ",
    "gc.disable()": "the garbage collector",
    "locale.setlocale(locale.LC_ALL, 'C')": "the locale",
    "decimal.getcontext().prec = 3": "the decimal context",
    "sys.settrace(lambda *a: None)": "sys.settrace",
    "sys.setprofile(lambda *a: None)": "sys.setprofile",
    "sys.setswitchinterval(1)": "sys.setswitchinterval",
    "sys.stdout = __import__('io').StringIO()": "sys.stdout",
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)": "the signal handlers",
    "signal.alarm(1000)": "the alarm clock",
    "threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()": "the number of running threads",
    "F.relu = F.gelu": "torch.nn.functional.relu",
    "del torch.exp": "torch.exp",
    "torch.exp = numpy.ones(3)": "torch.exp",
    "torch.Tensor.add = lambda a, b: a": "torch.Tensor.add",
    "torch.Tensor.__add__ = lambda a, b: a": "torch.Tensor.__add__",
    "nn.Module.__call__ = lambda self, x: x * 3": "torch.nn.Module.__call__",
    "nn.Linear.forward = lambda self, x: x.double()": "torch.nn.Linear.forward",
    "torch.distributions.Normal.log_prob = lambda self, x: x + 5": "torch.distributions.Normal.log_prob",
    "math.sqrt = abs": "math.sqrt",
    "numpy.sqrt = abs": "numpy.sqrt",
    "random.uniform = lambda a, b: 7": "random.uniform",
    "copy.deepcopy = lambda x: 7": "copy.deepcopy",
    "builtins.divmod = lambda a, b: 7": "builtins.divmod",
    "warnings.warn = lambda *a, **k: None": "warnings.warn",
    "sys.modules['torch'] = math": "sys.modules",
}
STAYS_IN_A_FILE = "torch.left_behind = 1"  # a new name harms nobody, and the file that made it may need it

Make = Callable[[str], Student]


@pytest.fixture
def make(launcher: ZygoteLauncher, tmp_path: Path) -> Iterator[Make]:
    """Makes a student of a file `mine.py`."""
    made: list[Student] = []

    def student(source: str) -> Student:
        folder = tmp_path.resolve() / str(len(made))
        folder.mkdir()
        (folder / "mine.py").write_text(source, "utf-8")
        made.append(Student(folder, launcher, 60, 300))
        return made[-1]

    yield student
    for one in made:
        one.close()


def probe(change: str) -> str:
    return PROBE.format(change=textwrap.indent(change, "    "))


def look(student: Student, question: str) -> object:
    student.begin(0, question=question)
    return student.mine.look()


@pytest.fixture(scope="module")
def untouched(launcher: ZygoteLauncher, tmp_path_factory: pytest.TempPathFactory) -> object:
    """What a probe sees where nothing was changed, but for the folder it is in."""
    folder = tmp_path_factory.mktemp("untouched").resolve()
    (folder / "mine.py").write_text(probe("pass"), "utf-8")
    student = Student(folder, launcher, 60, 300)
    seen = look(student, "1")
    student.close()
    assert student.notes == []
    return without_folder(seen, student)


def without_folder(seen: object, student: Student) -> str:
    return str(seen).replace(str(student.directory), "FOLDER")


@pytest.mark.parametrize("change", [*CHANGES, STAYS_IN_A_FILE])
def test_what_a_question_changes_is_put_back_and_named(change: str, make: Make, untouched: object) -> None:
    student = make(probe(change))
    student.begin(0, question="2.1a")
    student.mine.change()
    assert without_folder(look(student, "2.2a"), student) == untouched
    student.close()
    (note,) = student.notes
    assert note.startswith(f"While 2.1a was checked, the code changed {CHANGES.get(change, 'torch.left_behind')}; ")


@pytest.mark.parametrize("change", CHANGES)
def test_what_a_file_changes_is_put_back_and_named(change: str, make: Make, untouched: object) -> None:
    student = make(probe("pass") + change + "\n")
    seen = without_folder(look(student, "2.2a"), student)
    assert seen == untouched or "Thread" in change
    student.close()
    assert [note for note in student.notes if f"Importing mine.py changed {CHANGES[change]}; " in note] == student.notes
    assert len(student.notes) == 1


def test_a_new_name_of_a_file_stays(make: Make) -> None:
    student = make(
        "import torch\ntorch.mine = 3\ntorch.Tensor.mine = 4\ndef f(): return torch.mine + torch.Tensor.mine\n"
    )
    for question in ("1", "2"):
        student.begin(0, question=question)
        assert student.mine.f() == 7
    student.close()
    assert student.notes == []


def test_a_file_that_draws_at_import_does_not_change_what_is_drawn_after(make: Make) -> None:
    draws = "def f(): return [torch.rand(()), float(numpy.random.rand()), random.random()]\n"
    source = "import random, numpy, torch\n" + draws
    student = make(source + "torch.manual_seed(3); random.seed(3); numpy.random.seed(3); torch.nn.Linear(9, 9)\n")
    other = make(source)
    for one in (student, other):
        one.begin(7)
    first, second = student.mine.f(), other.mine.f()
    student.begin(7)
    assert first == second == student.mine.f()


def test_ordinary_code_gets_no_note(make: Make) -> None:
    student = make(
        """
import copy, decimal, logging, random, warnings
import numpy as np
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)
    def forward(self, x):
        return torch.relu(self.layer(x))

@torch.no_grad()
def f():
    torch.manual_seed(0); np.random.seed(0); random.seed(0)
    net = Net()
    with torch.enable_grad(), torch.autocast("cpu"):
        net(torch.ones(1, 2)).sum().backward()
    for kind in (torch.optim.Adam, torch.optim.SGD):
        optimizer = kind(net.parameters(), lr=0.1)
        optimizer.step()
        optimizer.zero_grad()
    with torch.inference_mode():
        copy.deepcopy(net).eval()(torch.ones(1, 2))
    with torch.device("cpu"):
        torch.func.vmap(torch.sum)(torch.ones(2, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.warn("unseen")
    with np.errstate(all="ignore"):
        np.ones(1) / 0
    logging.getLogger().warning("seen")
    decimal.Decimal(1) / 3
    kl_divergence(Normal(0.0, 1.0), Normal(0.0, 1.0))
    nn.utils.clip_grad_norm_(net.parameters(), 1)
    print(torch.ones(2), net)
    return 1
"""
    )
    for question in ("1", "2"):
        student.begin(0, question=question)
        assert student.mine.f() == 1
    student.close()
    assert student.notes == []


def test_a_worker_that_cannot_be_put_back_is_replaced(make: Make) -> None:
    student = make(probe(next(change for change in CHANGES if "Thread" in change)))
    student.begin(0, question="1")
    student.mine.change()
    before = student._process
    look(student, "2")
    assert student._process is not before
    assert student.notes == [
        "While 1 was checked, the code changed the number of running threads; what follows ran in a new process."
    ]


def test_a_thread_of_a_file_is_told_once_and_starts_no_worker_after_worker(make: Make) -> None:
    student = make(probe("pass") + "threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()\n")
    look(student, "1")
    before = student._process
    look(student, "2")
    assert student._process is before


def test_a_lowered_recursion_limit_costs_its_own_question_only(make: Make) -> None:
    source = (
        "import sys\ndef lower(): sys.setrecursionlimit(len(__import__('inspect').stack()) + 5)\ndef f(): return 1\n"
    )
    student = make(source)
    for call in ("lower", "f"):
        student.begin(0)
        try:
            value = getattr(student.mine, call)()
        except Failure as failure:
            value = failure
    assert value == 1


def test_a_change_that_breaks_the_worker_costs_its_own_question_only(make: Make) -> None:
    student = make(probe("builtins.len = lambda x: 7"))
    student.begin(0)
    with pytest.raises(Failure) as caught:
        student.mine.change()
    assert caught.value.status == "crashed"
    assert len(look(student, "2")) > 20


def words(*names: object) -> dict:
    """The skeleton of a list of words."""
    return {"sequence": [{"value": name} for name in names]}


def reported(module: str, put_back: dict, stuck: dict) -> dict:
    """The skeleton of a worker's report."""
    return {"mapping": {module: {"sequence": [put_back, stuck]}}}


@pytest.mark.parametrize(
    "forged",
    [
        {"value": 3},
        {"mapping": {"": words("torch.relu")}},
        {"mapping": {"": {"value": "torch.relu"}}},
        reported("", {"value": "torch.relu"}, words()),
        reported("", words(3), words()),
        reported("", words("your grade; it is 100"), words()),
        reported("", words(), words("torch.\x1b[2J")),
        reported("", words("torch." + "x" * 100), words()),
        reported("", {"object": 3}, words()),
        reported("no_file", words("torch.relu"), words()),
    ],
)
def test_forged_changes_are_not_told(forged: object) -> None:
    changes = Changes(lambda module: module == "loss")
    with pytest.raises(WireError):
        changes.add(forged, "1")
    assert changes.notes() == []


def test_sentences_of_changes() -> None:
    changes = Changes(lambda module: True)
    seven = words(*(f"torch.{name}" for name in "abcdefg"))
    changes.add(reported("", words("torch.a", "torch.b"), words()), "2.1a")
    changes.add(reported("loss\u202e", seven, words()), "2.1a")
    changes.add(reported("model", words("sys.path"), words("the number of running threads")), "2.1a")
    assert changes.notes() == [
        "Importing loss\\u202e.py changed torch.a, torch.b, torch.c, torch.d, torch.e and 2 more; they were put back.",
        "Importing model.py changed sys.path and the number of running threads; "
        "the number of running threads cannot be put back.",
        "While 2.1a was checked, the code changed torch.a and torch.b; they were put back for the rest.",
    ]


def test_looking_for_changes_reads_the_whole_of_a_namespace_in_one_step() -> None:
    """What is compared is as many values as there are names; the time that takes is told by `python -m timeit`."""
    here = state.State()
    assert here.restore() == state.Changes()
    assert sum(len(names.values) for names in here.names) > 3000
    assert timeit.timeit(here.restore, number=1) > 0


# ---------------------------------------------------------------- grading

IN_A_BLOCK = """
torch.set_default_dtype(torch.float64)
torch.set_grad_enabled(False)
torch.set_num_threads(2)
torch.Tensor.mean = torch.Tensor.sum
F.relu = F.gelu
nn.Module.eval = nn.Module.train
import math, numpy, random, sys, warnings
numpy.seterr(all="raise")
math.sqrt = abs
warnings.simplefilter("error")
sys.setrecursionlimit(150)
torch.manual_seed(0)
"""
AT_THE_TOP = "torch.set_default_dtype(torch.float64)\ntorch.set_grad_enabled(False)\ntorch.manual_seed(1)\n"


def changing(solution: Submission) -> Submission:
    """The solution, with changes of the process in block 2.1a and at the top of model.py."""
    text = solution.text("model.py")
    assert text is not None
    first = text.index("from module import")
    block = IN_A_BLOCK + "raise ValueError('2.1a')\n"
    return with_source(filled(solution, "2.1a", block), "model.py", text[:first] + AT_THE_TOP + text[first:])


def test_other_questions_keep_their_points(graded: Graded, solution: Submission) -> None:
    result = graded(changing(solution))
    assert [question.id for question in result.questions if question.score < question.max_score] == ["2.1a"]
    told = [note for note in result.notes if "changed" in note]
    assert any(note.startswith("Importing model.py changed the default dtype of torch and whether") for note in told)
    assert any(note.startswith("While 2.1a was checked, the code changed math.sqrt") for note in told)


def outcomes(submission: Submission, checks: list[Check], launcher: ZygoteLauncher) -> dict[str, tuple]:
    """How each check ended, by its id, where they run in the order given."""
    with session(submission, EXACT, launcher, 0) as current:
        ends = {check.id: current.run(check) for check in checks}
    return {name: (end.status, end.message, end.hint, str(end.margins)) for name, end in sorted(ends.items())}


@pytest.mark.parametrize("which", ["solution", "changing"])
def test_results_do_not_depend_on_the_order_of_checks(
    which: str, launcher: ZygoteLauncher, solution: Submission
) -> None:
    submission = solution if which == "solution" else changing(solution)
    checks = in_order(EXACT)
    first = outcomes(submission, checks, launcher)
    for seed in (1, 2):
        shuffled = random.Random(seed).sample(checks, len(checks))
        assert outcomes(submission, shuffled, launcher) == first


def test_the_solution_gets_no_notes(graded: Graded, solution: Submission) -> None:
    assert graded(solution, "1.1", "2.1a", "2.2b", "2.3a").notes == solution.notes
