"""What a router and the activator say to each other about a request that waits for a first pod."""

from dataclasses import dataclass

# The router's words on the request, and the activator's answer: the address of a ready pod. Callers' own are taken away.
HELD = "x-slipway-held"
ENDPOINT = "x-slipway-endpoint"
# The activator's other answers: it refuses, which callers get as 503; or it leaves, and another one is to be asked.
REFUSED, LEAVING = 429, 409
# No request waits longer, whatever its route allows: routers cut a request off in which nothing moves for five minutes.
HOLD_SECONDS_MAX = 240.0


@dataclass(frozen=True)
class Held:
    """A request that waits: for which revision of which ModelDeployment, at which port, how long, and how long its body is.

    `body_bytes` is None where the caller did not say.
    """

    namespace: str
    name: str
    revision: str
    port: int
    seconds: float
    body_bytes: int | None = None


def hold_seconds(timeout_seconds: float) -> float:
    """Answer how long a request may wait whose route has that timeout: a little less, for the refusal to be told."""
    return min(timeout_seconds - min(timeout_seconds / 10, 1.0), HOLD_SECONDS_MAX)


def write(namespace: str, name: str, revision: str, port: int, timeout_seconds: float) -> str:
    """Answer the header's value as a router's configuration has it: Envoy puts the length of the body in."""
    return f"{namespace}/{name}/{revision}/{port}/{hold_seconds(timeout_seconds):g}/%REQ(content-length)%"


def read(value: str) -> Held:
    """Read what `write` answered. Raises ValueError where it is something else."""
    namespace, name, revision, port, seconds, length = value.split("/")
    return Held(namespace, name, revision, int(port), float(seconds), int(length) if length.isdigit() else None)
