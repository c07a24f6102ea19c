"""A controller with which threadpoolctl sees the kernels' threads, and limits them."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from fastrnn._core import config
from fastrnn._version import __version__

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec

_NAME = "threadpoolctl"


def follow() -> None:
    """Register the controller: now, or once threadpoolctl is imported."""
    if _NAME in sys.modules:
        _register(sys.modules[_NAME])
    elif not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def _register(threadpoolctl: Any) -> None:
    class FastrnnController(threadpoolctl.LibController):  # type: ignore[misc]
        user_api = internal_api = "fastrnn"
        filename_prefixes = ("_threads.",)
        # Other packages may have modules of this name.
        check_symbols = ("fastrnn_thread_pool",)

        def get_num_threads(self) -> int:
            return config.get_num_threads()

        def set_num_threads(self, num_threads: int) -> None:
            config.set_num_threads(num_threads)

        def get_version(self) -> str:
            return __version__

    threadpoolctl.register(FastrnnController)


class _Finder:
    """Finds threadpoolctl as others do, and registers the controller after its import."""

    def find_spec(self, name: str, path: Any, target: ModuleType | None = None) -> Any:
        """Return the spec of threadpoolctl; None for other modules."""
        if name != _NAME or self not in sys.meta_path:
            return None
        from importlib.util import find_spec

        sys.meta_path.remove(self)
        spec = find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)  # type: ignore[assignment]
        return spec


class _Loader:
    """Loads a module as its own loader does, and registers the controller."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Create the module as its own loader does."""
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Run the module, and register the controller."""
        self._loader.exec_module(module)
        _register(module)
