"""Types that every floor uses."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


class Fixed:
    """Base of records whose fields can't be set once they are filled.

    A record is filled as an instance of a class that only has the fields, which then becomes a
    subclass of both that and this one: cheaper than the constructor of a frozen dataclass.
    """

    __slots__ = ()

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{type(self).__name__}.{name}: is fixed")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__}.{name}: is fixed")
