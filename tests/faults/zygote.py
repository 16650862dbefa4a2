"""Forks operators: the operator's modules are imported once, and each process of it is there in milliseconds.

A line of JSON on standard input starts one: `{"id", "argv", "env", "log"}`. Lines of JSON on standard output tell of it:
`{"id", "pid"}`, and when it ends `{"id", "exit"}`, negative for a signal. With standard input all of them end.
Which operator it is says PYTHONPATH. It is `python -m slipway` itself, but that some times are shorter: `QUICKER`.
"""

import ctypes
import gc
import importlib
import json
import os
import random
import select
import signal
import sys
import traceback
from datetime import timedelta
from typing import Any

import aiohttp

# Module, name, and the value that takes the place of the released one: the world of these tests is quicker too. But an answer of
# a router may be slow where the machine is busy.
QUICKER: tuple[tuple[str, str, Any], ...] = (
    ("slipway.core.rollout", "IDLE_SECONDS", 0.5),
    ("slipway.core.rollout", "JUDGE_SECONDS", 0.3),
    ("slipway.reconciler", "FIGURES_DELAY", timedelta(seconds=0.2)),
    ("slipway.routers", "AWAKE_SECONDS", 1.5),
    ("slipway.meter.meter", "STEADY_SECONDS", 0.5),
    ("slipway.meter.meter", "ROLLOUT_SECONDS", 0.25),
    ("slipway.meter.pods", "_TIMEOUT", aiohttp.ClientTimeout(total=20.0)),
    ("slipway.kube.api", "_REQUEST_SECONDS", 6),
    ("slipway.kube.lease", "RENEW_SECONDS", 0.5),
    ("slipway.kube.lease", "RETRY_SECONDS", 0.2),
    ("slipway.kube.converge", "HINDRANCE_RETRY_SECONDS", 1.0),
)
_IMPORTED = ("slipway.app", "slipway.__main__", "uvloop", "kopf", "kubernetes.aio")
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG


def _quicken() -> None:
    for module, name, value in QUICKER:
        found = importlib.import_module(module)
        if not hasattr(found, name):
            raise SystemExit(f"{module}.{name} is gone: see QUICKER in {__file__}")
        setattr(found, name, value)


def _become(asked: dict[str, Any]) -> None:
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.environ.update(asked["env"])
    # Read from the environment as the module is imported, which was long ago.
    sys.modules["kubernetes.aio.config.kube_config"].KUBE_CONFIG_DEFAULT_LOCATION = asked["env"]["KUBECONFIG"]
    log = os.open(asked["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for number in (1, 2):
        os.dup2(log, number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    random.seed()
    code = 1
    try:
        code = sys.modules["slipway.__main__"].main(asked["argv"])
    except SystemExit as left:
        code = int(left.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    """Fork what is asked for until standard input ends."""
    for name in _IMPORTED:
        importlib.import_module(name)
    _quicken()
    gc.collect()
    gc.freeze()
    wake, woken = os.pipe()
    for fd in (wake, woken):
        os.set_blocking(fd, False)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    running: dict[int, Any] = {}
    rest = b""
    print(json.dumps({"id": None, "pid": os.getpid()}), flush=True)
    while True:
        readable, _, _ = select.select([0, wake], [], [])
        if wake in readable:
            os.read(wake, 4096)
            for pid in list(running):
                ended, status = os.waitpid(pid, os.WNOHANG)
                if ended:
                    print(json.dumps({"id": running.pop(pid), "exit": os.waitstatus_to_exitcode(status)}), flush=True)
        if 0 in readable:
            read = os.read(0, 65536)
            if not read:
                break
            *lines, rest = (rest + read).split(b"\n")
            for line in lines:
                asked = json.loads(line)
                pid = os.fork()
                if pid == 0:
                    _become(asked)
                running[pid] = asked["id"]
                print(json.dumps({"id": asked["id"], "pid": pid}), flush=True)
    for pid in running:
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
