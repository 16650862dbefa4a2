#!/usr/bin/env bash
# Process 1 of a node: its own network, mounts, processes, host name. When it ends, the kernel ends the whole node.
# usage: node-init.sh NODE_FOLDER NODE_NAME KUBELET KUBE_PROXY KUBE_PROXY_ARGUMENTS...
set -euo pipefail
folder=$1 name=$2 kubelet=$3 proxy=$4
shift 4
hostname "$name"
mount --make-rprivate /
# /run, /var/lib and /var/log are the node's own: what its parts and its pods' hostPath volumes write there goes with it.
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/slipway/node /run/slipway/bin /run/lock
mount --bind "$folder" /run/slipway/node
for binary in "$kubelet" "$proxy"; do
  touch "/run/slipway/bin/${binary##*/}"
  mount --bind "$binary" "/run/slipway/bin/${binary##*/}"
done
# The kubelet sets these for the whole machine unless it finds them so: show it what it wants, leave the machine alone.
for setting in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
  kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
  file=${setting%=*} value=${setting#*=}
  echo "$value" > "/run/slipway/${file##*/}"
  mount --bind "/run/slipway/${file##*/}" "/proc/sys/$file"
done
mount --bind /run/slipway/node/var-lib /var/lib
mount --bind /run/slipway/node/var-log /var/log
mount --make-rshared /
cd /run/slipway/node
echo 1 > /proc/sys/net/ipv4/ip_forward
containerd --config containerd.toml > /var/log/containerd.log 2>&1 &
until [ -e network-ready ] && [ -e api-ready ] && [ -S /run/containerd/containerd.sock ]; do sleep 0.05; done
/run/slipway/bin/kube-proxy "$@" > /var/log/kube-proxy.log 2>&1 &
/run/slipway/bin/kubelet --config=kubelet.json --kubeconfig=kubeconfig --hostname-override="$name" \
  --node-ip="$(cat network-ready)" > /var/log/kubelet.log 2>&1 &
wait -n # bash also collects the orphans of the node; one part ended means that the node is down
