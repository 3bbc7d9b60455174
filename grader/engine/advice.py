"""Says in a sentence what to change, where Python or torch raised an exception in a student's code.

A rule is true of every exception that it matches; the exception itself is shown beside it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

IMPORTS = "Only Python's own modules, torch, torchvision, numpy and tqdm can be imported in a graded file."
NOT_WRITTEN = "Nothing can be written where submissions are graded: leave out open, torch.save and logs."
DEVICE = "Compute on the device of the inputs, as device=x.device does: leave out .cuda() and device names."
STAY_IN_TORCH = "Stay in torch from the inputs to the result: leave out .numpy() and functions of np."
MAX_SENTENCE = 200  # characters of a comment between its verb and a name
KEEP_TENSORS = "torch functions take tensors: leave out .item(), float() and math, or use Python operators."


@dataclass(frozen=True)
class Rule:
    """What to say of an exception.

    Attributes:
        raised: searched for in "type: message".
        sentence: with {name} for a group of either expression.
        code: searched for in the code that led to it.
    """

    raised: str
    sentence: str
    code: str = ""


NO_VALUE = r"^(?:Name|UnboundLocal)Error: (?:cannot access )?(?:name|(?:local|free) variable) '(?P<name>\w+)'"
FUNCTION = (
    r"AttributeError: '(?:function|builtin_function_or_method|method)' object has no attribute '(?P<attribute>\w+)'"
)
MAXIMUM = r"\b(?:max|min)\("
BY_STEP = r"(?P<schedule>[\w.]+)\[t\]"

RULES = (
    Rule(r"numpy\(\) on Tensor|type tensor to numpy|np\.ndarray|'numpy\.\w+' object|not numpy\.", STAY_IN_TORCH),
    Rule(r"(?:for \^|bitwise_xor)", "In Python ^ is a bitwise operation: write ** for a power."),
    Rule(
        r"Boolean value of Tensor with more than one value|'(?:float|int)' object has no attribute",
        "max and min of Python compare whole tensors: use torch.clamp or torch.relu, which work on every number.",
        code=MAXIMUM,
    ),
    Rule(
        r"max\(\) received an invalid combination|maximum\(\): argument|relu\(\): argument",
        "This function takes tensors, and not a number: max(0, x) of a tensor is torch.relu(x), or x.clamp(min=0).",
    ),
    Rule(
        r"Dimension out of range",
        "A tensor on this line has fewer axes than that: flatten(1) makes two axes of any number of them.",
        code=r"\b(?:mean|sum)\(",
    ),
    Rule(
        r"Boolean value of Tensor with more than one value",
        "Python asks for one truth value here: to choose for every number, use torch.where, clamp or relu.",
    ),
    Rule(
        r"The size of tensor a \(\d+\) must match the size of tensor b|shape mismatch|not broadcastable",
        "{schedule}[t] has one number for each image, of shape (B,): use extract(schedule, t, x.shape), which is "
        "(B, 1, 1, 1).",
        code=BY_STEP,
    ),
    Rule(r"not compiled with CUDA|no NVIDIA driver|No CUDA GPUs|CUDA driver|CUDA.*not available", DEVICE),
    Rule(r"not linked with support for mps|MPS backend", DEVICE),
    Rule(r"Expected all tensors to be on the same device", "Make new tensors where the inputs are: device=x.device."),
    Rule(r"^(?:BdbQuit|Breakpoint)", "Remove breakpoint() and pdb: there is no keyboard where submissions are graded."),
    Rule(r"^SystemExit", "Remove exit(), quit() and sys.exit(): they end the whole program."),
    Rule(r"^EOFError: EOF when reading", "Remove input(): there is no keyboard where submissions are graded."),
    Rule(r"^RecursionError", "A function calls itself too many times: use a loop."),
    Rule(r"[Mm]atplotlib", "Leave out plt.show() and matplotlib: there is no screen where submissions are graded."),
    Rule(r"^ModuleNotFoundError", IMPORTS),
    Rule(r"open file failed|Read-only file system", NOT_WRITTEN),
    Rule(r"No usable temporary directory", f"A module that was imported writes files. {IMPORTS}"),
    Rule(r"^(?:PermissionError|FileNotFoundError|OSError)\b", NOT_WRITTEN, code=r"\bopen\(.*['\"][wax]|\bsave\("),
    Rule(r"must be Tensor, not (?:float|int|bool|numpy)|'(?:float|int)' object has no attribute", KEEP_TENSORS),
    Rule(
        r"'NoneType' object|must be Tensor, not NoneType",
        "Something on this line is None: print it to see what. A function that ends without `return` gives None.",
    ),
    Rule(
        r"modified by an inplace operation|used in an in-place operation|view and is being modified inplace",
        "Compute new tensors: leave out += on tensors and operations whose names end in _.",
    ),
    Rule(
        r"does not require grad and does not have a grad_fn",
        "What is differentiated depends on nothing that learns: leave out detach, .item(), .data and no_grad.",
    ),
    Rule(
        r"expected scalar type|must have the same dtype|to have the same dtype",
        "Tensors of two types meet: stay in the type of the inputs, and leave out .half(), .double() and numpy.",
    ),
)  # fmt: skip


def advise(raised: str, line: str, before: str, source: str) -> str:
    """What to change, as a sentence or two; "" where nothing is known.

    Args:
        raised: type and message of an exception, as a traceback ends.
        line: the student's line that it was raised in.
        before: that line and a few before it.
        source: the file.
    """
    if found := _unassigned(raised, line):
        return _leave_in(found, line, source)
    for rule in RULES:
        matched = re.search(rule.raised, raised)
        code = re.search(rule.code, before)
        if matched and code:
            return rule.sentence.format_map(matched.groupdict() | code.groupdict())
    return ""


def _unassigned(raised: str, line: str) -> str:
    """The name that has no value, or is still that of a function, where the exception is about that."""
    if matched := re.search(NO_VALUE, raised):
        return matched["name"]
    if (matched := re.search(FUNCTION, raised)) and (used := re.search(rf"(\w+)\.{matched['attribute']}\b", line)):
        return used[1]
    return ""


def _leave_in(name: str, line: str, source: str) -> str:
    """What to do about a name without a value; the comments of the file say in which names results are left."""
    if re.search(rf"^\s*{re.escape(name)} *=.*(?<![.\w]){re.escape(name)}\(", line):
        return (
            f"`{name}` is assigned on this line, so that Python takes it for a variable, which has no value yet: call "
            "the function by its full name, as torch.distributions.kl_divergence."
        )
    comments = " ".join(part.strip() for part in re.findall(r"#(.*)", source))
    asked = re.search(rf"eave [^.]{{0,{MAX_SENTENCE}}}`{re.escape(name)}`", comments)
    if asked:
        return f"Leave the result in `{name}`: it is not there on this line. A name that begins with self. is another."
    return f"`{name}` has no value on this line: assign it before, take it from the arguments, or check its spelling."
