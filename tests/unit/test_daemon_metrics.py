"""What GET /metrics says."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from wasisup.supervisor.daemon.metrics import MAX_POLICIES, OTHER, Metrics

SECOND = 10**9


def samples(metrics: Metrics) -> dict[tuple[str, tuple[str, ...]], float]:
    """By name and values of the labels, in the order of their names."""
    body, content_type = metrics.render()
    assert content_type.startswith("text/plain; version=")
    found = {}
    for family in text_string_to_metric_families(body.decode()):
        for sample in family.samples:
            values = tuple(value for _, value in sorted(sample.labels.items()))
            found[sample.name, values] = sample.value
    return found


def test_a_run() -> None:
    """Counted by policy and reason, with what it used."""
    metrics = Metrics()
    for _ in range(2):
        metrics.queued(SECOND // 2)
        metrics.ended("exit", "pure", wall_ns=SECOND, cpu_ns=SECOND // 4, output=10)
    got = samples(metrics)
    assert got["wasisup_runs_total", ("pure", "exit")] == 2
    assert got["wasisup_run_seconds_sum", ()] == 2
    assert got["wasisup_run_seconds_bucket", ("1.0",)] == 2
    assert got["wasisup_run_seconds_bucket", ("0.5",)] == 0
    assert got["wasisup_run_cpu_seconds_total", ()] == 0.5
    assert got["wasisup_output_bytes_total", ()] == 20
    assert got["wasisup_queue_seconds_count", ()] == 2


def test_everything_else() -> None:
    """Counters by label, figures that are asked for, and the process itself."""
    metrics = Metrics()
    metrics.watch(running=lambda: 3, queued=lambda: 4, memory_promised=lambda: 5)
    metrics.refused("full")
    metrics.answered("/v1/runs/{id}", "GET", 404)
    metrics.compiled("ok")
    metrics.zygote_restarts.inc()
    got = samples(metrics)
    assert got["wasisup_runs_running", ()] == 3
    assert got["wasisup_runs_queued", ()] == 4
    assert got["wasisup_memory_promised_bytes", ()] == 5
    assert got["wasisup_refused_total", ("full",)] == 1
    assert got["wasisup_http_requests_total", ("GET", "/v1/runs/{id}", "404")] == 1
    assert got["wasisup_compiles_total", ("ok",)] == 1
    assert got["wasisup_zygote_restarts_total", ()] == 1
    assert got["process_open_fds", ()] > 0
    assert not [name for name, _ in got if name.endswith("_created")]


def test_callers_cannot_make_series() -> None:
    """Methods are of a fixed list, and policies beyond a bound are one."""
    metrics = Metrics()
    for number in range(1000):
        metrics.answered("/", f"X{number}", 400)
        metrics.ended("exit", f"p{number}")
    got = samples(metrics)
    requests = [key for key in got if key[0] == "wasisup_http_requests_total"]
    assert requests == [("wasisup_http_requests_total", (OTHER, "/", "400"))]
    runs = {values[0]: n for (name, values), n in got.items() if name == "wasisup_runs_total"}
    assert len(runs) == MAX_POLICIES + 1
    assert runs[OTHER] == 1000 - MAX_POLICIES
