"""How the files that students get hang together: which imports which."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter

import pytest

from grader.assignment import SOLUTION, student_files

FILES = {path.stem: path for path in sorted(SOLUTION.glob("*.py"))}
PART_3 = {"average", "enhanced", "enhanced_ldm", "flow", "guidance"}


def imported(name: str, everywhere: bool) -> set[str]:
    """The files that a file imports: everywhere, functions included, or as soon as it is imported itself."""
    tree = ast.parse(FILES[name].read_text("utf-8"))
    found: set[str] = set()
    for node in ast.walk(tree) if everywhere else tree.body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found & FILES.keys()


def test_no_file_imports_itself_by_way_of_others() -> None:
    try:
        TopologicalSorter({name: imported(name, everywhere=True) for name in FILES}).prepare()
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' - '.join(error.args[1])}")


@pytest.mark.parametrize("name", sorted(FILES.keys() - PART_3))
def test_parts_1_and_2_import_nothing_of_part_3_unless_an_option_asks_for_it(name: str) -> None:
    assert not imported(name, everywhere=False) & PART_3


@pytest.mark.parametrize("name", ["train", "sample", "recipes", "ldm", "enhanced_ldm"])
def test_commands_and_recipes_have_no_blocks(name: str) -> None:
    assert f"{name}.py" not in student_files()
