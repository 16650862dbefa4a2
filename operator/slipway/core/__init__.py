"""Decisions. Pure: no I/O, no clock (now is an argument), no kopf, no kubernetes."""
