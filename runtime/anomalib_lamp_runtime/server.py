"""The service over HTTP: limits on connections, bodies and time, and a stop that finishes what was begun."""

import io
import socket
import socketserver
import threading
import time
import traceback
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler

from anomalib_lamp_runtime.service import Answer, Refusal, Service

SECONDS = 15.0  # for a request to arrive, and for its answer to be taken
SPARE_CONNECTIONS = 32  # beside those with photographs: for the page, health and metrics
DISCARD_SECONDS = 2.0  # for a body that was refused
MOST_DIGITS = 15  # of a length
METHODS = {"/": ("GET", "HEAD"), "/inspect": ("POST",), "/health": ("GET", "HEAD"), "/metrics": ("GET", "HEAD")}
FIXED_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Connection": "close"}


class Server(socketserver.ThreadingTCPServer):
    """Answers each connection, which brings one request, in a thread of its own.

    Args:
        host: Address to listen at; other machines reach it only if it is not ``127.0.0.1``.
        port: Port; 0 for any that is free, see ``server_address``.
        service: Makes the answers.
        seconds: Time from a connection to the last byte of its request, and again for its answer to be taken.

    Raises:
        OSError: If it cannot listen there; the message says what to do.

    Example:
        >>> server = Server("127.0.0.1", 0, Service([]))
        >>> server.start()
        >>> server.drain()
    """

    request_queue_size = 128
    timeout = 0  # of handle_request

    def __init__(self, host: str, port: int, service: Service, seconds: float = SECONDS) -> None:
        self.service, self.seconds = service, seconds
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.allow_reuse_address = hasattr(socket, "AF_UNIX")  # elsewhere it would let two servers have one port
        self._connections = threading.Semaphore(service.places + SPARE_CONNECTIONS)
        self._waiting = False
        try:
            super().__init__((host, port), Handler)
        except (OSError, OverflowError) as error:
            msg = f"Expected to listen at {host}, port {port}, got: {error}. Choose another with --host and --port."
            raise OSError(msg) from error

    def start(self) -> None:
        """Begin to answer, in a thread."""
        threading.Thread(target=self.serve_forever, args=(0.1,), name="accept").start()

    def drain(self) -> None:
        """Take no more connections, answer those that were made, and return when all are done."""
        self.shutdown()
        self._waiting = True
        while self._waiting:
            self.handle_request()
        self.server_close()

    def handle_timeout(self) -> None:
        """Note that no connection waits."""
        self._waiting = False

    def process_request(self, request: socket.socket, client_address: tuple) -> None:  # type: ignore[override]
        """Start a thread for a connection, or turn it away if there are too many."""
        if not self._connections.acquire(blocking=False):
            self._turn_away(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._connections.release()
            raise

    def process_request_thread(self, request: socket.socket, client_address: tuple) -> None:  # type: ignore[override]
        """Answer a connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._connections.release()

    def _turn_away(self, request: socket.socket) -> None:
        self.service.metrics.count_request("turned away", HTTPStatus.SERVICE_UNAVAILABLE)
        with suppress(OSError):
            request.settimeout(0.1)
            request.sendall(b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\n\r\n")
        self.shutdown_request(request)


class Handler(BaseHTTPRequestHandler):
    """Reads one request and writes its answer."""

    server: Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "anomalib-lamp-runtime", ""

    def setup(self) -> None:
        """Read with a deadline."""
        super().setup()
        self.rfile.close()
        self.rfile = io.BufferedReader(_Arriving(self.connection, self.server.seconds))  # type: ignore[type-var]
        self._has_arrived = False

    def handle(self) -> None:
        """Answer one request; a client that has gone is no error."""
        with suppress(ConnectionError):
            self.handle_one_request()

    def do_GET(self) -> None:
        """Answer, whatever comes of it."""
        try:
            answer = self._make_answer()
        except Refusal as refusal:
            answer = refusal.answer()
        except (ConnectionError, TimeoutError):  # there is nobody to answer
            raise
        except Exception:  # the service stays up
            traceback.print_exc()
            answer = Refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "It failed here: see the log of the service.").answer()
        self._send(answer)

    do_HEAD = do_POST = do_GET  # noqa: N815

    def handle_expect_100(self) -> bool:
        """Do not ask for the body yet: it may be refused."""
        return True

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002
        """Answer a request that the base class refuses."""
        status = HTTPStatus(code)
        self._send(Refusal(status, message or status.phrase).answer())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Write no log of requests: they are counted in the metrics."""

    def _make_answer(self) -> Answer:
        path, _, query = self.path.partition("?")
        if path not in METHODS:
            raise Refusal(HTTPStatus.NOT_FOUND, f"Expected one of the paths {', '.join(METHODS)}; got another one.")
        if self.command not in METHODS[path]:
            allowed = ", ".join(METHODS[path])
            msg = f"Expected the method {allowed} for {path}, got {self.command}."
            raise Refusal(HTTPStatus.METHOD_NOT_ALLOWED, msg, {"Allow": allowed})
        service = self.server.service
        if path == "/inspect":
            length = self._check_upload()
            with service.place():
                return service.inspect(self._read_body(length), heat_map=query == "heat_map=1")
        return {"/": service.page, "/health": service.health, "/metrics": service.render_metrics}[path]()

    def _check_upload(self) -> int:
        """Return the length of the body.

        Raises:
            Refusal: If it is none that is read.
        """
        most = self.server.service.max_bytes
        length = self.headers.get("Content-Length", "")
        if self.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
            raise Refusal(
                HTTPStatus.FORBIDDEN, "Expected a request of the service's own page, got one of another site."
            )
        if self.headers.get_content_maintype() == "multipart":
            msg = "Expected the content of one image file as body, got a form: curl --data-binary @part.png ADDRESS"
            raise Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, msg)
        if not length or "Transfer-Encoding" in self.headers:
            raise Refusal(HTTPStatus.LENGTH_REQUIRED, "Expected the header Content-Length and a body of that length.")
        if not (length.isascii() and length.isdigit()):
            raise Refusal(HTTPStatus.BAD_REQUEST, "Expected the length of the body in bytes as Content-Length.")
        if len(length) > MOST_DIGITS or int(length) > most:
            msg = f"Expected a photograph of at most {most:,} bytes: send a smaller one, or raise --max-megabytes."
            raise Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, msg)
        return int(length)

    def _read_body(self, length: int) -> bytes:
        if self.headers.get("Expect", "").lower() == "100-continue":
            super().handle_expect_100()
        try:
            body = self.rfile.read(length)
        except TimeoutError:
            msg = f"Expected the whole body within {self.server.seconds:g} seconds: send it faster or make it smaller."
            raise Refusal(HTTPStatus.REQUEST_TIMEOUT, msg) from None
        if len(body) < length:
            raise Refusal(HTTPStatus.BAD_REQUEST, f"Expected a body of {length:,} bytes, it ended after {len(body):,}.")
        self._has_arrived = True
        return body

    def _send(self, answer: Answer) -> None:
        path = getattr(self, "path", "").partition("?")[0]
        self.server.service.metrics.count_request(path if path in METHODS else "other", answer.status)
        self.connection.settimeout(self.server.seconds)
        self.send_response(answer.status)
        lines = {"Content-Type": answer.content_type, "Content-Length": str(len(answer.content)), **answer.headers}
        for name, value in {**lines, **FIXED_HEADERS}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.content)
        if answer.status >= HTTPStatus.BAD_REQUEST and not self._has_arrived:
            self._discard()

    def _discard(self) -> None:
        """Take what the client still sends, for a short time, so that it reads the answer and is not cut off."""
        end = time.monotonic() + DISCARD_SECONDS
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            while (left := end - time.monotonic()) > 0:
                self.connection.settimeout(left)
                if not self.connection.recv(2**16):
                    return


class _Arriving(io.RawIOBase):
    """What arrives at a socket until a deadline, after which reading raises TimeoutError."""

    def __init__(self, connection: socket.socket, seconds: float) -> None:
        self._connection, self._deadline = connection, time.monotonic() + seconds

    def readable(self) -> bool:
        """Return that it can be read."""
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        """Read what is there, or wait for it."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)
        return self._connection.recv_into(buffer)
