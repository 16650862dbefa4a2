"""What a cluster needs inside itself: cluster DNS."""

from slipway_dev.api import Api, Object

COREFILE = """\
.:1053 {
    errors
    health :8080 {
        lameduck 5s
    }
    ready :8181
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        pods insecure
        ttl 1
    }
}
"""
_NAMESPACE = "kube-system"
_LABELS = {"k8s-app": "kube-dns"}


def apply_dns(api: Api, image: str, cluster_ip: str, replicas: int) -> None:
    """Apply coredns: answers live one second, nothing is cached and nothing is asked outside the cluster."""
    for path, item in dns_objects(image, cluster_ip, replicas):
        api.apply(path, item)


def dns_objects(image: str, cluster_ip: str, replicas: int) -> list[tuple[str, Object]]:
    """Return (path, object) for all of coredns's objects, in the order to apply them."""
    core, rbac = f"/api/v1/namespaces/{_NAMESPACE}", "/apis/rbac.authorization.k8s.io/v1"
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:coredns"}
    account = {"kind": "ServiceAccount", "name": "coredns", "namespace": _NAMESPACE}
    rules = [
        {"apiGroups": [""], "resources": ["endpoints", "services", "pods", "namespaces"], "verbs": ["list", "watch"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
    ]
    ports = [
        {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 1053},
        {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 1053},
    ]
    return [
        (f"{core}/serviceaccounts/coredns", _object("v1", "ServiceAccount", "coredns", {})),
        (f"{core}/configmaps/coredns", _object("v1", "ConfigMap", "coredns", {"data": {"Corefile": COREFILE}})),
        (
            f"{rbac}/clusterroles/system:coredns",
            _object("rbac.authorization.k8s.io/v1", "ClusterRole", "system:coredns", {"rules": rules}, ""),
        ),
        (
            f"{rbac}/clusterrolebindings/system:coredns",
            _object(
                "rbac.authorization.k8s.io/v1",
                "ClusterRoleBinding",
                "system:coredns",
                {"roleRef": role, "subjects": [account]},
                "",
            ),
        ),
        (
            f"{core}/services/kube-dns",
            _object("v1", "Service", "kube-dns", {"spec": {"clusterIP": cluster_ip, "selector": _LABELS, "ports": ports}}),
        ),
        (
            f"/apis/apps/v1/namespaces/{_NAMESPACE}/deployments/coredns",
            _object("apps/v1", "Deployment", "coredns", {"spec": _deployment_spec(image, replicas)}),
        ),
    ]


def _object(version: str, kind: str, name: str, rest: Object, namespace: str = _NAMESPACE) -> Object:
    metadata: Object = {"name": name, "labels": _LABELS}
    if namespace:
        metadata["namespace"] = namespace
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **rest}


def _deployment_spec(image: str, replicas: int) -> Object:
    def probe(path: str, port: int) -> Object:
        return {"httpGet": {"path": path, "port": port}, "periodSeconds": 1}

    container = {
        "name": "coredns",
        "image": image,
        "args": ["-conf", "/etc/coredns/Corefile"],
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}},
        "ports": [
            {"containerPort": 1053, "name": "dns", "protocol": "UDP"},
            {"containerPort": 1053, "name": "dns-tcp", "protocol": "TCP"},
        ],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "config", "mountPath": "/etc/coredns", "readOnly": True}],
        "readinessProbe": probe("/ready", 8181),
        "livenessProbe": {**probe("/health", 8080), "periodSeconds": 10},
    }
    pod = {
        "serviceAccountName": "coredns",
        "priorityClassName": "system-cluster-critical",
        "dnsPolicy": "Default",
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        "volumes": [{"name": "config", "configMap": {"name": "coredns"}}],
        # One a node, even while a node is not ready yet: no drained node takes DNS with it.
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "DoNotSchedule",
                "labelSelector": {"matchLabels": _LABELS},
            }
        ],
    }
    return {
        "replicas": replicas,
        "selector": {"matchLabels": _LABELS},
        "template": {"metadata": {"labels": _LABELS}, "spec": pod},
    }
