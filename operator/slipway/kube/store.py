"""What the API server holds of Slipway's objects: filled by the watches, and by our own writes before their events arrive."""

import sys
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from slipway.kube.kinds import DEPLOYMENT, POD, Kind, kind_of
from slipway.manifests.labels import CONFIG_VERSION, MODEL_LABEL

Object = dict[str, Any]
Name = tuple[str, str]
# How many gone objects are remembered: as many as events can still be under way for.
_GONE_MAX = 10_000


class Store:
    """Objects by kind, namespace and name, and by the ModelDeployment that they belong to.

    The newer resourceVersion wins, so an event that was under way while we wrote never hides our own write. What is gone stays
    gone, whatever an older event or list still says of it.
    """

    def __init__(self) -> None:
        self._objects: dict[Kind, dict[str, dict[str, Object]]] = defaultdict(lambda: defaultdict(dict))
        self._children: dict[Name, dict[tuple[Kind, str], Object]] = defaultdict(dict)
        # By uid, the version up to which what is said of a gone object is old: of what we deleted ourselves, everything.
        self._gone: dict[str, float] = {}

    def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        """Answer one object."""
        return self._objects[kind][namespace].get(name)

    def all(self, kind: Kind, namespace: str | None = None) -> list[Object]:
        """Answer the objects of a kind, of one namespace or of all."""
        spaces = self._objects[kind]
        if namespace is not None:
            return list(spaces[namespace].values())
        return [obj for space in spaces.values() for obj in space.values()]

    def children(self, namespace: str, model: str, kind: Kind | None = None) -> list[Object]:
        """Answer the objects labelled as belonging to the ModelDeployment."""
        found = self._children.get((namespace, model), {})
        return [obj for (of, _), obj in found.items() if kind is None or of is kind]

    def namespaces(self) -> Iterator[str]:
        """Answer the namespaces that hold anything."""
        return iter({namespace for spaces in self._objects.values() for namespace, held in spaces.items() if held})

    def put(self, obj: Object) -> bool:
        """Take an object as read or written. Answer whether it is news: whether anything differs that somebody reads."""
        metadata = obj["metadata"]
        kind, namespace, name = kind_of(obj), metadata["namespace"], metadata["name"]
        if _version(obj) <= self._gone.get(metadata["uid"], 0):
            return False
        held = self.get(kind, namespace, name)
        if held is not None and _version(held) >= _version(obj):
            return False
        obj = _trimmed(kind, obj)
        self._objects[kind][namespace][name] = obj
        model = _model_of(obj)
        if held is not None and _model_of(held) not in (None, model):
            self._children[namespace, str(_model_of(held))].pop((kind, name), None)
        if model is not None:
            self._children[namespace, model][kind, name] = obj
        return held is None or _read(kind, held) != _read(kind, obj)

    def drop(self, obj: Object, *, ours: bool = False) -> bool:
        """Take notice that an object is gone, at its resourceVersion. Answer whether it was held.

        `ours`: we asked for it, so whatever the watch still says of that object is old. An object that only lost our label is
        gone for the watch too, and comes back with a later version.
        """
        metadata = obj["metadata"]
        kind, namespace, name, uid = kind_of(obj), metadata["namespace"], metadata["name"], metadata["uid"]
        self._gone[uid] = float("inf") if ours else max(self._gone.get(uid, 0), _version(obj))
        if len(self._gone) > _GONE_MAX:
            del self._gone[next(iter(self._gone))]
        held = self.get(kind, namespace, name)
        if held is None or held["metadata"]["uid"] != uid:
            return False
        del self._objects[kind][namespace][name]
        model = _model_of(held)
        if model is not None:
            self._children[namespace, model].pop((kind, name), None)
            if not self._children[namespace, model]:
                del self._children[namespace, model]
        return True

    def prune(self, kind: Kind, namespace: str | None, present: set[str], version: float = float("inf")) -> list[Object]:
        """Take notice of the uids that were all that there was of a kind at a version. Answer the objects that went.

        What is held and newer than that has come since.
        """
        gone = [obj for obj in self.all(kind, namespace) if obj["metadata"]["uid"] not in present and _version(obj) <= version]
        for obj in gone:
            self.drop(obj)
        return gone


def _version(obj: Object) -> int:
    return int(obj["metadata"]["resourceVersion"])


def _model_of(obj: Object) -> str | None:
    return obj["metadata"].get("labels", {}).get(MODEL_LABEL)


def _trimmed(kind: Kind, obj: Object) -> Object:
    """Answer the object without what nobody reads, its texts shared with others: thousands are held, and they are alike."""
    obj = {**obj, "metadata": {key: value for key, value in obj["metadata"].items() if key != "managedFields"}}
    status = obj.get("status") or {}
    if kind is POD:
        obj.pop("spec", None)
        read = ("phase", "reason", "message", "podIP", "conditions", "containerStatuses", "initContainerStatuses")
        obj["status"] = {key: status[key] for key in read if key in status}
    elif kind is DEPLOYMENT:
        failures = [condition for condition in status.get("conditions", ()) if condition["type"] == "ReplicaFailure"]
        obj["status"] = {"conditions": failures}
    return _shared(obj)


def _shared(value: Any) -> Any:
    if isinstance(value, dict):
        return {sys.intern(key): _shared(held) for key, held in value.items()}
    if isinstance(value, list):
        return [_shared(held) for held in value]
    return sys.intern(value) if isinstance(value, str) else value


def _read(kind: Kind, obj: Object) -> Object:
    """Answer what a reconcile may decide differently on: of a pod's annotations the one that tells routers of their version."""
    metadata = {key: value for key, value in obj["metadata"].items() if key != "resourceVersion"}
    if kind is POD:
        metadata["annotations"] = metadata.get("annotations", {}).get(CONFIG_VERSION)
    return {**obj, "metadata": metadata}
