"""Sends one request and prints what came back as JSON. Runs in a pod; standard library only.

usage: python3 ask.py [--method GET] [--body TEXT] URL
"""

import argparse
import http.client
import json
from urllib.parse import urlsplit


def main() -> None:
    """Parse the command line, ask, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--method", default="GET")
    parser.add_argument("--body", default=None)
    args = parser.parse_args()
    parts = urlsplit(args.url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=10)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    connection.request(args.method, target, args.body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    body = answer.read().decode(errors="replace")
    headers = {name.lower(): value for name, value in answer.getheaders()}
    print(json.dumps({"status": answer.status, "headers": headers, "body": body}))


if __name__ == "__main__":
    main()
