"""What a student's file can import: the same on a student's machine as where a class is graded.

What torch and numpy import for themselves is their own affair.
"""

from __future__ import annotations

import builtins
import importlib
import sys
from collections.abc import Collection
from typing import Any

ALLOWED = sys.stdlib_module_names | {"torch", "functorch", "torchvision", "numpy", "tqdm"}
PLOTTING = {"matplotlib", "mpl_toolkits", "pylab", "seaborn", "plotly", "bokeh", "IPython"}
RULE = "only Python's own modules, torch, torchvision, numpy, tqdm and the files of the homework can"


def restrict(students: Collection[str]) -> None:
    """Have imports by the student's modules, given by name, of anything but `ALLOWED` and each other refused.

    They raise ModuleNotFoundError.
    """
    plain_import, plain_import_module = builtins.__import__, importlib.import_module

    def check(importer: Any, name: Any, level: int = 0) -> None:
        if level == 0 and type(name) is str and importer and importer.get("__name__") in students:
            top = name.partition(".")[0]
            if top not in ALLOWED and top not in students:
                raise ModuleNotFoundError(refusal(name), name=name)

    def guarded_import(name: str, globals: Any = None, *how: Any, **named: Any) -> Any:  # noqa: A002
        level = how[2] if len(how) > 2 else named.get("level", 0)
        check(globals, name, level)
        return plain_import(name, globals, *how, **named)

    def import_module(name: str, package: str | None = None) -> Any:
        check(sys._getframe(1).f_globals, name, int(name.startswith(".")))
        return plain_import_module(name, package)

    builtins.__import__ = guarded_import
    importlib.import_module = import_module


def refusal(name: str) -> str:
    """Why a module cannot be imported, and what to do."""
    advice = "; take the plots out of this file" if name.partition(".")[0] in PLOTTING else ""
    return f"{name} cannot be imported in a graded file, {RULE}{advice}"
