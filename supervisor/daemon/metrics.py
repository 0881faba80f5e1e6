"""What Prometheus scrapes: GET /metrics.

Everything that is counted for each run has its child kept, so that counting is an addition.  Labels
are names of fixed lists, and policies, which only files of the administrator can name; should those
be very many, the rest of them are counted as one.
"""

from collections.abc import Callable

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

MAX_POLICIES = 100
OTHER = "_other"

_METHODS = ("GET", "HEAD", "POST", "DELETE", "PUT", "PATCH", "OPTIONS")
_SECOND = 1e9
# From a cached hello world to runs of the shipped `service` policy.
_RUN_BUCKETS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600)
_QUEUE_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60)


class Metrics:
    """The daemon's figures, in a registry of its own.

    output_bytes, zygote_restarts, run_cpu_seconds: counters to `inc`.
    """

    def __init__(self) -> None:
        # A series more for each counter, and of no use: nothing here starts later than the daemon.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library's
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"wasisup_{name}", text, labels, registry=registry)

        self._runs = counter("runs", "Runs that have ended.", "reason", "policy")
        self._refused = counter("refused", "Runs that were not admitted.", "code")
        self._requests = counter(
            "http_requests", "Answers to HTTP requests.", "route", "method", "status"
        )
        self._compiles = counter("compiles", "Modules that were compiled.", "result")
        self.run_cpu_seconds = counter("run_cpu_seconds", "Processor time of runs that have ended.")
        self.zygote_restarts = counter("zygote_restarts", "Zygotes that were replaced.")
        self.output_bytes = counter("output_bytes", "Bytes that runs wrote to stdout and stderr.")
        self._run_seconds = Histogram(
            "wasisup_run_seconds", "Length of runs.", buckets=_RUN_BUCKETS, registry=registry
        )
        self._queue_seconds = Histogram(
            "wasisup_queue_seconds", "Wait for a place.", buckets=_QUEUE_BUCKETS, registry=registry
        )
        self._children: dict[tuple[Counter | str, ...], Counter] = {}
        self._policies: set[str] = set()

    def watch(
        self,
        *,
        running: Callable[[], float],
        queued: Callable[[], float],
        memory_promised: Callable[[], float],
    ) -> None:
        """Has figures that somebody else keeps asked for at each scrape.  To be called once."""
        for name, text, figure in (
            ("runs_running", "Runs that are alive.", running),
            ("runs_queued", "Runs that wait for a place.", queued),
            ("memory_promised_bytes", "Memory that runs may use.", memory_promised),
        ):
            Gauge(f"wasisup_{name}", text, registry=self.registry).set_function(figure)

    def queued(self, wait_ns: int) -> None:
        """Counts a run that got its place after `wait_ns`."""
        self._queue_seconds.observe(wait_ns / _SECOND)

    def ended(
        self, reason: str, policy: str, *, wall_ns: int = 0, cpu_ns: int = 0, output: int = 0
    ) -> None:
        """Counts a run that has ended.  reason: of `model.REASONS`.  output: bytes."""
        self._child(self._runs, reason, self._bounded(policy)).inc()
        self._run_seconds.observe(wall_ns / _SECOND)
        self.run_cpu_seconds.inc(cpu_ns / _SECOND)
        self.output_bytes.inc(output)

    def refused(self, code: str) -> None:
        """Counts a run that was not admitted.  code: of wire.Error."""
        self._child(self._refused, code).inc()

    def answered(self, route: str, method: str, status: int) -> None:
        """Counts an answer.  route: its pattern ("/v1/runs/{id}"), not what was asked for."""
        known = method if method in _METHODS else OTHER
        self._child(self._requests, route, known, str(status)).inc()

    def compiled(self, result: str) -> None:
        """Counts a compile: "ok", "invalid" or "failed"."""
        self._child(self._compiles, result).inc()

    def render(self) -> tuple[bytes, str]:
        """The body of an answer to a scrape, and its content type."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST

    def _child(self, metric: Counter, *labels: str) -> Counter:
        key: tuple[Counter | str, ...] = (metric, *labels)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = metric.labels(*labels)
        return child

    def _bounded(self, policy: str) -> str:
        if policy not in self._policies:
            if len(self._policies) >= MAX_POLICIES:
                return OTHER
            self._policies.add(policy)
        return policy
