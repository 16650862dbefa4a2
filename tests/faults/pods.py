"""Which pods there are, and which can answer: the truth that the stand-in kubelet makes and the routers meet."""

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tests.faults.history import Capacity, Entry


@dataclass
class Truth:
    """One pod. `ready`: Services list it. `serving`: it answers whoever asks, as one does that leaves by its preStop sleep."""

    namespace: str
    name: str
    uid: str
    address: str
    revision: str
    ready: bool = False
    serving: bool = False


class Pods:
    """All pods of the world, by uid. `tell` takes what is seen in a namespace."""

    def __init__(self, tell: Callable[[str, Entry], None]) -> None:
        self.tell = tell
        self._pods: dict[str, dict[str, Truth]] = {}
        self.erring: set[tuple[str, str]] = set()
        """Namespace and revision of models that answer with errors."""
        self.unasked: set[str] = set()
        """Namespaces whose callers ask nothing."""

    def add(self, pod: Truth) -> None:
        """Take a pod."""
        self._pods.setdefault(pod.namespace, {})[pod.uid] = pod

    def drop(self, pod: Truth) -> None:
        """A pod has gone."""
        self._pods.get(pod.namespace, {}).pop(pod.uid, None)
        self.changed(pod)

    def forget(self, namespace: str) -> Iterable[Truth]:
        """Answer the pods of a namespace, which are no longer known."""
        return list(self._pods.pop(namespace, {}).values())

    def changed(self, pod: Truth) -> None:
        """Tell how many pods of its revision answer now."""
        if pod.revision:
            serving = sum(each.serving for each in self._of(pod.namespace, pod.revision))
            self.tell(pod.namespace, Capacity(time.monotonic(), pod.revision, serving))

    def ready(self, namespace: str) -> Counter[str]:
        """Answer how many pods DNS lists, by revision."""
        return Counter(pod.revision for pod in self._pods.get(namespace, {}).values() if pod.ready and pod.revision)

    def ask(self, namespace: str, revision: str) -> str:
        """Send a request. Answer why it failed: `erring` is the model's own doing; nothing where it was answered well."""
        if not any(pod.serving for pod in self._of(namespace, revision)):
            return "no pod of it answers"
        return "erring" if (namespace, revision) in self.erring else ""

    def _of(self, namespace: str, revision: str) -> list[Truth]:
        return [pod for pod in self._pods.get(namespace, {}).values() if pod.revision == revision]
