"""Desired objects. Pure: (names, spec, decision) -> plain dicts. One file an object family, one `build_...` each."""
