"""The first code of a process that will run student code: becomes a zygote or a single worker."""

from __future__ import annotations

import base64
import importlib
import json
import socket
import sys
from typing import Any


def main(config: dict[str, Any]) -> None:
    """Become what `config` says: a zygote on the descriptor `control`, or a worker under `policy`."""
    from .sandbox import Policy, die_with_parent

    if sys.platform == "linux":
        die_with_parent()  # before torch is imported, which takes seconds
    if "control" in config:
        from .zygote import main as serve

        serve(socket.socket(fileno=config["control"]), config["imports"])
        return
    from .wire import Channel
    from .worker import run
    from .zygote import warm_up

    policy = Policy(**config["policy"])
    if policy.sealed:
        warm_up()
    for name in config["imports"]:
        importlib.import_module(name)

    address = json.loads(sys.stdin.readline())
    if "share" in address:
        wire = socket.fromshare(base64.b64decode(address["share"]))  # type: ignore[attr-defined]
    else:
        wire = socket.socket(fileno=address["fd"])
    run(Channel(wire), policy, output=1, trace=2)
