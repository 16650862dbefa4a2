"""How a new revision takes over: strategy and steps."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from slipway.api.base import Duration, Rule, Type, duration
from slipway.api.checks import Check


class Strategy(StrEnum):
    """How a new revision takes over."""

    CANARY = "Canary"
    BLUE_GREEN = "BlueGreen"
    SHADOW = "Shadow"
    AB_TEST = "ABTest"
    IMMEDIATE = "Immediate"


class OnFailure(StrEnum):
    """What happens to a candidate that fails."""

    ROLLBACK = "Rollback"
    PAUSE = "Pause"


class Promotion(StrEnum):
    """Who decides that a candidate that passed becomes stable."""

    AUTOMATIC = "Automatic"
    MANUAL = "Manual"


class Step(Type):
    """One step of a canary. It begins when its weight is live in every router."""

    weight: int = Field(ge=0, le=100, description="Percent of requests that the candidate gets.")
    hold: Duration = Field(default="0s", description="How long the step lasts at the least, such as `5m`.")


_A_DEADLINE = "duration(self) >= duration('1s')"


class Rollout(Type):
    """How a new revision takes over."""

    strategy: Strategy = Field(
        default=Strategy.IMMEDIATE,
        description="Immediate: the new revision gets all requests as soon as all its replicas are ready and every router "
        "sees them; the old one leaves after its last request. Canary: it gets them step by step, and is withdrawn if it fails "
        "its checks.",
    )
    steps: Annotated[list[Step], Field(min_length=1, max_length=32)] | None = Field(
        default=None, description="The steps of a canary. After the last one the candidate gets all requests."
    )
    checks: Annotated[list[Check], Field(min_length=1, max_length=16)] | None = Field(
        default=None,
        description="What a canary must keep. Each is tested at every moment of every step: a plainly bad candidate "
        "is withdrawn within seconds, one that is like stable in at most 1% of rollouts.",
    )
    min_requests: int = Field(default=100, ge=1, le=1000000, description="How many requests a step must have seen to be passed.")
    on_failure: OnFailure = Field(default=OnFailure.ROLLBACK, description="What happens to a candidate that fails its checks.")
    promotion: Promotion = Field(
        default=Promotion.AUTOMATIC, description="Whether a candidate that passed is promoted by itself."
    )
    progress_deadline: Annotated[str, duration(_A_DEADLINE, " of 1s or more")] = Field(
        default="10m",
        description="How long a candidate may take to become ready, for a step or at all. After that it is withdrawn and what "
        "served goes on serving; a change of the spec tries again.",
    )
    step_deadline: Annotated[str, duration(_A_DEADLINE, " of 1s or more")] = Field(
        default="1h",
        description="How long a step may go on after its hold without enough requests or a clear result. After that the "
        "candidate is withdrawn: it never passes unmeasured.",
    )

    rules = (
        Rule(
            "self.strategy in ['Immediate', 'Canary']",
            "rollout.strategy: BlueGreen, Shadow and ABTest are not available in this version of Slipway; use Canary or "
            "Immediate",
            ".strategy",
        ),
        Rule(
            "self.onFailure == 'Rollback'",
            "rollout.onFailure: Pause is not available in this version of Slipway; use Rollback",
            ".onFailure",
        ),
        Rule(
            "self.promotion == 'Automatic'",
            "rollout.promotion: Manual is not available in this version of Slipway; use Automatic",
            ".promotion",
        ),
        Rule("(self.strategy == 'Canary') == has(self.steps)", "rollout.steps and strategy Canary need each other", ".steps"),
        Rule(
            "self.strategy == 'Canary' || !has(self.checks)", "rollout.checks has an effect with strategy Canary only", ".checks"
        ),
        Rule(
            "!has(self.steps) || self.steps.all(one, self.steps.filter(other, other.weight == one.weight).size() == 1) && "
            "self.steps.map(step, step.weight).isSorted()",
            "rollout.steps: each step's weight must be larger than the one before",
            ".steps",
        ),
    )
