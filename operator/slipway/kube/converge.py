"""Makes the world what is wanted: applies what differs, deletes what is no longer wanted, touches nothing of others."""

from collections.abc import Iterable
from typing import Any

from slipway.core.observation import Symptom
from slipway.core.symptoms import short
from slipway.kube.api import FIELD_MANAGER, Api, ApiError
from slipway.kube.diff import covers, mark
from slipway.kube.kinds import CONFIG_MAP, kind_of
from slipway.kube.owner import Owner
from slipway.kube.store import Store
from slipway.manifests.labels import MANAGED_BY

Object = dict[str, Any]
# What hinders us is not watched (a foreign object has not our label, a quota is not ours): it is looked at again after this long.
HINDRANCE_RETRY_SECONDS = 15.0
# An apply of owners alone would, by the manager of whole objects, remove all else of them.
_ADOPTER = f"{FIELD_MANAGER}-owner"


class Converger:
    """Applies and deletes through the store, so that what is as wanted costs no request."""

    def __init__(self, api: Api, store: Store) -> None:
        self._api, self._store = api, store
        # What the server stores other than wanted right after an apply (an admission webhook's change, say) is accepted once:
        # the alternative is to apply for ever.
        self._accepted: dict[str, tuple[str, int]] = {}

    async def apply(self, wanted: Object, owner: Owner | None = None) -> Symptom | None:
        """Apply one object if it differs. Answer what hinders it, where somebody else must act.

        An object of that name that is not ours is untouched. An object that the API server refuses stays as it was. Raises
        StaleError where it is to be made and its owner is not there as we have it.
        """
        wanted = mark(wanted)
        metadata = wanted["metadata"]
        kind = kind_of(wanted)
        stored = self._store.get(kind, metadata["namespace"], metadata["name"])
        if stored is None and owner is not None:
            await owner.confirm()
        try:
            if stored is None:
                applied = await self._api.apply(wanted, create=True)
            elif not _same_owner(stored, wanted):
                return clash(stored)
            elif stored["metadata"].get("deletionTimestamp") or covers(stored, wanted) or self._is_accepted(stored):
                return None
            else:
                applied = await self._api.apply(_unless_changed(stored, wanted))
        except ApiError as error:
            if error.status != 409:
                if error.status == 404 and kind.optional:
                    return Symptom("NotInstalled", f"the cluster has no {kind.kind} ({kind.api_version}): install its definition")
                if _is_refusal(error):
                    return Symptom("ChildRefused", short(f"{wanted['kind']} {metadata['name']} is refused: {error.message}"))
                raise
            found = await self._api.get(kind, metadata["namespace"], metadata["name"])
            if found is None:
                raise
            if not _same_owner(found, wanted):
                return clash(found)
            self._store.put(found)
            raise
        self._store.put(applied)
        if not covers(applied, wanted):
            self._accepted[applied["metadata"]["uid"]] = _fingerprint(applied)
        return None

    async def adopt(self, owned: Iterable[Object], owner: Owner) -> None:
        """Apply owners to objects that have none. What went meanwhile is left, and what is refused: it stays a clash.

        Raises StaleError where the owner is not there as we have it: the garbage collector would take what we gave it.
        """
        for obj in owned:
            await owner.confirm()
            try:
                self._store.put(await self._api.apply(obj, manager=_ADOPTER))
            except ApiError as error:
                if error.status not in (404, 409) and not _is_refusal(error):
                    raise

    async def delete(self, objects: Iterable[Object]) -> None:
        """Delete objects that the store holds."""
        for obj in objects:
            if obj["metadata"].get("deletionTimestamp"):
                continue
            await self._api.delete(obj)
            self._accepted.pop(obj["metadata"]["uid"], None)
            self._store.drop(obj, ours=True)

    def _is_accepted(self, stored: Object) -> bool:
        return self._accepted.get(stored["metadata"]["uid"]) == _fingerprint(stored)


def _unless_changed(stored: Object, wanted: Object) -> Object:
    """Answer what to send: of a ConfigMap, only where it still is as it was when this was decided.

    It is the routes of a namespace. A write of a leader that lost its Lease meanwhile may come late, and would send requests to
    pods that are gone. Of other kinds the version moves with all that is told of their state.
    """
    if wanted["kind"] != CONFIG_MAP.kind:
        return wanted
    return {**wanted, "metadata": {**wanted["metadata"], "resourceVersion": stored["metadata"]["resourceVersion"]}}


def clash(obj: Object) -> Symptom:
    """Answer what is wrong with an object in the way."""
    metadata = obj["metadata"]
    if metadata.get("deletionTimestamp"):
        return Symptom("NameClash", f"{obj['kind']} {metadata['name']} of an earlier owner is still being deleted")
    return Symptom(
        "NameClash",
        f"{obj['kind']} {metadata['name']} exists in namespace {metadata['namespace']} and is not Slipway's: it is left alone; "
        "delete or rename it, or rename the ModelDeployment",
    )


def _is_refusal(error: ApiError) -> bool:
    """Tell whether trying again is of no use: the object is wrong, or a rule of the cluster is against it.

    A field that the schema does not know is answered with 500 by server-side apply. A namespace that is being deleted is
    not for anybody to mend.
    """
    if "being terminated" in error.message:
        return False
    return error.status in (400, 403, 422) or (error.status == 500 and "failed to create typed patch object" in error.message)


def _fingerprint(obj: Object) -> tuple[str, int]:
    metadata = obj["metadata"]
    return str(metadata.get("annotations")), metadata.get("generation", int(metadata["resourceVersion"]))


def _controller(obj: Object) -> str | None:
    return next((ref["uid"] for ref in obj["metadata"].get("ownerReferences", ()) if ref.get("controller")), None)


def _same_owner(stored: Object, wanted: Object) -> bool:
    """Tell whether the stored object is the one that we would make: same controller, and Slipway's label."""
    labels = stored["metadata"].get("labels") or {}
    return _controller(stored) == _controller(wanted) and (
        _controller(wanted) is not None or labels.get(MANAGED_BY) == wanted["metadata"]["labels"][MANAGED_BY]
    )
