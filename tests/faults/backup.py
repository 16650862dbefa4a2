"""What a backup keeps of a namespace's objects, and the order in which they are restored: as Velero does both."""

from collections.abc import Iterable

from tests.faults.history import Object
from tests.faults.oracle import owned

# Some kinds go first, in this order, the others follow by their plural: Velero's restore reference, "Restore order". It restores
# ReplicaSets and pods too: here Deployments make them anew.
ORDER = (
    "ServiceAccount",
    "ConfigMap",
    "Service",
    "ControllerRevision",
    "Deployment",
    "ModelDeployment",
    "PodDisruptionBudget",
)
_METADATA = ("name", "namespace", "labels", "annotations")


def take(objects: Iterable[Object], *, owners: bool) -> list[Object]:
    """Answer ModelDeployments and what Slipway made, in the order of a restore, without status and uids.

    Owners name uids that will be gone: Velero leaves them out (its `resetMetadata`), and other tools may keep them.
    """
    mine = [obj for obj in objects if obj["kind"] in ORDER and (obj["kind"] == "ModelDeployment" or owned(obj))]
    kept = (*_METADATA, "ownerReferences") if owners else _METADATA
    return sorted((_stripped(obj, kept) for obj in mine), key=lambda obj: ORDER.index(obj["kind"]))


def _stripped(obj: Object, kept: Iterable[str]) -> Object:
    metadata = {key: obj["metadata"][key] for key in kept if key in obj["metadata"]}
    found = {**{key: value for key, value in obj.items() if key != "status"}, "metadata": metadata}
    if obj["kind"] == "Service" and obj["spec"].get("clusterIP") != "None":
        found["spec"] = {key: value for key, value in obj["spec"].items() if key not in ("clusterIP", "clusterIPs")}
    return found
