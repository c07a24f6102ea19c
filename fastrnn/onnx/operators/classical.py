"""Operators of the domain ai.onnx.ml that scikit-learn's pipelines, as exported, have."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastrnn import _checks
from fastrnn._types import Array
from fastrnn.onnx.operators.arithmetic import sigmoid
from fastrnn.onnx.registry import Node, operator

_ML = "ai.onnx.ml"


def _float32(values: Any) -> Array:
    return np.asarray(values, np.float32)


@operator("Scaler", 1, domain=_ML)
def _scaler(node: Node, x: Array) -> Any:
    return (x.astype(np.float32) - _float32(node["offset"])) * _float32(node["scale"])


@operator("Normalizer", 1, domain=_ML)
def _normalizer(node: Node, x: Array) -> Any:
    wide = x.astype(np.float32)
    norms = {
        "MAX": lambda a: np.abs(a).max(-1, keepdims=True),
        "L1": lambda a: np.abs(a).sum(-1, keepdims=True),
        "L2": lambda a: np.sqrt(np.square(a).sum(-1, keepdims=True)),
    }
    norm = norms[_checks.choice(node["norm"], "norm", norms)](wide)
    return wide / np.where(norm == 0, 1, norm)


@operator("Binarizer", 1, domain=_ML)
def _binarizer(node: Node, x: Array) -> Any:
    return (x > node["threshold"]).astype(x.dtype)


@operator("Imputer", 1, domain=_ML)
def _imputer(node: Node, x: Array) -> Any:
    whole = x.dtype.kind in "iu"
    values = node["imputed_value_int64s" if whole else "imputed_value_floats"]
    replaced = node.get("replaced_value_int64" if whole else "replaced_value_float", 0)
    missing = np.isnan(x) if not whole and np.isnan(replaced) else x == replaced
    return np.where(missing, np.asarray(values, x.dtype), x)


@operator("FeatureVectorizer", 1, domain=_ML)
def _feature_vectorizer(node: Node, *arrays: Array) -> Any:
    return np.concatenate([a.reshape(len(a), -1).astype(np.float32) for a in arrays], 1)


@operator("ArrayFeatureExtractor", 1, domain=_ML)
def _array_feature_extractor(node: Node, x: Array, at: Array) -> Any:
    picked = np.take(x, at.reshape(-1), -1)
    return picked.reshape(1, -1) if x.ndim == 1 else picked


@operator("LabelEncoder", 4, domain=_ML)
def _label_encoder(node: Node, x: Array) -> Any:
    keys = _given(node, "keys")
    values = _given(node, "values")
    if keys is None or values is None:
        raise ValueError("expected keys and values")
    named = node.get("values_tensor")
    kind = np.asarray(values, object if isinstance(values[0], str) else None).dtype.kind
    dtype: Any = {"i": np.int64, "f": np.float32}.get(kind, object)
    dtype = dtype if named is None else named.dtype
    default = node.get({"i": "default_int64", "f": "default_float"}.get(kind, "default_string"))
    tensor = node.get("default_tensor")
    default = default if tensor is None else tensor.reshape(()).item()
    to = dict(zip(keys, values, strict=True))
    found = [to.get(key, default) for key in x.reshape(-1).tolist()]
    return np.array(found, dtype).reshape(x.shape)


def _given(node: Node, which: str) -> Any:
    for kind in ("tensor", "strings", "int64s", "floats"):
        value = node.get(f"{which}_{kind}")
        if value is not None:
            return value.reshape(-1).tolist() if kind == "tensor" else value
    return None


def _after(scores: Array, how: str) -> Array:
    """Return scores after a transformation of ai.onnx.ml."""
    if how == "NONE":
        return scores
    if how == "LOGISTIC":
        return np.asarray(sigmoid(scores))
    if how in ("SOFTMAX", "SOFTMAX_ZERO"):
        e = np.exp(scores - scores.max(-1, keepdims=True))
        e = e * (scores != 0) if how == "SOFTMAX_ZERO" else e
        return np.asarray(e / e.sum(-1, keepdims=True))
    raise ValueError(
        f"post_transform: expected NONE, LOGISTIC, SOFTMAX or SOFTMAX_ZERO, got {how!r}"
    )


@operator("LinearRegressor", 1, domain=_ML)
def _linear_regressor(node: Node, x: Array) -> Any:
    weight = _float32(node["coefficients"]).reshape(node["targets"], -1)
    y = x.astype(np.float32) @ weight.T + _float32(node.get("intercepts", 0))
    return _after(y, node["post_transform"])


@operator("LinearClassifier", 1, domain=_ML)
def _linear_classifier(node: Node, x: Array) -> Any:
    labels = node.get("classlabels_ints") or node.get("classlabels_strings") or []
    weight = _float32(node["coefficients"]).reshape(-1, x.shape[-1])
    scores = x.astype(np.float32) @ weight.T + _float32(node.get("intercepts", 0))
    if scores.shape[1] == 1 and len(labels) == 2:
        scores = np.concatenate([-scores, scores], 1)
    chosen, scores = scores.argmax(1), _after(scores, node["post_transform"])
    names = np.asarray(labels, np.int64 if node.get("classlabels_ints") else object)
    return names[chosen], scores


@operator("ZipMap", 1, domain=_ML)
def _zip_map(node: Node, x: Array) -> Any:
    """Return a list of a dict for each row, from the class to its number."""
    labels = node.get("classlabels_strings") or node.get("classlabels_int64s") or []
    return [dict(zip(labels, row, strict=True)) for row in x.tolist()]
