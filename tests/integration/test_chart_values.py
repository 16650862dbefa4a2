"""What the chart makes of its values: objects that the API server's own schemas accept, and plain refusals."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.integration.chart import CHART, NAMESPACE, Helm
from tests.integration.client import Client
from tests.integration.commands import ROOT, run, tool
from tests.integration.schemas import write_schemas

from slipway import settings
from slipway.activator import command

EVERYTHING: dict[str, Any] = {
    "imageRegistry": "registry.example.com:5000/mirror",
    "images": {
        "operator": {"ref": "registry.example.com/op@sha256:" + "0" * 64},
        "server": {"tag": "7"},
        "serverGpu": {"tag": "7-gpu"},
        "router": {"repository": "team/envoy", "tag": "1.40"},
    },
    "imagePullPolicy": "Always",
    "imagePullSecrets": ["pull", "pull-more"],
    "models": {"schemes": ["s3", "oci"], "allowedNetworks": ["10.96.0.0/16", "fd00::/8"]},
    "checks": {
        "prometheus": {"address": "http://prometheus.monitoring.svc:9090"},
        "allowedHosts": ["gate.example.com", "hooks"],
        "ports": [],
    },
    "replicas": 3,
    "workers": 16,
    "sweepSeconds": 60.5,
    "dnsStaleSeconds": 6,
    "clusterDomain": "cluster.example.com",
    "logFormat": "text",
    "logLevel": "debug",
    "router": {"replicas": 4, "resources": {"requests": {"cpu": 0.5, "memory": "1Gi"}, "limits": {"memory": "1Gi"}}},
    "activator": {"replicas": 3, "heldMax": 5, "heldMebibytesMax": 64, "resources": {}},
    "serviceAccount": {"name": "own"},
    "resources": {"requests": {"cpu": 1, "memory": "256Mi"}, "limits": {"cpu": "2", "memory": "1Gi"}},
    "labels": {"team": "platform", "example.com/cost": "7"},
    "podLabels": {"team": "ml", "sidecar": "no"},
    "podAnnotations": {"prometheus.io/scrape": "true"},
    "priorityClassName": "system-cluster-critical",
    "nodeSelector": {"kubernetes.io/os": "linux"},
    "tolerations": [{"key": "node-role.kubernetes.io/control-plane", "operator": "Exists", "effect": "NoSchedule"}],
    "affinity": {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": "Exists"}]}]
            }
        }
    },
    "topologySpreadConstraints": [
        {"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule"}
    ],
    "podDisruptionBudget": {"maxUnavailable": "50%"},
    "networkPolicy": {
        "ingressFrom": [
            {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}},
            {"ipBlock": {"cidr": "10.0.0.0/8"}},
        ],
        "apiServerPorts": [443],
    },
}
NOTHING: dict[str, Any] = {
    "crds": {"install": False},
    "rbac": {"create": False, "userRoles": False},
    "serviceAccount": {"create": False, "name": "theirs"},
    "networkPolicy": {"enabled": False},
}
COMBINATIONS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "everything": EVERYTHING,
    "nothing": NOTHING,
    "namespaced": {"watchNamespaces": ["shop", "search"]},
    "namespaced everything": {**EVERYTHING, "watchNamespaces": ["shop"]},
    "no ways in": {"rbac": {"httpRoutes": False, "ingresses": False}},
    "no activator": {"activator": {"replicas": 0}},
    "crd not kept": {"crds": {"keep": False}},
    "one replica": {"replicas": 1, "router": {"replicas": 1, "resources": {}}},
}

# Values, and what the refusal must name and say.
WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"image": "x"}, "''", "additional properties 'image' not allowed"),
    ({"images": {"operator": {"tagg": "x"}}}, "/images/operator", "'tagg' not allowed"),
    ({"images": {"sidecar": {}}}, "/images", "'sidecar' not allowed"),
    ({"images": {"operator": {"tag": 1}}}, "/images/operator/tag", "want string"),
    ({"images": {"server": {"repository": "Slipway/Server"}}}, "/images/server/repository", "does not match pattern"),
    ({"images": {"router": {"ref": "two words"}}}, "/images/router/ref", "does not match pattern"),
    ({"imageRegistry": "registry.example.com/"}, "/imageRegistry", "does not match pattern"),
    ({"imagePullPolicy": "Sometimes"}, "/imagePullPolicy", "one of 'Always', 'IfNotPresent', 'Never'"),
    ({"imagePullSecrets": [{"name": "pull"}]}, "/imagePullSecrets/0", "got object, want string"),
    ({"watchNamespaces": "shop"}, "/watchNamespaces", "got string, want array"),
    ({"watchNamespaces": ["Shop"]}, "/watchNamespaces/0", "does not match pattern"),
    ({"watchNamespaces": ["shop", "shop"]}, "/watchNamespaces", "items at 0 and 1 are equal"),
    ({"models": {"schemes": ["ftp"]}}, "/models/schemes/0", "must be one of 'configmap'"),
    ({"models": {"allowedNetworks": ["10.0.0.1"]}}, "/models/allowedNetworks/0", "does not match pattern"),
    ({"checks": {"prometheus": {"address": "prometheus:9090"}}}, "/checks/prometheus/address", "does not match pattern"),
    ({"checks": {"allowedHosts": ["http://gate"]}}, "/checks/allowedHosts/0", "does not match pattern"),
    ({"replicas": "2"}, "/replicas", "got string, want integer"),
    ({"replicas": -1}, "/replicas", "minimum"),
    ({"workers": 0}, "/workers", "minimum"),
    ({"sweepSeconds": 1}, "/sweepSeconds", "minimum"),
    ({"dnsStaleSeconds": "35s"}, "/dnsStaleSeconds", "got string, want integer"),
    ({"clusterDomain": "cluster.local."}, "/clusterDomain", "does not match pattern"),
    ({"logFormat": "xml"}, "/logFormat", "one of 'json', 'text'"),
    ({"logLevel": "INFO"}, "/logLevel", "one of 'debug', 'info', 'warning', 'error'"),
    ({"router": {"replicas": 0}}, "/router/replicas", "minimum"),
    ({"router": {"resources": {"limits": {"memory": "1 GB"}}}}, "/router/resources/limits/memory", "does not match pattern"),
    ({"router": {"resources": {"memory": "1Gi"}}}, "/router/resources", "'memory' not allowed"),
    ({"resources": {"requests": {"cpu": -1}}}, "/resources/requests/cpu", "minimum"),
    ({"crds": {"install": "yes"}}, "/crds/install", "got string, want boolean"),
    ({"rbac": {"enabled": True}}, "/rbac", "'enabled' not allowed"),
    ({"serviceAccount": {"create": False}}, "/serviceAccount/name", "minLength"),
    ({"labels": {"app.kubernetes.io/name": "mine"}}, "/labels/app.kubernetes.io", "must be 'set by the chart'"),
    ({"podLabels": {"team": "a b"}}, "/podLabels/team", "does not match pattern"),
    ({"podAnnotations": {"scrape": True}}, "/podAnnotations/scrape", "got boolean, want string"),
    ({"affinity": {"nodeAffinities": {}}}, "/affinity", "'nodeAffinities' not allowed"),
    ({"topologySpreadConstraints": [{"maxSkew": 1}]}, "/topologySpreadConstraints/0", "missing properties"),
    ({"podDisruptionBudget": {"maxUnavailable": 0}}, "/podDisruptionBudget/maxUnavailable", "minimum"),
    ({"networkPolicy": {"apiServerPorts": []}}, "/networkPolicy/apiServerPorts", "minItems"),
    ({"networkPolicy": {"ingressFrom": [{}]}}, "/networkPolicy/ingressFrom/0", "minProperties"),
    ({"networkPolicy": {"apiServerPorts": [70000]}}, "/networkPolicy/apiServerPorts/0", "maximum"),
]


@pytest.fixture(scope="module")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    return Helm(tmp_path_factory.mktemp("helm"))


@pytest.fixture(scope="module")
def schemas(cluster: Client, tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_schemas(cluster, tmp_path_factory.mktemp("schemas"))


def check(schemas: str, text: str) -> dict[str, Any]:
    """Answer what kubeconform says of the documents."""
    ended = run(tool("kubeconform"), "-strict", "-summary", "-output", "json", "-schema-location", schemas, "-", stdin=text)
    return json.loads(ended.stdout)


def find(objects: list[dict[str, Any]], kind: str, name: str | None = None) -> dict[str, Any]:
    """Answer the only object of the kind (and name)."""
    (found,) = [obj for obj in objects if obj["kind"] == kind and name in (None, obj["metadata"]["name"])]
    return found


def test_lint(helm: Helm) -> None:
    assert "0 chart(s) failed" in helm.must("lint", "--strict", CHART)


@pytest.mark.parametrize("values", COMBINATIONS.values(), ids=COMBINATIONS.keys())
def test_objects_fit_the_clusters_own_schemas(helm: Helm, schemas: str, values: dict[str, Any]) -> None:
    text = helm.must("template", "slipway", CHART, "-n", NAMESPACE, values=values)
    said = check(schemas, text)
    assert said.get("resources") in (None, []), said["resources"]
    count = len([document for document in yaml.safe_load_all(text) if document])
    assert said["summary"] == {"valid": count, "invalid": 0, "errors": 0, "skipped": 0}


def test_the_check_finds_what_is_wrong(helm: Helm, schemas: str) -> None:
    deployment = next(obj for obj in helm.template({}) if obj["kind"] == "Deployment")
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    container["imagePullPolice"] = container.pop("imagePullPolicy")
    assert "imagePullPolice" in json.dumps(check(schemas, yaml.safe_dump(deployment))["resources"])


def test_the_examples_fit_the_clusters_own_schemas(schemas: str) -> None:
    text = "\n---\n".join(path.read_text() for path in sorted((ROOT / "examples").rglob("*.yaml")))
    said = check(schemas, text)
    assert said.get("resources") in (None, []), said["resources"]
    assert said["summary"]["valid"] > 0


@pytest.mark.parametrize(("values", "where", "says"), WRONG, ids=[json.dumps(wrong[0]) for wrong in WRONG])
def test_wrong_values_are_refused(helm: Helm, values: dict[str, Any], where: str, says: str) -> None:
    ended = helm.run("template", "slipway", CHART, values=values)
    assert ended.returncode != 0, ended.stdout
    assert where in ended.stderr
    assert says in ended.stderr


def test_the_schema_knows_every_value_and_no_other() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert schema["properties"].keys() - {"global"} == values.keys()
    for name, node in schema["properties"].items():
        node = schema["$defs"][node["$ref"].rsplit("/", 1)[1]] if "$ref" in node else node
        if "properties" in node and values[name]:
            assert node["additionalProperties"] is False
            assert values[name].keys() <= node["properties"].keys()


def test_the_operator_understands_its_arguments(helm: Helm) -> None:
    for values in (EVERYTHING, {}, {"watchNamespaces": ["shop", "search"]}):
        container = find(helm.template(values), "Deployment", "slipway")["spec"]["template"]["spec"]["containers"][0]
        chosen = settings.parse(container["args"])
        assert chosen.http_port == container["ports"][0]["containerPort"]
        assert chosen.watch_namespaces == tuple(values.get("watchNamespaces", ()))
        assert (chosen.namespace, chosen.identity) == ("$(POD_NAMESPACE)", "$(POD_NAME)")
        if values is EVERYTHING:
            assert chosen.router_resources == EVERYTHING["router"]["resources"]
            assert chosen.image_pull_secrets == ("pull", "pull-more")
            assert chosen.model_schemes == ("s3", "oci")
            assert chosen.prometheus_address == "http://prometheus.monitoring.svc:9090"
            assert chosen.check_hosts == ("gate.example.com", "hooks")
            assert chosen.model_networks == ("10.96.0.0/16", "fd00::/8")
            assert (chosen.workers, chosen.sweep_seconds, chosen.dns_stale_seconds) == (16, 60.5, 6)
        else:
            defaults = settings.Settings(server_image=chosen.server_image, router_image=chosen.router_image)
            for name in ("router_replicas", "router_resources", "workers", "sweep_seconds", "dns_stale_seconds", "log_level"):
                assert getattr(chosen, name) == getattr(defaults, name)


@pytest.mark.parametrize(
    ("values", "images"),
    [
        ({}, ["slipway/operator:0.1.0", "slipway/server:0.1.0", "slipway/server:0.1.0-gpu", "slipway/router:0.1.0"]),
        (
            EVERYTHING,
            [
                "registry.example.com/op@sha256:" + "0" * 64,
                "registry.example.com:5000/mirror/slipway/server:7",
                "registry.example.com:5000/mirror/slipway/server:7-gpu",
                "registry.example.com:5000/mirror/team/envoy:1.40",
            ],
        ),
    ],
)
def test_images(helm: Helm, values: dict[str, Any], images: list[str]) -> None:
    container = find(helm.template(values), "Deployment", "slipway")["spec"]["template"]["spec"]["containers"][0]
    chosen = settings.parse(container["args"])
    assert [container["image"], chosen.server_image, chosen.server_gpu_image, chosen.router_image] == images


def test_selectors_find_the_pods_whatever_the_labels(helm: Helm) -> None:
    for values in ({}, EVERYTHING):
        objects, told = helm.template(values), dict[str, dict[str, str]]()
        for name, service in (("slipway", "slipway-metrics"), ("slipway-activator", "slipway-activator")):
            deployment = find(objects, "Deployment", name)
            told[name] = deployment["spec"]["template"]["metadata"]["labels"]
            for selector in (
                deployment["spec"]["selector"]["matchLabels"],
                find(objects, "PodDisruptionBudget", name)["spec"]["selector"]["matchLabels"],
                find(objects, "NetworkPolicy", name)["spec"]["podSelector"]["matchLabels"],
                find(objects, "Service", service)["spec"]["selector"],
            ):
                assert selector.items() <= told[name].items()
                assert all(not selector.items() <= labels.items() for other, labels in told.items() if other != name)
    assert {labels["team"] for labels in told.values()} == {"platform"}


def test_the_activator_is_found_and_understands_its_arguments(helm: Helm) -> None:
    for values, most in (({}, 2000), (EVERYTHING, 5)):
        objects = helm.template(values)
        container = find(objects, "Deployment", "slipway-activator")["spec"]["template"]["spec"]["containers"][0]
        assert container["args"][0] == "activator"
        flags = command.parse(container["args"][1:])
        assert (flags.held_max, flags.port, flags.metrics_port) == (
            most,
            *(port["containerPort"] for port in container["ports"]),
        )
        operator = find(objects, "Deployment", "slipway")["spec"]["template"]["spec"]["containers"][0]
        host, _, port = settings.parse(operator["args"]).activator.rpartition(":")
        service = find(objects, "Service", "slipway-activator")
        domain = values.get("clusterDomain", "cluster.local")
        assert host == f"{service['metadata']['name']}.{service['metadata']['namespace']}.svc.{domain}."
        assert int(port) == service["spec"]["ports"][0]["port"]


def test_without_an_activator_nothing_of_it_is_left(helm: Helm) -> None:
    objects = helm.template({"activator": {"replicas": 0}})
    assert not [obj["kind"] for obj in objects if "activator" in obj["metadata"]["name"]]
    operator = find(objects, "Deployment")["spec"]["template"]["spec"]["containers"][0]
    assert settings.parse(operator["args"]).activator == ""


def test_the_crd_is_kept_unless_asked_otherwise(helm: Helm) -> None:
    def keep(values: dict[str, Any]) -> str | None:
        return find(helm.template(values), "CustomResourceDefinition")["metadata"].get("annotations", {}).get(policy)

    policy = "helm.sh/resource-policy"
    assert keep({}) == "keep"
    assert keep({"crds": {"keep": False}}) is None
    assert not [obj for obj in helm.template(NOTHING) if obj["kind"] == "CustomResourceDefinition"]


def test_nothing_in_the_release_belongs_to_the_operator(helm: Helm) -> None:
    """The operator watches, and may delete, what carries its own label."""
    for obj in helm.template({}):
        assert obj["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "Helm"


def test_the_network_policy_is_as_narrow_as_it_can_be(helm: Helm) -> None:
    spec = find(helm.template({}), "NetworkPolicy", "slipway")["spec"]
    assert spec["ingress"] == [{"ports": [{"port": "http", "protocol": "TCP"}]}]
    ports = [sorted({port["port"] for port in rule["ports"]}) for rule in spec["egress"]]
    assert ports == [[443, 6443], [53], [8080, 9901], [9901], [8080, 9090]]
    narrow = find(helm.template(EVERYTHING), "NetworkPolicy", "slipway")["spec"]
    assert narrow["ingress"][0]["from"] == EVERYTHING["networkPolicy"]["ingressFrom"]
    assert narrow["egress"][0]["ports"] == [{"port": 443, "protocol": "TCP"}]
    assert len(narrow["egress"]) == len(spec["egress"]) - 1, "without ports that checks ask no rule for them"


def test_an_older_kubernetes_is_refused(helm: Helm) -> None:
    ended = helm.run("template", "slipway", CHART, "--kube-version", "1.29.0")
    assert ended.returncode != 0
    assert "kubeVersion: >=1.30.0-0" in ended.stderr


def test_the_chart_and_the_package_have_one_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    version = next(line for line in Path(ROOT / "pyproject.toml").read_text().splitlines() if line.startswith("version"))
    assert version == f'version = "{chart["appVersion"]}"'
