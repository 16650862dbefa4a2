"""How URIs, Secrets and the environment become the settings of an object store.

What stores make of them is tested with real ones for s3 and az (test_fetch_s3.py and test_fetch_azure.py in tests/integration),
for gs with a server of its protocol (test_fetch_google.py).
"""

import json
from pathlib import Path

import pytest

from slipway_server.sources import objects
from slipway_server.sources.credentials import Credentials
from slipway_server.sources.network import Network
from slipway_server.sources.uri import parse
from slipway_server.termination import TerminalError

KEY = "aHVudGVyMg=="  # base64, as the keys of Azure are
ENVIRONMENT = ("AWS_", "AZURE_", "GOOGLE_")


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in os.environ:
        if name.startswith(ENVIRONMENT):
            monkeypatch.delenv(name)
    monkeypatch.setattr(objects, "_GKE_METADATA", ("127.0.0.1", 9))


def settings(
    tmp_path: Path, uri: str, endpoint: str | None = None, region: str | None = None, path_style: bool = False, **keys: str
) -> tuple[dict[str, object], bool]:
    for key, value in keys.items():
        (tmp_path / key.replace("service_account", "service-account.json")).write_text(value)
    store, anonymous = objects.open_store(parse(uri), Credentials(tmp_path), objects.Reach(endpoint, region, path_style, 30.0))
    return {str(key): value for key, value in store.config.items()}, anonymous


@pytest.mark.parametrize(
    ("uri", "endpoint", "path_style", "expected", "hosted"),
    [
        ("s3://bucket/k", None, False, None, True),
        ("s3://bucket/k", None, True, None, False),
        ("s3://a.bucket/k", None, False, None, False),
        ("s3://bucket/k", "https://minio.example:9000", False, "https://bucket.minio.example:9000", True),
        ("s3://bucket/k", "https://minio.example:9000", True, "https://minio.example:9000", False),
        ("s3://bucket/k", "http://192.0.2.1:9000", False, "http://192.0.2.1:9000", False),
        ("s3://bucket/k", "http://[2001:db8::a]:9000", False, "http://[2001:db8::a]:9000", False),
    ],
)
def test_s3_hosts(tmp_path: Path, uri: str, endpoint: str | None, path_style: bool, expected: str | None, hosted: bool) -> None:
    config, anonymous = settings(tmp_path, uri, endpoint, path_style=path_style)
    assert config.get("endpoint") == expected
    assert config["virtual_hosted_style_request"] in (hosted, str(hosted).lower())
    assert config["region"] == "us-east-1"
    assert anonymous


def test_s3_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "hunter2", "AWS_SESSION_TOKEN": "session"}
    config, anonymous = settings(tmp_path / "none", "s3://bucket/k", region="eu-west-1")
    assert (config["region"], anonymous) == ("eu-west-1", True)
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", "/var/run/token")
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::1:role/r")
    assert not settings(tmp_path / "none", "s3://bucket/k")[1]
    config, anonymous = settings(tmp_path, "s3://bucket/k", **keys)
    assert not anonymous
    assert (config["access_key_id"], config["secret_access_key"], config["session_token"]) == ("id", "hunter2", "session")


def test_google(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings(tmp_path, "gs://bucket/k", "https://storage.example")[1]
    monkeypatch.setenv("GOOGLE_BEARER_TOKEN", "hunter2")
    assert not settings(tmp_path, "gs://bucket/k")[1]
    for wrong in ("hunter2", json.dumps({"type": "service_account", "private_key": "hunter2"})):
        with pytest.raises(TerminalError, match="credentials") as caught:
            settings(tmp_path, "gs://bucket/k", service_account=wrong)
        assert caught.value.reason == "ModelUnreadable"
        assert "hunter2" not in caught.value.line()


def test_azure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TerminalError, match="no storage account"):
        settings(tmp_path, "az://container/k")
    config, anonymous = settings(tmp_path, "az://container/k", "https://account.blob.core.windows.net")
    assert (config["account_name"], config["endpoint"], anonymous) == ("account", "https://account.blob.core.windows.net", True)
    monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", "/var/run/token")
    monkeypatch.setenv("AZURE_CLIENT_ID", "client")
    monkeypatch.setenv("AZURE_TENANT_ID", "tenant")
    assert not settings(tmp_path, "az://container/k", AZURE_STORAGE_ACCOUNT_NAME="mine")[1]
    config, anonymous = settings(tmp_path, "az://container/k", AZURE_STORAGE_SAS_TOKEN="?sv=1&sig=hunter2")  # noqa: S106
    assert (config["account_name"], "sas_key" in config, anonymous) == ("mine", True, False)
    config, anonymous = settings(tmp_path, "az://container/k", AZURE_STORAGE_ACCOUNT_KEY=KEY)
    assert (config["account_key"], anonymous) == (KEY, False)
    with pytest.raises(TerminalError, match="credentials") as caught:
        settings(tmp_path, "az://container/k", AZURE_STORAGE_ACCOUNT_KEY="hunter2!")
    assert "hunter2" not in caught.value.line()


@pytest.mark.parametrize(
    ("uri", "endpoint", "keys"),
    [
        (
            "az://container/k",
            "http://127.0.0.1:9",
            {"AZURE_STORAGE_ACCOUNT_NAME": "a", "AZURE_STORAGE_SAS_TOKEN": "sv=1&sig=hunter2"},
        ),
        ("gs://bucket/k", "http://127.0.0.1:9", {}),
    ],
)
def test_errors_hide_credentials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str, endpoint: str, keys: dict[str, str]
) -> None:
    monkeypatch.setattr("slipway_server.sources.retries.BACKOFF_SECONDS", 0.0)
    for key, value in keys.items():
        (tmp_path / key).write_text(value)
    from ipaddress import ip_network

    reach = objects.Reach(endpoint, None, False, 2.0)
    with pytest.raises(TerminalError, match="Connection refused") as caught:
        objects.list_files(parse(uri), Credentials(tmp_path), Network((ip_network("127.0.0.0/8"),)), reach)
    assert caught.value.reason == "DownloadFailed"
    assert "hunter2" not in caught.value.line()
    with pytest.raises(TerminalError) as caught:
        objects.list_files(parse(uri), Credentials(tmp_path), Network(), reach)
    assert caught.value.reason == "AddressRefused"
