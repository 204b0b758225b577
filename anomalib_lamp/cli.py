"""The command `anomalib-lamp`: anomalib's command line with our classes registered, whatever the start-up hook does."""

import anomalib_lamp  # noqa: F401  registers


def main() -> None:
    """Run anomalib's command line; `anomalib-lamp train --model LampAE --data MVTec` is the main use."""
    from anomalib.cli.cli import main as anomalib_main

    anomalib_main()
