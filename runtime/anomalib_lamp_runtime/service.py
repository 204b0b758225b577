"""What the service answers to a request; without sockets, see `server.py`."""

import base64
import io
import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from http import HTTPStatus
from importlib.resources import files
from typing import Any

from PIL import Image

from anomalib_lamp_runtime.drift import Drift
from anomalib_lamp_runtime.errors import InspectionError
from anomalib_lamp_runtime.inspection import Inspection
from anomalib_lamp_runtime.metrics import Metrics
from anomalib_lamp_runtime.photographs import FORMATS, MAX_PIXELS, read_photograph
from anomalib_lamp_runtime.queueing import FairPool

PICTURE_SIDE = 1600  # longest side, in pixels, of the heat map in an answer


@dataclass(frozen=True)
class Answer:
    """Status, content and headers of an HTTP response."""

    status: int
    content: bytes
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


class Refusal(Exception):  # noqa: N818  it is an answer, not a fault
    """A request that gets an error: its status, a text with the remedy, and headers."""

    def __init__(self, status: int, text: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(text)
        self.status, self.headers = status, dict(headers or {})

    def answer(self) -> Answer:
        """Return the response."""
        return _json(self.status, {"error": str(self)}, self.headers)


class Service:
    """Inspects photographs, one at a time with each inspector; more may wait, up to a limit.

    It can be called from any number of threads. An inspector is never used by two of them at once, and its result is
    returned by the call that gave the photograph.

    Args:
        inspectors: One for each photograph that may be inspected at the same time.
        drift: Is told of every inspected photograph; ``None`` for no watch over drift.
        max_waiting: Photographs that may wait for an inspector.
        max_bytes: Longest body of a request.
        max_pixels: Most pixels of a photograph.
        describe: What ``/health`` says of the model.
    """

    def __init__(
        self,
        inspectors: Sequence[Callable[[Image.Image], Inspection]],
        drift: Drift | None = None,
        max_waiting: int = 16,
        max_bytes: int = 32 * 2**20,
        max_pixels: int = MAX_PIXELS,
        describe: Mapping[str, Any] | None = None,
    ) -> None:
        self.max_bytes, self.max_pixels, self.describe = max_bytes, max_pixels, dict(describe or {})
        self.places = len(inspectors) + max_waiting
        self.metrics = Metrics()
        self._inspectors = FairPool(inspectors)
        self._inside, self._inside_lock = 0, threading.Lock()
        self._drift, self._drift_lock = drift, threading.Lock()
        self._begun = time.monotonic()
        page = files("anomalib_lamp_runtime").joinpath("page.html").read_text(encoding="utf-8")
        self._page = Answer(
            HTTPStatus.OK, page.encode(), "text/html; charset=utf-8", {"Content-Security-Policy": policy(page)}
        )

    @contextmanager
    def place(self) -> Iterator[None]:
        """Take one of the places for photographs, before the body is read, so that memory is bounded.

        Raises:
            Refusal: 503 if all are taken.
        """
        with self._inside_lock:
            if self._inside == self.places:
                msg = f"All {self.places} places for photographs are taken: send it again in a second."
                raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, msg, {"Retry-After": "1"})
            self._inside += 1
        try:
            yield
        finally:
            with self._inside_lock:
                self._inside -= 1

    def inspect(self, body: bytes, heat_map: bool = False) -> Answer:
        """Inspect a photograph, which should have a place.

        Args:
            body: Content of an image file.
            heat_map: Whether the answer holds a picture of the photograph and its map, as a ``data:`` address.

        Raises:
            Refusal: 422 if it is no photograph that can be inspected.
        """
        try:
            with self._inspectors.borrow() as inspector:
                begun = time.perf_counter()
                image = self._read(body)
                inspection = inspector(image)
                self.metrics.count_inspection(inspection.anomalous, time.perf_counter() - begun)
                values = inspection.as_dict()
                if heat_map:
                    values["heat_map"] = _as_address(inspection.heat_map(image))
        except InspectionError as error:
            raise Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from error
        if self._drift:
            with self._drift_lock:
                self._drift.add(values)
        return _json(HTTPStatus.OK, values)

    def page(self) -> Answer:
        """Return the page."""
        return self._page

    def health(self) -> Answer:
        """Return what is known of the model and of drift."""
        values = {
            "status": "ok",
            **self.describe,
            "uptime_seconds": round(time.monotonic() - self._begun, 1),
            "photographs": self.metrics.photographs,
            "drift": [shift.as_dict() for shift in self._drift.shifts] if self._drift else None,
        }
        return _json(HTTPStatus.OK, values)

    def render_metrics(self) -> Answer:
        """Return the metrics as Prometheus reads them."""
        gauges: dict[str, list[tuple[dict[str, str], float]]] = {"photographs_inside": [({}, self._inside)]}
        if self._drift:
            moved = {shift.quantity for shift in self._drift.shifts}
            gauges["drift_windows"] = [({}, self._drift.windows)]
            gauges["drift"] = [({"quantity": name}, int(name in moved)) for name in self._drift.quantities]
        return Answer(HTTPStatus.OK, self.metrics.render(gauges).encode(), "text/plain; version=0.0.4; charset=utf-8")

    def _read(self, body: bytes) -> Image.Image:
        try:
            image = Image.open(io.BytesIO(body), formats=FORMATS)
        except Image.DecompressionBombError as error:
            msg = f"Expected a photograph of at most {self.max_pixels:,} pixels: make it smaller. ({error})"
            raise InspectionError(msg) from error
        except Exception as error:  # Pillow's decoders raise errors of many types
            msg = (
                f"Expected a photograph (BMP, JPEG, PNG, PPM, TIFF or WebP), got {len(body):,} bytes that are none "
                f"({type(error).__name__}): send the content of the file itself."
            )
            raise InspectionError(msg) from error
        with image:
            return read_photograph(image, self.max_pixels)


def policy(page: str) -> str:
    """Return the content security policy of the page: only its own style and script, no other resources.

    Example:
        >>> policy("<style>p {}</style>")[:60]
        "default-src 'none'; base-uri 'none'; form-action 'none'; fra"
    """
    rules = ["default-src 'none'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"]
    rules += ["connect-src 'self'", "img-src blob: data:"]
    for tag in ("style", "script"):
        for text in re.findall(f"<{tag}>(.*?)</{tag}>", page, flags=re.DOTALL):
            digest = base64.b64encode(sha256(text.encode()).digest()).decode()
            rules.append(f"{tag}-src 'sha256-{digest}'")
    return "; ".join(rules)


def _as_address(picture: Image.Image) -> str:
    """Return a picture as a ``data:`` address, made smaller if it is large."""
    picture.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    content = io.BytesIO()
    picture.save(content, format="JPEG", quality=90)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"


def _json(status: int, values: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Answer:
    return Answer(status, json.dumps(values).encode() + b"\n", headers=dict(headers or {}))
