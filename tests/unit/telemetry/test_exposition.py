"""What a scrape reads is what was put in, by the word of prometheus-client's own parser."""

from prometheus_client.parser import text_string_to_metric_families

from gossipmesh.telemetry.exposition import Family, render


def test_prometheus_reads_back_what_was_counted() -> None:
    counted = Family("counter", "gm_requests", "Requests\nthat \\ ended.", ("caller", "flag"))
    counted.add(('a"b\\c\nd', ""), 3)
    counted.add(("e", "UH,URX"), 2**53)
    level = Family("gauge", "gm_lag_s", "Lag.")
    level.add((), 0.25)
    times = Family("histogram", "gm_duration_ms", "Time.", ("route",))
    times.add_histogram(("r",), [("1", 2), ("5", 4), ("+Inf", 5)], 17.5)
    families = {
        family.name: family
        for family in text_string_to_metric_families(render([counted, level, times]).decode())
    }
    assert families["gm_requests"].type == "counter"
    assert families["gm_requests"].documentation == "Requests\nthat \\ ended."
    assert [(s.name, s.labels, s.value) for s in families["gm_requests"].samples] == [
        ("gm_requests_total", {"caller": 'a"b\\c\nd', "flag": ""}, 3.0),
        ("gm_requests_total", {"caller": "e", "flag": "UH,URX"}, float(2**53)),
    ]
    assert [(s.name, s.value) for s in families["gm_lag_s"].samples] == [("gm_lag_s", 0.25)]
    assert [(s.name, s.labels.get("le"), s.value) for s in families["gm_duration_ms"].samples] == [
        ("gm_duration_ms_bucket", "1", 2.0),
        ("gm_duration_ms_bucket", "5", 4.0),
        ("gm_duration_ms_bucket", "+Inf", 5.0),
        ("gm_duration_ms_count", None, 5.0),
        ("gm_duration_ms_sum", None, 17.5),
    ]


def test_a_family_without_samples_is_named_all_the_same() -> None:
    text = render([Family("counter", "gm_denials", "Callers refused.", ("rule",))]).decode()
    assert text == "# HELP gm_denials_total Callers refused.\n# TYPE gm_denials_total counter\n"
