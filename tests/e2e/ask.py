"""Sends requests one after another and prints what came back as JSON. Runs in a pod; standard library only.

usage: python3 ask.py < REQUESTS, a JSON list of {"url": ..., "method": "GET", "headers": {}, "body": "in base64"}. The answers
are a list of {"status": ..., "headers": {}, "body": "in base64"}.
"""

import base64
import http.client
import json
import sys
from typing import Any
from urllib.parse import urlsplit


def ask(request: dict[str, Any]) -> dict[str, Any]:
    """Send one request, and answer what came back."""
    parts = urlsplit(request["url"])
    connection = http.client.HTTPConnection(parts.netloc, timeout=300)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    body = base64.b64decode(request["body"]) or None
    connection.request(request["method"], target, body, {"Content-Type": "application/json", **request["headers"]})
    answer = connection.getresponse()
    headers = {name.lower(): value for name, value in answer.getheaders()}
    said = base64.b64encode(answer.read()).decode()
    connection.close()
    return {"status": answer.status, "headers": headers, "body": said}


if __name__ == "__main__":
    print(json.dumps([ask(request) for request in json.load(sys.stdin)]))
