"""What each command does, from its arguments to its exit code."""

import json
import queue
import sys
import threading
from argparse import Namespace
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import yaml

from slipway.api.status import Request, Status, Verb
from slipway.kubectl import show, traffic, verbs
from slipway.kubectl.client import ChangedError, Cluster, ClusterError, Object

DONE, REFUSED, TIMED_OUT, NO_CLUSTER, USAGE = 0, 1, 2, 3, 64
# A live picture moves by itself: times are told in it.
_REDRAW_SECONDS = 1.0
_CLEAR = "\x1b[H\x1b[J"


def status(cluster: Cluster, args: Namespace) -> int:
    """Draw one ModelDeployment."""
    found = cluster.get(args.namespace, args.name)
    _print(_written(found, args.output) if args.output else show.tree(found, _now(), args.paint))
    return DONE


def watch(cluster: Cluster, args: Namespace) -> int:
    """Draw one ModelDeployment again and again; where nobody looks, write a line at each change."""
    if not args.terminal:
        for line in _lines(cluster.follow(args.namespace, args.name)):
            _print(line)
        return DONE
    for found in _ticking(cluster.follow(args.namespace, args.name)):
        sys.stdout.write(_CLEAR + show.tree(found, _now(), args.paint) + "\n")
        sys.stdout.flush()
    return DONE


def list_all(cluster: Cluster, args: Namespace) -> int:
    """List ModelDeployments."""
    found = cluster.list("" if args.all_namespaces else args.namespace)
    if args.output in ("json", "yaml"):
        _print(_written({"apiVersion": "v1", "kind": "List", "items": found}, args.output))
    elif not found:
        where = "this cluster" if args.all_namespaces else f"namespace {args.namespace}"
        print(f"no ModelDeployment in {where}", file=sys.stderr)
    else:
        _print(show.table(found, _now(), namespaces=args.all_namespaces, wide=args.output == "wide"))
    return DONE


def history(cluster: Cluster, args: Namespace) -> int:
    """Tell who served since when, and how each rollout ended."""
    found = cluster.get(args.namespace, args.name)
    kept = cluster.kept(found)
    if args.output:
        entries = (found.get("status") or {}).get("history", [])
        marked = [entry if kept is None else {**entry, "kept": entry["revision"] in kept} for entry in entries]
        _print(_written({"name": args.name, "namespace": args.namespace, "history": marked}, args.output))
    else:
        _print(show.history(found, kept, _now()))
    return DONE


def wait(cluster: Cluster, args: Namespace) -> int:
    """Wait for the end of the rollout of the spec as it is now, and tell each transition."""
    wanted = verbs.Wanted()
    last = ""
    for found in cluster.follow(args.namespace, args.name, args.timeout):
        if (line := show.line(found)) != last:
            last = line
            _print(f"{_clock()}  {line}")
        status = show.status_of(found)
        ended = None if show.behind(found, status) else wanted.ended(status)
        if ended is not None:
            promoted, why = ended
            _print(f"{_clock()}  {why}")
            return DONE if promoted else REFUSED
    print(f"not within {args.timeout:g} s", file=sys.stderr)
    return TIMED_OUT


def use(cluster: Cluster, args: Namespace) -> int:
    """Use a verb: look whether it makes sense, ask for it, and tell what came of it."""
    asked = verbs.request(Verb(args.verb), cluster.who(), full=args.full, revision=args.revision, weight=args.weight)
    before = _sent(cluster, args, asked)
    if isinstance(before, str):
        print(before, file=sys.stderr)
        return REFUSED
    if not args.wait:
        _print(f"asked for {args.verb}")
        return DONE
    for found in cluster.follow(args.namespace, args.name, args.timeout):
        after = show.status_of(found)
        if after.handled == asked.at:
            done, told = verbs.outcome(before, after, asked)
            print(told, file=sys.stdout if done else sys.stderr, flush=True)
            return DONE if done else REFUSED
        if after.request is None or after.request.at != asked.at:
            other = f" by {after.request.by}'s {after.request.verb}" if after.request is not None else ""
            print(f"the request was replaced{other}: see `kubectl slipway status {args.name}`", file=sys.stderr)
            return REFUSED
    print(f"asked for, but not obeyed within {args.timeout:g} s: is the operator running? It obeys when it does", file=sys.stderr)
    return TIMED_OUT


def _sent(cluster: Cluster, args: Namespace, asked: Request) -> Status | str:
    """Send a request. Answer the status that it was sent to, or why it was not.

    What was looked at is what it is sent to: if the ModelDeployment changes in between, it is looked at anew.
    """
    for found in cluster.follow(args.namespace, args.name, args.timeout):
        before = show.status_of(found)
        if show.behind(found, before):
            continue
        kept = cluster.kept(found) if asked.verb == Verb.ROLLBACK else None
        why = verbs.refusal(before, asked, kept)
        if why is not None:
            return f"{args.name}: {why}"
        if before.request is not None and before.request.at != before.handled:
            print(f"this replaces {before.request.by}'s {before.request.verb}, not obeyed yet", file=sys.stderr)
        try:
            # What is None is written too: an earlier request may have had it.
            cluster.request(found, asked.model_dump(by_alias=True, mode="json"))
        except ChangedError:
            continue
        return before
    return f"{args.name}: Slipway has not taken notice of the latest spec within {args.timeout:g} s: is the operator running?"


def _lines(objects: Iterator[Object]) -> Iterator[str]:
    """Yield a line at each change that one would tell of."""
    last = ""
    for found in objects:
        if (line := show.line(found)) != last:
            last = line
            yield f"{_clock()}  {line}"


def _ticking(objects: Iterator[Object]) -> Iterator[Object]:
    """Yield each object as it comes, and the last one again each second."""
    came: queue.Queue[Object | ClusterError | None] = queue.Queue()

    def read() -> None:
        try:
            for each in objects:
                came.put(each)
            came.put(None)
        except ClusterError as error:
            came.put(error)

    threading.Thread(target=read, daemon=True).start()
    last = came.get()
    while last is not None:
        if isinstance(last, ClusterError):
            raise last
        yield last
        try:
            last = came.get(timeout=_REDRAW_SECONDS)
        except queue.Empty:
            continue


def _written(found: Any, output: str) -> str:
    return json.dumps(found, indent=2) if output == "json" else yaml.safe_dump(found, sort_keys=False).rstrip()


def _print(text: str) -> None:
    print(text, flush=True)


def _now() -> datetime:
    return datetime.now(UTC)


def _clock() -> str:
    return datetime.now().astimezone().strftime("%H:%M:%S")


COMMANDS: dict[str, Callable[[Cluster, Namespace], int]] = {
    "status": status,
    "watch": watch,
    "list": list_all,
    "history": history,
    "wait": wait,
    "export-traffic": traffic.export,
}
