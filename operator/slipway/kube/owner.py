"""The ModelDeployment that things are made for: before anything is, it is read anew."""

from slipway.kube.api import Api
from slipway.kube.kinds import kind_of
from slipway.kube.store import Object, Store


class StaleError(Exception):
    """What was decided rests on an old picture: decide anew."""


class Owner:
    """A ModelDeployment as one reconcile has it.

    It is watched by another watch than its children are. Where that one is behind, one that was just deleted loses its children
    to the garbage collector, and looks like one whose children somebody deleted: they would be made again as often as they go.
    """

    def __init__(self, api: Api, store: Store, obj: Object) -> None:
        self._api, self._store, self._obj = api, store, obj
        metadata = obj["metadata"]
        # What has neither status nor children is new: nothing was made of it yet that could have gone.
        self._confirmed = not obj.get("status") and not store.children(metadata["namespace"], metadata["name"])

    async def confirm(self) -> None:
        """See, once, that it is there as we have it. Raises StaleError where it has changed or is gone: the store then knows."""
        if not self._confirmed:
            await self.read()
            self._confirmed = True

    async def read(self) -> None:
        """Read it anew into the store. Raises StaleError where it is not as we have it."""
        metadata = self._obj["metadata"]
        kind, namespace, name = kind_of(self._obj), metadata["namespace"], metadata["name"]
        async for found, version in self._api.list(kind, namespace, fields=f"metadata.name={name}"):
            for obj in found:
                self._store.put(obj)
            if not found and int(metadata["resourceVersion"]) <= int(version):
                self._store.drop(self._obj)
        held = self._store.get(kind, namespace, name)
        if held is None or held["metadata"]["resourceVersion"] != metadata["resourceVersion"]:
            raise StaleError(f"{namespace}/{name} has changed meanwhile, or is gone")
