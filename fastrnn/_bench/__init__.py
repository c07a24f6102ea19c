"""Speed beside others: rows of work, peers that do the same work, and timings in turn.

``fastrnn bench`` is the short version; ``benchmarks/`` of the source tree has the long one.
"""
