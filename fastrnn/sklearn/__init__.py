"""scikit-learn estimators for classification and regression of sequences.

They work in pipelines, grid searches, cross-validation and everywhere else that scikit-learn takes
estimators. Requires scikit-learn: ``pip install 'fastrnn[sklearn]'``. What ``estimator.save(path)``
wrote does not: ``fastrnn.load(path)`` predicts and streams without it.
"""

try:
    import sklearn as _sklearn  # noqa: F401
except ImportError:
    raise ImportError(
        "fastrnn.sklearn needs scikit-learn: pip install 'fastrnn[sklearn]'"
    ) from None

from fastrnn.sklearn.classifier import SequenceClassifier as SequenceClassifier
from fastrnn.sklearn.frames import from_frame as from_frame
from fastrnn.sklearn.regressor import SequenceRegressor as SequenceRegressor

__all__ = ["SequenceClassifier", "SequenceRegressor", "from_frame"]
