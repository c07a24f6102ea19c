"""Whole models of Keras: Sequential, and Functional ones that are a chain."""

from __future__ import annotations

import io
import os
import re
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from fastrnn import _checks
from fastrnn._files import others, reading
from fastrnn.keras import files, layers
from fastrnn.layers import Layer
from fastrnn.models.sequential import Sequential

#: Classes of models, which may be layers of others.
_MODELS = ("Sequential", "Functional", "Model")
#: What a damaged file may raise; HDF5 raises RuntimeErrors.
_ERRORS = (
    zipfile.BadZipFile, KeyError, IndexError, AttributeError, ValueError, TypeError, OSError,
    RuntimeError, EOFError,
)  # fmt: skip
#: Where Keras's own classes are.
_OWN_MODULES = ("keras", "tf_keras", "tensorflow.keras", "tensorflow.python.keras")


def load(path: str | os.PathLike[str]) -> Sequential:
    """Read a model that Keras 2 or 3 saved: layers and weights, but no code, and none is run.

    Parameters
    ----------
    path : str or path-like
        A `.keras` or `.h5` file of a Sequential model, or of a Functional one that is a chain: each
        layer takes the outputs of the one before.

    Returns
    -------
    Sequential
        Computes in inference what the model of Keras does. It can be trained further, after
        ``compile``: optimizer and loss are not read. Losses of classes take logits here, so a last
        softmax or sigmoid is left out then: ``Sequential(model.layers[:-1])``.

    Raises
    ------
    ValueError
        If the file is damaged or none of Keras; or if the model is more than a chain, or has a
        layer or an option that is not supported. The message names it. Lambda layers and classes of
        one's own are code, and so never read.
    ImportError
        If h5py is not installed.
    OSError
        If the file does not exist or can't be read.

    Notes
    -----
    What becomes of layers:

    - SimpleRNN, LSTM, GRU, Bidirectional and RNN of one cell are read as `from_weights` does.
      The merge modes "sum" and "ave" become a `Linear` of fixed weights after the layer.
    - LayerNormalization and Normalization of the last axis; BatchNormalization becomes a `Linear`
      of fixed weights.
    - Embedding with `mask_zero` and Masking leave out padding as in Keras, see
      :class:`fastrnn.Masking`; a Masking layer has to be the first.
    - Dense, Activation, ReLU, LeakyReLU, ELU, Softmax and Dropout, also in TimeDistributed.
    - Layers that act in training only (SpatialDropout1D, GaussianNoise and such) are left out, and
      so is Flatten where there is one vector per sequence.
    - A stateful model carries no state from call to call: pass ``model(x, state=...)``, or use a
      stream or ``fit(stateful=True)``.
    - Models of half precision, also mixed, are computed in float32.

    HDF5 is read by h5py in a process of its own, as the library may crash on damaged files.

    Examples
    --------
    >>> import keras
    >>> trained = keras.Sequential([keras.Input((None, 3)), keras.layers.GRU(5)])
    >>> trained.save("model.keras")
    >>> model = fastrnn.keras.load("model.keras")
    >>> model.predict(np.ones((2, 7, 3))).shape
    (2, 5)
    """
    where = _checks.path(path)
    with reading.opened(where) as file:
        other = others.described(file, but="fastrnn.keras.load")
        file.seek(0)
        # zipfile would read a zip that begins anywhere.
        if other or not file.read(8).startswith((others.ZIP, others.HDF5)):
            raise ValueError(f"{where}: {other or 'is not a file of Keras, or damaged'}")
        file.seek(0)
        data = file.read()
    try:
        archive = files.read(data)
        model = Sequential(_layers(archive))
    except _ERRORS as error:
        raise ValueError(f"{where}: {_what_is_wrong(data, error)}") from None
    return model


class _Spec(NamedTuple):
    """A layer of a file.

    Attributes
    ----------
    name, class_name : str
    config : mapping
    place : str
        Where a `.keras` file has its weights.
    """

    name: str
    class_name: str
    config: Mapping[str, Any]
    place: str


def _layers(archive: files.Archive) -> list[Layer]:
    """Return our layers."""
    found: list[Layer] = []
    shape: Sequence[Any] = ()
    for spec in _specs(archive.model, ""):
        try:
            if spec.class_name == "InputLayer":
                shape = shape or _shape(spec.config)
            elif spec.class_name == "Flatten":
                if not any(layer.per_sequence for layer in found):
                    raise ValueError("expected one vector per sequence before it, not per step")
            else:
                found += _read(archive, spec, 2 if any(a.per_sequence for a in found) else 3)
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"layer {spec.name!r} ({spec.class_name}): {_told(error)}") from None
        turned = [layer for layer in found if getattr(layer, "go_backwards", False)]
        if found and found[0].mask_value is not None and not all(t.per_sequence for t in turned):
            raise ValueError(
                f"layer {spec.name!r} ({spec.class_name}): go_backwards: expected False or "
                "return_sequences=False in a model that masks steps, where Keras does not turn the "
                "mask with the steps"
            )
    if len(shape) == 2 and found and found[0].vocabulary is None:
        raise ValueError(
            f"expected sequences, (N, T, F), or tokens (N, T) for an Embedding, got inputs {shape}"
        )
    return found


def _read(archive: files.Archive, spec: _Spec, axes: int) -> list[Layer]:
    if spec.class_name == "Lambda":
        raise ValueError("is Python code, which is never run")
    if spec.class_name not in layers.READERS:
        raise ValueError(f"is not supported; expected one of {', '.join(layers.READERS)}")
    if spec.config.get("time_major"):
        raise ValueError("time_major: expected False in a model, got True")
    weights = archive.weights(spec.place, spec.class_name, spec.name)
    return layers.read(spec.class_name, spec.config, weights, archive.version, axes)


def _shape(config: Mapping[str, Any]) -> Sequence[Any]:
    """Return the shape of inputs, empty if unknown; raise if they are no sequences."""
    shape = config.get("batch_shape") or config.get("batch_input_shape") or ()
    if shape and len(shape) not in (2, 3):
        raise ValueError(f"expected sequences, (N, T, F) or tokens (N, T), got the shape {shape}")
    if config.get("sparse"):
        raise ValueError("sparse: expected False, got True")
    return shape


def _specs(model: Mapping[str, Any], place: str) -> Iterator[_Spec]:
    """Yield the layers of a model, and of models in it, in the order in which they run."""
    config, kind = model["config"], model["class_name"]
    if kind not in _MODELS:
        raise ValueError(f"expected a Sequential or Functional model, got a {kind}")
    # The first versions of Keras 2 had a list for a Sequential.
    given = config if isinstance(config, list) else config["layers"]
    names = _places(given)
    for i in range(len(given)) if kind == "Sequential" else _chain(config):
        spec = given[i]
        name = spec["config"].get("name") or spec.get("name") or f"layers[{i}]"
        _expect_own(spec, name)
        below = "/".join(filter(None, [place, "layers", names[i]]))
        if spec["class_name"] in _MODELS:
            yield from _specs(spec, below)
        else:
            yield _Spec(name, spec["class_name"], spec["config"], below)


def _places(given: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the groups in which a `.keras` file has the layers' weights: lstm, lstm_1, ...

    As ``keras.src.saving.saving_lib`` and ``keras.src.utils.naming`` make them from classes.
    """
    counts: Counter[str] = Counter()
    names = []
    for spec in given:
        name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", spec["class_name"]))
        name = re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()
        names.append(f"{name}_{counts[name]}" if counts[name] else name)
        counts[name] += 1
    return names


def _expect_own(spec: Mapping[str, Any], name: str) -> None:
    """Raise if a layer is of a class that is not Keras's own."""
    module, registered = spec.get("module") or "keras", spec.get("registered_name") or ""
    own = any(module == m or module.startswith(f"{m}.") for m in _OWN_MODULES)
    if not own or ">" in registered + spec["class_name"]:
        raise ValueError(
            f"layer {name!r} ({registered or spec['class_name']}): is of a class that is not "
            "Keras's own, and so is code, which is never run"
        )


def _chain(config: Mapping[str, Any]) -> list[int]:
    """Return the indices of a Functional model's layers, from its input to its output.

    Raises
    ------
    ValueError
        If they are more than a chain.
    """
    given = config["layers"]
    index = {spec["name"]: i for i, spec in enumerate(given)}
    outputs = _ends(config["output_layers"])
    if len(outputs) != 1 or len(_ends(config["input_layers"])) != 1:
        raise ValueError("expected a model of one input and one output")
    chain: list[int] = []
    sources = outputs
    while sources:
        chain.insert(0, index[sources[0]])
        spec = given[chain[0]]
        sources = _sources(spec)
        if len(sources) > 1 or len(chain) > len(given):
            raise ValueError(
                f"layer {spec['name']!r}: expected one input, from before it in a chain, got "
                f"{', '.join(sources)}"
            )
    masks = _mask_values([given[i] for i in chain])
    beside = [s["name"] for i, s in enumerate(given) if i not in chain and not _of_mask(s, masks)]
    if beside:
        raise ValueError(f"expected a chain of layers, got others beside it: {', '.join(beside)}")
    return chain


def _ends(given: Sequence[Any]) -> list[str]:
    """Return the names in ``["dense", 0, 0]`` or ``[["dense", 0, 0], ...]``."""
    return [given[0]] if given and isinstance(given[0], str) else [one[0] for one in given]


def _mask_values(specs: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Return which values layers mask."""
    zero = [0 for spec in specs if spec["config"].get("mask_zero")]
    masking = [s["config"].get("mask_value", 0) for s in specs if s["class_name"] == "Masking"]
    return zero + masking


def _of_mask(spec: Mapping[str, Any], masks: Sequence[Any]) -> bool:
    """Return whether it is one of the operations by which Keras 3 notes how it masks `masks`."""
    if not str(spec.get("module", "keras")).startswith("keras"):
        return False
    if spec["class_name"] == "NotEqual":
        return bool(masks) and spec["inbound_nodes"][0]["args"][1] in masks
    return bool(masks) and spec["class_name"] == "Any"


def _sources(spec: Mapping[str, Any]) -> list[str]:
    """Return the layers whose outputs a layer of a Functional model takes, but for masks."""
    nodes = spec["inbound_nodes"]
    if len(nodes) > 1:
        raise ValueError(f"layer {spec['name']!r}: expected one call, got {len(nodes)}")
    found: list[str] = []
    for node in nodes:
        if isinstance(node, Mapping):  # Keras 3
            more = {
                k: v for k, v in node.get("kwargs", {}).items() if k not in ("mask", "training")
            }
            found += _tensors([node.get("args", []), more])
        else:  # Keras 2
            for source, _, output, *more in node:
                if output or any({*kwargs} - {"mask", "training"} for kwargs in more):
                    raise ValueError(f"layer {spec['name']!r}: expected one input and no more")
                found.append(source)
    return found


def _tensors(nest: Any) -> list[str]:
    """Return the layers of all tensors among the arguments of a call."""
    if isinstance(nest, Mapping) and nest.get("class_name") == "__keras_tensor__":
        name, _, output = nest["config"]["keras_history"]
        return [name if output == 0 else f"{name}[{output}]"]
    if isinstance(nest, Mapping):
        nest = list(nest.values())
    return [name for one in nest for name in _tensors(one)] if isinstance(nest, list) else []


def _told(error: Exception) -> str:
    """Return an error's message; a missing key is damage."""
    return f"is damaged: expected {error}" if isinstance(error, KeyError) else str(error)


def _what_is_wrong(data: bytes, error: Exception) -> str:
    """Return why a file can't be read."""
    if not data.startswith(others.HDF5) and others.described(io.BytesIO(data)) is None:
        return "is not a file of Keras, or damaged"
    return _told(error) if isinstance(error, KeyError | ValueError) else f"is damaged: {error}"
