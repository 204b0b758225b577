"""Registers anomalib_lamp as soon as, and only if, anomalib.models is imported. Runs at every Python start.

Standard library only, imports nothing that Python has not loaded by itself, and never raises.
Set ANOMALIB_LAMP_AUTOLOAD=0 to switch it off.
"""

import os
import sys

HOST = "anomalib.models"


class RegisterAfterImport:
    """Finder that lets everything pass, and wraps the loader of anomalib.models once."""

    @classmethod
    def find_spec(cls, name: str, path: object = None, target: object = None) -> object:  # noqa: ARG003
        """Return None except for the host, whose own spec is returned with registration after its execution."""
        if name != HOST or cls not in sys.meta_path:
            return None
        sys.meta_path.remove(cls)
        from importlib.util import find_spec

        spec = find_spec(name)
        if spec is not None and spec.loader is not None:
            loader = spec.loader
            execute = loader.exec_module

            def execute_and_register(module: object) -> None:
                loader.exec_module = execute
                execute(module)
                register()

            loader.exec_module = execute_and_register
        return spec


def register() -> None:
    """Import anomalib_lamp, which registers itself; a failure is one line on stderr."""
    try:
        import anomalib_lamp  # noqa: F401
    except Exception as error:
        if sys.stderr is not None:
            sys.stderr.write(f"anomalib_lamp was not registered: {type(error).__name__}: {error}\n")


def install() -> None:
    """Wait for the host, unless switched off."""
    if os.environ.get("ANOMALIB_LAMP_AUTOLOAD") != "0" and HOST not in sys.modules:
        sys.meta_path.insert(0, RegisterAfterImport)
