# Table of cells: their compiled functions by name. Included in kernels.pyx.

from gru cimport (
    gru_backward, gru_forward, gru_general_backward, gru_general_forward,
    gru_reset_before_backward, gru_reset_before_forward, gru_reset_before_general_backward,
    gru_reset_before_general_forward, gru_reset_before_workspace,
)
from indrnn cimport (
    indrnn_relu_backward, indrnn_relu_forward, indrnn_tanh_backward, indrnn_tanh_forward,
)
from lstm cimport (
    lstm_backward, lstm_forward, lstm_general_backward, lstm_general_forward, lstm_sum_gradients,
    lstm_workspace,
)
from packing cimport Gates, Layout
from rnn cimport (
    rnn_general_backward, rnn_general_forward, rnn_relu_backward, rnn_relu_forward,
    rnn_tanh_backward, rnn_tanh_forward,
)
from step cimport MAX_GATES, MAX_STATES, MAX_VECTORS, CellKernels, ChunkSums, StepBack
from vec cimport FASTRNN_INT8

from fastrnn._kernels.cells import CELLS, GAINS, PEEPHOLES, PROJECTION, STATE_NORM, WEIGHTS

cdef enum:
    MAX_CELLS = 32

ctypedef void (*step_back)(const StepBack *) noexcept nogil
ctypedef void (*chunk_sums)(const ChunkSums *) noexcept nogil

cdef Layout[MAX_CELLS] layouts
# The functions of each cell with a gating.
cdef CellKernels[MAX_CELLS] GATED
# The index of each cell in `layouts`, and the names of its vectors (H,), in optional groups.
cdef dict LAYOUTS = {}
cdef dict VECTORS = {}


cdef Gates gates_of(cell, ptrdiff_t first, tuple names):
    """Return the gates with these names, in the slots from `first` on."""
    cdef Gates gates = Gates(first=first, count=len(names), index=[0, 0, 0, 0])
    for slot, name in enumerate(names):
        gates.index[slot] = cell.gates.index(name)
    return gates


cdef int enter(str name, CellKernels run, CellKernels with_gating, dict data) except -1:
    """Enter a cell: its functions, those with a gating, and as data:

    x, h, late : tuple of str
        Gates of the products with x and with h, and of the late one, which depends on gates
        (default: none), in the order of their slots.
    h_first : int
        First slot of the product with h; default: 0, as of the others.
    vectors : tuple of tuple of str
        The cell's own weights (H,), in optional groups. Default: none.
    out_is_z : bool
        Whether the step leaves the output in z. Default: no.
    """
    cdef Layout *layout = &layouts[len(LAYOUTS)]
    cell, x, h, h_first = CELLS[name], data["x"], data["h"], data.get("h_first", 0)
    late, vectors = data.get("late", ()), data.get("vectors", ())
    covered = {*WEIGHTS, *PROJECTION, *GAINS, *sum(vectors, ())}
    slots = max(len(x), h_first + len(h))
    if (
        slots > MAX_GATES or len(cell.states) > MAX_STATES or len(vectors) > MAX_VECTORS
        or len(LAYOUTS) == MAX_CELLS or not covered.issuperset(cell.weights)
        or cell.recurrence != "dense" and (late or "layer_norm" in cell.options)
    ):
        raise ImportError(f"{name}: the compiled kernels can't run such a cell")
    layout.slots, layout.states = slots, len(cell.states)
    layout.out_is_z = data.get("out_is_z", False)
    layout.dense = cell.recurrence == "dense"
    layout.elementwise = cell.recurrence == "elementwise"
    layout.x, layout.h = gates_of(cell, 0, x), gates_of(cell, h_first, h)
    layout.late = gates_of(cell, 0, late)
    group = {gate: i for i, gates in enumerate(cell.norm_groups) for gate in gates}
    for first, gates in ((0, x), (h_first, h), (0, late)):
        for slot, gate in enumerate(gates, first):
            layout.groups[slot] = group.get(gate, 0)
    for i, names in enumerate(vectors):
        layout.vectors[i] = len(names)
    layout.run, GATED[len(LAYOUTS)] = run, with_gating
    index = len(LAYOUTS)
    LAYOUTS[name], VECTORS[name] = index, vectors
    return 0


# Quantized weights are not trained.

cdef inline step_back trained(step_back function) noexcept:
    return NULL if FASTRNN_INT8 else function


cdef inline chunk_sums trained_sums(chunk_sums function) noexcept:
    return NULL if FASTRNN_INT8 else function


cdef CellKernels ELMAN = CellKernels(
    forward=rnn_general_forward, backward=trained(rnn_general_backward),
    sum_gradients=NULL, workspace=NULL,
)
enter(
    "rnn_tanh",
    CellKernels(
        forward=rnn_tanh_forward, backward=trained(rnn_tanh_backward),
        sum_gradients=NULL, workspace=NULL
    ),
    ELMAN,
    {"x": ("h",), "h": ("h",), "out_is_z": True},
)
enter(
    "rnn_relu",
    CellKernels(
        forward=rnn_relu_forward, backward=trained(rnn_relu_backward),
        sum_gradients=NULL, workspace=NULL
    ),
    ELMAN,
    {"x": ("h",), "h": ("h",), "out_is_z": True},
)
enter(
    "lstm",
    CellKernels(
        forward=lstm_forward, backward=trained(lstm_backward),
        sum_gradients=trained_sums(lstm_sum_gradients), workspace=lstm_workspace,
    ),
    CellKernels(
        forward=lstm_general_forward, backward=trained(lstm_general_backward),
        sum_gradients=trained_sums(lstm_sum_gradients), workspace=lstm_workspace,
    ),
    {
        "x": ("i", "f", "g", "o"), "h": ("i", "f", "g", "o"),
        "vectors": (PEEPHOLES, STATE_NORM),
    },
)
enter(
    "gru",
    CellKernels(
        forward=gru_forward, backward=trained(gru_backward),
        sum_gradients=NULL, workspace=NULL
    ),
    CellKernels(
        forward=gru_general_forward, backward=trained(gru_general_backward),
        sum_gradients=NULL, workspace=NULL,
    ),
    {"x": ("n", "r", "z"), "h": ("r", "z", "n"), "h_first": 1},
)
enter(
    "gru_reset_before",
    CellKernels(
        forward=gru_reset_before_forward, backward=trained(gru_reset_before_backward),
        sum_gradients=NULL, workspace=gru_reset_before_workspace,
    ),
    CellKernels(
        forward=gru_reset_before_general_forward,
        backward=trained(gru_reset_before_general_backward), sum_gradients=NULL,
        workspace=gru_reset_before_workspace,
    ),
    {"x": ("n", "r", "z"), "h": ("r", "z"), "h_first": 1, "late": ("n",)},
)
enter(
    "indrnn_tanh",
    CellKernels(
        forward=indrnn_tanh_forward, backward=trained(indrnn_tanh_backward),
        sum_gradients=NULL, workspace=NULL,
    ),
    ELMAN,
    {"x": ("h",), "h": ("h",), "out_is_z": True},
)
enter(
    "indrnn_relu",
    CellKernels(
        forward=indrnn_relu_forward, backward=trained(indrnn_relu_backward),
        sum_gradients=NULL, workspace=NULL,
    ),
    ELMAN,
    {"x": ("h",), "h": ("h",), "out_is_z": True},
)
if CELLS.keys() != LAYOUTS.keys():
    raise ImportError(f"cells without compiled kernels: {sorted(CELLS.keys() - LAYOUTS.keys())}")


# A projection's outputs, as its only "gate".
cdef Gates OUTPUT = Gates(first=0, count=1, index=[0, 0, 0, 0])
