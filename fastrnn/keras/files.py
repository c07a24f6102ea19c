"""Files of Keras: JSON and arrays in a `.keras` zip, or in HDF5; never any code."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from fastrnn import _checks
from fastrnn._types import Array
from fastrnn.keras.configs import major_version

#: Begins an HDF5 file.
HDF5 = b"\x89HDF\r\n\x1a\n"

#: deflate makes nothing smaller than this many times.
_DEFLATED = 1032

#: Of a class whose weights are not in `vars` itself: where they are.
_INNER = {
    **dict.fromkeys(("SimpleRNN", "LSTM", "GRU", "RNN"), ("cell",)),
    "Bidirectional": ("forward_layer/cell", "backward_layer/cell"),
    "TimeDistributed": ("layer",),
}


class Archive:
    """A model's description, and its weights by layer.

    Attributes
    ----------
    version : int
        Of Keras, 2 or 3.
    model : mapping
        Class and configuration of the model.
    """

    def __init__(self, version: Any, model: Any, root: Any) -> None:
        if not isinstance(model, Mapping) or not isinstance(model.get("config"), Mapping | list):
            raise ValueError("is damaged: expected the description of a model")
        self.version, self.model, self._root = major_version(version), model, root

    def weights(self, place: str, class_name: str, name: str) -> list[Array]:
        """Return the weights of a layer, in the order of ``get_weights()``.

        Parameters
        ----------
        place : str
            Where the layer is among the groups of a `.keras` file: ``layers/lstm_1``.
        class_name : str
        name : str
            Of the layer, by which others find its weights.
        """
        raise NotImplementedError


class _Zipped(Archive):
    """A `.keras` file: weights are numbered, in groups named after the classes of layers."""

    def weights(self, place: str, class_name: str, name: str) -> list[Array]:
        found: list[Array] = []
        for inner in _INNER.get(class_name, ("",)):
            group = _member(self._root, "/".join(filter(None, [place, inner, "vars"])))
            found += [_array(group, str(i)) for i in range(0 if group is None else len(group))]
        return found


class _Hdf5(Archive):
    """A `.h5` file: weights have names, and are listed, in groups named after layers."""

    def weights(self, place: str, class_name: str, name: str) -> list[Array]:
        group = _member(self._root, name)
        return [] if group is None else [_array(group, p) for p in _listed(group, "weight_names")]


def read(data: bytes) -> Archive:
    """Return what the bytes of a `.keras` or `.h5` file hold.

    Raises
    ------
    ValueError
        If they are neither, or damaged, or hold no whole model.
    ImportError
        If h5py is not installed.
    """
    if data.startswith(HDF5):
        root = _opened(data)
        if "model_config" not in root.attrs:
            raise ValueError(
                "holds weights without the layers that they are for; save the whole model with "
                "model.save('name.keras'), or give a layer's weights to fastrnn.keras.from_weights"
            )
        model = json.loads(_text(root.attrs["model_config"]))
        version = _text(root.attrs.get("keras_version", "2"))
        return _Hdf5(version, model, _member(root, "model_weights"))
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        model, about = (json.loads(file.read(f"{n}.json")) for n in ("config", "metadata"))
        if "model.weights.h5" not in file.namelist():
            raise ValueError("holds no model.weights.h5: weights in several files are not read")
        weights = file.read("model.weights.h5")
    return _Zipped(about["keras_version"], model, _opened(weights))


def _opened(data: bytes) -> Any:
    """Return an HDF5 file."""
    try:
        import h5py
    except ImportError:
        raise ImportError("fastrnn.keras.load needs h5py: pip install 'fastrnn[keras]'") from None
    return h5py.File(io.BytesIO(data), "r")


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _listed(group: Any, name: str) -> Iterator[str]:
    """Yield the texts of an attribute, which is split in parts where it is too large."""
    if name in group.attrs:
        yield from map(_text, group.attrs[name])
        return
    part = 0
    while f"{name}{part}" in group.attrs:
        yield from map(_text, group.attrs[f"{name}{part}"])
        part += 1


def _member(group: Any, path: str) -> Any:
    """Return what is in a group at a path, None if nothing; raise if that is in another file."""
    import h5py

    for name in path.split("/"):
        if not isinstance(group, h5py.Group):
            return None
        link = group.get(name, getlink=True)
        if link is None:
            return None
        if not isinstance(link, h5py.HardLink):
            raise ValueError(f"is damaged: expected {path} itself, got a link")
        group = group[name]
    return group


def _array(group: Any, path: str) -> Array:
    """Return an array of real numbers that the file itself holds."""
    import h5py

    dataset = _member(group, path)
    if not isinstance(dataset, h5py.Dataset):
        raise ValueError(f"is damaged: expected an array at {path}")
    if dataset.is_virtual or dataset.external:
        raise ValueError(
            f"is damaged: expected the numbers of {path}, got where other files have them"
        )
    stored = dataset.id.get_storage_size()
    if dataset.nbytes > stored * (1 if dataset.chunks is None else _DEFLATED):
        raise ValueError(f"is damaged: {path} claims {dataset.nbytes} bytes, the file has {stored}")
    values: Array = dataset[()]
    if values.dtype.kind == "V" and values.dtype.itemsize == 2:  # bfloat16, half of a float32
        return (values.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return _checks.numeric(values, path)
