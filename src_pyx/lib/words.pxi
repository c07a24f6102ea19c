# Matrices of int8 numbers with the scales of their rows, as the words of int8.h.

cimport numpy as cnp

import numpy as np


cdef object words_of(matrix, scale, str name, tuple shape):
    """Return a matrix (N, K) of int8 and the scales of its rows as words, (N, K / 4 + 1) reals."""
    # Check the copies: other threads may change the originals meanwhile.
    matrix, scale = copied(matrix, name), copied(scale, name + "_scale")
    if not is_plain(matrix, cnp.NPY_INT8, IN) or matrix.ndim != 2 or matrix.shape != shape:
        refuse(matrix, name, f"an int8 array {shape}")
    N, K = shape
    vector(scale, name + "_scale", N, IN)
    words = np.zeros((N, -(-K // 4) + 1), np.int32)
    words.view(np.int8)[:, :K] = matrix ^ np.int8(REALS.flip)
    words[:, -1] = scale.view(np.int32)
    return words.view(np.float32)


cdef tuple in_words(tuple names, weights, scales, dict shapes):
    """Return the weights of a layer with matrices as words, and the shapes expected of them."""
    cdef list found = []
    for name, array, scale in zip(names, weights, scales, strict=True):
        if scale is not None:
            array = words_of(array, scale, name, shapes.get(name, ()))
            shapes[name] = array.shape
        elif name in shapes and len(shapes[name]) == 2:
            raise ValueError(f"{name}: expected its scales, got None")
        found.append(array)
    return found, shapes
