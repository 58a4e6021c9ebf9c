"""What is done before anything else is imported; imports nothing itself that takes long.

Ctrl-C while we are being imported ends the process at once, without a traceback: the module
`signal` takes some milliseconds. Nothing has been begun by then that would have to be ended.

What modules of the standard library import, and use for few, is loaded when it is used.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # in C, and in no stub
import _thread
import sys
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

TYPE_CHECKING = False  # typing is not imported yet
if TYPE_CHECKING:
    from importlib.abc import Loader

# By dataclasses for classes without a docstring, and with eight modules more; by urllib.parse for
# addresses in brackets. They take a quarter of all instructions of `--help`.
_SELDOM = ("inspect", "ipaddress")

_before = _signal.getsignal(_signal.SIGINT)
_ours = _before is _signal.default_int_handler


class _Late:
    """Loads a module when something is asked of it: as importlib.util.LazyLoader, but for the one
    thing that dataclasses of Python 3.12 and 3.13 ask of `inspect` for every class.
    """

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        known, loading = vars(module), _thread.RLock()
        known["__loader__"] = known["__spec__"].loader = self._loader

        def asked(name: str) -> object:
            with loading:
                if "__getattr__" in known:
                    self._loader.exec_module(module)
                    del known["__getattr__"]
            return getattr(module, name)

        def get_annotations(of: object, **how: object) -> object:
            if isinstance(of, type) and not how:
                return dict(vars(of).get("__annotations__", ()))
            asked("__dict__")
            return known["get_annotations"](of, **how)

        known["__getattr__"] = asked  # PEP 562
        if module.__name__ == "inspect" and sys.version_info < (3, 14):
            known["get_annotations"] = get_annotations


class _Seldom:
    """Finds them as Python does, with a loader for what is to be loaded late."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name) if name in _SELDOM else None
        if spec is not None and spec.loader is not None:
            spec.loader = _Late(spec.loader)  # type: ignore[assignment]  # all that it has to be
        return spec


def _set(handler: object) -> None:
    try:  # noqa: SIM105 # contextlib is not imported yet
        _signal.signal(_signal.SIGINT, handler)
    except ValueError:
        pass  # imported by a thread: signals are the main one's


if _ours:
    _set(_signal.SIG_DFL)
sys.meta_path.insert(0, _Seldom)


def over() -> None:
    """Puts back what was there: all is imported."""
    if _ours and _signal.getsignal(_signal.SIGINT) == _signal.SIG_DFL:
        _set(_before)
    if _Seldom in sys.meta_path:  # a program is a module of its own: what it imports may import it
        sys.meta_path.remove(_Seldom)
