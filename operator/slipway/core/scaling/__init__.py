"""How many replicas a revision needs. Pure: `decide` is asked every few seconds with what the meter saw since."""
