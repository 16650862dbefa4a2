"""Credentials: the keys of a mounted Secret, one file each. Their values go to their service, never to a log or a message."""

import base64
import json
import os
import ssl
from pathlib import Path
from typing import Any

from slipway_server.termination import Reason, TerminalError

MAX_BYTES = 1 << 20  # as large as a Secret can be
_DOCKER_HUB = ("docker.io", "index.docker.io", "registry-1.docker.io")


class Credentials:
    """The Secret mounted at `folder`; empty where no such folder is."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, key: str) -> str | None:
        """The value of a key without white space around it; None where the Secret has no such key, or an empty one.

        Raises TerminalError(ModelUnreadable) for one that cannot be read or is no text.
        """
        try:
            with (self._folder / key).open("rb") as file:
                return file.read(MAX_BYTES).decode().strip() or None
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _unusable(key, f"cannot be read ({error.strerror}): make it readable for user {os.getuid()}") from None
        except UnicodeDecodeError:
            raise _unusable(key, "is not UTF-8 text: correct the Secret") from None

    def authorities(self) -> str | None:
        """Certificates of authorities in PEM, which are trusted beside the image's: the key `ca.crt`; None without.

        Raises TerminalError(ModelUnreadable).
        """
        text = self.get("ca.crt")
        if text:
            try:
                ssl.create_default_context(cadata=text)
            except (ssl.SSLError, ValueError):
                raise _unusable("ca.crt", "holds no certificates in PEM: correct the Secret") from None
        return text

    def authorization(self) -> str | None:
        """The Authorization header of keys `username` and `password`, or of `token`; None where there are none."""
        if token := self.get("token"):
            return _header("token", f"Bearer {token}")
        if username := self.get("username"):
            return basic(f"{username}:{self.get('password') or ''}")
        return None

    def registry_authorization(self, registry: str) -> str | None:
        """Basic authorization for a registry, of the key `.dockerconfigjson`, else `username` and `password`."""
        text = self.get(".dockerconfigjson")
        if text is None:
            return self.authorization()
        try:
            accounts: dict[str, Any] = json.loads(text)["auths"]
            names = _DOCKER_HUB if registry in _DOCKER_HUB else (registry,)
            for server, account in accounts.items():
                if server.removeprefix("https://").removeprefix("http://").split("/")[0] in names:
                    if encoded := account.get("auth"):
                        return basic(base64.b64decode(encoded).decode())
                    return basic(f"{account['username']}:{account['password']}")
        except (ValueError, KeyError, TypeError, AttributeError):  # its text would show what is secret
            raise _unusable(".dockerconfigjson", "is not a Docker configuration with auths: correct the Secret") from None
        return None


def basic(user_and_password: str) -> str:
    """The Authorization header of "user:password"."""
    return "Basic " + base64.b64encode(user_and_password.encode()).decode()


def bearer(key: str, token: str) -> str:
    """The Authorization header of a token; `key` names where it is from. Raises TerminalError(ModelUnreadable)."""
    return _header(key, f"Bearer {token}")


def _header(key: str, value: str) -> str:
    if not value.isprintable() or not value.isascii():
        raise _unusable(key, "holds a character that no header may have: correct the Secret")
    return value


def _unusable(key: str, why: str) -> TerminalError:
    return TerminalError(Reason.MODEL_UNREADABLE, f"key {key} of the credentials {why}")
