"""Configurations of Keras's layers: read option by option; what is left over is an error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastrnn import _checks

#: Without effect on inference: how weights were drawn and trained, how Keras computes. Dropout
#: inside recurrent layers is Keras's own kind, and only for training. `stateful` and `return_state`
#: are about states, which callers of our layers pass and get.
_NO_EFFECT = frozenset({
    "name", "batch_input_shape", "batch_shape", "input_shape", "input_length", "seed",
    "unit_forget_bias", "implementation", "unroll", "stateful", "return_state", "dropout",
    "recurrent_dropout", "zero_output_for_mask", "use_cudnn", "sparse", "autocast",
    "lora_rank", "lora_alpha", "cache_kernel",
})  # fmt: skip
_NO_EFFECT_ENDINGS = ("_initializer", "_regularizer", "_constraint")

#: In which dtype each of Keras's is computed here.
_DTYPES = {
    "float32": np.float32, "float64": np.float64, "float16": np.float32, "bfloat16": np.float32,
    "mixed_float16": np.float32, "mixed_bfloat16": np.float32,
}  # fmt: skip


def major_version(value: Any) -> int:
    """Return 2 or 3 for a version of Keras: 3, "3", "2.15.0"."""
    number = str(value).split(".")[0] if isinstance(value, str | int) else ""
    if number not in ("2", "3"):
        raise ValueError(f"keras_version: expected 2 or 3, or such as '2.15.0', got {value!r}")
    return int(number)


class Config:
    """What ``get_config()`` of a layer of Keras returned.

    Attributes
    ----------
    class_name : str
    given_version : int or None
        Of Keras, 2 or 3, as it was given.
    version : int
        That, else as the names of options tell, else 3.
    axes : int
        Of the layer's input: 3 of sequences, 2 of one vector for each.
    """

    def __init__(
        self, class_name: str, options: Mapping[str, Any], version: int | None, axes: int = 3
    ) -> None:
        if not isinstance(options, Mapping):
            raise TypeError(f"config: expected a dict, got {type(options).__name__}")
        self.class_name, self._left = class_name, dict(options)
        self.given_version, self.axes = version, axes
        older = "time_major" in options or "implementation" in options
        self.version = version or (2 if older and "zero_output_for_mask" not in options else 3)

    def take(self, name: str, usual: Any = None) -> Any:
        """Return the value of an option, which Keras gives the default `usual`."""
        return self._left.pop(name, usual)

    def flag(self, name: str, usual: bool) -> bool:
        """Return the value of an option that is True or False."""
        return _checks.flag(self.take(name, usual), name)

    def size(self, name: str, found: int) -> None:
        """Raise if an option is there, and is not the size of the weights."""
        value = self.take(name)
        if value is not None and _checks.size(value, name) != found:
            raise ValueError(f"{name}: expected {found}, the size of the weights, got {value!r}")

    def last_axis(self, name: str, usual: int) -> None:
        """Raise if an option is not the last axis, which Keras may have in a list."""
        value = self.take(name, usual)
        axes = [*value] if isinstance(value, list | tuple) else [value]
        if axes not in ([-1], [self.axes - 1]):
            raise ValueError(f"{name}: expected -1, the last axis, got {value!r}")

    def only(self, name: str, supported: Any, usual: Any) -> None:
        """Raise if an option is not the one value that is supported."""
        value = self.take(name, usual)
        if value != supported:
            raise ValueError(
                f"{name}: expected {supported!r}, got {value!r}, which is not supported"
            )

    def rest(self) -> dict[str, Any]:
        """Return all options that were not read yet, as read."""
        rest, self._left = self._left, {}
        return rest

    def dtype(self, usual: Any = np.float32) -> np.dtype[Any]:
        """Return in which dtype to compute; half precision and mixed ones in float32."""
        given = self.take("dtype")
        self.only("quantization_config", None, None)
        while isinstance(given, Mapping):  # a policy
            given = given.get("config", {}).get("name", given.get("class_name"))
        if given is None:
            return _checks.dtype(usual)
        return np.dtype(_DTYPES[_checks.choice(given, "dtype", _DTYPES)])

    def expect_no_more(self) -> None:
        """Raise if an option was not read and may have an effect."""
        left = sorted(
            name
            for name in self._left
            if name not in _NO_EFFECT and not name.endswith(_NO_EFFECT_ENDINGS)
        )
        if left:
            raise ValueError(f"{', '.join(left)}: unknown for {self.class_name}, or not supported")
