"""The only place that talks to routers: what each of them does now."""
