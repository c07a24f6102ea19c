"""Benchmarks against other libraries: rows of work, peers that do the same work, and timings.

``fastrnn bench`` is the short version; ``benchmarks/`` in the source tree has the long one.
"""
