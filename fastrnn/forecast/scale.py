"""The map between the values of a series and what the network reads."""

from __future__ import annotations

import dataclasses
from typing import Self

import numpy as np

from fastrnn._core.scaling import mean_and_deviation
from fastrnn._types import Array
from fastrnn.layers import Normalization

#: Rounds of regression and estimation of the autocorrelation of what it leaves; Cochrane and Orcutt
#: (1949) iterate until it is stationary, but three are enough for two digits.
_ROUNDS = 3


@dataclasses.dataclass(frozen=True)
class Scale:
    """The logarithm, if wanted, without the effect of `exog`, with mean 0 and deviation 1.

    The effect of `exog` is linear, ``exog @ coefficients``.
    """

    log: bool
    coefficients: Array
    norm: Normalization

    @property
    def deviation(self) -> Array:
        """(K,), the deviations by which values are divided."""
        return self.norm.deviation

    @classmethod
    def of(cls, values: Array, exog: Array, log: bool, season: Array | None = None) -> Self:
        """Return the scale of values (n, K) and exog (n, E).

        `season` (n, S) are sines and cosines, whose effects are not to be taken for those of exog.
        """
        z = np.log(values) if log else values
        coefficients = _effects(z, exog, season)
        z = z - exog @ coefficients
        with np.errstate(all="ignore"):
            finite = np.isfinite(z.std(axis=0)).all()
        if not finite:
            raise ValueError(
                "series: expected numbers with a finite standard deviation, "
                f"got some as large as {np.abs(values).max():.3g}"
            )
        return cls(log, coefficients, Normalization(dtype=np.float64).adapt(z))

    def to(self, values: Array, exog: Array) -> Array:
        """Return what the network reads, (n, K)."""
        z = (np.log(values) if self.log else values) - exog @ self.coefficients
        return self.norm(z)

    def back(self, z: Array, exog: Array) -> Array:
        """Return the values for z (..., n, K) and exog (n, E)."""
        values: Array = self.norm.inverse(z) + exog @ self.coefficients
        return np.exp(values) if self.log else values


def _effects(z: Array, exog: Array, season: Array | None) -> Array:
    """Return the coefficients (E, K) of a regression with autocorrelated errors.

    Level and season are other regressors. As the level of many series wanders, and things that
    wander correlate by chance, it is a regression of quasi-differences z_t - rho z_{t-1}, with the
    rho of the residuals, from 1 at first (Cochrane and Orcutt 1949).
    """
    n, E = exog.shape
    coefficients = np.zeros((E, z.shape[1]))
    if not E:
        return coefficients
    mean, deviation = mean_and_deviation(exog)
    x = (exog - mean) / deviation
    others = [np.ones((n, 1)), np.linspace(-1, 1, n)[:, None]]
    design = np.concatenate([x, *others, *([] if season is None else [season])], axis=1)
    for k in range(z.shape[1]):
        rho = 1.0
        for _ in range(_ROUNDS):
            left = design[1:] - rho * design[:-1]
            found = np.linalg.lstsq(left, z[1:, k] - rho * z[:-1, k], rcond=1e-9)[0]
            rest = z[:, k] - design @ found
            rest = rest - rest.mean()
            power = np.square(rest[:-1]).sum()
            rho = float(np.clip(rest[1:] @ rest[:-1] / power, 0, 1)) if power > 0 else 0.0
        coefficients[:, k] = found[:E] / deviation
    return coefficients
