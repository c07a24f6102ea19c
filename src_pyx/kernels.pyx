"""The compiled twin of ``fastrnn._reference``: the same names, the same arguments.

Arguments are checked by the floor above: arrays are aligned and of this module's dtype, their last
axis is contiguous, and their shapes fit. T steps, B rows, I inputs, H hidden units in blocks of VL,
P outputs: H, or fewer with a projection.
"""

cimport numpy as cnp

cnp.import_array()

include "layouts.pxi"
include "memory.pxi"
include "packed.pxi"
include "rows.pxi"
include "threads.pxi"
include "forward.pxi"
include "backward.pxi"
include "stepper.pxi"
include "embedding.pxi"
include "linear.pxi"
include "losses.pxi"
include "optim.pxi"
