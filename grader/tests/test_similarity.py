"""Similarity of a class: copies are found however disguised, and nobody is shown for writing what many write."""

from __future__ import annotations

import random
import re
import time

import pytest

from grader import blocks
from grader.assignment import SOLUTION, pristine, student_files
from grader.bank import load_bank
from grader.batch.similarity import MAX_SHOWN, MAX_TOKENS, similarity, tokens

from .conftest import QUESTIONS

Codes = dict[str, str]  # by question
FILES = {question: file for file in student_files() for question in blocks.parse(pristine()[file])}
STEP = """
fake = generator(z)
loss = F.binary_cross_entropy(discriminator(x), torch.ones(len(x), 1))
discriminator_optimizer.zero_grad()
loss.backward()
discriminator_optimizer.step()
probability = discriminator(fake)
loss = -torch.log(probability + 1e-6).mean()
generator_optimizer.zero_grad()
loss.backward()
generator_optimizer.step()
for parameter in generator.parameters():
    parameter.grad = None
"""


def handed_in(codes: Codes) -> dict[str, bytes]:
    """The files of somebody who filled some blocks."""
    files = {name: pristine()[name] for name in student_files()}
    for question, code in codes.items():
        files[FILES[question]] = blocks.fill(files[FILES[question]], question, code)
    return {name: text.encode() for name, text in files.items()}


def a_class(size: int, seed: int) -> dict[str, Codes]:
    """Students, by name, who chose their answers to each question from the bank, one by one."""
    rng, bank = random.Random(seed), load_bank()
    by_question = {filling.question: [f for f in bank if f.question == filling.question] for filling in bank}
    return {
        f"s{at:03d}": {b: code for fillings in by_question.values() for b, code in rng.choice(fillings).blocks.items()}
        for at in range(size)
    }


def disguised(codes: Codes) -> Codes:
    """The same with other names, comments, spacing and line breaks."""
    return {
        block: renamed(code, names_of([c for b, c in codes.items() if question_of(b) == question_of(block)]))
        .replace("\n", "  # as in the lecture\n\n").replace("(", "( ").replace(" * ", "*")
        for block, code in codes.items()
    }  # fmt: skip


def question_of(block: str) -> str:
    """The question of a block: the one of its name, or the one before its letter."""
    return block if block in QUESTIONS else block[:-1]


def names_of(codes: list[str]) -> set[str]:
    """What some code assigns to."""
    return {name for code in codes for name in re.findall(r"^\s*(?:self\.)?(\w+) = ", code, re.M)}


def renamed(code: str, names: set[str]) -> str:
    return re.sub(r"\w+", lambda m: f"my_{m[0]}" if m[0] in names else m[0], code)


def groups_of(students: dict[str, Codes]) -> list[tuple[str, ...]]:
    """Who is shown together."""
    found = similarity({name: handed_in(codes) for name, codes in students.items()})
    return [group.students for group in found.groups]


@pytest.mark.parametrize(
    ("written", "rewritten"),
    [
        ("h = F.relu(self.fc1(x))", "hidden = F.relu( self.first(image) )  # first layer"),
        ("nn.Sequential(a, b)", "nn.Sequential(\n    one,\n    two,\n)"),
        ("y = x; z = y", "u = v\n\n\nw = u"),
        ('"""Adds."""\ny = x + f"a"', "y = x \\\n + rb'b'"),
        ("if x:\n    return [1, 2]", "if y:\n\treturn [1, 2,]"),
    ],
)
def test_names_comments_strings_and_layout_are_no_tokens(written: str, rewritten: str) -> None:
    assert tokens(written) == tokens(rewritten)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x.exp()", "x.log()"),
        ("1e-6", "1e-8"),
        ("a - b", "a + b"),
        ("torch.rand(x)", "torch.randn(x)"),
        ("a = b", "a == b"),
    ],
)
def test_what_code_does_is_tokens(one: str, other: str) -> None:
    assert tokens(one) != tokens(other)


def test_tokens_keep_given_names_and_no_others() -> None:
    code = "img = self.p_sample(denoise_fn, self.state, y=y) * 1e-6 ** 2"
    shown = "name = self . p_sample ( name , self . name , name = name ) * 1e-6 ** 2"
    assert tokens(code) == shown.split()


@pytest.mark.parametrize(
    "hostile",
    [
        "'" * 10**6,
        '"""' + "\\" * 10**6,
        "(," * 10**6,
        "rb" * 10**6,
        "\x00\ud800" * 10**6,
        '"""' + '""a' * 10**5,
        "1e-" * 10**6,
    ],
    ids=["quotes", "escapes", "brackets", "prefixes", "surrogates", "docstring", "numbers"],
)
def test_any_text_has_tokens_soon(hostile: str) -> None:
    began = time.process_time()
    assert len(tokens(hostile)) <= MAX_TOKENS
    assert time.process_time() - began < 5


def test_hostile_hand_ins_are_compared_like_others() -> None:
    ruler = "#" * 72
    opening = f"{'#' * 28} Your code here {'#' * 28}\n# TODO(2.2b): x\n{ruler}\n"
    distinct = " ".join(f"{n}" for n in range(40_000))
    files = [{file: (opening.split("\n")[0] + "\n").encode() * 3000} for file in student_files()]  # rulers only
    bodies = [f"loss = {distinct}", "\ud800loss = (((", "loss = '''" + "a\\" * 100_000, distinct]
    files += [{"loss.py": f"{opening}{body}\n{ruler}\n".encode("utf-8", "replace")} for body in bodies]
    files += [{"loss.py": b"\xff\xfe" * 100}, {"loss.py": b"#" * 10**7}, {}, {"nothing.txt": b""}]
    began = time.process_time()
    found = similarity({f"\u202e{at}": named for at, named in enumerate(files)})
    assert time.process_time() - began < 5
    assert found.groups == ()
    assert {block.question: block.compared for block in found.blocks}["2.2b"] == 6


def test_no_class_and_a_class_of_one() -> None:
    for sources in ({}, {"anna": handed_in({"2.2b": "loss = -fake"})}):
        found = similarity(sources)
        assert found.groups == ()
        assert [block.question for block in found.blocks] == sorted(FILES)
        assert {block.histogram for block in found.blocks} == {(0,) * 20}


def test_histogram_counts_the_pairs_of_those_who_filled_a_block() -> None:
    # 4 tokens, 4 again, and 5 of which "name =" and "name" are common: 2 * 3 / 9 = 0.67.
    codes = ["loss = -fake", "out = -logits", "loss = 0 + fake", "pass", "# loss = -fake"]
    found = similarity({str(at): handed_in({"2.2b": code}) for at, code in enumerate(codes)})
    (block,) = [block for block in found.blocks if block.question == "2.2b"]
    assert block.compared == 3
    assert {at: n for at, n in enumerate(block.histogram) if n} == {13: 2, 19: 1}
    assert block.pairs == ()


def test_a_similarity_on_the_edge_of_two_bins_counts_in_the_upper() -> None:
    codes = ["loss = -fake" + " + 1" * 8, "loss = -fake" + " + 1" * 7 + " + 2"]  # 20 tokens, 19 of them in common
    found = similarity({str(at): handed_in({"2.2b": code}) for at, code in enumerate(codes)})
    (histogram,) = [block.histogram for block in found.blocks if block.question == "2.2b"]
    assert histogram == (0,) * 19 + (1,)


@pytest.mark.parametrize("seed", range(3))
def test_students_who_chose_their_answers_alone_are_not_shown(seed: int) -> None:
    assert groups_of(a_class(60, seed)) == []


@pytest.mark.parametrize("seed", range(3))
def test_a_disguised_copy_is_found_and_nobody_else(seed: int) -> None:
    students = a_class(60, seed)
    students["zoe"] = disguised(students["s007"])
    assert groups_of(students) == [("s007", "zoe")]


def test_a_copy_is_shown_once_with_both_sides() -> None:
    students = a_class(60, 0)
    students["zoe"] = disguised(students["s007"])
    found = similarity({name: handed_in(codes) for name, codes in students.items()})
    ((pair,),) = [group.pairs for group in found.groups]
    assert [pair] == [shown for block in found.blocks for shown in block.pairs]
    assert (pair.first.student, pair.second.student, pair.similarity) == ("s007", "zoe", 1.0)
    assert pair.first.code.split() == students["s007"][pair.question].split()
    assert pair.second.code.split() == students["zoe"][pair.question].split()
    assert pair.also == tuple(sorted(pair.also))
    assert pair.question not in pair.also


def test_the_order_of_students_does_not_matter() -> None:
    students = a_class(40, 1)
    students["zoe"] = disguised(students["s007"])
    sources = {name: handed_in(codes) for name, codes in students.items()}
    assert similarity(sources) == similarity(dict(reversed(sources.items())))


def test_equal_hand_ins_are_one_pair_however_many() -> None:
    students = a_class(30, 2)
    students |= {"xia": students["s003"], "zoe": students["s003"]}
    found = similarity({name: handed_in(codes) for name, codes in students.items()})
    (group,) = found.groups
    assert group.students == ("s003", "xia", "zoe")
    (pair,) = group.pairs
    assert pair.first.code == pair.second.code


def test_a_class_that_writes_the_same_is_not_shown_for_it() -> None:
    fillings = {f.question: f for f in reversed(load_bank()) if f.right}
    popular = {block: code for f in fillings.values() for block, code in f.blocks.items()}
    students = {f"s{at}": {q: f"{code}\n# {at}" for q, code in popular.items()} for at in range(30)}
    assert groups_of(students) == []
    assert groups_of(students | {"xia": popular, "zoe": popular}) == [("xia", "zoe")]  # not one comment differs


def test_the_same_short_block_of_two_is_no_evidence() -> None:
    different = [f"loss = {'-' * (2 * at + 3)}fake * {at}{' + 0' * at}" for at in range(30)]
    students = {f"s{at}": {"2.2b": code} for at, code in enumerate(different)}
    students |= {name: {"2.2b": "loss = -fake.view(-1).mul(2).div(2).clone()"} for name in ("xia", "zoe")}
    assert groups_of(students) == []


def test_the_same_lines_of_two_are_no_evidence() -> None:
    students = {f"s{at}": {"2.2b": f"loss = fake * {at}", "2.3a": f"return {at} * noise"} for at in range(30)}
    students |= {name: {"2.2b": "loss = -1 * fake", "2.3a": "return noise - t"} for name in ("xia", "zoe")}
    assert groups_of(students) == []


def test_the_same_long_block_of_two_is_shown_where_everybody_else_differs() -> None:
    lines = STEP.strip().split("\n")
    others = [[f"{line} * {at} ** {at}.{at}{n}" for n, line in enumerate(lines)] for at in range(20)]
    students = {f"s{at}": {"1.4": "\n".join(code[at % 8 :])} for at, code in enumerate(others)}
    students |= {"xia": {"1.4": STEP}, "zoe": disguised({"1.4": STEP})}
    found = similarity({name: handed_in(codes) for name, codes in students.items()})
    assert [group.students for group in found.groups] == [("xia", "zoe")]
    assert [pair.question for pair in found.groups[0].pairs] == ["1.4"]


def test_the_same_long_block_of_two_is_not_shown_where_many_have_a_twin() -> None:
    lines = STEP.strip().split("\n")
    others = [[f"{line} * {at // 2} ** {at // 2}.{n}" for n, line in enumerate(lines)] for at in range(20)]
    students = {f"s{at}": {"1.4": "\n".join([f"# {at}", *code])} for at, code in enumerate(others)}
    students |= {"xia": {"1.4": STEP}, "zoe": disguised({"1.4": STEP})}
    assert groups_of(students) == []


def test_long_code_is_cut() -> None:
    students = a_class(30, 0)
    students["s003"]["2.2b"] = "loss = -fake  # " + "a" * 2 * MAX_SHOWN
    students["s003"]["1.1a"] += "# " + "a" * 2 * MAX_SHOWN
    students["zoe"] = students["s003"]
    found = similarity({name: handed_in(codes) for name, codes in students.items()})
    sides = [side for group in found.groups for pair in group.pairs for side in (pair.first, pair.second)]
    assert sides
    assert max(len(side.code) for side in sides) <= MAX_SHOWN + 4


def test_the_model_answer_of_two_is_no_evidence() -> None:
    texts = [path.read_text("utf-8") for path in SOLUTION.glob("*.py")]
    model = {question: block.body for text in texts for question, block in blocks.parse(text).items()}
    students = {name: codes for name, codes in a_class(60, 0).items() if name not in ("s001", "s002")}
    assert groups_of(students | {"xia": model, "zoe": disguised(model)}) == []


def test_a_copy_is_found_whose_rulers_are_gone() -> None:
    students = a_class(40, 1)
    students["zoe"] = disguised(students["s007"])
    sources = {name: handed_in(codes) for name, codes in students.items()}
    sources["zoe"] = {
        file: "\n".join(line for line in source.decode().split("\n") if "####" not in line).encode("utf-16")
        for file, source in sources["zoe"].items()
    }
    assert [group.students for group in similarity(sources).groups] == [("s007", "zoe")]
