"""The cluster's certificate authority, its certificates and the kubeconfigs made of them."""

import base64
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from slipway_dev.processes import run

_CONFIG = """\
[req]
distinguished_name = subject
[subject]
[authority]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign,cRLSign,digitalSignature
[holder]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = serverAuth,clientAuth
"""
_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "3650", "-x509")


@dataclass(frozen=True)
class Holder:
    """Who a certificate is for; `names` are subject alternative names such as DNS:localhost, IP:127.0.0.1."""

    file: str
    common_name: str
    organization: str = ""
    names: tuple[str, ...] = ()


def create(folder: Path, holders: list[Holder]) -> None:
    """Create the authority (ca), the service accounts' key (sa) and a certificate for each holder."""
    folder.mkdir(mode=0o700, parents=True)
    config = folder / "openssl.cnf"
    config.write_text(_CONFIG)
    ca = folder / "ca"
    request = ["openssl", "req", "-config", config, *_KEY]
    run([*request, "-extensions", "authority", "-subj", "/CN=slipway", "-keyout", f"{ca}.key", "-out", f"{ca}.crt"])
    run(["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", folder / "sa.key"])
    run(["openssl", "ec", "-in", folder / "sa.key", "-pubout", "-out", folder / "sa.pub"])

    def sign(holder: Holder) -> None:
        organization = f"/O={holder.organization}" if holder.organization else ""
        names = ["-addext", f"subjectAltName={','.join(holder.names)}"] if holder.names else []
        run(
            [
                *request,
                *("-extensions", "holder", *names, "-subj", f"{organization}/CN={holder.common_name}"),
                *("-CA", f"{ca}.crt", "-CAkey", f"{ca}.key"),
                *("-keyout", folder / f"{holder.file}.key", "-out", folder / f"{holder.file}.crt"),
            ]
        )

    with ThreadPoolExecutor() as pool:
        list(pool.map(sign, holders))


def write_kubeconfig(target: Path, name: str, server: str, pki: Path, holder: str) -> None:
    """Write a kubeconfig that holds its certificates itself, so that it can be copied. JSON is YAML."""

    def encoded(file: str) -> str:
        return base64.b64encode((pki / file).read_bytes()).decode()

    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": name, "cluster": {"server": server, "certificate-authority-data": encoded("ca.crt")}},
        ],
        "users": [
            {
                "name": holder,
                "user": {
                    "client-certificate-data": encoded(f"{holder}.crt"),
                    "client-key-data": encoded(f"{holder}.key"),
                },
            },
        ],
        "contexts": [{"name": name, "context": {"cluster": name, "user": holder}}],
        "current-context": name,
    }
    target.touch(mode=0o600)
    target.write_text(json.dumps(config, indent=1))
