"""What the webhook counts, as Prometheus reads it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from credspec.kubernetes.webhook.metrics import WebhookMetrics

SECONDS = st.floats(0, 20) | st.sampled_from([0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0])


@given(st.lists(SECONDS, min_size=1, max_size=30))
def test_each_bucket_counts_all_reviews_that_took_no_longer(seconds: list[float]) -> None:
    metrics = WebhookMetrics()
    for each in seconds:
        metrics.answered("mutate", "", each)
    text = metrics.text().decode()
    samples = [
        sample for family in text_string_to_metric_families(text) for sample in family.samples
    ]
    buckets = {
        float(each.labels["le"]): each.value for each in samples if each.name.endswith("_bucket")
    }
    assert list(buckets) == sorted(buckets)
    assert buckets == {bound: sum(one <= bound for one in seconds) for bound in buckets}
    values = {each.name: each.value for each in samples}
    assert values["credspec_webhook_reviews_total"] == len(seconds)
    assert values["credspec_webhook_certificate_end_seconds"] == 0, "nothing is served yet"
