"""``predict`` for arrays and bags of Dask."""

from __future__ import annotations

import math
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
    one task, which holds its inputs, its outputs and a few batches of the network's; the model is
    sent to each worker once, and each task uses one thread. For outputs that memory does not hold,
    write the result (``to_zarr``, ``to_textfiles``) rather than ``compute()`` it.

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
        If `X` has a number of axes other than 2 or 3, an unknown number of steps or features, or
        one that is not the model's; or if `lengths` do not fit it.

    Examples
    --------
    >>> import dask.array as da  # doctest: +SKIP
    >>> X = da.random.normal(size=(1_000_000, 50, 8), chunks=(10_000, -1, -1))  # doctest: +SKIP
    >>> fastrnn.dask.predict(model, X).to_zarr("predictions.zarr")  # doctest: +SKIP
    """
    if not callable(getattr(model, "predict", None)):
        raise TypeError(f"model: expected a method predict, got {_checks.kind_of(model)}")
    batch_size = _checks.size(batch_size, "batch_size")
    is_network = hasattr(model, "compile")
    of_model = {"batch_size": batch_size} if is_network else {}
    if lengths is not None and not is_network:
        raise ValueError("lengths: expected None with an estimator; pass a bag of sequences")
    # One key of the graph, which a worker fetches once for all of its tasks.
    sent = dask_module("dask").delayed(model, traverse=False)
    if isinstance(X, dask_module("dask.bag").Bag):
        if lengths is not None:
            raise ValueError("lengths: expected None with a bag, whose sequences have their own")
        return X.map_partitions(_of_sequences, sent, batch_size, of_model)
    arrays = dask_module("dask.array")
    if not isinstance(X, arrays.Array):
        raise TypeError(f"X: expected an array or a bag of Dask, got {_checks.kind_of(X)}")
    if X.ndim not in (2, 3) or any(map(math.isnan, X.shape[1:])):
        got = _checks.shape_text(X.shape)
        raise ValueError(f"X: expected shape (N, T, F), or (N, T) of tokens, got {got}")
    X = X.rechunk(dict.fromkeys(range(1, X.ndim), -1))
    given = [X]
    if lengths is not None:
        lengths = arrays.asarray(lengths)
        known = not any(map(math.isnan, (*X.shape[:1], *lengths.shape)))
        if lengths.ndim != 1 or (known and len(lengths) != len(X)):
            got = _checks.shape_text(lengths.shape)
            raise ValueError(f"lengths: expected shape ({X.shape[0]},), got {got}")
        if known:
            lengths = lengths.rechunk((X.chunks[0],))
        given.append(lengths[(slice(None), *[None] * (X.ndim - 1))])
    # Also raises if the model takes other arrays.
    empty = np.asarray(model.predict(_one_sequence(model, X), **of_model))[:0]
    return arrays.map_blocks(
        _of_block, *given, model=sent, of_model=of_model, empty=empty,
        chunks=(X.chunks[0], *((n,) for n in empty.shape[1:])), meta=empty,
        drop_axis=list(range(1, X.ndim)), new_axis=list(range(1, empty.ndim)),
    )  # fmt: skip


def _one_sequence(model: Any, X: Any) -> Array:
    """Return a sequence like those of `X`, of which a model that masks steps masks none."""
    first = next(iter(getattr(model, "layers", ())), None)
    value = 1 if getattr(first, "mask_value", None) == 0 else 0
    return np.full((1, *X.shape[1:]), value, X.dtype)


def _of_block(
    x: Array, lengths: Array | None = None, *, model: Any, of_model: Any, empty: Array
) -> Array:
    """Return the predictions for a block of an array."""
    if not len(x):  # an estimator refuses none
        return empty
    more = {} if lengths is None else {"lengths": lengths.reshape(len(x))}
    with one_thread():
        return np.asarray(model.predict(x, **of_model, **more))


def _of_sequences(
    sequences: Iterable[Any], model: Any, batch_size: int, of_model: Any
) -> list[Any]:
    """Return the predictions for a part of a bag, of which one batch is read at a time."""
    rest, outputs = iter(sequences), list[Any]()
    with one_thread():
        while batch := list(islice(rest, batch_size)):
            outputs.extend(model.predict(batch, **of_model))
    return outputs
