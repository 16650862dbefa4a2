"""The tools that are not Python: what pins each, which package it is, where its release is published."""

import re
from dataclasses import dataclass
from pathlib import Path

from slipway_dev.console import CommandError
from slipway_dev.paths import GO_MODULES, NPM_PACKAGES


@dataclass(frozen=True)
class Release:
    """A published binary; {version}, {arch} are filled in. The digest is read from the file published beside it."""

    url: str
    checksum_url: str
    member: str = ""  # the binary's path in the archive; empty when the file is the binary itself


@dataclass(frozen=True)
class Tool:
    """One binary: built from a package of a pinned Go module under hack/go/, from npm packages under hack/npm/, or downloaded."""

    name: str
    module: str  # folder under hack/go/ or hack/npm/
    package: str = ""
    version_of: str = ""  # the module in go.mod whose version is the tool's
    linker_values: tuple[str, ...] = ()
    release: Release | None = None
    tags: tuple[str, ...] = ()  # build tags
    npm: bool = False

    @property
    def pins(self) -> Path:
        """The folder that pins what it is built from."""
        return (NPM_PACKAGES if self.npm else GO_MODULES) / self.module


def _kubernetes(name: str) -> Tool:
    url = f"https://dl.k8s.io/{{version}}/bin/linux/{{arch}}/{name}"
    version = "k8s.io/component-base/version"
    return Tool(
        name,
        "kubernetes",
        f"k8s.io/kubernetes/cmd/{name}",
        "k8s.io/kubernetes",
        (f"{version}.gitVersion={{version}}", f"{version}.gitMajor={{major}}", f"{version}.gitMinor={{minor}}"),
        Release(url, f"{url}.sha256"),
    )


def _github(repository: str, file: str, checksums: str, member: str = "") -> Release:
    folder = f"https://github.com/{repository}/releases/download/{{version}}"
    return Release(f"{folder}/{file}", f"{folder}/{checksums}", member)


_ETCD_FOLDER = "etcd-{version}-linux-{arch}"
_VERSITYGW_FOLDER = "versitygw_{version}_Linux_{machine}"

TOOLS = {
    tool.name: tool
    for tool in (
        _kubernetes("kube-apiserver"),
        _kubernetes("kube-controller-manager"),
        _kubernetes("kube-scheduler"),
        _kubernetes("kubelet"),
        _kubernetes("kube-proxy"),
        _kubernetes("kubectl"),
        Tool(
            "etcd",
            "kubernetes",
            "go.etcd.io/etcd/server/v3",
            "go.etcd.io/etcd/server/v3",
            release=_github("etcd-io/etcd", f"{_ETCD_FOLDER}.tar.gz", "SHA256SUMS", f"{_ETCD_FOLDER}/etcd"),
        ),
        Tool(
            "coredns",
            "coredns",
            "github.com/coredns/coredns",
            "github.com/coredns/coredns",
            release=_github(
                "coredns/coredns",
                "coredns_{number}_linux_{arch}.tgz",
                "coredns_{number}_linux_{arch}.tgz.sha256",
                "coredns",
            ),
        ),
        Tool(
            "helm",
            "helm",
            "helm.sh/helm/v4/cmd/helm",
            "helm.sh/helm/v4",
            ("helm.sh/helm/v4/internal/version.version={version}",),
            Release(
                "https://get.helm.sh/helm-{version}-linux-{arch}.tar.gz",
                "https://get.helm.sh/helm-{version}-linux-{arch}.tar.gz.sha256sum",
                "linux-{arch}/helm",
            ),
        ),
        Tool(
            "kwok",
            "kwok",
            "sigs.k8s.io/kwok/cmd/kwok",
            "sigs.k8s.io/kwok",
            ("sigs.k8s.io/kwok/pkg/consts.Version={version}",),
            _github("kubernetes-sigs/kwok", "kwok-linux-{arch}", "kwok-linux-{arch}.sha256"),
        ),
        Tool(
            "kubeconform",
            "kubeconform",
            "github.com/yannh/kubeconform/cmd/kubeconform",
            "github.com/yannh/kubeconform",
            release=_github("yannh/kubeconform", "kubeconform-linux-{arch}.tar.gz", "CHECKSUMS", "kubeconform"),
        ),
        Tool(
            "kind",
            "kind",
            "sigs.k8s.io/kind",
            "sigs.k8s.io/kind",
            release=_github("kubernetes-sigs/kind", "kind-linux-{arch}", "kind-linux-{arch}.sha256sum"),
        ),
        Tool(
            "registry",
            "distribution",
            "github.com/distribution/distribution/v3/cmd/registry",
            "github.com/distribution/distribution/v3",
            ("github.com/distribution/distribution/v3/version.version={version}",),
            _github(
                "distribution/distribution",
                "registry_{number}_linux_{arch}.tar.gz",
                "registry_{number}_linux_{arch}.tar.gz.sha256",
                "registry",
            ),
        ),
        Tool(
            "versitygw",
            "versitygw",
            "github.com/versity/versitygw/cmd/versitygw",
            "github.com/versity/versitygw",
            ("main.Version={version}",),
            _github(
                "versity/versitygw",
                f"{_VERSITYGW_FOLDER}.tar.gz",
                "checksums.txt",
                f"{_VERSITYGW_FOLDER}/versitygw",
            ),
        ),
        Tool("envoy-gateway", "envoy-gateway", "github.com/envoyproxy/gateway/cmd/envoy-gateway"),
        Tool(
            "prometheus",
            "prometheus",
            "github.com/prometheus/prometheus/cmd/prometheus",
            "github.com/prometheus/prometheus",
            ("github.com/prometheus/common/version.Version={number}",),
            tags=("remove_all_sd", "enable_dns_sd"),  # targets are found by DNS: no client of any cloud is needed
        ),
        Tool("metrics-server", "metrics-server", "sigs.k8s.io/metrics-server/cmd/metrics-server"),
        Tool("fake-gcs-server", "fake-gcs-server", "github.com/fsouza/fake-gcs-server"),
        Tool("azurite", "azurite", npm=True),
        Tool("h2spec", "h2spec", "github.com/summerwind/h2spec/cmd/h2spec"),
        Tool("pause", "pause", "."),
    )
}

CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager")
CLUSTER = (*CONTROL_PLANE, "kube-scheduler", "kubelet", "kube-proxy", "kubectl", "coredns", "pause")


def tools_named(names: list[str]) -> list[Tool]:
    """Return the tools of these names, all of them for none; an unknown name is a CommandError that lists the known."""
    unknown = sorted(set(names) - set(TOOLS))
    if unknown:
        raise CommandError(f"no tool named {', '.join(unknown)}; there are: {', '.join(sorted(TOOLS))}")
    return [TOOLS[name] for name in names] if names else list(TOOLS.values())


def version_in(go_mod: str, module: str) -> str:
    """Return a module's version (such as v1.35.4) as a go.mod requires it."""
    found = re.search(rf"^\s*(?:require\s+)?{re.escape(module)} (v\S+)", go_mod, re.MULTILINE)
    if not found:
        raise CommandError(f"go.mod requires no {module}")
    return found[1]


def go_mod_of(tool: Tool) -> str:
    """Return the text of the go.mod that pins a tool."""
    return (tool.pins / "go.mod").read_text()


def fill(template: str, tool: Tool, arch: str) -> str:
    """Fill {version} v1.2.3, {number} 1.2.3, {major}, {minor}, {arch} amd64 and {machine} x86_64 into a catalog's template."""
    if not tool.version_of:
        return template
    version = version_in(go_mod_of(tool), tool.version_of)
    major, minor, *_ = version[1:].split(".")
    machine = "x86_64" if arch == "amd64" else arch
    return template.format(version=version, number=version[1:], major=major, minor=minor, arch=arch, machine=machine)
