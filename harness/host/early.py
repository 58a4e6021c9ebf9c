"""What is done before anything else is imported; imports nothing itself that takes long.

Ctrl-C while we are being imported ends the process at once, without a traceback: the module
`signal` takes some milliseconds. Nothing has been begun by then that would have to be ended.

What modules of the standard library import, and use for few, is loaded when it is used.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # in C, and in no stub
import sys
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader

# By dataclasses for classes without a docstring, and with eight modules more; by urllib.parse for
# addresses in brackets. They take a quarter of all instructions of `--help`.
_SELDOM = ("inspect", "ipaddress")

_before = _signal.getsignal(_signal.SIGINT)
_ours = _before is _signal.default_int_handler


class _Seldom:
    """Finds them as Python does, with the library's loader for what is to be loaded late."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name) if name in _SELDOM else None
        if spec is not None and spec.loader is not None:
            spec.loader = LazyLoader(spec.loader)
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
