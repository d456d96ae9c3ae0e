"""Refuses to be imported in a subinterpreter: the package imports this file first, before any compiled module.

The compiled modules have one set of types and constants for the whole process, and objects of one interpreter must not come
into another. CPython refuses such modules only where a subinterpreter has a GIL of its own; Cython ties them to whichever
interpreter came first, so one that lives for a moment would keep the main one from ever importing them.
"""

import _thread

__all__ = ["is_main"]


def is_main() -> bool:
    """Whether the calling code runs in the main interpreter of the process."""
    ask = getattr(_thread, "_is_main_interpreter", None)
    return _is_main_on_311() if ask is None else bool(ask())


def _is_main_on_311() -> bool:  # pragma: no cover (CPython 3.11)
    try:
        import _xxsubinterpreters as interpreters  # type: ignore[import-not-found]  # pyright: ignore[reportMissingImports]
    except ImportError:  # then nobody makes any by Python code
        return True
    return bool(interpreters.get_current() == interpreters.get_main())


if not is_main():  # pragma: no cover (coverage would start in the subinterpreter)
    raise ImportError(
        "fastcache works in the main interpreter of a process only, not in a subinterpreter"
        " (under mod_wsgi: WSGIApplicationGroup %{GLOBAL})"
    )
