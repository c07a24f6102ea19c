"""The compiled twin of ``fastrnn._kernels.reference``: the same names, the same arguments.

Every function checks what it touches, at each call: see lib/arrays.pxi. T steps, B rows, I inputs,
H hidden units in blocks of VL, P outputs: H, or fewer with a projection.
"""

cimport numpy as cnp

cnp.import_array()

include "lib/arrays.pxi"
include "lib/memory.pxi"
include "cells/table.pxi"
include "scan/packed.pxi"
include "scan/rows.pxi"
include "scan/threads.pxi"
include "scan/forward.pxi"
include "scan/backward.pxi"
include "scan/stepper.pxi"
include "embedding.pxi"
include "linear.pxi"
include "losses.pxi"
include "optim.pxi"
