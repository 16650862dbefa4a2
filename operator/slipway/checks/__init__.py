"""Asks Prometheus servers and webhooks what they say of candidates. The only place that talks to what a user's check names."""
