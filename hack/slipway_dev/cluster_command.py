"""hack/cluster: a Kubernetes to develop and test on."""

import argparse
import re
from collections.abc import Sequence

from slipway_dev import kind, local, state
from slipway_dev.addresses import NODES
from slipway_dev.cache import lock
from slipway_dev.console import CommandError, say
from slipway_dev.paths import state_folder
from slipway_dev.state import Cluster

DESCRIPTION = """\
Run a real Kubernetes on this machine.

Two providers stand behind it. `kind` is taken where a Docker engine answers and kind's node image is present or can be
pulled. `local` is taken anywhere else: on Linux, as root, it needs no Docker and no registry. With --control-plane-only
it needs no root either, and runs no pods.
"""


def parser() -> argparse.ArgumentParser:
    """Return the command line's definition."""
    top = argparse.ArgumentParser(
        prog="hack/cluster", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    named = argparse.ArgumentParser(add_help=False)
    named.add_argument("--name", default="slipway", type=_name, help="the cluster's name (default: %(default)s)")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")
    up = verbs.add_parser("up", parents=[named], help="start it; a running one is left as it is")
    up.add_argument("--provider", choices=("kind", "local"), help="default: kind where it works, else local")
    up.add_argument("--nodes", type=_nodes, default=1, metavar="N", help="number of nodes (default: %(default)s)")
    up.add_argument("--image", help="kind's node image (default: the one that kind's version names)")
    up.add_argument("--control-plane-only", action="store_true", help="an API server and controllers on 127.0.0.1")
    up.add_argument("--audit-log", action="store_true", help="log every request to the API server (local)")
    up.add_argument("--load", nargs="+", default=[], metavar="IMAGE", help="images that the nodes have from the start")
    verbs.add_parser("down", parents=[named], help="end it and remove all that it left on the machine")
    verbs.add_parser("status", parents=[named], help="say what runs and where its files are")
    load = verbs.add_parser("load", parents=[named], help="put images on all nodes")
    load.add_argument(
        "images", nargs="+", metavar="IMAGE", help="a reference that `hack/images build` printed, or an archive's path"
    )
    verbs.add_parser("kubeconfig", parents=[named], help="print the path of the administrator's kubeconfig")
    return top


def _name(text: str) -> str:
    if not re.fullmatch(r"[a-z]([-a-z0-9]{0,28}[a-z0-9])?", text):
        raise argparse.ArgumentTypeError("lower-case letters, digits and '-', a letter first, at most 30 characters")
    return text


def _nodes(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= NODES:
        raise argparse.ArgumentTypeError(f"a number from 1 to {NODES}")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one verb, alone for its cluster."""
    options = parser().parse_args(arguments)
    if options.verb == "kubeconfig":
        print(_running(options.name).kubeconfig)
    elif options.verb == "status":
        status(options.name)
    else:
        with lock(state_folder() / "locks" / f"{options.name}.lock"):
            if options.verb == "up":
                up(options)
            elif options.verb == "down":
                down(options.name)
            else:
                load(_running(options.name), options.images)


def up(options: argparse.Namespace) -> None:
    """Start the cluster that the options describe, unless it runs."""
    found = state.load(options.name)
    if found is not None:
        if is_running(found):
            say(f"cluster {found.name} is running already ({found.provider}); nothing changed")
            if options.load:
                load(found, options.load)
            return
        say(f"cluster {found.name} is not whole: removing what is left of it")
        remove(found)
    provider = options.provider
    if provider is None:
        provider = "local" if options.control_plane_only or not kind.usable(options.image) else "kind"
    if provider == "kind" and (options.control_plane_only or options.audit_log):
        raise CommandError("--control-plane-only and --audit-log are the local provider's: add --provider local")
    only = options.control_plane_only
    if only and options.load:
        raise CommandError("--control-plane-only runs no nodes to load images into: leave out --load")
    cluster = Cluster(
        options.name,
        provider,
        nodes=0 if only else options.nodes,
        control_plane_only=only,
        audit=options.audit_log,
    )
    shape = "control plane only" if only else f"{cluster.nodes} node{'s' if cluster.nodes > 1 else ''}"
    say(f"starting cluster {cluster.name} ({provider}, {shape})")
    if provider == "kind":
        kind.up(cluster, options.image, options.load)
    else:
        local.up(cluster, options.load)
    print(f"export KUBECONFIG={cluster.kubeconfig}")


def down(name: str) -> None:
    """End a cluster; that there is none is no error."""
    found = state.load(name)
    if found is None:
        say(f"there is no cluster {name}")
        return
    remove(found)
    say(f"cluster {name} is gone")


def remove(cluster: Cluster) -> None:
    """End a cluster by its provider."""
    if cluster.provider == "kind":
        kind.down(cluster)
    else:
        local.down(cluster)


def is_running(cluster: Cluster) -> bool:
    """Tell whether a cluster runs, by its provider."""
    return kind.running(cluster) if cluster.provider == "kind" else local.running(cluster)


def load(cluster: Cluster, images: Sequence[str]) -> None:
    """Put images on all nodes, by the cluster's provider."""
    if cluster.provider == "kind":
        kind.load(cluster, images)
    else:
        local.load(cluster, images)


def status(name: str) -> None:
    """Print what runs of a cluster, and fail when it is not whole."""
    found = state.load(name)
    if found is None:
        others = [other for other in state.names() if other != name]
        raise CommandError(f"there is no cluster {name}" + (f"; there are: {', '.join(others)}" if others else ""))
    whole = is_running(found)
    print(f"cluster     {found.name} ({found.provider}): {'running' if whole else 'not whole'}")
    print(f"nodes       {', '.join(found.node_names()) or 'none (control plane only)'}")
    print(f"kubeconfig  {found.kubeconfig}")
    if found.provider == "local":
        print(f"API server  {found.server}")
        print(f"logs        {found.folder / 'log'}" + ("" if not found.nodes else f", {found.folder}/NODE/var-log"))
        if found.audit:
            print(f"audit log   {found.audit_log}")
        for part, process in found.processes.items():
            print(f"  {part:<24} {f'process {process.pid}' if process.alive() else 'ENDED'}")
    if not whole:
        raise CommandError(f"cluster {name} is not whole: `hack/cluster up --name {name}` starts it anew")


def _running(name: str) -> Cluster:
    found = state.load(name)
    if found is None or not is_running(found):
        raise CommandError(f"cluster {name} is not running: hack/cluster up --name {name}")
    return found
