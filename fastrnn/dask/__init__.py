"""Prediction and forecasts of data that are in Dask: lazy, on one machine or many.

Needs the package dask (extra ``dask``). Models, estimators and forecasters also work as they are in
``map_blocks``, ``map_partitions``, ``delayed`` and joblib's ``dask`` backend: they pickle.
"""

from fastrnn.dask.forecasting import SeriesForecast as SeriesForecast
from fastrnn.dask.forecasting import forecast as forecast
from fastrnn.dask.prediction import predict as predict

__all__ = ["SeriesForecast", "forecast", "predict"]
