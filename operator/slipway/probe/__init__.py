"""Asks models on Slipway's own account: compares what two revisions answer, and asks a candidate that no caller reaches."""
