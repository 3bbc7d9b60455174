"""How often a student has tried each question: a small file beside the results of `make grade` remembers it.

What it holds is nobody's secret and proves nothing: it is there so that hints open by steps.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeGuard

from grader import blocks
from grader.assignment import blocks_of
from grader.rubric import Question
from grader.submission import Submission

from .result import IDLE, Result, write_whole

FILE = ".grade-history.json"
SCHEMA = 1
MAX_BYTES = 1 << 20  # of a file that is read
NO_ATTEMPT = ("passed", "grader_error", *IDLE)
History = dict[str, list[str]]  # by question, the hashes of the code that was tried


def count_attempts(folder: Path, submission: Submission, questions: list[Question], result: Result) -> dict[str, int]:
    """Note what did not pass, and count the attempts so far, this one included, by question.

    The same code is one attempt, in any layout, and even if it is graded many times. A history that cannot be read is
    begun again, and one that cannot be written is left: neither stops a grading.

    Args:
        folder: where the history is.
        submission, questions, result: what was graded, and how it ended.
    """
    path = folder / FILE
    history = read_history(path)
    tried = {question.id for question in result.questions if question.status not in NO_ATTEMPT}
    known = sum(map(len, history.values()))
    for question in questions:
        if question.id in tried:
            history[question.id] = list(dict.fromkeys([*history.get(question.id, []), code_hash(submission, question)]))
    if sum(map(len, history.values())) > known:
        with suppress(OSError):
            write_whole(path, json.dumps({"schema": SCHEMA, "tried": history}, indent=2) + "\n")
    return {question.id: len(history[question.id]) for question in questions if question.id in tried}


def read_history(path: Path) -> History:
    """The history in a file; an empty one where it is not there, or is not a history."""
    try:
        if not path.is_file() or path.stat().st_size > MAX_BYTES:
            return {}
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    tried = found.get("tried") if isinstance(found, dict) and found.get("schema") == SCHEMA else None
    return tried if _is_history(tried) else {}


def code_hash(submission: Submission, question: Question) -> str:
    """A hash of the code in the blocks of a question; of its file where they are not found."""
    text = submission.text(question.file) or ""
    found = blocks.parse(text)
    names = blocks_of(question.id, question.file)
    bodies = [found[name].body for name in names] if names and found.keys() >= set(names) else [text]
    lines = [line.strip() for body in bodies for line in body.splitlines()]
    code = "\n".join(line for line in lines if line and not line.startswith("#"))
    return hashlib.sha256(code.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _is_history(tried: Any) -> TypeGuard[History]:
    """Whether something that was read is what `count_attempts` wrote."""
    return isinstance(tried, dict) and all(
        isinstance(hashes, list) and all(isinstance(each, str) for each in hashes) for hashes in tried.values()
    )
