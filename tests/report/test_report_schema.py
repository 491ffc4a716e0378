"""report.json: what is accepted, and what is refused with which words."""

import copy

import pytest

from edgeprune.report.schema import parse, validate

CASES = {
    "variants.1.bytes": lambda r: r["variants"][1].update(bytes=-1),
    "variants.0.gzip_bytes": lambda r: r["variants"][0].pop("gzip_bytes"),
    "variants.0.metric.value": lambda r: r["variants"][0]["metric"].update(value="83 %"),
    "variants.2.sha256": lambda r: r["variants"][2].update(sha256="abc"),
    "variants.0.weight_sparsity": lambda r: r["variants"][0].update(weight_sparsity=1.5),
    "variants.3.latency.measured.0.median_ms": lambda r: r["variants"][3]["latency"]["measured"][0].pop("median_ms"),
    "schema_version": lambda r: r.update(schema_version=2),
    "created": lambda r: r.update(created="yesterday"),
    "deterministic": lambda r: r.update(deterministic="yes"),
    "stages.0.seconds": lambda r: r["stages"][0].update(seconds=-0.1),
    "variants": lambda r: r.update(variants=[]),
    "pick": lambda r: r.update(pick="float16"),
    "picks.compact": lambda r: r["picks"].update(compact="float16"),
    "more than once": lambda r: r["variants"].append(copy.deepcopy(r["variants"][0])),
    "as the baseline": lambda r: r["variants"][1].update(baseline=True),
}


def test_every_variation_is_valid(any_report):
    """A report as builds write it passes."""
    validate(any_report)


def test_extra_keys_are_allowed_everywhere(report):
    """A newer edgeprune may add keys at any depth."""
    for part in (report, report["model"], report["variants"][0], report["variants"][0]["latency"], report["gates"][0]):
        part["a_key_of_the_future"] = {"any": ["value"]}
    validate(report)


def test_built_from_python_has_no_command(report):
    """A build that no command line started is a valid one."""
    validate({**report, "command": None})


@pytest.mark.parametrize("named", CASES)
def test_a_fault_is_refused_and_named(report, named):
    """Each kind of fault is a ValueError whose message says where it is."""
    CASES[named](report)
    with pytest.raises(ValueError, match="schema_version 1") as error:
        validate(report)
    assert named in str(error.value)


def test_a_report_reads_like_its_json(any_report):
    """Each key of report.json, those that no class names too, has its value under the key; keys and `in` follow it."""
    any_report["variants"][0]["a_key_of_the_future"] = {"any": ["value"]}

    def compare(entry, document):
        if isinstance(document, dict):
            assert set(entry.keys()) == set(document)
            assert "no such key" not in entry
            assert entry.get("no such key", 7) == 7
            for key, value in document.items():
                assert key in entry
                compare(entry[key], value)
        elif isinstance(document, list):
            for left, right in zip(entry, document, strict=True):
                compare(left, right)
        else:
            assert entry == document

    compare(parse(any_report), any_report)


def test_keys_that_a_report_leaves_out(report):
    """A key that may be left out reads as its default, and is not in the entry; one that does not exist is an error."""
    variant = parse(report).variants[0]
    assert variant["mixed"] is None
    assert "mixed" not in variant
    with pytest.raises(KeyError):
        variant["model_dump"]


def test_a_report_that_is_typed_already_passes(report):
    """What parse gives may be given to parse and validate."""
    parsed = parse(report)
    assert parse(parsed) is parsed
    validate(parsed)
