"""Time as Kubernetes writes it: RFC 3339 in UTC, whole seconds."""

from datetime import UTC, datetime, timedelta


def stamp(moment: datetime) -> str:
    """Write a moment as in `metav1.Time`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def stamp_up(moment: datetime) -> str:
    """Write a moment rounded up: what lasts from then on is never cut short."""
    return stamp(moment + timedelta(microseconds=999_999))


def to_datetime(text: str) -> datetime:
    """Read a `metav1.Time` or `metav1.MicroTime`."""
    return datetime.fromisoformat(text)
