"""The parser of blocks, on tidy files and on what students make of them."""

from __future__ import annotations

import pytest

from grader import blocks

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
    blocks.changed_outside(text, FILE)


def test_filling_blocks_spacing_and_comments_are_no_change_outside() -> None:
    text = blocks.fill(FILE, "1.1", "import os\ny = x\nz = y").replace('"""Doc."""', '"""Doc."""  # read this')
    assert blocks.changed_outside(text.replace("return y", "return   y  "), FILE) is None


def test_a_change_outside_is_located() -> None:
    text = blocks.fill(FILE, "1.1", "a = 1\nb = 2\ny = a + b")
    changed = text.replace("def g(x):", "def g(x, z):")
    line = changed.split("\n").index("def g(x, z):") + 1
    assert blocks.changed_outside(changed, FILE) == (line, line)


def test_lost_rulers_are_a_change_outside() -> None:
    text = "\n".join(line for line in FILE.split("\n") if "####" not in line)
    assert blocks.changed_outside(text, FILE) is not None
