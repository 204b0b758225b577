"""`python -m anomalib_lamp` is the command `anomalib-lamp`."""

from anomalib_lamp.cli import main

main()
