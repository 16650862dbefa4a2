"""A ModelDeployment whose spec changes, rightly and wrongly, ends as one that never had another: see tests/transitions/run."""

from hypothesis import HealthCheck, Phase, given, settings
from tests.transitions.simulated import check
from tests.transitions.specs import Change, sequences


# What is found here the tool makes smaller; that takes minutes.
@settings(max_examples=30, phases=(Phase.generate,), suppress_health_check=list(HealthCheck))
@given(sequences())
def test_a_sequence_of_changes_ends_as_a_fresh_apply_does(changes: list[Change]) -> None:
    check(changes)
