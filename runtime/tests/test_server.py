"""The service over HTTP: the right answer for each photograph, clear ones for bad requests, and it stays up."""

import base64
import http.client
import io
import json
import re
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from anomalib_lamp_runtime.drift import Drift
from anomalib_lamp_runtime.server import Server
from anomalib_lamp_runtime.service import Service
from fakes import FakeInspector, draw_photograph, score_of, with_size
from PIL import Image

MOST_BYTES = 100_000


@contextmanager
def serving(*inspectors, seconds=5.0, **arguments):
    """Yield a running server with these inspectors."""
    service = Service(inspectors or [FakeInspector()], **{"max_bytes": MOST_BYTES, "max_pixels": 10**6, **arguments})
    server = Server("127.0.0.1", 0, service, seconds)
    server.start()
    try:
        yield server
    finally:
        server.drain()


@pytest.fixture(scope="module")
def server():
    """A server that no test changes."""
    with serving(describe={"model": "fake"}) as running:
        yield running


def png(number, size=(16, 16), kind="PNG"):
    content = io.BytesIO()
    draw_photograph(number, size).save(content, format=kind, lossless=True)
    return content.getvalue()


def ask(server, method, path, body=None, headers=None):
    """Return status, headers and content of an answer."""
    connection = http.client.HTTPConnection(*server.server_address, timeout=10)
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


def inspect(server, body, headers=None):
    """Return status and values of an inspection."""
    status, _, content = ask(server, "POST", "/inspect", body, headers)
    return status, json.loads(content)


def talk(server, *parts, wait=0.0):
    """Send bytes as they are, with a pause after each, and return what comes back until the end."""
    with socket.create_connection(server.server_address, timeout=10) as connection:
        for part in parts:
            connection.sendall(part)
            time.sleep(wait)
        return b"".join(iter(lambda: connection.recv(2**16), b""))


def metric(server, name):
    """Return the value of a metric."""
    content = ask(server, "GET", "/metrics")[2].decode()
    return float(re.search(rf"^anomalib_lamp_{re.escape(name)} (\S+)$", content, flags=re.MULTILINE)[1])


def wait_until(condition, seconds=5):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "WEBP"])
def test_photograph_is_answered_with_its_inspection(kind, server):
    assert inspect(server, png(40000, kind=kind)) == (200, FakeInspector()(draw_photograph(40000)).as_dict())


def test_heat_map_is_a_picture_in_the_answer(server):
    _, _, content = ask(server, "POST", "/inspect?heat_map=1", png(40000, size=(64, 48)))
    kind, data = json.loads(content)["heat_map"].split(",")
    assert kind == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        assert picture.size == (64, 48)


def test_answers_are_never_mixed_up_and_no_inspector_is_used_twice_at_once():
    class Alone(FakeInspector):
        busy = False

        def __call__(self, image):
            assert not self.busy
            self.busy = True
            try:
                return super().__call__(image)
            finally:
                self.busy = False

    inspectors = [Alone(0.002) for _ in range(3)]
    with serving(*inspectors, max_waiting=20) as server, ThreadPoolExecutor(16) as clients:
        answers = list(clients.map(lambda number: inspect(server, png(number)), range(300)))
        assert [status for status, _ in answers] == [200] * 300
        assert [values["score"] for _, values in answers] == [score_of(number) for number in range(300)]
        assert all(inspector.calls for inspector in inspectors)
        assert metric(server, "inspection_seconds_count") == 300


def test_page_loads_nothing_from_elsewhere(server):
    status, headers, content = ask(server, "GET", "/")
    assert status == 200
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert headers["Content-Security-Policy"].startswith("default-src 'none';")
    assert not re.search(rb"https?:|//\w+\.|@import|url\(", content)


def test_health_tells_model_and_photographs():
    with serving(describe={"model": "fake", "threshold": 0.5}) as server:
        inspect(server, png(1))
        values = json.loads(ask(server, "GET", "/health")[2])
        assert values.pop("uptime_seconds") >= 0
        assert values == {"status": "ok", "model": "fake", "threshold": 0.5, "photographs": 1, "drift": None}


def test_metrics_count_requests_photographs_and_time():
    with serving(FakeInspector(0.03)) as server:
        for number in (1, 2, 60000):
            inspect(server, png(number))
        inspect(server, b"none")
        ask(server, "GET", "/../../etc/passwd")
        assert metric(server, 'requests_total{path="/inspect",code="200"}') == 3
        assert metric(server, 'requests_total{path="/inspect",code="422"}') == 1
        assert metric(server, 'requests_total{path="other",code="404"}') == 1
        assert metric(server, 'photographs_total{label="normal"}') == 2
        assert metric(server, 'photographs_total{label="anomalous"}') == 1
        assert metric(server, 'inspection_seconds_bucket{le="0.025"}') == 0
        assert metric(server, 'inspection_seconds_bucket{le="+Inf"}') == 3
        assert metric(server, "inspection_seconds_sum") >= 0.09
        assert metric(server, "photographs_inside") == 0


def test_drift_stands_in_health_and_metrics():
    drift = Drift({"score": [score_of(number) for number in range(50)]}, window=10, rate=0.01)
    with serving(drift=drift) as server:
        for number in range(20):
            assert metric(server, 'drift{quantity="score"}') == 0
            inspect(server, png(5 * number if number < 10 else 30000 + number))
        assert metric(server, 'drift{quantity="score"}') == 1
        assert metric(server, "drift_windows") == 2
        (shift,) = json.loads(ask(server, "GET", "/health")[2])["drift"]
        assert shift["quantity"] == "score"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "got 0 bytes that are none"),
        (b"no photograph", "got 13 bytes that are none"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "that are none"),
        (png(1, size=(99, 99))[:-60], "complete photograph"),
        (with_size(png(1), 50_000), "2500000000 pixels"),
        (png(1, size=(1001, 1000)), "1001 x 1000"),
    ],
    ids=["empty", "text", "PostScript", "truncated", "huge", "above the limit"],
)
def test_what_is_no_photograph_is_told_so(body, words, server):
    status, values = inspect(server, body)
    assert status == 422
    assert words in values["error"]
    assert inspect(server, png(7))[1]["score"] == score_of(7)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/inspect", 405),
        ("POST", "/", 405),
        ("GET", "/page.html", 404),
        ("GET", "/../../etc/passwd", 404),
        ("GET", "/%2e%2e/metadata.json", 404),
        ("POST", "/inspect/../../model.onnx", 404),
        ("DELETE", "/inspect", 501),
    ],
)
def test_other_paths_and_methods_are_refused(method, path, status, server):
    answer = talk(server, f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode()).decode()
    assert answer.startswith(f"HTTP/1.1 {status} ")
    assert ("Allow: " in answer) == (status == 405)
    assert "root:" not in answer


@pytest.mark.parametrize(
    ("lines", "status", "words"),
    [
        ("Content-Length: 100001", 413, "at most 100,000 bytes"),
        ("Content-Length: " + "9" * 5000, 413, "at most 100,000 bytes"),
        ("Content-Length: -5", 400, "length of the body in bytes"),
        ("Content-Length: ٣", 400, "length of the body in bytes"),
        ("Host: x", 411, "Content-Length"),
        ("Content-Length: 5\r\nTransfer-Encoding: chunked", 411, "Content-Length"),
        ("Content-Length: 5\r\nContent-Type: multipart/form-data; boundary=x", 415, "--data-binary"),
        ("Content-Length: 5\r\nSec-Fetch-Site: cross-site", 403, "another site"),
        ("X: " + "y" * 70_000, 431, "long"),
        ("\r\n".join(f"X{number}: y" for number in range(200)), 431, "many headers"),
    ],
)
def test_bad_uploads_are_refused_before_they_are_read(lines, status, words, server):
    answer = talk(server, f"POST /inspect HTTP/1.1\r\n{lines}\r\n\r\n".encode()).decode()
    assert answer.startswith(f"HTTP/1.1 {status} ")
    assert words in json.loads(answer.partition("\r\n\r\n")[2])["error"]


@pytest.mark.parametrize(
    "line", ["", "GET", "\x00\xff", "GET / HTTP/9.9", "GET http://[ HTTP/1.1", "GET " + "x" * 70_000]
)
def test_what_is_no_request_does_not_end_the_service(line, server):
    talk(server, f"{line}\r\n\r\n".encode())
    assert ask(server, "GET", "/health")[0] == 200


def test_oversized_upload_is_answered_although_it_is_sent_to_its_end(server):
    status, values = inspect(server, bytes(400 * MOST_BYTES))
    assert (status, values["error"][:35]) == (413, "Expected a photograph of at most 10")


def test_client_that_asks_first_is_told_to_go_on_or_not_to_send(server):
    body = png(9)
    head = "POST /inspect HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n"
    assert talk(server, head.format(10**9).encode()).startswith(b"HTTP/1.1 413 ")
    answer = talk(server, head.format(len(body)).encode(), body, wait=0.05)
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")


def test_head_has_no_content(server):
    status, headers, content = ask(server, "HEAD", "/health")
    assert (status, content) == (200, b"")
    assert int(headers["Content-Length"]) > 10


def test_failing_inspector_is_told_and_stays_in_use(capsys):
    fake = FakeInspector()

    def fails_at_first(image):
        fake.calls += 1
        return {}[image.size] if fake.calls == 1 else fake(image)

    with serving(fails_at_first) as server:
        status, values = inspect(server, png(1))
        assert (status, values["error"]) == (500, "It failed here: see the log of the service.")
        assert "KeyError" in capsys.readouterr().err
        assert inspect(server, png(2))[1]["score"] == score_of(2)


def test_more_photographs_than_places_are_sent_away_at_once():
    release = threading.Event()

    def slow(image):
        release.wait(10)
        return FakeInspector()(image)

    with serving(slow, max_waiting=2) as server, ThreadPoolExecutor(3) as clients:
        kept = [clients.submit(inspect, server, png(number)) for number in range(3)]
        wait_until(lambda: metric(server, "photographs_inside") == 3)
        status, headers, content = ask(server, "POST", "/inspect", png(3))
        assert (status, headers["Retry-After"]) == (503, "1")
        assert "All 3 places" in json.loads(content)["error"]
        assert ask(server, "GET", "/health")[0] == 200
        release.set()
        assert [answer.result()[1]["score"] for answer in kept] == [score_of(number) for number in range(3)]
        assert inspect(server, png(3))[0] == 200


def test_slow_clients_time_out_and_keep_nobody_waiting():
    body = png(1)
    head = f"POST /inspect HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with serving(seconds=0.3) as server, ThreadPoolExecutor(3) as clients:
        begun = time.monotonic()
        silent = clients.submit(talk, server)
        drop_by_drop = clients.submit(talk, server, *[bytes([byte]) for byte in head[:20]], wait=0.05)
        half = clients.submit(talk, server, head + body[:10])
        assert inspect(server, body)[1]["score"] == score_of(1)
        assert half.result().startswith(b"HTTP/1.1 408 ")
        assert silent.result() == b""
        with pytest.raises(ConnectionError):  # it still sends when it was cut off
            drop_by_drop.result()
        assert time.monotonic() - begun < 3


def test_client_that_leaves_early_leaves_nothing_behind(server):
    before = threading.active_count()
    for _ in range(5):
        with socket.create_connection(server.server_address) as connection:
            connection.sendall(b"POST /inspect HTTP/1.1\r\nContent-Length: 500\r\n\r\n1234")
    assert inspect(server, png(5))[1]["score"] == score_of(5)
    wait_until(lambda: threading.active_count() <= before)
    assert metric(server, "photographs_inside") == 0


def test_connections_beyond_the_limit_are_turned_away(monkeypatch):
    monkeypatch.setattr("anomalib_lamp_runtime.server.SPARE_CONNECTIONS", 2)
    with serving(seconds=0.5, max_waiting=0) as server:
        idle = [socket.create_connection(server.server_address) for _ in range(3)]
        time.sleep(0.1)
        assert talk(server).startswith(b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n")
        for connection in idle:
            connection.close()
        time.sleep(0.1)
        assert ask(server, "GET", "/health")[0] == 200


def test_drain_answers_all_that_has_arrived():
    with ThreadPoolExecutor(8) as clients:
        with serving(FakeInspector(0.1), max_waiting=20) as server:
            answers = [clients.submit(inspect, server, png(number)) for number in range(8)]
            wait_until(lambda: metric(server, "photographs_inside") == 8)
            address = server.server_address
        assert [answer.result()[1]["score"] for answer in answers] == [score_of(number) for number in range(8)]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)


def test_drain_answers_those_that_wait_to_be_taken():
    service = Service([FakeInspector()], max_bytes=MOST_BYTES)
    server, taken, go_on = Server("127.0.0.1", 0, service), threading.Event(), threading.Event()
    process_request = server.process_request

    def wait_at_first(*arguments):
        taken.set()
        go_on.wait(10)
        process_request(*arguments)

    server.process_request = wait_at_first
    server.start()
    with ThreadPoolExecutor(6) as clients:
        answers = [clients.submit(inspect, server, png(number)) for number in range(5)]
        assert taken.wait(5)
        time.sleep(0.1)  # the other four connect
        drained = clients.submit(server.drain)
        time.sleep(0.1)
        go_on.set()
        assert [answer.result()[1]["score"] for answer in answers] == [score_of(number) for number in range(5)]
        drained.result()


@pytest.mark.parametrize(("host", "port"), [("127.0.0.1", None), ("127.0.0.1", 70000), ("256.0.0.1", 0)])
def test_address_that_cannot_be_used_is_named_with_the_remedy(host, port, server):
    port = server.server_address[1] if port is None else port
    with pytest.raises(OSError, match=rf"Expected to listen at {host}, port {port}, got: .*--host and --port"):
        Server(host, port, server.service)


PROCESS = """
from anomalib_lamp_runtime.server import Server
from anomalib_lamp_runtime.service import Service
from anomalib_lamp_runtime.stopping import Stop
from fakes import FakeInspector
stop = Stop().listen()
server = Server("127.0.0.1", 0, Service([FakeInspector(0.5)]))
server.start()
print(server.server_address[1], flush=True)
stop.wait()
server.drain()
print("drained", flush=True)
"""


def test_sigterm_drains(process_of):
    process = process_of(PROCESS)
    running = type("Running", (), {"server_address": ("127.0.0.1", int(process.stdout.readline()))})
    with ThreadPoolExecutor(1) as clients:
        answer = clients.submit(inspect, running, png(3))
        wait_until(lambda: metric(running, "photographs_inside") == 1)
        process.send_signal(signal.SIGTERM)
        assert answer.result()[1]["score"] == score_of(3)
    assert process.communicate(timeout=10)[0] == "drained\n"
    assert process.returncode == 0
