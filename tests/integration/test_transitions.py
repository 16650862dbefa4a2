"""The specs and sequences that tests/transitions draws, on a real API server."""

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from tests.integration.client import Client, Refused, model, models
from tests.transitions.command import drawn, on_a_control_plane
from tests.transitions.specs import Change, is_taken, sequences


@settings(max_examples=25, phases=(Phase.generate,), suppress_health_check=list(HealthCheck))
@given(changes=sequences())
def test_the_api_server_judges_specs_as_they_were_drawn(cluster: Client, namespace: str, changes: list[Change]) -> None:
    """It takes every right one, and refuses every wrong one."""
    for change in changes:
        path, body = f"{models(namespace)}?dryRun=All&fieldValidation=Strict", model("drawn", change.spec)
        if change.right or is_taken(change.spec):
            cluster.request("POST", path, body)
            continue
        with pytest.raises(Refused) as refused:
            cluster.request("POST", path, body)
        assert refused.value.code in (400, 422)


async def test_a_few_sequences_end_as_a_fresh_apply_does() -> None:
    """What fails is printed; tests/transitions/run live makes many."""
    assert await on_a_control_plane(drawn(4, 1), 4, "slipway-test-transitions") == 0, "see above"
