"""``predict`` for arrays and bags of Dask."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any

import numpy as np

from fastrnn import _checks
from fastrnn._types import Array
from fastrnn.dask.tasks import dask_module, one_thread


def predict(model: Any, X: Any, batch_size: int = 256, lengths: Any = None) -> Any:
    """Return a model's predictions for data in Dask, as a lazy array or bag.

    They have the bits of ``model.predict``, however the data are divided into chunks. Each chunk is
    one task, which holds its inputs, its outputs and one batch of the network's; the model is sent
    to each worker once, and each task uses one thread.

    Parameters
    ----------
    model : Sequential, or estimator of fastrnn.sklearn
    X : dask array (N, T, F), or (N, T) of tokens; or dask bag of sequences (T_i, F) or (T_i,)
        Chunks along the axes of steps and features are joined; those along the first axis stay.
    batch_size : int
        Sequences at a time, of a Sequential; and how many of a bag are predicted together.
    lengths : (N,) array-like or dask array of int, optional
        Of an array, the number of valid steps of each sequence; of a Sequential only.

    Returns
    -------
    dask array or bag
        As ``model.predict`` has it: (N, O), or (N, T, O) with outputs per step; of a bag, one array
        for each sequence.

    Raises
    ------
    TypeError
        If `model` has no method `predict`, or `X` is neither an array nor a bag of Dask.
    ValueError
        If `X` has a number of axes other than 2 or 3.

    Examples
    --------
    >>> import dask.array as da  # doctest: +SKIP
    >>> X = da.random.normal(size=(1_000_000, 50, 8), chunks=(10_000, -1, -1))  # doctest: +SKIP
    >>> fastrnn.dask.predict(model, X).to_zarr("predictions.zarr")  # doctest: +SKIP
    """
    if not callable(getattr(model, "predict", None)):
        raise TypeError(f"model: expected a method predict, got {_checks.kind_of(model)}")
    batch_size = _checks.size(batch_size, "batch_size")
    of_model = {"batch_size": batch_size} if hasattr(model, "compile") else {}
    sent = dask_module("dask").delayed(model, traverse=False)
    if hasattr(X, "map_partitions") and not hasattr(X, "map_blocks"):
        if lengths is not None:
            raise ValueError("lengths: expected None with a bag, whose sequences have their own")
        return X.map_partitions(_of_sequences, sent, batch_size, of_model)
    arrays = dask_module("dask.array")
    if not isinstance(X, arrays.Array):
        raise TypeError(f"X: expected an array or a bag of Dask, got {_checks.kind_of(X)}")
    if X.ndim not in (2, 3):
        got = _checks.shape_text(X.shape)
        raise ValueError(f"X: expected shape (N, T, F), or (N, T) of tokens, got {got}")
    X = X.rechunk(dict.fromkeys(range(1, X.ndim), -1))
    given = [X]
    if lengths is not None:
        lengths = arrays.asarray(lengths).rechunk((X.chunks[0],))
        given.append(lengths.reshape(-1, *[1] * (X.ndim - 1)))
    # The shape of the outputs is that of a model's answer to one sequence of zeros.
    answer = np.asarray(model.predict(np.zeros((1, *X.shape[1:]), X.dtype), **of_model))
    return arrays.map_blocks(
        _of_block, *given, model=sent, of_model=of_model,
        chunks=(X.chunks[0], *((n,) for n in answer.shape[1:])), meta=answer[:0],
        drop_axis=list(range(1, X.ndim)), new_axis=list(range(1, answer.ndim)),
    )  # fmt: skip


def _of_block(x: Array, lengths: Array | None = None, *, model: Any, of_model: Any) -> Array:
    """Return the predictions for a block of an array."""
    more = {} if lengths is None else {"lengths": lengths.reshape(len(x))}
    with one_thread():
        return np.asarray(model.predict(x, **of_model, **more))


def _of_sequences(
    sequences: Iterable[Any], model: Any, batch_size: int, of_model: Any
) -> list[Any]:
    """Return the predictions for a part of a bag, of which one batch is read at a time."""
    rest, outputs = iter(sequences), []
    while batch := list(islice(rest, batch_size)):
        with one_thread():
            outputs += list(model.predict(batch, **of_model))
    return outputs
