"""Metrics as Prometheus' own library reads them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from credspec.metrics_text import Histogram, Metric, Sample, counter, gauge, metrics_text


def read(content: bytes) -> dict[str, list[tuple[str, dict[str, str], float]]]:
    return {
        family.name: [(each.name, each.labels, each.value) for each in family.samples]
        for family in text_string_to_metric_families(content.decode())
    }


def test_the_text() -> None:
    labels = {"domain": "contoso.com", "controller": 'a"b\\c\nd'}
    metrics = [gauge("a", "An a.", 5), counter("b", "Some b.", 0.25)]
    metrics.append(Metric("c", "gauge", "A c.", [Sample(True, labels)]))
    assert metrics_text(metrics).decode() == (
        "# HELP a An a.\n# TYPE a gauge\na 5.0\n"
        "# HELP b_total Some b.\n# TYPE b_total counter\nb_total 0.25\n"
        "# HELP c A c.\n# TYPE c gauge\n"
        'c{controller="a\\"b\\\\c\\nd",domain="contoso.com"} 1.0\n'
    )
    assert metrics_text([]) == b""


def test_a_histogram() -> None:
    """Buckets have their bound, and all that is below it."""
    histogram = Histogram("source", (0.01, 0.1))
    for seconds in (0.005, 0.01, 0.05, 3.0):
        histogram.observe("domain", seconds)
    text = metrics_text([Metric("s", "histogram", "Seconds.", histogram.samples())])
    named = {"source": "domain"}
    assert read(text)["s"] == [
        ("s_bucket", {**named, "le": "0.01"}, 2.0),
        ("s_bucket", {**named, "le": "0.1"}, 3.0),
        ("s_bucket", {**named, "le": "+Inf"}, 4.0),
        ("s_count", named, 4.0),
        ("s_sum", named, 3.065),
    ]


@given(
    st.floats(allow_nan=False),
    st.dictionaries(st.sampled_from(["account", "domain", "le"]), st.text(), max_size=3),
)
def test_any_value_and_label_is_read_as_it_was(value: float, labels: dict[str, str]) -> None:
    metric = Metric("credspec_x", "gauge", "An x.", [Sample(value, labels)])
    assert read(metrics_text([metric])) == {"credspec_x": [("credspec_x", labels, value)]}
