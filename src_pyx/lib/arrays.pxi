# Checks of the arrays that kernels read and write, made in the kernels themselves: after a check in
# Python, a callback or another thread may change them. Included in kernels.pyx.

cimport numpy as cnp
from cpython.weakref cimport PyWeakref_NewRef
from cpython.object cimport PyObject
from vec cimport real

cdef extern from "vec.h" nogil:
    const int NPY_REAL

cdef extern from *:
    """
    #if defined(__GNUC__)
    #define FASTRNN_MULTIPLY_OVERFLOWS(a, b, to) __builtin_mul_overflow(a, b, to)
    #else
    static int FASTRNN_MULTIPLY_OVERFLOWS(Py_ssize_t a, Py_ssize_t b, Py_ssize_t *to)
    {
        if (b != 0 && a > PY_SSIZE_T_MAX / b) return 1;
        *to = a * b;
        return 0;
    }
    #endif
    /* Read an index once: the value checked is the value used. */
    #define FASTRNN_READ_ONCE(p) (*(const volatile npy_intp *)(p))
    """
    bint multiply_overflows "FASTRNN_MULTIPLY_OVERFLOWS"(
        Py_ssize_t a, Py_ssize_t b, Py_ssize_t *to
    ) noexcept nogil
    cnp.npy_intp read_once "FASTRNN_READ_ONCE"(const cnp.npy_intp *p) noexcept nogil

cdef extern from "numpy/arrayobject.h":
    PyObject *PyArray_BASE(cnp.ndarray array) noexcept

cdef extern from "pool.h":
    # Multiply-adds (a few microseconds) below which a call keeps the GIL: releasing it, with the
    # `pin` that this requires, would take longer.
    const ptrdiff_t BRIEF

cdef enum:
    IN = cnp.NPY_ARRAY_ALIGNED
    OUT = cnp.NPY_ARRAY_ALIGNED | cnp.NPY_ARRAY_WRITEABLE


cdef object refuse(object array, str name, str expected):
    """Raise an error that names the array, what was expected and what came."""
    if not cnp.PyArray_Check(array):
        raise TypeError(f"{name}: expected a NumPy array, got {type(array).__name__}")
    flags = array.flags
    found = "" if flags.aligned else ", not aligned"
    found += "" if flags.writeable else ", read-only"
    found += "" if flags.c_contiguous else f", with strides {array.strides}"
    raise ValueError(f"{name}: expected {expected}, got {array.dtype} {array.shape}{found}")


cdef inline bint is_plain(object array, int type_number, int access) noexcept:
    """Return whether it is an aligned array of this type, native byte order, writeable for OUT."""
    return (
        cnp.PyArray_Check(array)
        and cnp.PyArray_TYPE(<cnp.ndarray>array) == type_number
        and cnp.PyArray_CHKFLAGS(<cnp.ndarray>array, access)
        and cnp.PyArray_ISNOTSWAPPED(<cnp.ndarray>array)
    )


cdef inline bint is_flat(object array, int type_number, ptrdiff_t n, int access) noexcept:
    """Return whether it is plain, C-contiguous and has `n` entries, in any shape."""
    return (
        is_plain(array, type_number, access | cnp.NPY_ARRAY_C_CONTIGUOUS)
        and cnp.PyArray_SIZE(<cnp.ndarray>array) == n
    )


cdef inline real *flat(object array, str name, ptrdiff_t n, int access) except? NULL:
    """Return the data of a C-contiguous array of `n` entries; raise if it is not one."""
    if not is_flat(array, NPY_REAL, n, access):
        refuse(array, name, f"a C-contiguous {real_name()} array of {n} numbers")
    return <real *>cnp.PyArray_DATA(<cnp.ndarray>array)


cdef inline real *vector(object array, str name, ptrdiff_t n, int access) except? NULL:
    """Return the data of a contiguous array (n,); raise if it is not one."""
    if not (
        is_flat(array, NPY_REAL, n, access) and cnp.PyArray_NDIM(<cnp.ndarray>array) == 1
    ):
        refuse(array, name, f"a C-contiguous {real_name()} array ({n},)")
    return <real *>cnp.PyArray_DATA(<cnp.ndarray>array)


cdef inline real *numbers(object array, str name, int access) except? NULL:
    """Return the data of a C-contiguous array of any shape; raise if it is not one."""
    if not is_plain(array, NPY_REAL, access | cnp.NPY_ARRAY_C_CONTIGUOUS):
        refuse(array, name, f"a C-contiguous {real_name()} array")
    return <real *>cnp.PyArray_DATA(<cnp.ndarray>array)


cdef inline real *like(object array, str name, object other, int access) except? NULL:
    """Return the data of a C-contiguous array in the shape of a checked one; else raise."""
    if not (
        is_plain(array, NPY_REAL, access | cnp.NPY_ARRAY_C_CONTIGUOUS)
        and cnp.PyArray_SAMESHAPE(<cnp.ndarray>array, <cnp.ndarray>other)
    ):
        refuse(array, name, f"a C-contiguous {real_name()} array {other.shape}")
    return <real *>cnp.PyArray_DATA(<cnp.ndarray>array)


cdef inline real *matrix(
    object array, str name, ptrdiff_t rows, ptrdiff_t columns, int access
) except? NULL:
    """Return the data of a C-contiguous array (rows, columns); raise if it is not one."""
    if not (
        is_plain(array, NPY_REAL, access | cnp.NPY_ARRAY_C_CONTIGUOUS)
        and cnp.PyArray_NDIM(<cnp.ndarray>array) == 2
        and cnp.PyArray_DIM(<cnp.ndarray>array, 0) == rows
        and cnp.PyArray_DIM(<cnp.ndarray>array, 1) == columns
    ):
        refuse(array, name, f"a C-contiguous {real_name()} array ({rows}, {columns})")
    return <real *>cnp.PyArray_DATA(<cnp.ndarray>array)


cdef inline real *rows_of(object array, str name, ptrdiff_t columns, int access) except? NULL:
    """Return the data of an array (n, columns), last axis contiguous; raise if it is not one."""
    cdef cnp.ndarray a
    cdef bint fits = False
    if is_plain(array, NPY_REAL, access) and cnp.PyArray_NDIM(<cnp.ndarray>array) == 2:
        a = <cnp.ndarray>array
        fits = (
            cnp.PyArray_DIM(a, 1) == columns
            and (
                columns == 1 or cnp.PyArray_STRIDE(a, 1) == sizeof(real)
                or cnp.PyArray_SIZE(a) == 0
            )
            and cnp.PyArray_STRIDE(a, 0) % <ptrdiff_t>sizeof(real) == 0
        )
    if not fits:
        refuse(
            array, name, f"a {real_name()} array (n, {columns}) whose last axis is contiguous"
        )
    return <real *>cnp.PyArray_DATA(<cnp.ndarray>array)


cdef inline bint is_sequence(
    object array, ptrdiff_t T, ptrdiff_t B, ptrdiff_t n, int access
) noexcept:
    """Return whether it is an array (T, B, n) whose last axis is contiguous."""
    cdef cnp.ndarray a
    if not is_plain(array, NPY_REAL, access) or cnp.PyArray_NDIM(<cnp.ndarray>array) != 3:
        return False
    a = <cnp.ndarray>array
    return (
        cnp.PyArray_DIM(a, 0) == T and cnp.PyArray_DIM(a, 1) == B and cnp.PyArray_DIM(a, 2) == n
        and (n == 1 or T == 0 or cnp.PyArray_STRIDE(a, 2) == sizeof(real))
        and cnp.PyArray_STRIDE(a, 0) % <ptrdiff_t>sizeof(real) == 0
        and cnp.PyArray_STRIDE(a, 1) % <ptrdiff_t>sizeof(real) == 0
    )


cdef inline real *sequence(
    object array, str name, ptrdiff_t T, ptrdiff_t B, ptrdiff_t n, int access
) except? NULL:
    """Return the data of an array (T, B, n), last axis contiguous; raise if it is not one."""
    if not is_sequence(array, T, B, n, access):
        refuse(
            array, name, f"a {real_name()} array ({T}, {B}, {n}) whose last axis is contiguous"
        )
    return <real *>cnp.PyArray_DATA(<cnp.ndarray>array)


cdef inline bint are_integers(object array) noexcept:
    """Return whether it is a C-contiguous array of intp, or of the C type equivalent to it."""
    return (
        cnp.PyArray_Check(array)
        and cnp.PyTypeNum_ISSIGNED(cnp.PyArray_TYPE(<cnp.ndarray>array))
        and cnp.PyTypeNum_ISINTEGER(cnp.PyArray_TYPE(<cnp.ndarray>array))
        and cnp.PyArray_ITEMSIZE(<cnp.ndarray>array) == sizeof(cnp.npy_intp)
        and cnp.PyArray_CHKFLAGS(<cnp.ndarray>array, IN | cnp.NPY_ARRAY_C_CONTIGUOUS)
        and cnp.PyArray_ISNOTSWAPPED(<cnp.ndarray>array)
    )


cdef inline const cnp.npy_intp *integers(object array, str name, ptrdiff_t n) except? NULL:
    """Return the data of a C-contiguous array of `n` intp, each to be checked where it is used."""
    if not (are_integers(array) and cnp.PyArray_SIZE(<cnp.ndarray>array) == n):
        refuse(array, name, f"a C-contiguous intp array of {n} numbers")
    return <const cnp.npy_intp *>cnp.PyArray_DATA(<cnp.ndarray>array)


cdef inline const cnp.npy_intp *indices(object array, str name) except? NULL:
    """Return the data of a contiguous array (n,) of intp, each to be checked where it is used."""
    if not (are_integers(array) and cnp.PyArray_NDIM(<cnp.ndarray>array) == 1):
        refuse(array, name, "a C-contiguous intp array (n,)")
    return <const cnp.npy_intp *>cnp.PyArray_DATA(<cnp.ndarray>array)


cdef inline const char *booleans(
    object array, str name, ptrdiff_t T, ptrdiff_t B
) except NULL:
    """Return the data of an array of booleans (T, B); raise if it is not one."""
    if not (
        is_plain(array, cnp.NPY_BOOL, IN)
        and cnp.PyArray_NDIM(<cnp.ndarray>array) == 2
        and cnp.PyArray_DIM(<cnp.ndarray>array, 0) == T
        and cnp.PyArray_DIM(<cnp.ndarray>array, 1) == B
    ):
        refuse(array, name, f"a bool array ({T}, {B})")
    return <const char *>cnp.PyArray_DATA(<cnp.ndarray>array)


cdef inline list pin_all(arrays):
    """Pin the arrays that are not None."""
    return [pin(a) for a in arrays if a is not None]


cdef inline str real_name():
    return "float32" if sizeof(real) == 4 else "float64"


cdef inline object copied(object array, str name):
    """Return a C-contiguous copy."""
    if not cnp.PyArray_Check(array):
        refuse(array, name, "")
    return cnp.PyArray_NewCopy(<cnp.ndarray>array, cnp.NPY_CORDER)


cdef inline object pin(object array):
    """Keep `array` from being resized, even by another thread, as long as the result lives.

    NumPy refuses to resize an array that has a weak reference, even with ``refcheck=False``.
    Required wherever a kernel accesses the caller's memory without the GIL. Other objects are left
    to the check that refuses them.
    """
    cdef object owner = array
    if not cnp.PyArray_Check(array):
        return None
    while PyArray_BASE(<cnp.ndarray>owner) is not NULL:
        base = <object>PyArray_BASE(<cnp.ndarray>owner)
        if not cnp.PyArray_Check(base):
            break
        owner = base
    return PyWeakref_NewRef(owner, None)


cdef struct Stray:
    # The first out-of-range index that a thread found.
    ptrdiff_t at            # its position; -1: none
    cnp.npy_intp value


cdef Buffer no_strays(int threads):
    """Return an empty Stray for each thread."""
    cdef Buffer found = room(threads, sizeof(Stray))
    cdef int i
    for i in range(threads):
        (<Stray *>found.data)[i].at = -1
    return found


cdef inline void note_stray(Stray *found, ptrdiff_t at, cnp.npy_intp value) noexcept nogil:
    if found.at < 0:
        found.at, found.value = at, value


cdef int refuse_strays(Buffer found, int threads, str name, str expected) except -1:
    """Raise if an index is out of range, naming the first one."""
    cdef Stray *strays = <Stray *>found.data
    cdef ptrdiff_t at = -1
    cdef cnp.npy_intp value = 0
    cdef int i
    for i in range(threads):
        if strays[i].at >= 0 and (at < 0 or strays[i].at < at):
            at, value = strays[i].at, strays[i].value
    if at >= 0:
        raise ValueError(f"{name}: expected {expected}, got {value}")
    return 0


cdef inline Py_ssize_t product_of(
    Py_ssize_t a, Py_ssize_t b, Py_ssize_t c=1, Py_ssize_t d=1
) except -1:
    """Return a b c d; raise MemoryError if one is negative or the product overflows."""
    cdef Py_ssize_t n = 0
    if (
        a < 0 or b < 0 or c < 0 or d < 0
        or multiply_overflows(a, b, &n) or multiply_overflows(n, c, &n)
        or multiply_overflows(n, d, &n) or n > PY_SSIZE_T_MAX // 16
    ):
        raise MemoryError(f"can't allocate {a} x {b} x {c} x {d} numbers")
    return n
