"""Build: one Cython source, compiled once for each instruction set and dtype.

FASTRNN_BUILD_EXT  "yes": a failed extension is fatal; "no": build none; default: warn and go on.
FASTRNN_DEBUG      "1": bounds checks, assertions, workspaces full of NaN between guard pages.
FASTRNN_VARIANTS   names of instruction sets, by commas: build for these alone.
CFLAGS, LDFLAGS    come before our own flags: with FASTRNN_DEBUG for sanitizers (tests/sanitize.py).
CC                 "clang-cl" on Windows: all variants. Default there: MSVC, the baseline alone.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
import warnings

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

WANTED = os.environ.get("FASTRNN_BUILD_EXT", "auto")
DEBUG = os.environ.get("FASTRNN_DEBUG") == "1"
CLANG_CL = shutil.which(os.environ.get("CC", "")) if sys.platform == "win32" else None
MSVC = sys.platform == "win32" and not CLANG_CL

# -march and -mno-avx come after the user's CFLAGS: a build machine's own flags must not leak in.
# (A cross build sets _PYTHON_HOST_PLATFORM: benchmarks/bits_on_arm.sh.)
VARIANTS = {"baseline": []}
ANY = []  # for modules that run on every CPU
MACHINE = os.environ.get("_PYTHON_HOST_PLATFORM", platform.machine()).rpartition("-")[2].lower()
if not MSVC and MACHINE in ("aarch64", "arm64"):
    VARIANTS = {"neon": []}
elif not MSVC and MACHINE in ("x86_64", "amd64"):
    ANY = ["-march=x86-64", "-mtune=generic", "-mno-sse3", "-mno-avx"]
    AVX2 = ["-march=x86-64", "-mtune=generic", "-mpopcnt", "-mavx2", "-mfma"]
    AVX512 = ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mprefer-vector-width=512"]
    VARIANTS = {
        # -Os: as fast there as -O3, and nearly half as large.
        "baseline": ["-march=x86-64", "-mtune=generic", "-mpopcnt", "-msse4.2", "-mno-avx", "-Os"],
        "avx2": [*AVX2, "-mno-avx512f"],
        "avx512": [*AVX2, *AVX512],
    }
if chosen := os.environ.get("FASTRNN_VARIANTS"):
    VARIANTS = {name: VARIANTS[name] for name in chosen.split(",")}
SOURCES = ["src_pyx", "src_pyx/lib", "src_pyx/cells", "src_pyx/scan"]
# Neither -ffast-math nor contraction: the source says what is rounded, for equal bits everywhere.
FLOATS = ["-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off"]
# A wheel has nine modules: C code needs no tables for unwinding the stack.
OPTIMIZE = [] if MSVC else [*FLOATS, "-O3", "-g0"]
if sys.platform not in ("win32", "darwin"):
    OPTIMIZE += ["-fno-asynchronous-unwind-tables"]
    # Debian's Python asks for one, which makes a wheel a hundredth larger; pyenv's does not.
    OPTIMIZE += ["-fno-stack-protector"]
    # Less inlining of Cython's glue: a tenth smaller and as fast; vec.h inlines always.
    OPTIMIZE += ["--param", "inline-unit-growth=10"]
# float64 and int8 are within 3 % as fast as with -O3, and a fifth smaller. With -Os float64 is a
# further fifth smaller, and 2 % slower on AVX-512, 4 % on AVX2.
SMALLER, SMALLEST = ([], []) if MSVC else (["-O2"], ["-Os"])
DEBUGGABLE = ["-O1", "-g", "-fasynchronous-unwind-tables"] if DEBUG and not MSVC else []
STRIP = [] if DEBUG or sys.platform in ("win32", "darwin") else ["-Wl,--strip-all"]


def extensions():
    import numpy as np
    from Cython.Build import cythonize

    macros = [("NPY_NO_DEPRECATED_API", "NPY_1_22_API_VERSION")]
    macros += [("FASTRNN_DEBUG", "1")] if DEBUG else [("CYTHON_WITHOUT_ASSERTIONS", None)]
    directives = {
        "language_level": 3,
        "boundscheck": DEBUG,
        "wraparound": False,
        "initializedcheck": DEBUG,
        "cdivision": True,
        "auto_pickle": False,
        "freethreading_compatible": True,
    }
    build_dir = f"build/cython-numpy{np.__version__}"  # NumPy's declarations go into the C
    translated, found = {}, []

    def add(name, source, flags=(), define=()):
        # A source is translated once, and its C copied for each module, with the module's name: a
        # copy each, as objects are named after sources.
        own = f"fastrnn._kernels.{source.removeprefix('src_pyx/').removesuffix('.pyx')}"
        if own not in translated:
            (translated[own],) = cythonize(
                [Extension(own, [source])],
                build_dir=build_dir,
                include_path=SOURCES,
                compiler_directives=directives,
                quiet=True,
            )
        made = translated[own]
        ext = Extension(name, [renamed(made.sources[0], own, name, build_dir)])
        ext.depends = made.depends
        ext.include_dirs = [*SOURCES, np.get_include()]
        ext.define_macros = [*macros, *define]
        ext.extra_compile_args = [*OPTIMIZE, *flags, *DEBUGGABLE]
        if CLANG_CL:  # whose own flags are MSVC's
            ext.extra_compile_args = [f"/clang:{flag}" for flag in ext.extra_compile_args]
        ext.extra_link_args = [*STRIP, *(builtins() if CLANG_CL else [])]
        ext.optional = WANTED != "yes"
        found.append(ext)

    add("fastrnn._kernels._cpu", "src_pyx/cpu.pyx", ANY)
    add("fastrnn._kernels._threads", "src_pyx/threads.pyx", ANY)
    for variant, flags in VARIANTS.items():
        name = f"fastrnn._kernels.{variant}"
        smaller = flags if "-Os" in flags else [*flags, *SMALLER]
        add(f"{name}_float32", "src_pyx/kernels.pyx", flags, [("FASTRNN_REAL_BITS", 32)])
        of_double = [*flags, *SMALLEST] if variant == "avx512" else smaller
        add(f"{name}_float64", "src_pyx/kernels.pyx", of_double, [("FASTRNN_REAL_BITS", 64)])
        of_int8 = [("FASTRNN_REAL_BITS", 32), ("FASTRNN_INT8", 1)]
        add(f"{name}_int8", "src_pyx/quantized.pyx", smaller, of_int8)
    return found[::-1]  # those that take longest first, for two processors


def renamed(path, own, name, build_dir):
    """Return the path of a copy of a module's C under another name; written only if it changed.

    Functions keep the old name in their `__module__`, which is in a table with lengths.
    """
    module = name.rpartition(".")[2]
    with open(path, encoding="utf-8") as file:
        code = file.read()
    code = code.replace(f'"{own}', f'"{name}').replace(
        f"PyInit_{own.rpartition('.')[2]}", f"PyInit_{module}"
    )
    copy = os.path.join(build_dir, f"{module}.c")
    old = None
    if os.path.exists(copy):
        with open(copy, encoding="utf-8") as file:
            old = file.read()
    if code != old:
        with open(copy, "w", encoding="utf-8", newline="\n") as file:
            file.write(code)
    return copy


def builtins():
    """Return clang's library, with what __builtin_cpu_supports calls: MSVC's linker has no such."""
    command = [CLANG_CL, "/clang:-print-resource-dir"]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return [os.path.join(found, "lib", "windows", "clang_rt.builtins-x86_64.lib")]


class BuildExt(build_ext):
    """Build every extension that can be built, and say once what could not."""

    def build_extensions(self):
        if CLANG_CL:
            self.compiler.initialize()
            self.compiler.cc = CLANG_CL
        super().build_extensions()

    def run(self):
        self.parallel = self.parallel or os.cpu_count()
        super().run()
        paths = {ext.name: self.get_ext_fullpath(ext.name) for ext in self.extensions}
        missing = [name for name, path in paths.items() if not os.path.exists(path)]
        if missing:
            warnings.warn(
                f"fastrnn: not compiled: {', '.join(missing)}. Is there a C compiler? "
                "The package works without them, in pure NumPy and slower.",
                stacklevel=1,
            )


class BdistWheel(bdist_wheel):
    """A wheel that says what is compiled into it: PEP 770, in CycloneDX 1.6."""

    def write_wheelfile(self, wheelfile_base, *args, **options):
        super().write_wheelfile(wheelfile_base, *args, **options)
        folder = os.path.join(wheelfile_base, "sboms")
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, "fastrnn.cdx.json"), "w", newline="\n") as file:
            json.dump(self.bill_of_materials(), file, indent=1)

    def bill_of_materials(self):
        """Return no more than what the same inputs give again: neither a time nor a number."""
        version = self.distribution.get_version()
        parts = []
        if self.distribution.has_ext_modules():
            import Cython
            import numpy as np

            parts = [
                ("Cython", Cython.__version__, "Apache-2.0", "C that it wrote"),
                ("numpy", np.__version__, "BSD-3-Clause", "inline functions of its C interface"),
            ]
        return {
            "bomFormat": "CycloneDX",
            "specVersion": "1.6",
            "version": 1,
            "metadata": {"component": component("fastrnn", version, "BSD-3-Clause")},
            "components": [
                {**component(name, of, terms), "description": what}
                for name, of, terms, what in parts
            ],
            "dependencies": [
                {"ref": f"pkg:pypi/fastrnn@{version}",
                 "dependsOn": [f"pkg:pypi/{name.lower()}@{of}" for name, of, *_ in parts]},
            ],
        }  # fmt: skip


def component(name, version, terms):
    where = f"pkg:pypi/{name.lower()}@{version}"
    return {
        "type": "library",
        "bom-ref": where,
        "name": name,
        "version": version,
        "licenses": [{"license": {"id": terms}}],
        "purl": where,
    }


setup(
    ext_modules=[] if WANTED == "no" else extensions(),
    cmdclass={"build_ext": BuildExt, "bdist_wheel": BdistWheel},
)
