"""What is known of a cluster between two commands: one JSON file in its state folder."""

import json
import threading
from dataclasses import asdict, dataclass, field
from pathlib import Path

from slipway_dev.addresses import AddressRange
from slipway_dev.api import Api
from slipway_dev.console import CommandError
from slipway_dev.paths import state_folder
from slipway_dev.processes import Process

_saving = threading.Lock()  # nodes are started side by side


@dataclass
class Cluster:
    """One cluster. `processes` are the ones to end, by name; all others are in their process namespaces."""

    name: str
    provider: str  # kind | local
    nodes: int = 0
    control_plane_only: bool = False
    range_index: int | None = None
    host: str = ""
    port: int = 6443
    audit: bool = False
    ready: bool = False  # `up` came to its end
    processes: dict[str, Process] = field(default_factory=dict[str, Process])

    @property
    def folder(self) -> Path:
        """The state folder."""
        return folder_of(self.name)

    @property
    def pki(self) -> Path:
        """The certificates."""
        return self.folder / "pki"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.folder / "kubeconfig"

    @property
    def audit_log(self) -> Path:
        """The API server's audit log, written when `audit` is set."""
        return self.folder / "audit.log"

    @property
    def addresses(self) -> AddressRange:
        """The addresses of a local cluster with nodes."""
        if self.range_index is None:
            raise CommandError(f"cluster {self.name} has no address range")
        return AddressRange(self.range_index)

    @property
    def api(self) -> Api:
        """The API server."""
        return Api(self.host, self.port, self.pki)

    @property
    def server(self) -> str:
        """The API server's address for a kubeconfig."""
        return f"https://{self.host}:{self.port}"

    def node_names(self) -> list[str]:
        """Return the nodes' names."""
        return [f"{self.name}-{number}" for number in range(1, self.nodes + 1)]

    def node_folder(self, name: str) -> Path:
        """Return the state folder of a node."""
        return self.folder / name

    def save(self) -> None:
        """Write the file; a reader sees the old one or the new one."""
        with _saving:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            temporary = self.folder / ".cluster.json"
            temporary.write_text(json.dumps(asdict(self), indent=1))
            temporary.rename(self.folder / "cluster.json")


def folder_of(name: str) -> Path:
    """Return the state folder of a cluster."""
    return state_folder() / "clusters" / name


def load(name: str) -> Cluster | None:
    """Return what is known of a cluster, None when there is none."""
    try:
        values = json.loads((folder_of(name) / "cluster.json").read_text())
    except FileNotFoundError:
        return None
    processes = {key: Process(**value) for key, value in values.pop("processes").items()}
    return Cluster(**values, processes=processes)


def names() -> list[str]:
    """Return the names of all clusters that have a state."""
    return sorted(path.parent.name for path in (state_folder() / "clusters").glob("*/cluster.json"))
