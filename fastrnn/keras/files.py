"""Files of Keras: JSON and arrays in a `.keras` zip, or in HDF5; never any code."""

from __future__ import annotations

import io
import itertools
from collections.abc import Mapping
from typing import Any

from fastrnn._files import others, reading
from fastrnn._types import Array
from fastrnn.keras import hdf5
from fastrnn.keras.configs import major_version

#: Of a class whose weights are not in `vars` itself: where they are.
_INNER = {
    **dict.fromkeys(("SimpleRNN", "LSTM", "GRU", "RNN"), ("cell/",)),
    "Bidirectional": ("forward_layer/cell/", "backward_layer/cell/"),
    "TimeDistributed": ("layer/",),
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

    def __init__(self, version: Any, model: Any, held: Mapping[str, Array]) -> None:
        if not isinstance(model, Mapping) or not isinstance(model.get("config"), Mapping | list):
            raise ValueError("is damaged: expected the description of a model")
        self.version, self.model, self._held = major_version(version), model, held

    def weights(self, place: str, class_name: str, name: str) -> list[Array]:
        """Return the weights of a layer, in the order of ``get_weights()``.

        Parameters
        ----------
        place : str
            Where the layer is among the groups of a `.keras` file: ``layers/lstm_1``.
        class_name : str
        name : str
            Of the layer, by which a `.h5` file has its weights.
        """
        raise NotImplementedError


class _Zipped(Archive):
    """A `.keras` file: weights are numbered, in groups named after the classes of layers."""

    def weights(self, place: str, class_name: str, name: str) -> list[Array]:
        found: list[Array] = []
        if not any(path.startswith("layers/") for path in self._held):
            place = place.replace("layers/", "_layer_checkpoint_dependencies/")  # of Keras 2.12
        for inner in _INNER.get(class_name, ("",)):
            paths = (f"{place}/{inner}vars/{i}" for i in itertools.count())
            found += [self._held[p] for p in itertools.takewhile(self._held.__contains__, paths)]
        return found


class _Hdf5(Archive):
    """A `.h5` file: weights have names, and are listed, in groups named after layers."""

    def weights(self, place: str, class_name: str, name: str) -> list[Array]:
        group = f"model_weights/{name}"
        parts = (f"{group}@weight_names{part}" for part in ("", *range(len(self._held))))
        listed = [self._held[part].tolist() for part in parts if part in self._held]
        if not listed:
            raise ValueError(
                "has no weights by its name in the file; those of a model in a model are read from "
                ".keras files"
            )
        names = itertools.chain(*listed)
        return [self._held[f"{group}/{n}"] for n in names]


def read(data: bytes) -> Archive:
    """Return what the bytes of a `.keras` or `.h5` file hold.

    Raises
    ------
    ValueError
        If they are neither, or damaged, or hold no whole model.
    ImportError
        If h5py is not installed.
    """
    if data.startswith(others.HDF5):
        held = hdf5.read(data)
        if "@model_config" not in held:
            raise ValueError(
                "holds weights without the layers that they are for; save the whole model with "
                "model.save('name.keras'), or give a layer's weights to fastrnn.keras.from_weights"
            )
        version = str(held["@keras_version"][0]) if "@keras_version" in held else "2"
        return _Hdf5(version, _json(str(held["@model_config"][0])), held)
    with reading.zipped(io.BytesIO(data)) as file:
        if "model.weights.h5" not in file.namelist():
            raise ValueError("holds no model.weights.h5: weights in several files are not read")
        for member in file.infolist():
            if member.file_size > hdf5.SPARE + hdf5.PACKED * len(data):
                raise ValueError(
                    f"is damaged: {member.filename} claims {member.file_size} bytes, in a file of "
                    f"{len(data)}"
                )
        model, about = (_json(file.read(f"{n}.json")) for n in ("config", "metadata"))
        weights = file.read("model.weights.h5")
    return _Zipped(about["keras_version"], model, hdf5.read(weights))


def _json(text: str | bytes) -> Any:
    try:
        return reading.from_json(text)
    except ValueError as error:
        raise ValueError(f"is damaged: {error}") from None
