"""The compiled twin of ``fastrnn._kernels.reference``, with the same names and parameters.

Every function checks its arrays at each call: see lib/arrays.pxi. T steps, B rows of a batch, I
inputs, H hidden units in blocks of VL, P outputs: H, or the size of a projection.
"""

cimport numpy as cnp

from cpython.pycapsule cimport PyCapsule_Import
from split cimport thread_pool, use_pool
from vec cimport use_bfloat16

from fastrnn._kernels import extensions

cnp.import_array()
use_bfloat16("avx512bf16" in extensions.USED)
use_pool(<thread_pool *>PyCapsule_Import("fastrnn._kernels._threads.pool", False))

include "lib/arrays.pxi"
include "lib/memory.pxi"
include "cells/table.pxi"
include "lib/words.pxi"
include "scan/scan.pxi"
include "scan/direct.pxi"
include "scan/direct_back.pxi"
include "chain.pxi"
include "scan/stepper.pxi"
include "embedding.pxi"
include "linear.pxi"
include "rows.pxi"
include "rows_back.pxi"
include "losses.pxi"
include "optim.pxi"
