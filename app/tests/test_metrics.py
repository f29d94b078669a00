from __future__ import annotations

from backend.metrics import Metrics


def test_requests_are_counted_by_route_and_status_and_made_up_methods_together() -> None:
    metrics = Metrics("1.2.3")

    metrics.observe("GET", "/api/health", 200, 0.01)
    for method in ("BREW", "STEEP"):
        metrics.observe(method, "unmatched", 405, 0.01)

    text = metrics.render().decode()
    assert 'http_requests_total{method="GET",route="/api/health",status="200"} 1.0' in text
    assert 'http_requests_total{method="other",route="unmatched",status="405"} 2.0' in text
    assert 'backend_build_info{version="1.2.3"} 1.0' in text
    assert "process_resident_memory_bytes" in text
