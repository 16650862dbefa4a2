"""The pods that Slipway makes: what a user adds to them, other servers than the bundled one, and what they may not do."""

import json
from typing import Any

from tests.e2e import envoy, models
from tests.e2e.answers import CHUNKS
from tests.e2e.cluster import ROUTER, Namespace
from tests.e2e.traffic import HERE


def test_the_pod_template_shows_on_the_pods(namespace: Namespace) -> None:
    node = namespace.cluster.nodes[0]
    spec = models.spec()
    spec["server"]["podTemplate"] = {
        "metadata": {"labels": {"team": "shop"}, "annotations": {"example.com/note": "ours"}},
        "spec": {
            "nodeSelector": {"kubernetes.io/hostname": node},
            "volumes": [{"name": "scratch", "emptyDir": {}}],
            "containers": [
                {
                    "name": "server",
                    "env": [{"name": "GREETING", "value": "hello"}],
                    "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
                }
            ],
        },
    }
    churn = namespace.serve(spec=spec)
    (pod,) = churn.pods()
    (server,) = pod["spec"]["containers"]
    assert pod["metadata"]["labels"]["team"] == "shop"
    assert pod["metadata"]["annotations"]["example.com/note"] == "ours"
    assert pod["spec"]["nodeName"] == node
    assert {"name": "GREETING", "value": "hello"} in server["env"]
    assert "/scratch" in {mount["mountPath"] for mount in server["volumeMounts"]}


def custom(image: str, pod: dict[str, Any]) -> dict[str, Any]:
    """Answer a spec that serves an image of one's own, which is given to the pod by what is merged over it."""
    return {
        "model": {"format": "Custom"},
        "server": {"image": image, "protocol": "HTTP", "podTemplate": {"spec": pod}},
    }


def test_any_server_that_speaks_http_is_served_and_streams_pass(namespace: Namespace) -> None:
    # The server's image with another program in the place of its own.
    program = {"slipway_server.py": (HERE / "answers.py").read_text()}
    namespace.apply("configmaps", {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "program"}, "data": program})
    server = {"name": "server", "volumeMounts": [{"name": "program", "mountPath": "/app"}]}
    volume = {"name": "program", "configMap": {"name": "program"}}
    spec = custom(namespace.cluster.images["server"], {"containers": [server], "volumes": [volume]})
    own = namespace.serve("own", spec)
    answer = namespace.caller().ask(f"http://own.{namespace.name}/any/path?with=query")
    assert answer["status"] == 200
    assert answer["headers"]["transfer-encoding"] == "chunked"
    assert answer["headers"]["x-model"] == "own"
    assert answer["headers"]["x-slipway-revision"] == own.revision
    assert answer["body"].split() == [str(number) for number in range(CHUNKS)]


def test_http2_callers_reach_a_server_by_http2(namespace: Namespace) -> None:
    """As gRPC does. The server is an Envoy that says how it was asked; another one asks it by HTTP/2."""
    for name, listener in (("own", envoy.answering()), ("front", envoy.asking(f"own.{namespace.name}"))):
        server = {"name": "server", "args": ["--disable-hot-restart", "--config-yaml", json.dumps(listener)]}
        namespace.serve(name, custom(namespace.cluster.images["router"], {"containers": [server]}))
    caller = namespace.caller()
    assert caller.ask(f"http://own.{namespace.name}/")["headers"]["x-asked-by"] == "HTTP/1.1"
    assert caller.ask(f"http://front.{namespace.name}/")["headers"]["x-asked-by"] == "HTTP/2"


def test_pods_hold_no_token_and_routers_show_statistics_only(namespace: Namespace) -> None:
    namespace.serve()
    ours = namespace.all("pods", "app.kubernetes.io/managed-by=slipway")
    assert len(ours) == 3
    for pod in ours:
        assert pod["spec"]["automountServiceAccountToken"] is False
        assert "serviceaccount" not in json.dumps(pod["spec"]["volumes"]).lower()
    labels = namespace.client.get(f"/api/v1/namespaces/{namespace.name}")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"  # or none of them would be here

    caller = namespace.caller()
    router = namespace.all("pods", f"app.kubernetes.io/name={ROUTER}")[0]["status"]["podIP"]
    for path in ("/stats", "/stats/prometheus", "/ready"):
        assert caller.ask(f"http://{router}:9901{path}")["status"] == 200
    for path in (
        "/",
        "/quitquitquit",
        "/config_dump",
        "/logging",
        "/drain_listeners",
        "/stats/../config_dump",
        "/stats/recentlookups",
    ):
        for method in ("GET", "POST"):
            assert caller.ask(f"http://{router}:9901{path}", method=method)["status"] == 404
    assert caller.ask(f"http://{router}:8080/config_dump")["status"] == 404  # a host that no model has
