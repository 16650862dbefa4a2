"""`slipway simulate`: recorded or made-up arrivals through the scaling policy, beside other autoscalers and an oracle."""
