"""The only place that talks to the API server: five verbs, the watches, the store that they fill, and the Lease."""
