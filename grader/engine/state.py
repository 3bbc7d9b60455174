"""What student code can change in its process beyond its own names: it is noticed, put back, and called by its name.

A snapshot is taken before student code is read. What was rebound in torch, numpy and Python is found by comparing the
values of each namespace, in one step, with those of the snapshot.
"""

from __future__ import annotations

import _thread
import decimal
import faulthandler
import gc
import importlib
import locale
import os
import random
import signal
import sys
import types
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy
import torch
from torch.distributions import kl
from torch.optim import optimizer
from torch.utils import _python_dispatch

from .sandbox import SHOW_STACK

WATCHED: dict[str, Any] = {
    name: importlib.import_module(name)
    for name in (
        *("torch", "torch.nn", "torch.nn.functional", "torch.nn.init", "torch.distributions", "torch.optim"),
        *("torch.autograd", "torch.linalg", "torch.special", "numpy", "numpy.random", "math", "random", "builtins"),
        *("sys", "warnings", "copy", "time", "functools", "itertools"),
    )
}
CLASSES: dict[str, Any] = {
    f"{owner.__name__}.{name}": getattr(owner, name)
    for owner, names in (
        (torch, ("Tensor",)),
        (torch.nn, ("Module", "Linear", "Conv2d", "ConvTranspose2d", "GroupNorm", "BatchNorm2d", "Embedding")),
        (torch.nn, ("Sequential", "Parameter", "ReLU", "LeakyReLU", "SiLU", "Sigmoid", "Dropout")),
        (torch.distributions, ("Distribution", "Normal", "Bernoulli", "Independent")),
    )
    for name in names
}
MADE_LATER = {"__annotations__", "__annotations_cache__", "__slotnames__", "__doc__"}  # by Python, in a class
SET_BY_TORCH = {  # put back, but not told
    "torch.manual_seed",  # when the compiler is imported, which the first optimizer does
    "torch.Storage",  # with the default dtype
}
THREADS = "the number of running threads"
RECURSION = "the recursion limit"
EVERYTHING = "the state of the process"
UNREADABLE = object()
TINY, HALF = sys.float_info.min, 0.5
SIGNALS = [
    int(getattr(signal, name))
    for name in ("SIGINT", "SIGTERM", "SIGALRM", "SIGUSR1", "SIGUSR2", "SIGFPE", "SIGSEGV")
    if hasattr(signal, name)
]
ENVIRON = os.environ
STACK_FILE = 2  # where faulthandler writes


@dataclass(frozen=True)
class Setting:
    """One thing that can be changed.

    Attributes:
        words: what it is, as a sentence names it.
        read: its value now.
        write: puts a value back.
        libraries: whether a library may change it while it is imported, which is not the student's doing.
    """

    words: str
    read: Callable[[], Any]
    write: Callable[[Any], Any]
    libraries: bool = False


def cannot(value: Any) -> None:
    """Writes nothing: for what cannot be put back."""


# ---------------------------------------------------------------- settings of torch


def default_device() -> Any:
    """The device that torch.set_default_device has set; None if it has not."""
    context = getattr(torch._GLOBAL_DEVICE_CONTEXT, "device_context", None)
    return None if context is None else context.device


def shorten(length: Callable[[], int], pop: Callable[[], Any]) -> Callable[[int], None]:
    """Writes the length of a stack, by taking off what is on top."""

    def write(saved: int) -> None:
        while length() > saved:
            pop()

    return write


def leave_inference_mode(saved: bool) -> None:
    """Set the mode by a guard that is never left."""
    GUARDS.append(torch._C._InferenceMode(saved))


GUARDS: list[Any] = []


def autocast() -> tuple:
    """Whether autocast is on, and its types; and how many contexts of it are open."""
    torch.autocast_increment_nesting()
    devices = [(device, torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)) for device in AUTOCAST]
    return torch.autocast_decrement_nesting(), torch.is_autocast_cache_enabled(), devices


AUTOCAST = ("cpu", "cuda")


def write_autocast(saved: tuple) -> None:
    """Put back what `autocast` gave."""
    nesting, cache, devices = saved
    for device, enabled, dtype in devices:
        torch.set_autocast_enabled(device, enabled)
        torch.set_autocast_dtype(device, dtype)
    torch.set_autocast_cache_enabled(cache)
    torch.clear_autocast_cache()
    now, _, _ = autocast()
    for _ in range(nesting, now):
        torch.autocast_decrement_nesting()


def anomaly() -> tuple[bool, bool]:
    """Whether torch looks for anomalies, and for NaN."""
    return torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()


BACKENDS = [
    (getattr(torch._C, f"_get_{name}"), getattr(torch._C, f"_set_{name}"))
    for name in ("cudnn_enabled", "cudnn_benchmark", "cudnn_deterministic", "mkldnn_enabled")
    if hasattr(torch._C, f"_get_{name}")
]


def write_backends(saved: list) -> None:
    """Put back the switches of torch.backends."""
    for (_, write), value in zip(BACKENDS, saved, strict=True):
        write(value)


HOOKS = [
    hooks
    for module in (sys.modules["torch.nn.modules.module"], optimizer)
    for name, hooks in sorted(vars(module).items())
    if name.startswith("_global_") and isinstance(hooks, dict)
]


def write_hooks(saved: list[dict]) -> None:
    """Put back the hooks of all modules and optimizers."""
    for hooks, before in zip(HOOKS, saved, strict=True):
        hooks.clear()
        hooks.update(before)


def write_divergences(saved: dict) -> None:
    """Put back the functions that kl_divergence chooses from, and have it choose again."""
    kl._KL_REGISTRY.clear()
    kl._KL_REGISTRY.update(saved)
    kl._KL_MEMOIZE.clear()


def saved_tensor_hooks() -> Any:
    """The innermost hooks on tensors that autograd saves; None without any."""
    return torch._C._autograd._top_saved_tensors_default_hooks(True)


def write_saved_tensor_hooks(saved: Any) -> None:
    """Take off hooks down to those that were the innermost."""
    while saved_tensor_hooks() not in (saved, None):
        torch._C._autograd._pop_saved_tensors_default_hooks()


def write_print_options(saved: dict) -> None:
    """Put back how torch prints tensors."""
    vars(torch._tensor_str.PRINT_OPTS).update(saved)


function_modes: Callable[[], int] = torch._C._len_torch_function_stack
dispatch_modes: Callable[[], int] = torch._C._len_torch_dispatch_stack
TORCH = (
    Setting("the default dtype of torch", torch.get_default_dtype, torch.set_default_dtype),
    Setting("the default device of torch", default_device, torch.set_default_device),
    Setting(
        "the modes of torch functions", function_modes, shorten(function_modes, torch._C._pop_torch_function_stack)
    ),
    Setting("the modes of torch dispatch", dispatch_modes, shorten(dispatch_modes, _python_dispatch._pop_mode)),
    Setting("whether torch functions can be overridden", torch._C._is_torch_function_enabled, cannot),
    Setting("the inference mode of torch", torch.is_inference_mode_enabled, leave_inference_mode),
    Setting("whether torch records gradients", torch.is_grad_enabled, torch._C._set_grad_enabled),
    Setting("autocast", autocast, write_autocast),
    Setting("the number of threads of torch", torch.get_num_threads, torch.set_num_threads),
    Setting("the number of interop threads of torch", torch.get_num_interop_threads, cannot),
    Setting(
        "the deterministic algorithms of torch",
        torch.get_deterministic_debug_mode,
        torch.set_deterministic_debug_mode,
    ),
    Setting("the anomaly mode of torch", anomaly, lambda saved: torch.set_anomaly_enabled(*saved)),
    Setting(
        "the precision of matrix products in torch",
        torch.get_float32_matmul_precision,
        torch.set_float32_matmul_precision,
    ),
    Setting("a switch of torch.backends", lambda: [read() for read, _ in BACKENDS], write_backends),
    Setting(
        "how torch treats denormal numbers", lambda: TINY * HALF > 0, lambda saved: torch.set_flush_denormal(not saved)
    ),
    Setting("the hooks of all modules or optimizers", lambda: [hooks.copy() for hooks in HOOKS], write_hooks),
    Setting("the hooks on saved tensors", saved_tensor_hooks, write_saved_tensor_hooks),
    Setting("the functions behind kl_divergence", kl._KL_REGISTRY.copy, write_divergences),
    Setting("how torch prints tensors", lambda: vars(torch._tensor_str.PRINT_OPTS).copy(), write_print_options),
)

# ---------------------------------------------------------------- settings of numpy and Python


def write_filters(saved: tuple) -> None:
    """Put back the filters of warnings."""
    warnings.resetwarnings()  # which has every module look at the filters again
    warnings.filters.extend(saved)  # type: ignore[attr-defined]


def environment() -> tuple:
    """Whether os.environ is the environment, and its variables, in the form in which they are kept."""
    return os.environ is ENVIRON, ENVIRON._data.copy()  # type: ignore[attr-defined]


def write_environment(saved: tuple) -> None:
    """Put back the environment."""
    os.environ = ENVIRON  # noqa: B003 (the object that was there before)
    _, before = saved
    _, now = environment()
    for key in now.keys() - before.keys():
        del ENVIRON[ENVIRON.decodekey(key)]
    for key, value in before.items():
        ENVIRON[ENVIRON.decodekey(key)] = ENVIRON.decodevalue(value)


def collector() -> tuple:
    """Whether and when Python collects garbage."""
    return gc.isenabled(), gc.get_threshold(), gc.get_debug()


def write_collector(saved: tuple) -> None:
    """Put back what `collector` gave."""
    enabled, threshold, debug = saved
    (gc.enable if enabled else gc.disable)()
    gc.set_threshold(*threshold)
    gc.set_debug(debug)


def decimal_context() -> tuple:
    """The arguments of the context of decimal numbers, less its flags."""
    now = decimal.getcontext()
    return now.prec, now.rounding, now.Emin, now.Emax, now.capitals, now.clamp


getsignal: Callable[[int], Any] = importlib.import_module("_signal").getsignal  # which makes no enum of the answer


def signal_handlers() -> list:
    """What Python does at each signal."""
    return [*map(getsignal, SIGNALS)]


def write_signal_handlers(saved: list) -> None:
    """Put back the handlers that differ."""
    for number, handler in zip(SIGNALS, saved, strict=True):
        if handler is not None and getsignal(number) != handler:
            signal.signal(number, handler)
    if SHOW_STACK is not None:  # one of them, which Python's own handler has displaced
        faulthandler.register(SHOW_STACK, file=STACK_FILE)


def alarm() -> bool:
    """Whether a signal is to come."""
    return hasattr(signal, "getitimer") and any(signal.getitimer(signal.ITIMER_REAL))


def write_alarm(saved: bool) -> None:
    """Call off the signal."""
    signal.setitimer(signal.ITIMER_REAL, 0)


def enable_faulthandler(saved: bool) -> None:
    """Have crashes write the stack again."""
    faulthandler.enable(file=STACK_FILE)


def put_in_place(target: list) -> Callable[[tuple], None]:
    """Writes the items of a list that stays the same object."""

    def write(saved: tuple) -> None:
        target[:] = saved

    return write


def write_path(saved: tuple) -> None:
    """Put back where Python looks for modules."""
    sys.path[:] = saved


def write_modules(saved: list) -> None:
    """Put back the modules that are watched."""
    sys.modules.update(zip(WATCHED, saved, strict=True))


PYTHON = (
    Setting("numpy's error state", numpy.geterr, lambda saved: numpy.seterr(**saved)),
    Setting("numpy's print options", numpy.get_printoptions, lambda saved: numpy.set_printoptions(**saved)),
    Setting("the filters of warnings", lambda: tuple(warnings.filters), write_filters, libraries=True),
    Setting(RECURSION, sys.getrecursionlimit, sys.setrecursionlimit),
    Setting("sys.path", lambda: tuple(sys.path), write_path),
    Setting("sys.meta_path", lambda: tuple(sys.meta_path), put_in_place(sys.meta_path), libraries=True),
    Setting("sys.modules", lambda: [*map(sys.modules.get, WATCHED)], write_modules),
    Setting("os.environ", environment, write_environment, libraries=True),
    Setting("the working directory", os.getcwd, os.chdir),
    Setting("the garbage collector", collector, write_collector),
    Setting(
        "the locale", lambda: locale.setlocale(locale.LC_ALL), lambda saved: locale.setlocale(locale.LC_ALL, saved)
    ),
    Setting("the decimal context", decimal_context, lambda saved: decimal.setcontext(decimal.Context(*saved))),
    Setting("sys.settrace", sys.gettrace, sys.settrace),
    Setting("sys.setprofile", sys.getprofile, sys.setprofile),
    Setting("sys.setswitchinterval", sys.getswitchinterval, sys.setswitchinterval),
    Setting("the signal handlers", signal_handlers, write_signal_handlers),
    Setting("the alarm clock", alarm, write_alarm),
    Setting("faulthandler", faulthandler.is_enabled, enable_faulthandler),
)
SETTINGS = (*PYTHON, *TORCH)  # the recursion limit comes early: what follows needs a few frames
WORDS = frozenset({setting.words for setting in SETTINGS} | {THREADS, EVERYTHING})
OWNERS = WATCHED | CLASSES


def is_known(words: str) -> bool:
    """Whether these are words for something that `State` watches: those of a setting, or a name like "torch.relu"."""
    owner, _, name = words.rpartition(".")
    return words in WORDS or (owner in OWNERS and name.isidentifier() and name.isascii() and len(name) <= 80)


# ---------------------------------------------------------------- names


class Names:
    """The names in a module or class, and their values at the time of a snapshot."""

    def __init__(self, label: str, owner: Any):
        self.label = label
        self.owner = owner
        self.saved = dict(vars(owner))
        self.values = tuple(self.saved.values())

    def put_back(self, keep_new: bool) -> list[str]:
        """Put back the names that differ, and say which; new ones stay where `keep_new`, and go where not."""
        if self.are_the_same():
            return []
        now, changed = dict(vars(self.owner)), []
        for name in self.saved.keys() | now.keys():
            if name in now and now[name] is self.saved.get(name, UNREADABLE):
                continue
            if name in now and self._may_stay(name, now[name], keep_new):
                self.saved[name] = now[name]
                continue
            self._write(name)
            changed.append(f"{self.label}.{name}")
        self.values = tuple(vars(self.owner).values())
        return sorted(set(changed) - SET_BY_TORCH)

    def are_the_same(self) -> bool:
        """Whether every name has the value it had."""
        try:
            return tuple(vars(self.owner).values()) == self.values
        except Exception:  # a value that cannot be compared, such as an array, is none of those before
            return False

    def _may_stay(self, name: str, value: Any, keep_new: bool) -> bool:
        """Whether a name with another value than before changes nothing for others."""
        if isinstance(self.owner, type):
            if any(name in vars(base) for base in self.owner.__mro__[1:]):
                return name in MADE_LATER
            return name not in self.saved and (keep_new or name in MADE_LATER or name.startswith("_abc"))
        if name.startswith("_") and not name.startswith("__"):  # torch keeps some of its state in such names
            return True
        return name not in self.saved and (keep_new or name.startswith("__") or isinstance(value, types.ModuleType))

    def _write(self, name: str) -> None:
        """Put back one name."""
        if name in self.saved:
            setattr(self.owner, name, self.saved[name])
        else:
            delattr(self.owner, name)


# ---------------------------------------------------------------- all of it


@dataclass
class Changes:
    """What had changed, in words; what of it could not be put back."""

    put_back: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)


class State:
    """The state of the process at the time this is made; what is as in an `earlier` one is shared with it."""

    def __init__(self, earlier: State | None = None) -> None:
        known = {} if earlier is None else {names.label: names for names in earlier.names if names.are_the_same()}
        self.names: list[Names] = [known.get(label) or Names(label, owner) for label, owner in OWNERS.items()]
        self.settings = read_settings()
        self.threads = _thread._count()
        self.modules = len(sys.modules)

    def restore(self, keep_new: bool = False) -> Changes:
        """Put back what differs, except for new names in modules and classes if `keep_new`, which harm nobody."""
        changes = Changes()
        faulthandler.cancel_dump_traceback_later()
        for names in self.names:
            changes.put_back += names.put_back(keep_new)
        now = read_settings()
        if not equal(now, self.settings):
            imported = len(sys.modules) > self.modules
            for setting, value, before in zip(SETTINGS, now, self.settings, strict=True):
                # One that came back with another before it is that one's.
                if not equal(value, before) and not equal(read_alone(setting.read), before):
                    self._write(setting, before, changes, imported and setting.libraries)
        if _thread._count() > self.threads:
            changes.stuck.append(THREADS)
        self.modules = len(sys.modules)
        return changes

    def accept(self) -> None:
        """Take new names and threads as they are now for those of the snapshot."""
        for names in self.names:
            if len(names.saved) != len(vars(names.owner)):
                for name, value in vars(names.owner).items():
                    names.saved.setdefault(name, value)
        self.threads = max(self.threads, _thread._count())
        self.modules = len(sys.modules)

    @staticmethod
    def _write(setting: Setting, value: Any, changes: Changes, by_library: bool) -> None:
        """Put back one setting, and see whether it stays."""
        try:
            setting.write(value)
            stays = equal(setting.read(), value)
        except Exception:
            stays = False
        if not stays:
            changes.stuck.append(setting.words)
        elif not by_library:
            changes.put_back.append(setting.words)


READERS = [setting.read for setting in SETTINGS]


def read_settings() -> list[Any]:
    """The values of all settings."""
    try:
        return [read() for read in READERS]
    except Exception:  # student code has broken one
        return [*map(read_alone, READERS)]


def read_alone(read: Callable[[], Any]) -> Any:
    """The value of one setting."""
    try:
        return read()
    except Exception:
        return UNREADABLE


def equal(a: Any, b: Any) -> bool:
    """Whether two values are the same, where any may be student code's."""
    try:
        return bool(a == b)
    except Exception:
        return False


# ---------------------------------------------------------------- generators


def generators(device: str) -> tuple:
    """The states of the generators of random numbers."""
    on_device = [] if device == "cpu" else torch.cuda.get_rng_state_all()
    return random.getstate(), numpy.random.get_state(), torch.get_rng_state(), on_device


def write_generators(saved: tuple) -> None:
    """Put back what `generators` gave."""
    of_python, of_numpy, of_torch, on_device = saved
    random.setstate(of_python)
    numpy.random.set_state(of_numpy)
    torch.set_rng_state(of_torch)
    if on_device:
        torch.cuda.set_rng_state_all(on_device)
