"""Mutants: the solution's blocks with one small mistake each, made by machine.

An operator looks at one node of a block's syntax tree and gives what may stand in its place. Where two give the same
code, the first has made it; so operators that know what a number is for come before those for any number.
"""

from __future__ import annotations

import ast
import builtins
import difflib
import textwrap
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise, zip_longest

import libcst as cst
from libcst.metadata import (
    ExpressionContext,
    ExpressionContextProvider,
    MetadataWrapper,
    ParentNodeProvider,
)

from grader import blocks
from grader.assignment import SOLUTION, blocks_of
from grader.rubric import Question

MODULES = {"torch", "nn", "F"}
AXES = (0, 1, 2, -1)
AXIS_METHODS = {"flatten", "flip", "sum", "mean", "squeeze", "unsqueeze", "cumsum", "cumprod"}  # axis is the first
ACTIVATIONS = ("ReLU", "LeakyReLU", "Tanh", "Sigmoid", "Softplus", "GELU")
REDUCTIONS = ("none", "mean", "sum")
SIBLINGS = {
    "sum": ("mean",),
    "mean": ("sum",),
    "relu": ("tanh", "sigmoid", "softplus"),
    "exp": ("log",),
    "log": ("exp",),
    "sqrt": ("square",),
    "square": ("sqrt",),
    "randn": ("rand", "zeros", "ones"),
    "randn_like": ("rand_like", "zeros_like", "ones_like"),
    "zeros": ("ones",),
    "ones": ("zeros",),
    "zeros_like": ("ones_like",),
    "ones_like": ("zeros_like",),
    "linspace": ("logspace",),
    "binary_cross_entropy": ("binary_cross_entropy_with_logits", "mse_loss"),
    "int64": ("int32", "float32"),
}
BINARY: dict[type[cst.BaseBinaryOp], type[cst.BaseBinaryOp]] = {
    cst.Add: cst.Subtract,
    cst.Subtract: cst.Add,
    cst.Multiply: cst.Divide,
    cst.Divide: cst.Multiply,
    cst.Power: cst.Multiply,
}
COMPARISONS: dict[type[cst.BaseCompOp], type[cst.BaseCompOp]] = {
    cst.LessThan: cst.LessThanEqual,
    cst.LessThanEqual: cst.LessThan,
    cst.GreaterThan: cst.GreaterThanEqual,
    cst.GreaterThanEqual: cst.GreaterThan,
    cst.Equal: cst.NotEqual,
    cst.NotEqual: cst.Equal,
}
LOOSE = (cst.BinaryOperation, cst.UnaryOperation, cst.Comparison)  # what needs parentheses as a part of another
TENSORS = (cst.Name, cst.Attribute, cst.Call, cst.BinaryOperation, cst.UnaryOperation)  # what may be a tensor

Change = cst.CSTNode | cst.RemovalSentinel
Operator = Callable[[cst.CSTNode, "Tree"], Iterable[Change]]
OPERATORS: dict[str, Operator] = {}


@dataclass(frozen=True)
class Mutation:
    """Code with one mistake: the operator that made it, the first line that differs, from 1, and the text."""

    operator: str
    line: int
    code: str


@dataclass(frozen=True)
class Mutant:
    """A block of the solution with one mistake.

    Attributes:
        question: its id.
        file, line: where the mistake is in the solution, the line counted from 1.
        block: the name of the block.
        operator: what made it.
        code: the text of the block.
        diff: the unified diff from the solution's block.
    """

    question: str
    file: str
    line: int
    block: str
    operator: str
    code: str
    diff: str

    def __str__(self) -> str:
        return f"{self.block} ({self.file}, line {self.line}): {self.operator}"


def solution_blocks(question: Question) -> dict[str, str]:
    """The text of the solution's blocks of a question, by name, not indented."""
    found = blocks.parse((SOLUTION / question.file).read_text("utf-8"))
    return {name: _dedent(found[name].body) for name in blocks_of(question.id, question.file)}


def mutants_of(question: Question) -> list[Mutant]:
    """Every mutant of a question, in an order that follows from the solution alone."""
    parsed, solved = blocks.parse((SOLUTION / question.file).read_text("utf-8")), solution_blocks(question)
    found = []
    for name, code in solved.items():
        for made in mutations(code):
            line, change = parsed[name].start + made.line, diff(code, made.code)
            found.append(Mutant(question.id, question.file, line, name, made.operator, made.code, change))
    return found


def mutations(code: str, operators: Mapping[str, Operator] = OPERATORS) -> list[Mutation]:
    """What operators make of some code, in the order of the operators; no two, and none and `code`, are equal.

    Code is equal if its syntax tree is. Raises libcst.ParserSyntaxError if `code` is no Python.
    """
    tree = Tree(code)
    seen, found = {_syntax(code)}, []
    for name, operate in operators.items():
        for node in tree.nodes:
            for change in operate(node, tree):
                text = tree.with_change(node, change)
                if (syntax := _syntax(text)) not in seen:
                    seen.add(syntax)
                    found.append(Mutation(name, _first_change(code, text), text))
    return found


def _first_change(before: str, after: str) -> int:
    """The first line, from 1, in which two texts differ."""
    pairs = zip_longest(before.splitlines(), after.splitlines())
    return next(line for line, (one, other) in enumerate(pairs, 1) if one != other)


def diff(before: str, after: str) -> str:
    """The unified diff of two texts, without the lines that name files."""
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="")
    return "\n".join(list(lines)[2:])


def _dedent(body: str) -> str:
    return textwrap.dedent(body).strip("\n") + "\n"


def _syntax(code: str) -> str:
    return ast.dump(ast.parse(code))


# ---------------------------------------------------------------- trees


class Tree:
    """The syntax tree of some code, and what operators ask about its nodes.

    Attributes:
        nodes: all of them, in the order of the text.
        uses: in which ways every variable is read: "()" called, ".name" for an attribute, "value" for itself.
        stored: how often every variable is assigned to.
    """

    def __init__(self, code: str):
        wrapper = MetadataWrapper(cst.parse_module(code))
        self.module = wrapper.module
        self._parents = wrapper.resolve(ParentNodeProvider)
        self._contexts = wrapper.resolve(ExpressionContextProvider)
        self.nodes = list(_walk(self.module))
        self.uses: dict[str, set[str]] = defaultdict(set)
        for node in self.nodes:
            if name := self.variable(node):
                self.uses[name].add(self._use(node))
        self.stored = Counter(
            dotted(node) for node in self.nodes if self._contexts.get(node) is ExpressionContext.STORE
        )

    def parent(self, node: cst.CSTNode) -> cst.CSTNode | None:
        """The node that this one is a part of; None for the module."""
        return self._parents.get(node)

    def variable(self, node: cst.CSTNode) -> str:
        """The name of a variable, or of an attribute of self, that is read here; "" for any other node."""
        parent = self.parent(node)
        is_keyword = isinstance(parent, cst.Arg) and parent.keyword is node
        if is_keyword or self._contexts.get(node) is not ExpressionContext.LOAD:
            return ""
        root, *rest = dotted(node).split(".")
        if root == "self":
            return f"self.{rest[0]}" if len(rest) == 1 else ""
        return "" if rest or root in MODULES or root[:1].isupper() or hasattr(builtins, root) else root

    def _use(self, node: cst.CSTNode) -> str:
        parent = self.parent(node)
        if isinstance(parent, cst.Attribute):
            return f".{parent.attr.value}"
        return "()" if isinstance(parent, cst.Call) and parent.func is node else "value"

    def is_tensor(self, node: cst.CSTNode) -> bool:
        """Whether this may be a tensor: an operand, an argument of anything but a layer, or what is assigned."""
        parent = self.parent(node)
        stored = self._contexts.get(node) is ExpressionContext.STORE
        if stored or not isinstance(node, TENSORS) or dotted(node).split(".")[0] in MODULES:
            return False
        if isinstance(parent, cst.Arg):
            call = self.parent(parent)
            return parent.value is node and not parent.star and not dotted(call).startswith("nn.")
        if isinstance(parent, cst.Assign | cst.AugAssign):
            return parent.value is node
        return isinstance(parent, cst.BinaryOperation | cst.UnaryOperation | cst.Return | cst.Element)

    def is_negated(self, node: cst.CSTNode) -> bool:
        """Whether there is a minus in front of it."""
        parent = self.parent(node)
        return isinstance(parent, cst.UnaryOperation) and isinstance(parent.operator, cst.Minus)

    def with_change(self, node: cst.CSTNode, change: Change) -> str:
        """The code with `change` in the place of `node`, in parentheses where they are needed."""
        if isinstance(change, LOOSE) and isinstance(node, cst.BaseExpression):
            inside = isinstance(self.parent(node), (*LOOSE, cst.ComparisonTarget, cst.Attribute, cst.Call))
            change = _atom(change) if inside or node.lpar else change
        if isinstance(change, cst.Integer) and isinstance(self.parent(node), cst.Attribute):
            change = _parenthesised(change)  # 1.clamp() is no Python
        if isinstance(change, cst.RemovalSentinel):
            return cst.ensure_type(self.module.deep_remove(node), cst.Module).code
        return cst.ensure_type(self.module.deep_replace(node, change), cst.Module).code


def _walk(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    yield node
    for child in node.children:
        yield from _walk(child)


def dotted(node: cst.CSTNode | None) -> str:
    """A name with its attributes, "torch.nn.ReLU"; that of what is called for a call; "" for any other node."""
    if isinstance(node, cst.Call):
        return dotted(node.func)
    if isinstance(node, cst.Name):
        return node.value
    base = dotted(node.value) if isinstance(node, cst.Attribute) and not isinstance(node.value, cst.Call) else ""
    return f"{base}.{node.attr.value}" if base and isinstance(node, cst.Attribute) else ""


def _atom(node: cst.BaseExpression) -> cst.BaseExpression:
    """An expression that may stand anywhere: in parentheses, if it needs them."""
    return node if not isinstance(node, LOOSE) or node.lpar else _parenthesised(node)


def _parenthesised(node: cst.BaseExpression) -> cst.BaseExpression:
    return node.with_changes(lpar=[cst.LeftParen()], rpar=[cst.RightParen()])


def _minus(node: cst.BaseExpression) -> cst.BaseExpression:
    return cst.UnaryOperation(cst.Minus(), _atom(node))


def _sum(node: cst.BaseExpression, operator: cst.BaseBinaryOp) -> cst.BaseExpression:
    """One more or one less than an expression."""
    return cst.BinaryOperation(_atom(node), operator, cst.Integer("1"))


def _number(value: float) -> cst.BaseExpression:
    negative = value < 0
    kind = cst.Integer if isinstance(value, int) else cst.Float
    return _minus(kind(repr(-value))) if negative else kind(repr(value))


def _exchanged(parts: Iterable[cst.Arg | cst.BaseElement], i: int, j: int) -> list[cst.Arg | cst.BaseElement]:
    """Arguments or elements with the values of two exchanged; commas and line ends stay where they are."""
    found = list(parts)
    one, other = found[i], found[j]
    found[i], found[j] = one.with_changes(value=other.value), other.with_changes(value=one.value)
    return found


def _without(args: Iterable[cst.Arg], i: int) -> list[cst.Arg]:
    """Arguments but one; the last one ends as the last one did."""
    found = list(args)
    removed = found.pop(i)
    if found and i == len(found):
        found[-1] = found[-1].with_changes(comma=removed.comma)
    return found


# ---------------------------------------------------------------- operators


def operator(name: str) -> Callable[[Operator], Operator]:
    """Register an operator; those that come first have the first go."""

    def register(function: Operator) -> Operator:
        OPERATORS[name] = function
        return function

    return register


@operator("detach")
def _detach(node: cst.CSTNode, tree: Tree) -> Iterator[Change]:
    """x.detach() -> x, and x -> x.detach()."""
    if isinstance(node, cst.Call) and isinstance(node.func, cst.Attribute) and node.func.attr.value == "detach":
        yield node.func.value
    elif isinstance(node, cst.BaseExpression) and tree.is_tensor(node):
        yield cst.Call(cst.Attribute(_atom(node), cst.Name("detach")))


@operator("axis")
def _axis(node: cst.CSTNode, tree: Tree) -> Iterator[Change]:
    """dim=1 -> dim=0, dim=2, dim=-1; the same for flatten(1) and its like."""
    call = tree.parent(node)
    if not isinstance(node, cst.Arg) or not isinstance(call, cst.Call) or not isinstance(node.value, cst.Integer):
        return
    method = call.func.attr.value if isinstance(call.func, cst.Attribute) else ""
    named = node.keyword is not None and node.keyword.value in ("dim", "axis")
    if named or (node.keyword is None and method in AXIS_METHODS and node is call.args[0]):
        yield from (node.with_changes(value=_number(axis)) for axis in AXES)


@operator("range")
def _range(node: cst.CSTNode, tree: Tree) -> Iterator[Change]:
    """range(n) -> range(n + 1), range(n - 1), range(1, n), the other way round."""
    if not isinstance(node, cst.Call) or dotted(node) not in ("range", "reversed"):
        return
    if dotted(node) == "reversed":
        yield node.args[0].value
        return
    at = 0 if len(node.args) == 1 else 1
    args = list(node.args)
    for change in (cst.Add(), cst.Subtract()):
        stop = args[at].with_changes(value=_sum(args[at].value, change))
        yield node.with_changes(args=[*args[:at], stop, *args[at + 1 :]])
    if len(args) == 1:
        yield node.with_changes(args=[cst.Arg(cst.Integer("1")), *args])
    outer = tree.parent(node)
    if not isinstance(outer, cst.Arg) or dotted(tree.parent(outer)) != "reversed":
        yield cst.Call(cst.Name("reversed"), [cst.Arg(node)])


@operator("sibling")
def _sibling(node: cst.CSTNode, tree: Tree) -> Iterator[Change]:
    """What is often mistaken for it: sum -> mean, exp -> log, randn_like -> rand_like, reduction="none" -> "sum"."""
    if isinstance(node, cst.Attribute):
        yield from (node.with_changes(attr=cst.Name(name)) for name in SIBLINGS.get(node.attr.value, ()))
    if isinstance(node, cst.Arg) and node.keyword is not None and node.keyword.value == "reduction":
        yield from (node.with_changes(value=cst.SimpleString(f'"{reduction}"')) for reduction in REDUCTIONS)


@operator("layer")
def _layer(node: cst.CSTNode, tree: Tree) -> Iterator[Change]:
    """An activation exchanged for another, and each layer of nn.Sequential removed."""
    name = dotted(node) if isinstance(node, cst.Call) else ""
    if isinstance(node, cst.Call) and name == "nn.Sequential":
        yield from (node.with_changes(args=_without(node.args, i)) for i in range(len(node.args)))
    elif name.removeprefix("nn.") in ACTIVATIONS:
        yield from (cst.parse_expression(f"nn.{other}()") for other in ACTIVATIONS if f"nn.{other}" != name)


@operator("name")
def _name(node: cst.CSTNode, tree: Tree) -> Iterator[Change]:
    """A variable for another one that is used in the same way somewhere in the block."""
    if name := tree.variable(node):
        others = (other for other, uses in tree.uses.items() if other != name and uses & tree.uses[name])
        yield from map(cst.parse_expression, others)


@operator("arguments swapped")
def _arguments(node: cst.CSTNode, tree: Tree) -> Iterator[Change]:
    """f(a, b) -> f(b, a), and (a, b) -> (b, a), for neighbours."""
    if isinstance(node, cst.Call):
        positional = [i for i, arg in enumerate(node.args) if arg.keyword is None and not arg.star]
        yield from (node.with_changes(args=_exchanged(node.args, i, j)) for i, j in pairwise(positional))
    elif isinstance(node, cst.Tuple | cst.List):
        pairs = pairwise(range(len(node.elements)))
        yield from (node.with_changes(elements=_exchanged(node.elements, i, j)) for i, j in pairs)


@operator("operands swapped")
def _operands(node: cst.CSTNode, tree: Tree) -> Iterator[Change]:
    """a - b -> b - a, and the like for / and **."""
    if isinstance(node, cst.BinaryOperation) and isinstance(node.operator, cst.Subtract | cst.Divide | cst.Power):
        yield node.with_changes(left=_atom(node.right), right=_atom(node.left))


@operator("call removed")
def _call(node: cst.CSTNode, tree: Tree) -> Iterator[Change]:
    """f(x) -> x and x.method() -> x; classes are called to make something, and stay."""
    if not isinstance(node, cst.Call) or isinstance(tree.parent(node), cst.Expr):
        return
    name = dotted(node).split(".")
    if name[-1][:1].isupper():
        return
    if isinstance(node.func, cst.Attribute) and not tree.variable(node.func) and name[0] not in MODULES:
        yield node.func.value
    elif node.args and not node.args[0].star:
        yield node.args[0].value


@operator("keyword removed")
def _keyword(node: cst.CSTNode, tree: Tree) -> Iterator[Change]:
    """f(x, a=1) -> f(x)."""
    if isinstance(node, cst.Call):
        named = (i for i, arg in enumerate(node.args) if arg.keyword is not None)
        yield from (node.with_changes(args=_without(node.args, i)) for i in named)


@operator("statement removed")
def _statement(node: cst.CSTNode, tree: Tree) -> Iterator[Change]:
    """A call or an assignment left out, unless it is the only one that defines what the block leaves behind."""
    if not isinstance(node, cst.SimpleStatementLine) or len(node.body) != 1:
        return
    [statement] = node.body
    targets: list[str] = []
    if isinstance(statement, cst.Assign):
        targets = [dotted(part) for target in statement.targets for part in _walk(target.target)]
    elif not isinstance(statement, cst.Expr | cst.AugAssign):
        return
    if not any(tree.stored[name] == 1 and name not in tree.uses for name in targets if name):
        yield cst.RemovalSentinel.REMOVE


@operator("statements swapped")
def _statements(node: cst.CSTNode, tree: Tree) -> Iterator[Change]:
    """Two simple statements in a row, the other way round."""
    if isinstance(node, cst.Module | cst.IndentedBlock):
        body = list(node.body)
        for i, (one, other) in enumerate(pairwise(body)):
            if isinstance(one, cst.SimpleStatementLine) and isinstance(other, cst.SimpleStatementLine):
                yield node.with_changes(body=[*body[:i], other, one, *body[i + 2 :]])


@operator("binary operator")
def _binary(node: cst.CSTNode, tree: Tree) -> Iterator[Change]:
    """+ <-> -, * <-> /, ** -> *, and each operand alone."""
    if isinstance(node, cst.BinaryOperation):
        if other := BINARY.get(type(node.operator)):
            yield node.with_changes(operator=other())
        yield node.left
        yield node.right


@operator("comparison")
def _comparison(node: cst.CSTNode, tree: Tree) -> Iterator[Change]:
    """< <-> <=, > <-> >=, == <-> !=."""
    if isinstance(node, cst.ComparisonTarget) and (other := COMPARISONS.get(type(node.operator))):
        yield node.with_changes(operator=other())


@operator("sign")
def _sign(node: cst.CSTNode, tree: Tree) -> Iterator[Change]:
    """-x -> x, and x -> -x."""
    if isinstance(node, cst.UnaryOperation) and isinstance(node.operator, cst.Minus):
        yield node.expression
    elif isinstance(node, cst.BaseExpression) and tree.is_tensor(node) and not tree.is_negated(node):
        yield _minus(node)


@operator("constant")
def _constant(node: cst.CSTNode, tree: Tree) -> Iterator[Change]:
    """0 -> 1, and any other c -> c + 1, -c, c / 2."""
    if not isinstance(node, cst.Integer | cst.Float):
        return
    value = node.evaluated_value
    yield _number(value + 1)
    if value:
        yield _number(value // 2 if isinstance(value, int) and value % 2 == 0 else value / 2)
        if not tree.is_negated(node):
            yield _minus(node)
