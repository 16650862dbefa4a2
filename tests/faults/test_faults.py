"""A sample of the runs of tests/faults/run, the same ones each time: kills, refusals, stale lists, lost events, hand-overs."""

from tests.faults.command import main, parse

# What a rollout does in each way that differs, at the least cost.
SCENARIOS = (
    "first-apply", "immediate", "canary", "canary-failing", "abort", "deletion", "status-wiped",
    "zero", "restored", "upgrade", "crd-default",
)  # fmt: skip
CASES = 24


async def test_a_sample_breaks_nothing() -> None:
    """Each violation is printed with the command that runs its case again."""
    some = f"--sample {CASES} --seed 1 --side-by-side 4 --cluster slipway-test-faults"
    words = ["--scenario", *SCENARIOS, *some.split()]
    assert await main(parse(words)) == 0, "see the violations above"
