"""scikit-learn estimators for classification and regression of sequences.

They work in pipelines, grid searches, cross-validation and everywhere else that scikit-learn takes
estimators. Requires scikit-learn: ``pip install 'fastrnn[sklearn]'``.
"""

try:
    import sklearn as _sklearn  # noqa: F401
except ImportError:
    raise ImportError(
        "fastrnn.sklearn needs scikit-learn: pip install 'fastrnn[sklearn]'"
    ) from None

from fastrnn.models.sequences import Inputs as _Inputs  # noqa: F401  pickles of 0.1.0 name it
from fastrnn.sklearn.classifier import SequenceClassifier as SequenceClassifier
from fastrnn.sklearn.frames import from_frame as from_frame
from fastrnn.sklearn.regressor import SequenceRegressor as SequenceRegressor

__all__ = ["SequenceClassifier", "SequenceRegressor", "from_frame"]
