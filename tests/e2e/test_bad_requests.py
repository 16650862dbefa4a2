"""Bad requests through the router: each is answered for what it is, and the model serves on."""

import gzip
import json
from collections import Counter

from tests.e2e import models
from tests.e2e.cluster import Namespace
from tests.e2e.traffic import Asked
from tests.unit.server.malformed import MALFORMED, WELL_FORMED, bodies

_GZIP = {"Content-Encoding": "gzip"}
_RIGHT = models.BODY.encode()


def test_bad_bodies_are_answered_and_harm_nobody(namespace: Namespace) -> None:
    """JSON of the wrong form at every place of a request, compressed bodies that are none, tensors that do not fit: no 5xx."""
    churn = namespace.serve()
    url = f"http://churn.{namespace.name}/v2/models/churn/infer"
    document, packed = json.loads(models.BODY), gzip.compress(_RIGHT)
    sent = {400: [Asked(url, body, method="POST") for body in bodies(document, MALFORMED)]}
    sent[400] += [Asked(url, packed[:cut], _GZIP) for cut in range(1, len(packed) - 8, 5)]
    sent[400] += [Asked(url, _RIGHT, {"Inference-Header-Content-Length": str(length)}) for length in (-1, 0, 5, 10**6, 10**30)]
    sent[413] = [Asked(url, gzip.compress(b" " * (64 << 20)), _GZIP)]
    sent[415] = [Asked(url, _RIGHT, {"Content-Encoding": encoding}) for encoding in ("br", "zstd", "gzip, gzip")]
    sent[404] = [
        Asked(f"http://churn.{namespace.name}/{path}", _RIGHT) for path in ("nothing", "v2/models/other/infer", "%2e%2e/etc")
    ]
    sent[405] = [Asked(url, method=method) for method in ("GET", "DELETE", "PATCH")]
    caller = namespace.caller()
    for status, asked in sent.items():
        got = Counter(answer["status"] for answer in caller.ask_all(*asked))
        assert got == {status: len(asked)}
    odd = [Asked(url, body, method="POST") for body in bodies(document, WELL_FORMED)]
    assert {answer["status"] for answer in caller.ask_all(*odd)} <= {200, 400}
    assert sum(map(len, sent.values())) + len(odd) >= 500

    answer = caller.ask(url, models.BODY)
    assert (answer["status"], json.loads(answer["body"])["outputs"][0]["data"]) == (200, models.answer(1))
    (pod,) = churn.pods()
    (server,) = pod["status"]["containerStatuses"]
    assert server["restartCount"] == 0
