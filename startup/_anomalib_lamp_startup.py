"""Registers anomalib_lamp as soon as, and only if, anomalib.models is imported. Runs at every Python start.

Standard library only, imports nothing that Python has not loaded by itself, and never raises.
Set ANOMALIB_LAMP_AUTOLOAD=0 to switch it off.
"""

import os
import sys

HOST = "anomalib.models"


class RegisterAfterImport:
    """Finder that leaves every import alone, and has the host's loader register us after the host's execution."""

    @classmethod
    def find_spec(cls, name: str, path: object = None, target: object = None) -> object:
        """Return the spec that another finder gives for the host, its loader wrapped; None for all other names."""
        if name != HOST:
            return None
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            spec = find(name, path, target) if find and finder is not cls else None
            if spec is not None:
                wrap(spec.loader)
                return spec
        return None


def wrap(loader: object) -> None:
    """Let the loader register us once it has executed the host without error."""
    try:
        execute = loader.exec_module

        def execute_and_register(module: object) -> None:
            execute(module)
            register()

        loader.exec_module = execute_and_register
    except AttributeError:
        return  # a loader that cannot be wrapped still loads the host


def register() -> None:
    """Import anomalib_lamp, which registers itself; a failure is one line on stderr."""
    try:
        import anomalib_lamp  # noqa: F401
    except Exception as error:
        if sys.stderr is not None:
            sys.stderr.write(f"anomalib_lamp was not registered: {type(error).__name__}: {error}\n")


def install() -> None:
    """Wait for the host, unless switched off. In virtual environments Python calls this twice."""
    if os.environ.get("ANOMALIB_LAMP_AUTOLOAD") != "0" and RegisterAfterImport not in sys.meta_path:
        sys.meta_path.insert(0, RegisterAfterImport)
