"""Inspect photographs over HTTP.

POST /inspect with the content of an image file as body answers with JSON; / is a page to drop a photograph on, /health
and /metrics (Prometheus) are for whoever runs it. It has no passwords and no encryption: beyond this machine put it
behind a proxy that has. It does not begin unless the model predicts its golden samples as before the export. SIGTERM or
Ctrl-C ends it after the requests that have arrived.
"""

import argparse
import os
import sys

from anomalib_lamp_runtime import __version__
from anomalib_lamp_runtime.arguments import (
    add_drift_arguments,
    add_inspector_arguments,
    count,
    make_inspector,
)
from anomalib_lamp_runtime.server import Server
from anomalib_lamp_runtime.service import Service
from anomalib_lamp_runtime.starting import make_checked_inspector, make_drift
from anomalib_lamp_runtime.stopping import Stop

PORT = 8000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add_inspector_arguments(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at; default: this machine only")
    parser.add_argument("--port", type=int, default=PORT, help=f"default: {PORT}; 0 for any that is free")
    parser.add_argument("--workers", type=count, default=2, metavar="N", help="inspections at a time; default: 2")
    parser.add_argument("--waiting", type=count, default=16, metavar="N", help="photographs that may wait; default: 16")
    parser.add_argument("--max-megabytes", type=count, default=32, metavar="N", help="of an upload; default: 32")
    parser.add_argument("--max-megapixels", type=count, default=25, metavar="N", help="of a photograph; default: 25")
    add_drift_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal; return 0, or 2 if it cannot listen."""
    arguments.threads = arguments.threads or max(1, (os.cpu_count() or 1) // arguments.workers)
    inspectors = [make_checked_inspector(arguments), *(make_inspector(arguments) for _ in range(arguments.workers - 1))]
    export, max_pixels = inspectors[0].export, arguments.max_megapixels * 10**6
    for inspector in inspectors:
        inspector.max_pixels = max_pixels
    service = Service(
        inspectors,
        make_drift(inspectors[0], arguments),
        max_waiting=arguments.waiting,
        max_bytes=arguments.max_megabytes * 2**20,
        max_pixels=max_pixels,
        describe={
            "model": export.metadata.get("model"),
            "threshold": inspectors[0].threshold,
            "backend": arguments.backend,
            "version": __version__,
        },
    )
    try:
        server = Server(arguments.host, arguments.port, service)
    except OSError as error:
        print(error, file=sys.stderr)
        return 2
    host, port = map(str, server.server_address[:2])
    stop = Stop().listen()
    server.start()
    print(f"Serving http://{f'[{host}]' if ':' in host else host}:{port}/", flush=True)
    stop.wait()
    print("Stopping after the requests that have arrived.", file=sys.stderr, flush=True)
    server.drain()
    return 0
