"""Time series: forecasts, backtests and prediction intervals."""

from fastrnn.forecast.backtest import Backtest as Backtest
from fastrnn.forecast.forecaster import Forecaster as Forecaster

__all__ = ["Backtest", "Forecaster"]
