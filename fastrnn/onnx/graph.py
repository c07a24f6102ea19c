"""Graphs: read from a GraphProto, checked, and evaluated node by node."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx

from fastrnn import _checks
from fastrnn._types import Array
from fastrnn.onnx import operators as operators  # fills OPERATORS
from fastrnn.onnx import reading
from fastrnn.onnx.registry import OLDEST_OPSET, OPERATORS, Node, Operator, supported

#: What an operator raises for inputs that do not fit; the message then names its node.
_ERRORS = (
    ValueError, TypeError, IndexError, KeyError, AttributeError, ArithmeticError, MemoryError,
    RuntimeError,
)  # fmt: skip

#: Nodes that calls of functions make, which call others, and how deep calls may be nested.
_MOST_CALLED, _DEEPEST = 1 << 15, 50

#: Elements of what is computed when a model is read, beyond those of its own tensors.
_FOLDED = 1 << 22

_KINDS = onnx.AttributeProto


@dataclass(frozen=True, slots=True)
class Value:
    """An input or output: its name, dtype and shape.

    Attributes
    ----------
    name : str
    dtype : dtype or None
        None if it is not a tensor, or unknown.
    shape : tuple of int or str, or None
        A str stands for any size. None for any shape.
    """

    name: str
    dtype: np.dtype[Any] | None
    shape: tuple[int | str, ...] | None

    def __str__(self) -> str:
        dtype = "" if self.dtype is None else "str" if self.dtype == object else self.dtype.name
        shape = "" if self.shape is None else _checks.shape_text(self.shape)
        return " ".join(filter(None, (self.name, dtype, shape)))


@dataclass(slots=True)
class Step:
    """A node, what computes it, and which values no later step needs."""

    node: Node
    run: Callable[..., Any]
    inputs: tuple[str, ...]
    reads: frozenset[str]
    done_with: tuple[str, ...] = ()

    def __call__(self, values: dict[str, Any]) -> None:
        """Compute the outputs."""
        inputs = [values[name] if name else None for name in self.inputs]
        more = (values,) if self.node.operator.scoped else ()
        try:
            results = self.run(*inputs, *more)
        except _ERRORS as error:
            raise ValueError(f"{self.node.where}: {_said(error)}{_shown(inputs)}") from None
        results = results if isinstance(results, tuple) else (results,)
        if len(results) < len(self.node.outputs):
            raise ValueError(
                f"{self.node.where}: expected {len(results)} outputs, got {len(self.node.outputs)}"
            )
        for name, result in zip(self.node.outputs, results, strict=False):
            if name:
                values[name] = result if isinstance(result, list) else np.asarray(result)
        for name in self.done_with:
            values.pop(name, None)


def _said(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "its results do not fit into memory"
    return str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)


def _shown(inputs: Sequence[Any]) -> str:
    """Return dtypes and shapes of a node's inputs, for messages."""
    arrays = [
        f"{a.dtype} {_checks.shape_text(a.shape)}" if isinstance(a, np.ndarray) else "none"
        for a in inputs
    ]
    return f"; its inputs are {', '.join(arrays)}" if arrays else ""


@dataclass(slots=True)
class Graph:
    """A graph that can be evaluated.

    Attributes
    ----------
    inputs, outputs : tuple of Value
    constants : dict
        Values that are known beforehand and still needed.
    steps : list of Step
    reads : frozenset of str
        Values of the graphs around it that it needs.
    """

    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    constants: dict[str, Any]
    steps: list[Step]
    reads: frozenset[str] = frozenset()

    def run(self, inputs: Iterable[Any], outer: Mapping[str, Any] | None = None) -> list[Any]:
        """Return the outputs for these inputs; `outer` has the values of the graphs around."""
        values: dict[str, Any] = {} if outer is None else {n: outer[n] for n in self.reads}
        values |= self.constants
        values.update(zip((value.name for value in self.inputs), inputs, strict=True))
        for step in self.steps:
            step(values)
        return [values[value.name] for value in self.outputs]


@dataclass(slots=True)
class Reader:
    """Reads the graphs of one model.

    Attributes
    ----------
    folder : str or None
        That of the model's file.
    opsets : dict
        The version of each domain.
    functions : dict
        FunctionProtos of the model by domain, name and overload.
    constants : dict
        Read-only values of the graphs that are being read, by name.
    """

    folder: str | None
    opsets: dict[str, int]
    functions: dict[tuple[str, str, str], Any]
    depth: int = 0
    calling: bool = False
    called: int = 0
    folded: int = field(default=_FOLDED)

    def graph(
        self, proto: Any, outer: Mapping[str, Any], *, overridable: bool = False
    ) -> tuple[Graph, dict[str, Any]]:
        """Return a graph, and defaults of inputs that have one.

        Parameters
        ----------
        proto : GraphProto
        outer : mapping
            What is known of values of the graphs around: their array, or None.
        overridable : bool
            Whether an initializer that is an input too is only its default.
        """
        tensors = {}
        if len(proto.sparse_initializer):
            raise ValueError(f"graph {proto.name!r}: expected no sparse initializers")
        for tensor in proto.initializer:
            tensors[tensor.name] = self.tensor(tensor, f"initializer {tensor.name!r}")
        inputs = [_value(info) for info in proto.input]
        names = {value.name for value in inputs}
        defaults = {n: a for n, a in tensors.items() if n in names} if overridable else {}
        constants = {n: a for n, a in tensors.items() if n not in defaults}
        inputs = [value for value in inputs if value.name not in constants]
        outputs = tuple(_value(info) for info in proto.output)
        graph = self._body(proto.node, tuple(inputs), outputs, constants, outer)
        return graph, defaults

    def tensor(self, proto: Any, what: str) -> Array:
        """Return a tensor as an array that is not written to."""
        values = reading.array(proto, self.folder, what)
        values.setflags(write=False)
        self.folded += values.size
        return values

    def _body(
        self, nodes: Iterable[Any], inputs: tuple[Value, ...], outputs: tuple[Value, ...],
        constants: dict[str, Any], outer: Mapping[str, Any], bound: Mapping[str, Any] | None = None,
    ) -> Graph:  # fmt: skip
        """Return a graph of these nodes; `bound` has attributes of a function's call."""
        scope = dict(outer) | dict.fromkeys((v.name for v in inputs), None) | constants
        own = {v.name for v in inputs} | constants.keys()
        steps: list[Step] = []
        for proto in nodes:
            step = self._step(proto, scope, bound or {})
            for name in filter(None, step.node.outputs):
                if name in own:
                    raise ValueError(f"{step.node.where}: expected a new name, {name!r} is taken")
                own.add(name)
                scope[name] = None
            folded = self._folded(step, scope)
            if folded is None:
                steps.append(step)
            else:
                constants |= folded
                scope |= folded
        for value in outputs:
            if value.name not in own and value.name not in outer:
                raise ValueError(f"output {value.name!r}: there is no such value in the graph")
        return _pruned(inputs, outputs, constants, steps, own)

    def _step(self, proto: Any, scope: Mapping[str, Any], bound: Mapping[str, Any]) -> Step:
        """Return a node's step, given what is known of the values before it."""
        where = f"{proto.op_type} {proto.name!r}" if proto.name else proto.op_type
        domain = "" if proto.domain == "ai.onnx" else proto.domain
        self.called += self.calling
        if self.called > _MOST_CALLED:
            raise ValueError(f"{where}: expected functions that make at most {_MOST_CALLED} nodes")
        inputs, outputs = tuple(proto.input), tuple(proto.output)
        for name in inputs:
            if name and name not in scope:
                raise ValueError(f"{where}: expected the name of a value before it, got {name!r}")
        key = (domain, proto.op_type, getattr(proto, "overload", ""))
        if key in self.functions:
            return self._call(proto, self.functions[key], scope, bound, where)
        kind, version, defaults, types = self._schema(proto, domain, where)
        attributes = defaults | self._attributes(proto, defaults, scope, bound, where)
        for a in proto.attribute:
            if not a.ref_attr_name and types.get(a.name, a.type) != a.type:
                wanted, given = map(_KINDS.AttributeType.Name, (types[a.name], a.type))
                raise ValueError(f"{where}: expected {a.name} of type {wanted}, got {given}")
        node = Node(kind, version, inputs, outputs, attributes, where)
        graphs = [a for a in attributes.values() if isinstance(a, Graph)]
        reads = frozenset(filter(None, inputs)).union(*(g.reads for g in graphs))
        return Step(node, _Call(node), inputs, reads)

    def _schema(
        self, proto: Any, domain: str, where: str
    ) -> tuple[Operator, int, dict[str, Any], dict[str, int]]:
        """Return a node's operator, its version, and defaults and types of its attributes."""
        kind = OPERATORS.get((domain, proto.op_type))
        if kind is None:
            of = f" of domain {domain!r}" if domain else ""
            known = supported(domain) or f"none of {domain!r}; and of the default domain "
            known += "" if supported(domain) else supported("")
            raise ValueError(f"{where}: operator {proto.op_type}{of} is not supported; supported "
                             f"are {known}")  # fmt: skip
        opset = self.opsets.get(domain)
        if opset is None:
            raise ValueError(f"{where}: expected a version of the domain {domain!r} in the model")
        if kind.attributes is not None:
            return kind, 1, dict(kind.attributes), {}
        try:
            schema = onnx.defs.get_schema(proto.op_type, opset, domain)
        except onnx.defs.SchemaError:
            raise ValueError(f"{where}: there is no such operator in opset {opset}") from None
        if schema.since_version > kind.newest:
            raise ValueError(
                f"{where}: is of version {schema.since_version}, of opset {opset}; supported are "
                f"versions up to {kind.newest}"
            )
        least = schema.min_input
        # Loop names two optional inputs before what it requires, so the least number is not all.
        missing = [
            not name and formal.option == onnx.defs.OpSchema.FormalParameterOption.Single
            for name, formal in zip(proto.input, schema.inputs, strict=False)
        ]
        if not least <= len(proto.input) <= schema.max_input or any(missing):
            raise ValueError(
                f"{where}: expected {least} to {schema.max_input} inputs, got {list(proto.input)}"
            )
        known = schema.attributes.items()
        types = {name: int(a.type.value) for name, a in known}
        return kind, schema.since_version, {name: _default(a) for name, a in known}, types

    def _attributes(
        self, proto: Any, known: Mapping[str, Any], scope: Mapping[str, Any],
        bound: Mapping[str, Any], where: str,
    ) -> dict[str, Any]:  # fmt: skip
        """Return the attributes that a node has."""
        given: dict[str, Any] = {}
        for a in proto.attribute:
            if a.name not in known:
                raise ValueError(
                    f"{where}: expected one of the attributes {', '.join(known) or 'none'}, got "
                    f"{a.name!r}"
                )
            if a.ref_attr_name:
                if bound.get(a.ref_attr_name) is not None:
                    given[a.name] = bound[a.ref_attr_name]
            elif a.type == _KINDS.TENSOR:
                given[a.name] = self.tensor(a.t, f"{where}, attribute {a.name}")
            elif a.type == _KINDS.GRAPH:
                given[a.name] = self._inner(a.g, scope, where)
            else:
                given[a.name] = _plain(a, where)
        return given

    def _inner(self, proto: Any, scope: Mapping[str, Any], where: str) -> Graph:
        if self.depth >= _DEEPEST:
            raise ValueError(f"{where}: expected graphs nested at most {_DEEPEST} deep")
        self.depth += 1
        graph, _ = self.graph(proto, scope)
        self.depth -= 1
        return prepared(graph)

    def _call(
        self, proto: Any, function: Any, scope: Mapping[str, Any], bound: Mapping[str, Any],
        where: str,
    ) -> Step:  # fmt: skip
        """Return the step of a call of one of the model's own functions."""
        if self.depth >= _DEEPEST:
            raise ValueError(f"{where}: expected functions nested at most {_DEEPEST} deep")
        defaults = {a.name: _plain(a, where) for a in function.attribute_proto}
        known = dict.fromkeys(function.attribute) | defaults
        given = known | self._attributes(proto, known, scope, bound, where)
        names = [*function.input]
        if len(proto.input) > len(names) or len(proto.output) > len(function.output):
            raise ValueError(
                f"{where}: expected at most {len(names)} inputs and {len(function.output)} outputs"
            )
        opsets, calling = self.opsets, self.calling
        self.calling = True
        self.opsets = opsets | checked_opsets(function.opset_import, f"{where}: ")
        self.depth += 1
        # Constants are passed on, so that its nodes can do what they do with constants.
        inputs = dict(zip(names, proto.input, strict=False))
        constants = {n: scope[o] for n, o in inputs.items() if o and scope[o] is not None}
        values = tuple(Value(n, None, None) for n in names if n not in constants)
        outputs = tuple(Value(name, None, None) for name in function.output)
        graph = self._body(function.node, values, outputs, constants, {}, given)
        graph = prepared(graph)
        self.opsets, self.calling, self.depth = opsets, calling, self.depth - 1
        read = tuple(inputs.get(value.name, "") for value in values)
        kind = Operator(proto.domain, proto.op_type, 0, graph.run)
        node = Node(kind, 0, read, tuple(proto.output), {}, where)
        return Step(node, _FunctionCall(graph), read, frozenset(filter(None, read)))

    def _folded(self, step: Step, scope: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return a step's outputs if they are known now, and not too large."""
        kind = step.node.operator
        if kind.growth == "data":
            return None
        inputs = [scope[name] for name in step.inputs if name]
        if any(not isinstance(a, np.ndarray) for a in inputs):
            return None
        size = sum(a.size for a in inputs)
        if kind.growth == "product":
            size = size * size
        elif kind.growth == "broadcast":
            try:
                size = max(size, math.prod(np.broadcast_shapes(*(a.shape for a in inputs))))
            except ValueError:
                return None  # it is an error, when it is evaluated
        if size > self.folded:
            return None
        self.folded -= size
        values = {n: scope[n] for n in step.inputs if n}
        with np.errstate(all="ignore"):
            step(values)
        for name in filter(None, step.node.outputs):
            values[name].setflags(write=False)
        return {n: values[n] for n in step.node.outputs if n}


@dataclass(slots=True)
class _Call:
    """Calls an operator for a node."""

    node: Node

    def __call__(self, *inputs: Any) -> Any:
        return self.node.operator.run(self.node, *inputs)


@dataclass(slots=True)
class _FunctionCall:
    """Calls one of a model's own functions."""

    graph: Graph

    def __call__(self, *inputs: Any) -> tuple[Any, ...]:
        return tuple(self.graph.run(inputs))


def checked_opsets(imports: Iterable[Any], where: str = "") -> dict[str, int]:
    """Return the versions of domains that a model, or a function `where`, imports."""
    opsets = {"" if o.domain == "ai.onnx" else o.domain: o.version for o in imports}
    newest = onnx.defs.onnx_opset_version()
    if "" in opsets and not OLDEST_OPSET <= opsets[""] <= newest:
        more = "; a newer onnx package may know it" if opsets[""] > newest else ""
        raise ValueError(
            f"{where}expected an opset of {OLDEST_OPSET} to {newest}, got {opsets['']}{more}"
        )
    return opsets


def prepared(graph: Graph) -> Graph:
    """Return the graph with what its operators make of constant inputs, such as packed weights."""
    steps = []
    for step in graph.steps:
        bind = step.node.operator.bind
        done = None
        if bind is not None:
            known = [graph.constants.get(name) if name else None for name in step.inputs]
            try:
                done = bind(step.node, known)
            except _ERRORS as error:
                raise ValueError(f"{step.node.where}: {_said(error)}") from None
        if done is None:
            steps.append(step)
        else:
            run, absorbed = done
            inputs = tuple("" if k in absorbed else n for k, n in enumerate(step.inputs))
            steps.append(Step(step.node, run, inputs, frozenset(filter(None, inputs))))
    own = {value.name for value in graph.inputs} | graph.constants.keys()
    own = own.union(*(step.node.outputs for step in steps))
    return _pruned(graph.inputs, graph.outputs, graph.constants, steps, own)


def _pruned(
    inputs: tuple[Value, ...], outputs: tuple[Value, ...], constants: Mapping[str, Any],
    steps: list[Step], own: set[str],
) -> Graph:  # fmt: skip
    """Return the graph without what no output needs; steps say what no later one needs."""
    ends = {value.name for value in outputs}
    needed, kept = set(ends), []
    for step in reversed(steps):
        if needed.isdisjoint(step.node.outputs):
            continue
        outputs_here = {n for n in step.node.outputs if n}
        last = (step.reads | outputs_here) - needed - ends
        step.done_with = tuple(n for n in last if n in own and n not in constants)
        needed |= step.reads
        kept.append(step)
    return Graph(
        inputs,
        outputs,
        {n: a for n, a in constants.items() if n in needed},
        kept[::-1],
        frozenset(needed - own),
    )


def _value(info: Any) -> Value:
    """Return the description of an input or output."""
    kind = info.type.tensor_type
    if info.type.WhichOneof("value") != "tensor_type":
        return Value(info.name, None, None)
    dtype = None
    if kind.elem_type:
        dtype = reading.dtype_of(kind.elem_type, f"{info.name}")
    shape: tuple[int | str, ...] | None = None
    if kind.HasField("shape"):
        shape = tuple(
            d.dim_value if d.WhichOneof("value") == "dim_value" else d.dim_param or "?"
            for d in kind.shape.dim
        )
    return Value(info.name, dtype, shape)


def _default(attribute: Any) -> Any:
    """Return the default of a schema's attribute; None if it has none."""
    proto = attribute.default_value
    return _plain(proto, attribute.name) if proto.type else None


def _plain(a: Any, where: str) -> Any:
    """Return an attribute that is a number, a str, or a list of them."""
    match a.type:
        case _KINDS.FLOAT:
            return a.f
        case _KINDS.INT:
            return a.i
        case _KINDS.STRING:
            return _text(a.s, where)
        case _KINDS.FLOATS:
            return list(a.floats)
        case _KINDS.INTS:
            return list(a.ints)
        case _KINDS.STRINGS:
            return [_text(s, where) for s in a.strings]
    kind = _KINDS.AttributeType.Name(a.type)
    raise ValueError(
        f"{where}: expected attributes that are numbers, strings, tensors or graphs, got "
        f"{a.name!r} of type {kind}"
    )


def _text(value: bytes, where: str) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise ValueError(f"{where}: expected text, got {value[:20]!r}") from None
