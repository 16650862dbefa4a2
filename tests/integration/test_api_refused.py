"""Wrong ModelDeployments: the real API server refuses each at apply, and says which field and what to do."""

import json
from typing import Any

import pytest
import yaml
from tests.integration.client import MODEL, Client, Refused, model, models, spec_of
from tests.integration.commands import run, tool

ONE_LABEL_TOO_LONG = "v" * 64
DIGEST = "0123456789abcdef" * 4

# What is written under `spec` (beside a good model, where it has none), the field that the message must name, and a part of
# the cure that it must hold.
WRONG = [
    # the model
    ("{}", "spec.model", "Required value"),
    ("model: {uri: 'configmap://digits/m'}", "spec.model.format", "Required value"),
    ("model: {uri: 'configmap://digits/m', format: onnx}", "spec.model.format", 'supported values: "ONNX", "SKLearn"'),
    ("model: {format: Custom}", "spec.model.format", "Custom needs a server.image"),
    ("model: {format: ONNX}", "spec.model.uri", "model.uri is needed: only format Custom"),
    ("model: {uri: 3, format: ONNX}", "spec.model.uri", "must be of type string"),
    ("model: {uri: '', format: ONNX}", "spec.model.uri", "must begin with one of configmap://"),
    ("model: {uri: digits/model.onnx, format: ONNX}", "spec.model.uri", "must begin with one of configmap://"),
    ("model: {uri: 'ftp://host/model.onnx', format: ONNX}", "spec.model.uri", "must begin with one of configmap://"),
    ("model: {uri: 'HTTPS://host/model.onnx', format: ONNX}", "spec.model.uri", "must begin with one of configmap://"),
    ("model: {uri: 'configmap://digits', format: ONNX}", "spec.model.uri", "must be configmap://NAME/KEY"),
    ("model: {uri: 'configmap://Digits/m', format: ONNX}", "spec.model.uri", "must be configmap://NAME/KEY"),
    ("model: {uri: 'configmap://digits/a/b', format: ONNX}", "spec.model.uri", "must be configmap://NAME/KEY"),
    ("model: {uri: 'pvc://claim', format: ONNX}", "spec.model.uri", "must be pvc://CLAIM/PATH"),
    ("model: {uri: 'pvc://claim//etc/x', format: ONNX}", "spec.model.uri", "must be pvc://CLAIM/PATH"),
    ("model: {uri: 'pvc://claim/a/../../x', format: ONNX}", "spec.model.uri", "must not hold '..'"),
    ("model: {uri: 'file://models/m.onnx', format: ONNX}", "spec.model.uri", "must be file:///PATH, the absolute path"),
    ("model: {uri: 'file:///models/../m.onnx', format: ONNX}", "spec.model.uri", "must not hold '..'"),
    ("model: {uri: 'https:///m.onnx', format: ONNX}", "spec.model.uri", "must be http(s)://HOST/PATH"),
    ("model: {uri: 'https://host', format: ONNX}", "spec.model.uri", "must be http(s)://HOST/PATH"),
    ("model: {uri: 'https://me:secret@host/m', format: ONNX}", "spec.model.uri", "without a user name, password"),
    ("model: {uri: 'https://host/m#part', format: ONNX}", "spec.model.uri", "without a user name, password or fragment"),
    ("model: {uri: 'https://host/my model', format: ONNX}", "spec.model.uri", "percent-encode them"),
    ('model: {uri: "file:///m\\n.onnx", format: ONNX}', "spec.model.uri", "must not hold spaces or control characters"),
    (f"model: {{uri: 'https://host/{'x' * 2048}', format: ONNX}}", "spec.model.uri", "may not be more than 2048"),
    ("model: {uri: 'configmap://digits/m', format: ONNX, version: 3}", "spec.model.version", "must be of type string"),
    ("model: {uri: 'configmap://digits/m', format: ONNX, version: 'v 3'}", "spec.model.version", "must be letters, digits, '-'"),
    (
        f"model: {{uri: 'configmap://digits/m', format: ONNX, version: {ONE_LABEL_TOO_LONG}}}",
        "spec.model.version",
        "may not be more than 63",
    ),
    ("model: {uri: 'configmap://digits/m', format: ONNX, sha256: abc}", "spec.model.sha256", "64 lower-case hex digits"),
    (
        f"model: {{uri: 'configmap://digits/m', format: ONNX, sha256: {DIGEST.upper()}}}",
        "spec.model.sha256",
        "64 lower-case hex digits that sha256sum prints",
    ),
    (
        f"{{model: {{format: Custom, sha256: {DIGEST}}}, server: {{image: x}}}}",
        "spec.model.sha256",
        "no effect without model.uri",
    ),
    ("model: [uri, format]", "spec.model", "must be of type object"),
    # remote models
    ("model: {uri: 's3://bucket', format: ONNX}", "spec.model.uri", "must be s3://BUCKET/KEY"),
    ("model: {uri: 's3://Bucket/m.onnx', format: ONNX}", "spec.model.uri", "must be s3://BUCKET/KEY"),
    ("model: {uri: 's3://me:secret@bucket/m.onnx', format: ONNX}", "spec.model.uri", "must be s3://BUCKET/KEY"),
    ("model: {uri: 's3://bucket/../other/m.onnx', format: ONNX}", "spec.model.uri", "must not hold '..'"),
    ("model: {uri: 'gs://bucket/', format: ONNX}", "spec.model.uri", "gs://BUCKET/KEY"),
    ("model: {uri: 'az://box//m.onnx', format: ONNX}", "spec.model.uri", "az://CONTAINER/PATH"),
    ("model: {uri: 'hf://org/repo', format: ONNX}", "spec.model.uri", "must be hf://OWNER/REPO[/PATH]@REVISION"),
    ("model: {uri: 'hf://repo@main', format: ONNX}", "spec.model.uri", "must be hf://OWNER/REPO[/PATH]@REVISION"),
    ("model: {uri: 'oci://host/Repo:1', format: ONNX}", "spec.model.uri", "the repository in lower case"),
    ("model: {uri: 'oci://host/repo@sha256:abc', format: ONNX}", "spec.model.uri", "must be oci://REGISTRY/REPOSITORY"),
    ("model: {uri: 'oci://me:secret@host/repo:1', format: ONNX}", "spec.model.uri", "must be oci://REGISTRY/REPOSITORY"),
    (
        "model: {uri: 'configmap://digits/m', format: ONNX, storage: {secretName: s}}",
        "spec.model.storage",
        "has an effect on http(s), s3, gs, az, hf and oci only",
    ),
    (
        "model: {uri: 'https://host/m', format: ONNX, storage: {endpoint: 'https://other'}}",
        "spec.model.storage",
        "http(s) names its host in model.uri",
    ),
    (
        "model: {uri: 'gs://bucket/m', format: ONNX, storage: {region: eu-west-1}}",
        "spec.model.storage",
        "region and pathStyle are for s3 only",
    ),
    (
        "model: {uri: 's3://bucket/m', format: ONNX, storage: {endpoint: 'https://me:secret@host'}}",
        "spec.model.storage.endpoint",
        "without a user name",
    ),
    ("model: {uri: 's3://bucket/m', format: ONNX, storage: {accessKey: x}}", "spec.model.storage.accessKey", "unknown field"),
    ("model: {uri: 'configmap://digits/m', format: ONNX, maxSize: 1GB}", "spec.model.maxSize", "512Mi or 1Gi"),
    # trust
    ("model: {uri: 's3://bucket/m.pkl', format: SKLearn}", "spec.model.uri", "save the model with skops"),
    ("model: {uri: 'hf://org/repo/m.joblib@1', format: SKLearn}", "spec.model.uri", "or set model.trust: Unsafe"),
    ("model: {uri: 's3://bucket/m.onnx', format: ONNX, trust: Unsafe}", "spec.model.trust", "on format SKLearn only"),
    (
        "model: {uri: 's3://bucket/m.skops', format: SKLearn, trust: Yes}",
        "spec.model.trust",
        'supported values: "Safe", "Unsafe"',
    ),
    # the server
    ("server: {image: ''}", "spec.server.image", "must be an image reference"),
    ("server: {image: 'team/my server'}", "spec.server.image", "such as registry.example.com/team/server:1"),
    ("server: {image: Team/Server}", "spec.server.image", "must be an image reference in lower case"),
    ("server: {protocol: OpenAI}", "spec.server.protocol", "speaks V2; another protocol needs model.format: Custom"),
    (
        "{model: {format: Custom}, server: {image: x, protocol: gRPC}}",
        "spec.server.protocol",
        'supported values: "V2", "OpenAI", "HTTP"',
    ),
    ("server: {port: 80}", "spec.server.port", "greater than or equal to 1024"),
    ("server: {port: 70000}", "spec.server.port", "less than or equal to 65535"),
    ("server: {port: http}", "spec.server.port", "must be of type integer"),
    ("server: {readinessPath: /health}", "spec.server.readinessPath", "remove it, or use model.format: Custom"),
    (
        "{model: {format: Custom}, server: {image: x, readinessPath: health}}",
        "spec.server.readinessPath",
        "begins with '/', such as /health",
    ),
    ("server: {workers: 0}", "spec.server.workers", "greater than or equal to 1"),
    ("server: {batching: {maxSize: 0}}", "spec.server.batching.maxSize", "greater than or equal to 1"),
    ("server: {batching: {maxDelay: 2s}}", "spec.server.batching.maxDelay", "up to 1s"),
    ("server: {limits: {bodySize: 16 MB}}", "spec.server.limits.bodySize", "512Mi or 1Gi"),
    ("server: {limits: {jsonDepth: 1}}", "spec.server.limits.jsonDepth", "greater than or equal to 4"),
    ("server: {limits: {concurrency: 0}}", "spec.server.limits.concurrency", "greater than or equal to 1"),
    ("server: {limits: {requestTimeout: 10ms}}", "spec.server.limits.requestTimeout", "between 100ms and 1h"),
    (
        "{model: {format: Custom}, server: {image: x, workers: 2}}",
        "spec.server",
        "without effect on an image of your own",
    ),
    # resources
    ("server: {resources: {requests: {cpu: 0.5}}}", "resources.requests.cpu", "must be of type integer,string"),
    ("server: {resources: {requests: {cpu: 500mm}}}", "resources.requests[cpu]", "such as 500m, 2, 512Mi"),
    ("server: {resources: {limits: {memory: 1 Gi}}}", "resources.limits[memory]", "such as 500m, 2, 512Mi"),
    ("server: {resources: {limits: {memory: 1GB}}}", "resources.limits[memory]", "512Mi or 1Gi"),
    ("server: {resources: {requests: {cpu: -1}}}", "resources.requests[cpu]", "not negative"),
    ("server: {resources: {requests: {cpu: '-1'}}}", "resources.requests[cpu]", "not negative"),
    ("server: {resources: {requests: {gpu: 1}}}", "spec.server.resources", "DOMAIN/NAME (nvidia.com/gpu)"),
    ("server: {resources: {requests: {nvidia.com/gpu: 1}}}", "spec.server.resources", "give it in limits"),
    ("server: {resources: {limits: {nvidia.com/gpu: 500m}}}", "spec.server.resources", "in whole numbers"),
    (
        "server: {resources: {requests: {memory: 2Gi}, limits: {memory: 2000Mi}}}",
        "spec.server.resources",
        "raise the limit or lower the request",
    ),
    # the pod template
    ("server: {podTemplate: {spec: {hostNetwork: true}}}", "podTemplate.spec.hostNetwork", "unknown field"),
    ("server: {podTemplate: {spec: {securityContext: {}}}}", "spec.securityContext", "unknown field"),
    ("server: {podTemplate: {spec: {initContainers: []}}}", "spec.initContainers", "unknown field"),
    ("server: {podTemplate: {spec: {containers: [{image: x}]}}}", "podTemplate.spec.containers[0].image", "unknown field"),
    ("server: {podTemplate: {spec: {containers: [{name: sidecar}]}}}", "podTemplate.spec.containers[0].name", "must be server"),
    ("server: {podTemplate: {spec: {containers: [{}, {name: sidecar}]}}}", "podTemplate.spec.containers", "at most 1 item"),
    (
        "server: {podTemplate: {spec: {containers: [{args: [--fast]}]}}}",
        "podTemplate.spec.containers",
        "remove them, or use model.format: Custom",
    ),
    (
        "server: {podTemplate: {spec: {containers: [{env: [{name: SLIPWAY_MODEL_DIR, value: /x}]}]}}}",
        "containers[0].env[0].name",
        "set by Slipway: use another name",
    ),
    ("server: {podTemplate: {spec: {containers: [{env: [{name: A}, {name: A}]}]}}}", "containers[0].env[1]", "Duplicate value"),
    (
        "server: {podTemplate: {spec: {containers: [{volumeMounts: [{name: a, mountPath: /tmp/}]}]}}}",
        "volumeMounts[0].mountPath",
        "mounted by Slipway: use another path",
    ),
    (
        "server: {podTemplate: {spec: {volumes: [{name: model, emptyDir: {}}]}}}",
        "podTemplate.spec.volumes[0].name",
        "tmp, model, source and credentials are Slipway's: use another name",
    ),
    ("server: {podTemplate: {spec: {volumes: [{emptyDir: {}}]}}}", "volumes[0].name", "Required value"),
    (
        "server: {podTemplate: {spec: {volumes: [{name: host, hostPath: {path: /}}]}}}",
        "podTemplate.spec.volumes[0]",
        "a hostPath is refused",
    ),
    (
        "server: {podTemplate: {spec: {volumes: [{name: far, nfs: {server: 10.0.0.1, path: /}}]}}}",
        "podTemplate.spec.volumes[0]",
        "storage such as nfs is reached by a PersistentVolumeClaim",
    ),
    (
        "server: {podTemplate: {metadata: {labels: {slipway.dev/revision: x}}}}",
        "podTemplate.metadata.labels",
        "set by Slipway; use other names",
    ),
    (
        "server: {podTemplate: {metadata: {labels: {app.kubernetes.io/name: x}}}}",
        "podTemplate.metadata.labels",
        "set by Slipway; use other names",
    ),
    ("server: {podTemplate: {metadata: {labels: {my team: a}}}}", "podTemplate.metadata.labels", "must be [DOMAIN/]NAME"),
    (
        "server: {podTemplate: {metadata: {labels: {team: my team}}}}",
        "podTemplate.metadata.labels[team]",
        "begin and end with a letter or digit",
    ),
    (
        "server: {podTemplate: {metadata: {annotations: {slipway.dev/applied: x}}}}",
        "podTemplate.metadata.annotations",
        "set by Slipway; use other names",
    ),
    ("server: {podTemplate: {spec: {nodeSelector: {gpu: true}}}}", "nodeSelector.gpu", "of type string"),
    (
        "server: {podTemplate: {spec: {priorityClassName: High_Priority}}}",
        "podTemplate.spec.priorityClassName",
        "lower-case letters, digits, '-' and '.'",
    ),
    (
        "server: {podTemplate: {spec: {terminationGracePeriodSeconds: 0}}}",
        "podTemplate.spec.terminationGracePeriodSeconds",
        "greater than or equal to 1",
    ),
    # scaling
    ("scaling: {min: -1}", "spec.scaling.min", "greater than or equal to 0"),
    ("scaling: {min: 1, idleAfter: 5m}", "spec.scaling.idleAfter", "has an effect with scaling.min: 0 only"),
    ("scaling: {idleAfter: 5m}", "spec.scaling.idleAfter", "has an effect with scaling.min: 0 only"),
    ("scaling: {min: 0, idleAfter: 4s}", "spec.scaling.idleAfter", "between 5s and 168h"),
    ("scaling: {min: 1001}", "spec.scaling.min", "less than or equal to 1000"),
    ("scaling: {min: '2'}", "spec.scaling.min", "must be of type integer"),
    ("scaling: {max: 20}", "spec.scaling.max", "scaling.objective and scaling.max need each other"),
    ("scaling: {objective: {latency: 100ms}}", "spec.scaling.max", "need each other"),
    ("scaling: {max: 5, objective: {}}", "spec.scaling.objective", "needs latency, concurrency, requestsPerSecond or cpu"),
    ("scaling: {max: 5, objective: {latency: 100us}}", "spec.scaling.objective.latency", "such as 250ms"),
    ("scaling: {max: 5, objective: {latency: 0ms}}", "spec.scaling.objective.latency", "1ms or more"),
    ("scaling: {max: 5, objective: {cpu: much}}", "spec.scaling.objective.cpu", "whole percentage"),
    ("scaling: {min: 9, max: 5, objective: {concurrency: 4}}", "spec.scaling.max", "must not be smaller than scaling.min"),
    ("scaling: {increasePerMinute: 2}", "spec.scaling", "with scaling.objective only"),
    (
        "scaling: {max: 5, objective: {concurrency: 4}, schedule: [{start: '8:00', duration: 1h, min: 2}]}",
        "spec.scaling.schedule[0].start",
        "such as 0 8 * * 1-5",
    ),
    (
        "scaling: {max: 5, objective: {concurrency: 4}, schedule: [{start: '0 8 * * *', duration: 200h, min: 2}]}",
        "spec.scaling.schedule[0].duration",
        "between 1m and 168h",
    ),
    # the rollout
    ("rollout: {strategy: Canary}", "spec.rollout.steps", "need each other"),
    ("rollout: {blueGreen: {hold: 1m}}", "spec.rollout.blueGreen", "with strategy BlueGreen only"),
    ("rollout: {shadow: {hold: 1m}}", "spec.rollout.shadow", "with strategy Shadow only"),
    ("rollout: {strategy: Shadow, shadow: {mirror: 0}}", "spec.rollout.shadow.mirror", "greater than or equal to 1"),
    ("rollout: {strategy: BlueGreen, steps: [{weight: 5}]}", "spec.rollout.steps", "strategy Canary need each other"),
    ("rollout: {strategy: BlueGreen, stableCapacity: Proportional}", "spec.rollout.stableCapacity", "with strategy Canary only"),
    (
        "rollout: {testers: {header: {name: x-tester, value: a}}}",
        "spec.rollout.testers",
        "use Canary with a first step of weight 0",
    ),
    ("rollout: {strategy: Shadow, testers: {}}", "spec.rollout.testers", "needs either header or cookie"),
    (
        "rollout: {strategy: Shadow, testers: {header: {name: ':path', value: a}}}",
        "spec.rollout.testers.header.name",
        "letters, digits and - _ . only",
    ),
    (
        "rollout: {strategy: Shadow, testers: {cookie: {name: a, value: 'b; c'}}}",
        "spec.rollout.testers.cookie.value",
        "without spaces and semicolons",
    ),
    (
        "rollout: {strategy: Canary, steps: [{weight: 10, mirror: 5}]}",
        "spec.rollout.steps[0].mirror",
        "mirrored at weight 0 only",
    ),
    ("rollout: {strategy: Canary, steps: [{weight: 5, replicas: 0}]}", "spec.rollout.steps[0].replicas", "equal to 1"),
    ("rollout: {strategy: Canary, steps: [{weight: 5, pause: {duration: soon}}]}", "pause.duration", "must be a duration"),
    ("rollout: {strategy: ABTest}", "spec.rollout.abTest", "need each other"),
    ("rollout: {strategy: ABTest, abTest: {weight: 50}}", "spec.rollout.abTest", "with header or cookie"),
    ("rollout: {abTest: {header: x-user}}", "spec.rollout.abTest", "strategy ABTest need each other"),
    ("rollout: {strategy: ABTest, abTest: {header: a, cookie: {name: b}}}", "spec.rollout.abTest.cookie", "give one"),
    (
        "rollout: {strategy: ABTest, abTest: {header: a, arms: [{weight: 50, model: {uri: 'pvc://a/b', format: ONNX}}]}}",
        "spec.rollout.abTest.arms",
        "come to 100% or more",
    ),
    (
        "rollout: {strategy: ABTest, abTest: {header: a, arms: [{weight: 40, model: {uri: 'pvc:b', format: ONNX}}]}}",
        "spec.rollout.abTest.arms[0].model.uri",
        "model.uri must be",
    ),
    (
        "rollout: {strategy: ABTest, abTest: {header: a, arms: [{weight: 9, model: {uri: 'pvc://a/b', format: ONNX}}]}, "
        "checks: [{agreement: {min: 99%}}]}",
        "spec.rollout.checks",
        "agreement and job try one candidate",
    ),
    (
        "rollout: {strategy: ABTest, abTest: {header: a, arms: [{weight: 9, model: {format: Custom}}]}}",
        "spec.rollout",
        "spec.server runs all arms",
    ),
    ("rollout: {strategy: ABTest, abTest: {header: 'a b'}}", "spec.rollout.abTest.header", "letters, digits"),
    ("rollout: {strategy: ABTest, abTest: {header: a, confidence: 50%}}", "abTest.confidence", "from 80% to 99.99%"),
    ("rollout: {strategy: ABTest, abTest: {header: a, measure: Metric}}", "abTest.metric", "measure Metric need each other"),
    (
        "rollout: {strategy: ABTest, abTest: {header: a, metric: {query: 'sales{r=\"{{revision}}\"}'}}}",
        "spec.rollout.abTest.metric",
        "measure Metric need each other",
    ),
    (
        "rollout: {strategy: ABTest, abTest: {header: a, measure: Metric, metric: {query: up}}}",
        "spec.rollout.abTest.metric.query",
        "must hold {{revision}}",
    ),
    (
        "rollout: {strategy: ABTest, abTest: {header: a, measure: Metric, metric: {query: 'a{{revision}}', interval: 2h}}}",
        "spec.rollout.abTest.metric.interval",
        "between 1s and 1h",
    ),
    (
        "rollout: {strategy: ABTest, abTest: {header: a, measure: Metric, metric: {query: '{{revision}}', address: prometheus}}}",
        "spec.rollout.abTest.metric.address",
        "must be http(s)://HOST",
    ),
    ("rollout: {strategy: Shadow, checks: [{agreement: {min: 0%}}]}", "checks[0].agreement.min", "above 0% and at most 100%"),
    (
        "rollout: {strategy: Shadow, checks: [{agreement: {min: 99%}}, {agreement: {min: 9%}}]}",
        "checks",
        "at most one check agreement",
    ),
    ("rollout: {strategy: Shadow, checks: [{name: same, agreement: {min: 99%}}]}", "checks[0].name", "is called that"),
    ("rollout: {strategy: Shadow, checks: [{agreement: {min: 99%, tolerance: 2}}]}", "agreement.tolerance", "less than or equal"),
    ("rollout: {strategy: BlueGreen, blueGreen: {synthetic: {configMap: a, requestsPerSecond: 99}}}", "synthetic", "to 50"),
    ("rollout: {strategy: Recreate}", "spec.rollout.strategy", 'supported values: "Canary"'),
    ("rollout: {steps: [{weight: 5, hold: 2m}]}", "spec.rollout.steps", "strategy Canary need each other"),
    ("rollout: {strategy: Canary, steps: []}", "spec.rollout.steps", "should have at least 1 items"),
    ("rollout: {strategy: Canary, steps: [{weight: 101}]}", "spec.rollout.steps[0].weight", "less than or equal to 100"),
    ("rollout: {strategy: Canary, steps: [{weight: -5}]}", "spec.rollout.steps[0].weight", "greater than or equal to 0"),
    ("rollout: {strategy: Canary, steps: [{weight: 5, hold: 5 min}]}", "spec.rollout.steps[0].hold", "such as 250ms, 30s"),
    ("rollout: {strategy: Canary, steps: [{weight: 25}, {weight: 5}]}", "spec.rollout.steps", "smaller than the one before"),
    ("rollout: {checks: [{errorRate: {max: 1%}}]}", "spec.rollout.checks", "no effect with strategy Immediate"),
    (
        "rollout: {strategy: Canary, steps: [{weight: 5}], checks: [{errorRate: {max: '1'}}]}",
        "spec.rollout.checks[0].errorRate.max",
        "such as 1% or 0.5%",
    ),
    (
        "rollout: {strategy: Canary, steps: [{weight: 5}], checks: [{errorRate: {max: 0%}}]}",
        "spec.rollout.checks[0].errorRate.max",
        "above 0% and below 100%",
    ),
    ("rollout: {strategy: Canary, steps: [{weight: 5}], checks: [{}]}", "spec.rollout.checks[0]", "one of errorRate, latency"),
    (
        "rollout: {strategy: Canary, steps: [{weight: 5}], checks: [{errorRate: {max: 1%}, latency: {max: 1s}}]}",
        "spec.rollout.checks[0]",
        "make a list entry of each",
    ),
    (
        "rollout: {strategy: Canary, steps: [{weight: 5}], checks: [{latency: {percentile: 95}}]}",
        "spec.rollout.checks[0].latency",
        "needs max, relativeToStable, or both",
    ),
    (
        "rollout: {strategy: Canary, steps: [{weight: 5}], checks: [{latency: {max: 0s}}]}",
        "spec.rollout.checks[0].latency.max",
        "1ms or more",
    ),
    *(
        (f"rollout: {{strategy: Canary, steps: [{{weight: 5}}], checks: [{check}]}}", f"spec.rollout.checks[0]{where}", says)
        for check, where, says in (
            (
                "{webhook: {url: 'http://gate/'}, job: {template: {spec: {containers: [{image: a}]}}}}",
                "",
                "make a list entry of each",
            ),
            ("{name: webhook, webhook: {url: 'http://gate/'}}", ".name", "are what checks without a name are called"),
            ("{name: A b, webhook: {url: 'http://gate/'}}", ".name", "must begin with a letter"),
            ("{errorRate: {max: 1%, minRequests: 0}}", ".errorRate.minRequests", "greater than or equal to 1"),
            ("{prometheus: {query: up}}", ".prometheus", "needs min, max, or both"),
            ("{prometheus: {query: up, min: 2, max: 1}}", ".prometheus.min", "swap them"),
            ("{prometheus: {query: '', max: 1}}", ".prometheus.query", "at least 1 chars"),
            ("{prometheus: {query: up, max: 1, address: 'prometheus:9090'}}", ".prometheus.address", "must be http(s)://HOST"),
            ("{prometheus: {query: up, max: 1, address: 'http://p/x?y'}}", ".prometheus.address", "or a query"),
            ("{prometheus: {query: up, max: 1, interval: 10ms}}", ".prometheus.interval", "between 1s and 1h"),
            ("{prometheus: {query: up, max: 1, timeout: 1m}}", ".prometheus.timeout", "between 100ms and 30s"),
            ("{webhook: {}}", ".webhook.url", "Required value"),
            ("{webhook: {url: 'http://me:secret@gate/'}}", ".webhook.url", "without a user name"),
            ("{webhook: {url: 'ftp://gate/'}}", ".webhook.url", "must be http(s)://HOST"),
            ("{webhook: {url: 'http://gate/', failureLimit: 0}}", ".webhook.failureLimit", "greater than or equal to 1"),
            ("{job: {template: {spec: {}}}}", ".job.template.spec.containers", "Required value"),
            ("{job: {template: {spec: {containers: []}}}}", ".job.template.spec.containers", "at least 1 items"),
            ("{job: {timeout: 0s, template: {spec: {containers: [{image: a}]}}}}", ".job.timeout", "between 1s and 24h"),
            ("{job: {template: {spec: {hostNetwork: true, containers: [{image: a}]}}}}", ".job.template.spec", "unknown field"),
            (
                "{job: {template: {spec: {containers: [{name: b, image: a}]}}}}",
                ".job.template.spec.containers[0].name",
                "must be check",
            ),
            ("{job: {template: {spec: {containers: [{image: A}]}}}}", ".job.template.spec.containers[0].image", "in lower case"),
            (
                "{job: {template: {spec: {containers: [{image: a, env: [{name: SLIPWAY_URL, value: x}]}]}}}}",
                ".job.template.spec.containers[0].env[0].name",
                "are set by Slipway",
            ),
            (
                "{job: {template: {spec: {containers: [{image: a, securityContext: {privileged: true}}]}}}}",
                ".job.template.spec.containers[0]",
                "unknown field",
            ),
        )
    ),
    (
        "rollout: {strategy: Canary, steps: [{weight: 5}], "
        "checks: [{name: a, errorRate: {max: 1%}}, {name: a, latency: {max: 1s}}]}",
        "spec.rollout.checks",
        "two have the same name",
    ),
    ("rollout: {minRequests: 0}", "spec.rollout.minRequests", "greater than or equal to 1"),
    ("rollout: {onFailure: Stop}", "spec.rollout.onFailure", 'supported values: "Rollback", "Pause"'),
    ("rollout: {promotion: Never}", "spec.rollout.promotion", 'supported values: "Automatic", "Manual"'),
    ("rollout: {progressDeadline: 10}", "spec.rollout.progressDeadline", "must be of type string"),
    ("rollout: {progressDeadline: '10'}", "spec.rollout.progressDeadline", "must be a duration of 1s or more"),
    ("rollout: {progressDeadline: 500ms}", "spec.rollout.progressDeadline", "must be a duration of 1s or more"),
    ("rollout: {progressDeadline: 999999999999h}", "spec.rollout.progressDeadline", "must be a duration of 1s or more"),
    # routing
    ("routing: {timeout: soon}", "spec.routing.timeout", "must be a duration between 1ms and 1h"),
    ("routing: {timeout: 0s}", "spec.routing.timeout", "must be a duration between 1ms and 1h"),
    ("routing: {timeout: 2h}", "spec.routing.timeout", "must be a duration between 1ms and 1h"),
    ("routing: {hosts: ['http://churn.example.com']}", "spec.routing.hosts[0]", "without scheme, port or path"),
    ("routing: {hosts: ['churn.example.com:80']}", "spec.routing.hosts[0]", "without scheme, port or path"),
    ("routing: {hosts: [Churn.example.com]}", "spec.routing.hosts[0]", "must be a host name in lower case"),
    ("routing: {hosts: ['*']}", "spec.routing.hosts[0]", "or *.example.com"),
    ("routing: {hosts: [a.example.com, a.example.com]}", "spec.routing.hosts[1]", "Duplicate value"),
    ("routing: {hosts: churn.example.com}", "spec.routing.hosts", "must be of type array"),
    ("routing: {gateway: {name: web}}", "spec.routing.gateway", "routing.gateway needs routing.hosts"),
    ("routing: {hosts: [], gateway: {name: web}}", "spec.routing.gateway", "routing.gateway needs routing.hosts"),
    ("routing: {ingress: {}}", "spec.routing.ingress", "routing.ingress needs routing.hosts"),
    ("routing: {hosts: [a.example.com], gateway: {}}", "spec.routing.gateway.name", "Required value"),
    ("routing: {hosts: [a.example.com], gateway: {name: Web}}", "spec.routing.gateway.name", "must be the name of an object"),
    ("routing: {hosts: [a.example.com], gateway: {name: web, port: 80}}", "spec.routing.gateway.port", "unknown field"),
    (
        "routing: {hosts: [a.example.com], ingress: {annotations: {slipway.dev/applied: x}}}",
        "spec.routing.ingress.annotations",
        "set by Slipway: use another name",
    ),
    ("routing: {hosts: [a.example.com], ingress: {annotations: {a b: x}}}", "spec.routing.ingress.annotations", "DOMAIN/]NAME"),
    # the rest
    ("revisionHistoryLimit: -1", "spec.revisionHistoryLimit", "greater than or equal to 0"),
    ("revisionHistoryLimit: 101", "spec.revisionHistoryLimit", "less than or equal to 100"),
    ("replicas: 3", "spec.replicas", "unknown field"),
    ("model: {uri: 'configmap://digits/m', format: ONNX, digest: x}", "spec.model.digest", "unknown field"),
    ("routing: {host: churn.example.com}", "spec.routing.host", "unknown field"),
]

WRONG_NAMES = [
    ("m" * 53, "metadata.name must have at most 52 characters"),
    ("3churn", "metadata.name must begin with a letter"),
    ("churn.v3", "metadata.name must begin with a letter and hold only lower-case letters, digits and dashes"),
    ("slipway-router", "metadata.name must not begin with slipway-router"),
    ("slipway-router-2", "metadata.name must not begin with slipway-router"),
    ("Churn", "metadata.name: Invalid value"),
    ("churn-", "metadata.name: Invalid value"),
]


def refusal(cluster: Client, namespace: str, body: dict[str, Any]) -> Refused:
    """Answer how the API server refuses to create the object."""
    try:
        made = cluster.create(models(namespace), body)
    except Refused as refused:
        assert refused.code in (400, 422), refused
        return refused
    cluster.delete(models(namespace, made["metadata"]["name"]))
    pytest.fail(f"accepted: {json.dumps(made['spec'])}")


@pytest.mark.parametrize(("spec", "field", "cure"), WRONG, ids=[wrong[0][:100] for wrong in WRONG])
def test_refused(cluster: Client, namespace: str, spec: str, field: str, cure: str) -> None:
    refused = refusal(cluster, namespace, model("wrong", spec_of(spec)))
    assert field in refused.message
    assert cure in refused.message


@pytest.mark.parametrize(("name", "says"), WRONG_NAMES)
def test_a_bad_name_is_refused(cluster: Client, namespace: str, name: str, says: str) -> None:
    refused = refusal(cluster, namespace, model(name, yaml.safe_load(MODEL)))
    assert says in refused.message


def test_a_missing_spec_is_refused(cluster: Client, namespace: str) -> None:
    body = model("wrong", None)
    del body["spec"]
    assert "spec: Required value" in refusal(cluster, namespace, body).message


def test_no_message_shows_a_bare_pattern(cluster: Client, namespace: str) -> None:
    puzzling = [spec for spec, _, _ in WRONG if "should match" in refusal(cluster, namespace, model("x", spec_of(spec))).message]
    assert not puzzling


def test_the_protocol_cannot_be_changed(cluster: Client, namespace: str) -> None:
    spec = spec_of("{model: {format: Custom}, server: {image: 'team/server:1', protocol: HTTP}}")
    cluster.create(models(namespace), model("fixed", spec))
    at = models(namespace, "fixed")
    for change in ({"protocol": "V2"}, {"protocol": "OpenAI", "image": "team/server:2"}, None):
        with pytest.raises(Refused) as refused:
            cluster.merge(at, {"spec": {"server": change}})
        assert "spec.server.protocol" in refused.value.message
        assert "cannot be changed: callers speak it. Create a ModelDeployment of another name" in refused.value.message
    changed = cluster.merge(at, {"spec": {"server": {"image": "team/server:2"}}})
    assert changed["spec"]["server"] == {"image": "team/server:2", "protocol": "HTTP", "port": 8080}


def test_what_is_refused_at_creation_is_refused_at_change(cluster: Client, namespace: str) -> None:
    cluster.create(models(namespace), model("changed", yaml.safe_load(MODEL)))
    with pytest.raises(Refused) as refused:
        cluster.merge(models(namespace, "changed"), {"spec": {"rollout": {"strategy": "Canary"}}})
    assert "spec.rollout.steps" in refused.value.message
    assert cluster.get(models(namespace, "changed"))["metadata"]["generation"] == 1


def test_kubectl_shows_what_is_wrong(cluster: Client, namespace: str) -> None:
    spec = spec_of("scaling: {idleAfter: 5m}, routing: {timeout: soon}")
    ended = run(
        tool("kubectl"), "--kubeconfig", cluster.kubeconfig, "-n", namespace, "apply", "-f", "-",
        stdin=json.dumps(model("shown", spec)),
    )  # fmt: skip
    assert ended.returncode == 1
    assert "* spec.scaling.idleAfter: Invalid value" in ended.stderr
    assert "* spec.routing.timeout: Invalid value" in ended.stderr
