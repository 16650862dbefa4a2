"""Revisions: which part of a spec makes one, and how it is named."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from slipway.api.spec import Spec

# Kubernetes' own safe alphabet for generated names: no vowels, so no words; no 0, 1, 3 beside o, l, e.
ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
HASH_LENGTH = 8


@dataclass(frozen=True)
class Target:
    """The revision that a spec asks for."""

    revision: str
    version: str
    digest: str | None


def arm_specs(spec: Spec) -> list[Spec]:
    """Answer what the spec would be with the model of each arm of its A/B test, other than its own, in its place."""
    arms = (spec.rollout.ab_test.arms if spec.rollout.ab_test is not None else None) or ()
    return [spec.model_copy(update={"model": arm.model}) for arm in arms]


def snapshot(spec: Spec) -> dict[str, Any]:
    """Answer what decides a model pod: `model` and `server`, without what equals its default.

    A default that a later version of the CRD adds therefore changes no revision's name.
    """
    return spec.model_dump(by_alias=True, mode="json", include={"model", "server"}, exclude_defaults=True, exclude_none=True)


def target(name: str, spec: Spec) -> Target:
    """Answer the revision that the spec of the ModelDeployment `name` asks for: `<name>-<hash>`."""
    canonical = json.dumps(snapshot(spec), sort_keys=True, separators=(",", ":"))
    number = int.from_bytes(hashlib.sha256(canonical.encode()).digest(), "big")
    letters: list[str] = []
    for _ in range(HASH_LENGTH):
        number, digit = divmod(number, len(ALPHABET))
        letters.append(ALPHABET[digit])
    return Target(f"{name}-{''.join(letters)}", spec.model.version, spec.model.sha256)
