"""Which requests routers refuse: where a model can have no more replicas, what is in flight beyond the objective's limit."""

import math

from slipway.api.spec import Scaling
from slipway.api.status import Status
from slipway.core.pods import SLOW_START


def limits(scaling: Scaling, status: Status, routers: int) -> dict[str, int]:
    """Answer how many requests each router lets each revision have in flight; nothing where more replicas may come.

    Pods that start count: requests wait for them, as they do below max; and a limit that stays behind because the operator is
    gone is that of all replicas that there may be. Those that do not come (no node, a quota) do not count. A revision without
    any ready pod has no limit: whoever waits for the first one is not refused.
    """
    told = status.scaling
    if told is None or told.concurrency_limit is None or scaling.objective is None or scaling.max is None:
        return {}
    hindered = told.hindrance is not None and told.hindrance.reason != SLOW_START
    if told.replicas < scaling.max and not hindered:
        return {}
    found: dict[str, int] = {}
    for role in status.roles:
        if role.ready:
            pods = role.ready if hindered else max(role.replicas, role.ready)
            found[role.revision] = max(math.ceil(told.concurrency_limit * pods / routers), 1)
    return found
