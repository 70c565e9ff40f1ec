"""One line a happening: what could break a line, or says what people wrote, does not get into it."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import pytest

from graft_server.domain.errors import StateError
from graft_server.domain.names import listed, shown
from graft_server.sharing.events import NOT_MEASURED, Field, figure, line, log_event, log_failure

LOG = logging.getLogger("graft_server.tests")


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("support/intents", "support/intents"),
        (4, "4"),
        (0.9141, "0.9141"),
        (12.0, "12"),
        (1234567.5, "1234567.5"),
        (True, "yes"),
        (False, "no"),
        ("", '""'),
        ("not measured", '"not measured"'),
        ("a=b", '"a=b"'),
        ('say "so"', r'"say \"so\""'),
        ("one\ntwo\r\x85\u2028three", r'"one\ntwo\r\u0085\u2028three"'),
        ("\x1b[31mred\u202e", r'"\u001b[31mred\u202e"'),
        ("Größe", '"Größe"'),
        ("x" * 5_000, '"' + "x" * 1_000 + '…"'),
    ],
)
def test_a_value_stays_one_value_of_one_line(value: Field, written: str):
    assert line({"before": 1, "it": value, "after": 2}) == f"before=1 it={written} after=2"


def test_a_record_has_the_line_and_the_same_as_data(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO):
        log_event(LOG, "version published", model="a/b", version=3, accuracy=figure(0.98765), left_out=None)
    (record,) = caplog.records
    assert record.getMessage() == "version published: model=a/b version=3 accuracy=0.9877"
    fields: Mapping[str, Field] = record.fields  # type: ignore[attr-defined]
    assert (record.levelname, record.event) == ("INFO", "version published")  # type: ignore[attr-defined]
    assert fields == {"model": "a/b", "version": 3, "accuracy": 0.9877}
    assert record.funcName == "test_a_record_has_the_line_and_the_same_as_data"


def test_what_was_not_measured_is_no_figure():
    assert figure(0.0, measured=False) == NOT_MEASURED


def test_a_failure_has_its_reason_and_quotes_nobody(caplog: pytest.LogCaptureFixture):
    names = ["anna's", 'the "boss"', "a\nb", "plain"]
    message = (
        f"The server's label {shown(names[0])} is not one of {listed(names)}: the model's labels are others'."
    )
    with caplog.at_level(logging.INFO):
        log_failure(LOG, "publication failed", StateError(message, reason="LABELS"), model="m")
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    said = "The server's label '…' is not one of '…', '…', '…', '…': the model's labels are others'."
    assert record.getMessage() == f'publication failed: model=m reason=LABELS detail="{said}"'
