"""Types that every floor uses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

#: The state of a recurrent layer: an array, or a pair of them; and what is taken for one.
StateT = TypeVar("StateT")
StateLikeT = TypeVar("StateLikeT")

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Literal, Protocol

    from numpy.typing import ArrayLike as ArrayLike
    from numpy.typing import DTypeLike as DTypeLike

    #: States (h, c); None stands for zeros.
    PairLike = tuple[ArrayLike | None, ArrayLike | None] | list[ArrayLike | None]

    #: Initial and final states of the layers of a model.
    States = list[Array | tuple[Array, ...]]
    StatesLike = Sequence[ArrayLike | PairLike | None]

    #: Rows of a batch: their numbers, or a boolean for each.
    RowsLike = int | Sequence[int] | Sequence[bool] | Array

    #: Sequences of equal length, or of any.
    SequencesLike = ArrayLike | Sequence[ArrayLike]

    #: Series, one or several; of several, whatever names them.
    SeriesLike = SequencesLike | Mapping[Any, ArrayLike]

    #: Weights of classes.
    ClassWeight = Literal["balanced"] | Mapping[Any, float]

    #: Positions in a season.
    PhaseLike = float | Sequence[float] | Mapping[Any, float]

    #: What gives batches (X, y), (X, y, sample_weight), or the arguments by name.
    Batch = tuple[SequencesLike | None, ...] | list[Any] | Mapping[str, SequencesLike | None]

    class Indexed(Protocol):
        """Batches by their numbers."""

        def __getitem__(self, index: int, /) -> Batch:
            """Return a batch."""

        def __len__(self) -> int:
            """Return the number of batches."""

    BatchesLike = Iterable[Batch] | Callable[[], Iterable[Batch]] | Indexed

    class Communicator(Protocol):
        """A communicator of mpi4py, or one with its methods."""

        def Get_rank(self) -> int:  # noqa: N802
            """Return the number of this process."""

        def Get_size(self) -> int:  # noqa: N802
            """Return the number of processes."""

    class HasArray(Protocol):
        """An array of any library."""

        def __array__(self) -> Array:
            """Return it as a NumPy array."""
else:  # numpy.typing would add to the time of an import
    ArrayLike = DTypeLike = HasArray = Any
    PairLike = StatesLike = States = RowsLike = SequencesLike = SeriesLike = PhaseLike = Any
    Batch = BatchesLike = Indexed = ClassWeight = Communicator = Any


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
