"""A forecaster for each of many series, fitted where the series are."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from fastrnn import _checks
from fastrnn._files import atomic
from fastrnn._files.reading import from_json, whole
from fastrnn._types import Array
from fastrnn._version import __version__
from fastrnn.dask.tasks import dask_module, one_thread
from fastrnn.forecast import Forecaster

#: Parts of a dict of series: enough for many workers, few enough for little overhead.
_PARTS = 256


class SeriesForecast(NamedTuple):
    """The forecast of one of many series.

    Examples
    --------
    >>> fastrnn.dask.SeriesForecast("shop 1", np.array([3.0, 4.0]), None).values
    array([3., 4.])
    """

    name: Any  #: Of the series.
    values: Array | None  #: (horizon,) or (horizon, K), or None if it failed.
    error: str | None  #: What failed, or None.


def forecast(
    forecaster: Forecaster,
    series: Any,
    horizon: int,
    *,
    folder: str | os.PathLike[str] | None = None,
) -> Any:
    """Fit a forecaster to each of many series, where they are, and return the forecasts.

    A series that fails, such as one that is too short, is reported with its name, and no other is
    lost. The results are those of ``Forecaster.fit(values).predict(horizon)``, the same bits on any
    worker for a forecaster with a `seed`; each task uses one thread.

    Parameters
    ----------
    forecaster : Forecaster
        Its settings; it is not fitted itself.
    series : dict of name to values, or dask bag of (name, values)
        Values as :meth:`fastrnn.forecast.Forecaster.fit` takes them.
    horizon : int
        Number of values to forecast.
    folder : str or path-like, optional
        Where each forecast is also written, as JSON, when it is done: a folder that all workers
        see. A second call with the same arguments reads what is there and computes the rest, so
        that a computation that was killed goes on.

    Returns
    -------
    dask bag of SeriesForecast
        Lazy: ``compute()`` gives a list, in the order of the series.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another kind.

    Examples
    --------
    >>> many = {"a": values, "b": more_values}  # doctest: +SKIP
    >>> found = fastrnn.dask.forecast(Forecaster(seed=0), many, 12)  # doctest: +SKIP
    >>> {f.name: f.values for f in found.compute()}  # doctest: +SKIP
    """
    if not isinstance(forecaster, Forecaster):
        raise TypeError(f"forecaster: expected a Forecaster, got {_checks.kind_of(forecaster)}")
    horizon = _checks.size(horizon, "horizon")
    if folder is not None:
        folder = _checks.path(folder, "folder")
        os.makedirs(folder, exist_ok=True)
    bags = dask_module("dask.bag")
    if isinstance(series, Mapping):
        series = bags.from_sequence(list(series.items()), npartitions=min(len(series), _PARTS) or 1)
    if not isinstance(series, bags.Bag):
        raise TypeError(
            "series: expected a dict of name to values, or a dask bag of (name, values), got "
            f"{_checks.kind_of(series)}"
        )
    unfitted = type(forecaster)(**forecaster.get_params())
    return series.map_partitions(_of_part, unfitted, horizon, folder)


def _of_part(
    part: Iterable[tuple[Any, Any]], forecaster: Forecaster, horizon: int, folder: str | None
) -> list[SeriesForecast]:
    """Return the forecasts of a part of the series."""
    forecasts = []
    for name, values in part:
        path = None if folder is None else _path(folder, forecaster, name, values, horizon)
        found = None if path is None else _read(path, name)
        if found is None:
            found = _of_series(forecaster, name, values, horizon)
            if path is not None and found.error is None:
                _write(path, found)
        forecasts.append(found)
    return forecasts


def _of_series(forecaster: Forecaster, name: Any, values: Any, horizon: int) -> SeriesForecast:
    model = type(forecaster)(**forecaster.get_params())
    try:
        with one_thread():
            model.fit(values, verbose=0)
            return SeriesForecast(name, np.asarray(model.predict(horizon)), None)
    except Exception as error:
        return SeriesForecast(name, None, f"{type(error).__name__}: {error}")


def _path(folder: str, forecaster: Forecaster, name: Any, values: Any, horizon: int) -> str:
    """Return the file of a forecast, named after all that it depends on."""
    about = hashlib.sha256(f"{__version__} {forecaster.get_params()} {name!r} {horizon}".encode())
    about.update(pickle.dumps(values, protocol=5))  # an index of dates included
    return os.path.join(folder, f"{about.hexdigest()}.json")


def _read(path: str, name: Any) -> SeriesForecast | None:
    """Return the forecast in a file; None if there is none that can be read."""
    try:
        values = np.array(from_json(whole(path))["values"], np.float64)
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return None
    return SeriesForecast(name, values, None)


def _write(path: str, found: SeriesForecast) -> None:
    assert found.values is not None
    text = json.dumps({"name": str(found.name), "values": found.values.tolist()})
    atomic.write(path, text.encode())
