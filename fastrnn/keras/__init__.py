"""Models and layers of Keras 2 and 3, read without Keras and without running any code.

`load` reads a whole model from a `.keras` or `.h5` file, which takes h5py:
``pip install 'fastrnn[keras]'``. `from_weights` makes a layer from ``layer.get_weights()`` and
``layer.get_config()``, and `to_weights` is its inverse.
"""

from fastrnn.keras.layers import KerasLayer as KerasLayer
from fastrnn.keras.layers import from_weights as from_weights
from fastrnn.keras.layers import to_weights as to_weights
from fastrnn.keras.models import load as load

__all__ = ["KerasLayer", "from_weights", "load", "to_weights"]
