"""The parser of blocks, on tidy files and on what students make of them."""

from __future__ import annotations

import pytest

from grader import blocks
from grader.changes import changes

FILE = '''import torch


def f(x):
    """Doc."""
    ############################ Your code here ############################
    # TODO(1.1): double x.
    # Leave it in `y`.
    ########################################################################
    y = 2 * x
    ########################################################################
    return y


def g(x):
    ############################ Your code here ############################
    # TODO(1.2): halve x.
    ########################################################################
    y = x / 2

    # done
    ########################################################################
    return y
'''


def test_finds_blocks_in_order_with_their_bodies() -> None:
    found = blocks.parse(FILE)
    assert list(found) == ["1.1", "1.2"]
    assert found["1.1"].body == "    y = 2 * x"
    assert found["1.2"].indent == "    "


def test_empty_leaves_one_line_a_block_and_the_rest_as_it_is() -> None:
    emptied = blocks.empty(FILE)
    assert [block.body for block in blocks.parse(emptied).values()] == [
        '    raise NotImplementedError("1.1")',
        '    raise NotImplementedError("1.2")',
    ]
    assert "2 * x" not in emptied
    assert blocks.empty(emptied) == emptied
    assert blocks.fill(blocks.fill(emptied, "1.1", "y = 2 * x"), "1.2", "y = x / 2\n\n# done") == FILE


def test_fill_dedents_and_indents() -> None:
    text = blocks.fill(FILE, "1.1", "\n        if x:\n            y = x\n")
    assert blocks.parse(text)["1.1"].body == "    if x:\n        y = x"


def test_fill_of_an_unknown_question_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        blocks.fill(FILE, "9.9", "pass")


@pytest.mark.parametrize(
    ("body", "attempted"),
    [
        ("", False),
        ("pass", False),
        ("...", False),
        ('raise NotImplementedError("1.1")', False),
        ("raise NotImplementedError", False),
        ("raise NotImplementedError()  # later", False),
        ("# only a thought\n\n", False),
        ("y = x", True),
        ("# a thought\ny = x", True),
        ('raise ValueError("1.1")', True),
    ],
)
def test_attempted(body: str, attempted: bool) -> None:
    assert blocks.parse(blocks.fill(FILE, "1.1", body))["1.1"].attempted is attempted


@pytest.mark.parametrize(
    "mangle",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("    #####", "#####"),
        lambda text: text.replace("#\n", "#   \n"),
        lambda text: text.replace("Your code here", "YOUR CODE HERE"),
        lambda text: text.replace("    ", "\t"),
    ],
)
def test_rulers_survive_editors(mangle) -> None:
    assert list(blocks.parse(mangle(FILE))) == ["1.1", "1.2"]


def test_a_block_without_a_closing_ruler_does_not_swallow_the_next() -> None:
    lines = FILE.split("\n")
    del lines[10]
    assert list(blocks.parse("\n".join(lines))) == ["1.2"]


@pytest.mark.parametrize("text", ["", "\0", "#" * 100, "# TODO(1.1)", FILE[: len(FILE) // 3], "((((" * 10_000])
def test_anything_parses(text: str) -> None:
    blocks.parse(text)
    blocks.parse(text, FILE)
    changes(text, FILE)


def test_filling_blocks_spacing_and_comments_are_no_change_outside() -> None:
    text = blocks.fill(FILE, "1.1", "import os\ny = x\nz = y").replace('"""Doc."""', '"""Doc."""  # read this')
    assert changes(text.replace("return y", "return   y  "), FILE) == ""


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("def g(x):", "def g(x, z):", "g was changed"),
        ("def g(x):", "def h(x):", "h was added; g was removed"),
        (
            "import torch",
            "import torch, math\nfrom os import path as p",
            "the import of math and the import of p were added",
        ),
        ("import torch", "import torch as t", "the import of t was added; the import of torch was removed"),
        ("def g(x):", "class A:\n    def b(self):\n        pass\n\n\ndef g(x):", "A was added"),
        ("import torch", "import torch\n\nN = 2", "code outside functions and classes was added"),
        ("    return y\n\n\ndef g", "    return (y * 2) + 1\n\n\ndef g", "f was changed"),
        ('"""Doc."""', '"""Another."""', ""),
        ("    return y\n\n\ndef g", "    return (\n        y\n    )\n\n\ndef g", ""),
        ("import torch", "import torch;", ""),
        ("def g(x):", "def g(\n    x,\n):", ""),
        ("def g(x):", "if __name__ == '__main__':\n    print(1)\n\n\ndef g(x):", ""),
        ("y = 2 * x", "y = (2 * x", ""),
        ("y = 2 * x", "y = 2 *", ""),
    ],
)
def test_changes_outside_are_named(old: str, new: str, says: str) -> None:
    assert changes(FILE.replace(old, new, 1), FILE) == says


def test_brackets_that_change_the_meaning_are_a_change() -> None:
    given = FILE.replace("return y", "return y * (1 - y)", 1)
    assert changes(given.replace("y * (1 - y)", "y * 1 - y"), given) == "f was changed"
    assert changes(given.replace("y * (1 - y)", "(y * (1 - y))"), given) == ""


RULERS = "#" * 72


@pytest.mark.parametrize(
    "mangle",
    [
        lambda text: "\n".join(line for line in text.split("\n") if "####" not in line),
        lambda text: "\n".join(line for line in text.split("\n") if not line.strip().startswith("#")),
        lambda text: text.replace("TODO(1.1)", "DONE").replace("TODO(1.2)", "TODO(1.1)"),
        lambda text: text.replace(RULERS, "#" * 12),
        lambda text: text.replace("Your code here", "My code"),
        lambda text: text.replace("    y = 2 * x\n    " + RULERS, "    y = 2 * x"),
        lambda text: text.replace("y = 2 * x", f"{RULERS}\n    y = 2 * x\n    {RULERS}"),
        lambda text: text.replace("def g(x)", "def h():\n    return f(1)\n\n\ndef g(x)"),
        lambda text: "\n".join(line for line in text.replace('"""Doc."""', "").split("\n") if "#" not in line),
        lambda text: text.replace("\n", "\r").replace("    ", "\f\t"),
    ],
)
def test_blocks_are_found_by_the_code_around_them(mangle) -> None:
    found = blocks.parse(mangle(FILE), blocks.empty(FILE))
    assert {question: code_of(block.body) for question, block in found.items()} == {
        "1.1": ["y = 2 * x"],
        "1.2": ["y = x / 2"],
    }


def code_of(body: str) -> list[str]:
    return [line.strip() for line in body.split("\n") if line.strip() and not line.strip().startswith("#")]


@pytest.mark.parametrize("broken", ["y = (2 * x", "y = 2 * x)", "y = '2", "for", "y = 2\nx = 3", "return y"])
@pytest.mark.parametrize("rulers", [True, False])
def test_a_mistake_in_a_block_does_not_hide_the_others(broken: str, rulers: bool) -> None:
    text = blocks.fill(FILE, "1.1", broken)
    if not rulers:
        text = "\n".join(line for line in text.split("\n") if "####" not in line)
    found = blocks.parse(text, FILE)
    assert code_of(found["1.1"].body) == broken.split("\n")
    assert code_of(found["1.2"].body) == ["y = x / 2"]


def test_of_copies_the_first_that_is_filled_counts() -> None:
    lines = blocks.empty(FILE).split("\n")
    block = lines[5:11]
    twice = "\n".join([*lines[:11], *block, *lines[11:]])
    for first, second, counts in (("y = 1", "y = 2", "y = 1"), ("pass", "y = 2", "y = 2")):
        placeholder = 'raise NotImplementedError("1.1")'
        text = twice.replace(placeholder, first, 1).replace(placeholder, second, 1)
        found = blocks.parse(text, FILE)["1.1"]
        assert code_of(found.body) == [counts]
        assert len(found.copies) == 1
        assert changes(text, FILE) == ""
