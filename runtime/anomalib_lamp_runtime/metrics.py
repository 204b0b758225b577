"""Counts of the service, in the text format of Prometheus."""

import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # upper ends of the histogram's buckets


class Metrics:
    """Counts requests, photographs and the time of inspections; safe in several threads.

    Example:
        >>> metrics = Metrics()
        >>> metrics.count_request("/inspect", 200)
        >>> metrics.count_inspection(anomalous=False, seconds=0.02)
        >>> print(metrics.render({"waiting": [({}, 0)]}))  # doctest: +ELLIPSIS
        # TYPE anomalib_lamp_requests_total counter
        anomalib_lamp_requests_total{path="/inspect",code="200"} 1
        ...
        anomalib_lamp_waiting 0
        <BLANKLINE>
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, int]] = Counter()
        self._photographs: Counter[str] = Counter({"normal": 0, "anomalous": 0})
        self._buckets = [0] * len(SECONDS)
        self._seconds = 0.0

    @property
    def photographs(self) -> int:
        """Number of photographs that were inspected."""
        with self._lock:
            return self._photographs.total()

    def count_request(self, path: str, code: int) -> None:
        """Count an answer.

        Args:
            path: A path of the service, or a word for all others: what clients make up must not become a label.
            code: HTTP status.
        """
        with self._lock:
            self._requests[path, code] += 1

    def count_inspection(self, anomalous: bool, seconds: float) -> None:
        """Count an inspected photograph and the time that it took."""
        with self._lock:
            self._photographs["anomalous" if anomalous else "normal"] += 1
            self._seconds += seconds
            for bucket, end in enumerate(SECONDS):
                self._buckets[bucket] += seconds <= end

    def render(self, gauges: Mapping[str, Iterable[tuple[Mapping[str, str], float]]]) -> str:
        """Return all counts as Prometheus reads them.

        Args:
            gauges: Values as they are now, with their labels, by name.
        """
        return "\n".join([*self._counters(), *_gauges(gauges), ""])

    def _counters(self) -> Iterator[str]:
        with self._lock:
            yield "# TYPE anomalib_lamp_requests_total counter"
            for (path, code), number in sorted(self._requests.items()):
                yield _line("requests_total", {"path": path, "code": str(code)}, number)
            yield "# TYPE anomalib_lamp_photographs_total counter"
            for label, number in self._photographs.items():
                yield _line("photographs_total", {"label": label}, number)
            yield "# TYPE anomalib_lamp_inspection_seconds histogram"
            for end, number in zip(SECONDS, self._buckets, strict=True):
                yield _line("inspection_seconds_bucket", {"le": str(end)}, number)
            total = self._photographs.total()
            yield _line("inspection_seconds_bucket", {"le": "+Inf"}, total)
            yield _line("inspection_seconds_sum", {}, round(self._seconds, 6))
            yield _line("inspection_seconds_count", {}, total)


def _gauges(gauges: Mapping[str, Iterable[tuple[Mapping[str, str], float]]]) -> Iterator[str]:
    for name, values in gauges.items():
        yield f"# TYPE anomalib_lamp_{name} gauge"
        for labels, value in values:
            yield _line(name, labels, value)


def _line(name: str, labels: Mapping[str, str], value: float) -> str:
    pairs = ",".join(f'{label}="{text}"' for label, text in labels.items())
    return f"anomalib_lamp_{name}{{{pairs}}} {value}" if pairs else f"anomalib_lamp_{name} {value}"
