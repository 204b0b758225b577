"""`python -m anomalib_lamp_runtime` is the command `anomalib-lamp-runtime`."""

from anomalib_lamp_runtime.cli import main

if __name__ == "__main__":
    main()
