"""Imports the student's files in a worker. A file that cannot be imported as a whole is imported block by block.

A mistake in one block, or in code outside the blocks, then costs no other block. The blocks that Python can read go
into the student's file without the others or, where the rest of that file is at fault, into the handout's file. A block
that Python cannot read raises its own error when it is called.
"""

from __future__ import annotations

import ast
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import traceback
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

BLOCKS = "blocks.json"  # in the staged folder: where blocks are in each of the student's files, and in the handout's
FAULTS = "__faults__"  # in a module that was imported block by block: the error of each block that is at fault
Places = dict[str, tuple[int, int, str]]  # of each block: first and last line (from 0, excluded) of its body; indent


class StudentFiles(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds and loads the files of `directory`, which are read at once: a sealed worker opens no file later.

    Attributes:
        faults: by module, what kept Python from importing it as a whole.
        emptied: modules whose import did not end, or ended the process. They are taken from the handout, without the
            student's blocks.
        around: a context, made of the name of a module, in which its file runs.
    """

    def __init__(self, directory: str):
        folder = Path(directory)
        self.files = {path.stem: (str(path), path.read_bytes()) for path in folder.glob("*.py")}
        described = folder / BLOCKS
        self.parts: dict[str, Any] = json.loads(described.read_text("utf-8")) if described.exists() else {}
        self.faults: dict[str, str] = {}
        self.emptied: set[str] = set()
        self.around: Callable[[str], AbstractContextManager] = lambda module: nullcontext()

    def find_spec(self, name: str, path: object = None, target: object = None) -> importlib.machinery.ModuleSpec | None:
        """The student's files, and nothing else."""
        return importlib.util.spec_from_loader(name, self) if name in self.files else None

    def exec_module(self, module: types.ModuleType) -> None:
        """Run a file, under the path it came from. Raises what it raises, where it has no blocks."""
        with self.around(module.__name__):
            self._run(module, module.__name__)

    def _run(self, module: types.ModuleType, name: str) -> None:
        path, source = self.files[name]
        module.__file__ = path
        parts = Parts(path, **self.parts[name]) if name in self.parts else None
        if name in self.emptied:
            if parts is None:
                raise ImportError(f"{name}.py cannot be imported: it did not end, or ended the process")
            exec(parts.compile(parts.handout, parts.places, {}), module.__dict__)
            return
        before = dict(module.__dict__)
        try:
            exec(compile(source, path, "exec"), module.__dict__)
        except BaseException as error:  # SystemExit at the top of a file is a fault like any other
            if parts is None:
                raise
            self.faults[name] = describe_fault(error, os.path.dirname(path))  # noqa: PTH120 (see `worker`)
            module.__dict__.clear()
            module.__dict__.update(before)
            parts.run(module.__dict__)


class Parts:
    """A student's file taken apart, which can be put together without the blocks that are at fault.

    Args:
        path: where the file is.
        text: the student's file.
        handout: the same file as it was given out.
        blocks, places: where the bodies of the blocks are in each of them.
    """

    def __init__(self, path: str, text: str, handout: str, blocks: Places, places: Places):
        self.path = path
        self.own, self.handout = text.split("\n"), handout.split("\n")
        self.blocks, self.places = blocks, places
        self.bodies = {name: self.own[start:end] for name, (start, end, _) in blocks.items()}

    def run(self, namespace: dict[str, Any]) -> None:
        """Run the student's file with the blocks that Python can read; or else the handout's with them."""
        before = dict(namespace)
        try:
            self._run(self.own, self.blocks, namespace)
        except BaseException:  # the rest of the student's file is at fault
            namespace.clear()
            namespace.update(before)
            self._run(self.handout, self.places, namespace)
            self._add_what_runs(namespace)

    def _run(self, base: list[str], places: Places, namespace: dict[str, Any]) -> None:
        faults: dict[str, BaseException] = {name: NotImplementedError(name) for name in places}
        good = {}
        self.compile(base, places, {})
        for name in places.keys() & self.bodies.keys():
            try:
                self.compile(base, places, {name: self.bodies[name]})
                good[name] = self.bodies[name]
            except Exception as error:  # besides a SyntaxError, code that is nested too deeply
                faults[name] = error
        namespace[FAULTS] = faults
        exec(self.compile(base, places, good), namespace)

    def compile(self, base: list[str], places: Places, bodies: Mapping[str, list[str]]) -> types.CodeType:
        """`base` with the bodies of some blocks in their places, and with the student's line numbers.

        The other blocks raise what FAULTS says. Raises SyntaxError, with the student's line numbers too.
        """
        lines: list[str] = []
        shifts: list[int] = []  # of each line, to the student's number
        at = shift = 0
        for name, (start, end, indent) in sorted(places.items(), key=lambda place: place[1]):
            first, last, own_indent = self.blocks.get(name, (start, end, indent))
            if name in bodies:
                body = [indent + line.removeprefix(own_indent) if line.strip() else line for line in bodies[name]]
            else:
                body = [f"{indent}raise {FAULTS}[{name!r}].with_traceback(None)", *[""] * (end - start - 1)]
            lines += base[at:start]
            shifts += [shift] * (start - at)
            shifts += [first - len(lines)] * len(body)
            lines += body
            at, shift = end, last - len(lines)
        lines += base[at:]
        shifts += [shift] * (len(base) - at + 1)
        try:
            tree = ast.parse("\n".join(lines), self.path)
            for node in ast.walk(tree):
                if isinstance(node, (ast.expr, ast.stmt, ast.excepthandler, ast.arg, ast.keyword, ast.alias)):
                    node.end_lineno = node.end_lineno and node.end_lineno + shifts[node.end_lineno - 1]
                    node.lineno += shifts[node.lineno - 1]
            return compile(tree, self.path, "exec")
        except SyntaxError as error:
            if error.lineno:
                error.lineno += shifts[min(error.lineno, len(shifts)) - 1]
            raise

    def _add_what_runs(self, namespace: dict[str, Any]) -> None:
        """Add to the handout's file what the student's defines outside the blocks, as far as it runs."""
        try:
            tree = ast.parse("\n".join(self._emptied()), self.path)
        except Exception:  # Python cannot read it; `StudentFiles.faults` says why
            return
        for statement in tree.body:
            names = set(defined(statement))
            if not names or names <= namespace.keys():
                continue
            try:
                exec(compile(ast.Module([statement], []), self.path, "exec"), namespace)
            except BaseException:  # the file's fault, which is known
                continue

    def _emptied(self) -> Iterator[str]:
        """The lines of the student's file, those of the blocks without what is in them."""
        starts = {start: (end, indent) for start, end, indent in self.blocks.values()}
        inside = 0
        for number, line in enumerate(self.own):
            if number in starts:
                inside, indent = starts[number]
                yield f"{indent}pass"
            if number >= inside:
                yield line


def describe_fault(error: BaseException, directory: str) -> str:
    """What a file raised, and in which line of the files in `directory`, in one line of text."""
    places = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    if isinstance(error, SyntaxError):
        places.append((error.filename or "", error.lineno or 0))
    own = [(os.path.basename(file), line) for file, line in places if os.path.dirname(file) == directory]  # noqa: PTH119, PTH120
    where = f" ({own[-1][0]}, line {own[-1][1]})" if own else ""
    message = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {message}"[:300] + where


def defined(statement: ast.stmt) -> Iterator[str]:
    """The names that a statement defines at the top of a file."""
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        yield statement.name
    elif isinstance(statement, ast.Import | ast.ImportFrom):
        yield from ((alias.asname or alias.name).partition(".")[0] for alias in statement.names)
    elif isinstance(statement, ast.Assign):
        yield from (target.id for target in statement.targets if isinstance(target, ast.Name))
