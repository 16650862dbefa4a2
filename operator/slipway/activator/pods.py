"""The pods of all revisions, as a watch tells of them."""

from slipway.core.symptoms import pod_ready
from slipway.kube.kinds import POD
from slipway.kube.store import Object, Store
from slipway.manifests.labels import COMPONENT, REVISION_LABEL, SELECTOR

# The server applies it: of other pods nothing is known here.
MODEL_PODS = f"{SELECTOR},{COMPONENT}=model"


class Pods:
    """The pods by revision: each as the store has it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._revisions: dict[tuple[str, str], dict[str, Object]] = {}

    def notice(self, obj: Object) -> tuple[str, str] | None:
        """Take notice that a pod came, changed or went, and answer its revision (namespace, name)."""
        metadata = obj["metadata"]
        name = metadata.get("labels", {}).get(REVISION_LABEL)
        if name is None:
            return None
        revision = metadata["namespace"], name
        pods = self._revisions.setdefault(revision, {})
        held = self._store.get(POD, metadata["namespace"], metadata["name"])
        if held is not None:
            pods[metadata["name"]] = held
        else:
            pods.pop(metadata["name"], None)
        if not pods:
            del self._revisions[revision]
        return revision

    def ready(self, revision: tuple[str, str]) -> list[str]:
        """Answer the IP addresses of the revision's ready pods, those that leave not among them."""
        found = (pod for pod in self._revisions.get(revision, {}).values() if pod_ready(pod))
        return [pod["status"]["podIP"] for pod in found if pod["status"].get("podIP")]

    def starting(self, namespace: str, revision: str) -> bool:
        """Tell whether there is a pod that does not leave: it is ready, or will be."""
        pods = self._revisions.get((namespace, revision), {})
        return any("deletionTimestamp" not in pod["metadata"] for pod in pods.values())
