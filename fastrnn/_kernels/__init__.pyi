"""Stubs: every compiled module has the names and the arguments of its twin, the reference."""
