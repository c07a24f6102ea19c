#!/usr/bin/env bash
# The kernels' tests on CPUs that this machine is not, under qemu-user: an old one without AVX
# (Nehalem), one without AVX-512 (Haswell), and ARM.
#
# benchmarks/other_cpus.sh [nehalem] [haswell] [arm]    all by default. On Debian 12, in the environment of
#                                                       CONTRIBUTING.md; ARM as for bits_on_arm.sh.
# Tests that draw hundreds of examples are left out: an emulated CPU is some ten times as slow.
set -euo pipefail
cd "$(dirname "$0")/.."
chosen=${*:-nehalem haswell arm}
export OPENBLAS_NUM_THREADS=1 FASTRNN_NUM_THREADS=1
tests=(tests/test_{kernel_arguments,kernel_walls,equal_bits,direct_calls,losses,optim,quantize,row_layers,streams,matmul_precision}.py)
type qemu-x86_64-static >/dev/null || apt-get -qq install qemu-user-static >/dev/null
python=$(command -v python)

say() { printf '\n== %s (%d s)\n' "$*" "$SECONDS"; }
emulated() { qemu-x86_64-static -cpu "$1" "$python" -P "${@:2}" 2>&1; }
wrong_backends() { # CPU NAME...: each name that this CPU cannot run, or that is none, is an error
    local name said
    for name in "${@:2}"; do
        if said=$(FASTRNN_BACKEND=$name emulated "$1" -c 'import fastrnn'); then
            echo "FASTRNN_BACKEND='$name' was accepted on $1" >&2; exit 1
        fi
        grep -q "ValueError: FASTRNN_BACKEND: '$name' " <<<"$said" || { echo "$said" >&2; exit 1; }
        echo "FASTRNN_BACKEND='$name' on $1: ${said##*ValueError: }"
    done
}

for cpu in $chosen; do
    case $cpu in
    nehalem)
        say "Nehalem"
        emulated Nehalem -c 'import fastrnn; print(*fastrnn.backends()); assert fastrnn.backends() == ("baseline", "reference")'
        wrong_backends Nehalem avx2 avx512 neon ' baseline' avx512,baseline none
        emulated Nehalem -m pytest -q -p no:cacheprovider "${tests[@]}"
        ;;
    haswell)
        say "Haswell"
        emulated Haswell -c 'import fastrnn; print(*fastrnn.backends()); assert fastrnn.backends() == ("avx2", "baseline", "reference")'
        wrong_backends Haswell avx512 AVX2 neon
        FASTRNN_BACKEND=avx2 emulated Haswell -m pytest -q -p no:cacheprovider "${tests[@]}"
        ;;
    arm)
        say "ARM"
        work=$(mktemp -d)
        trap 'rm -rf "$work"' EXIT
        WORK=$work bash benchmarks/bits_on_arm.sh 20
        python -m pip install -q --target "$work/more" --only-binary=:all: --platform any pytest hypothesis
        version=$(python -c 'import sys; print(f"{sys.version_info[0]}.{sys.version_info[1]}")')
        mkdir "$work/tests" && cp -r tests pyproject.toml "$work/tests/"
        (cd "$work/tests" && qemu-aarch64-static -L "$work/root" -E PYTHONHOME="$work/root/usr" \
            -E PYTHONPATH="$work/site:$work/more" "$work/root/usr/bin/python$version" -m pytest -q -p no:cacheprovider "${tests[@]}")
        ;;
    *) echo "expected nehalem, haswell or arm, got $cpu" >&2; exit 2 ;;
    esac
done
