# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""mwaa_rest_call and the client under it: pace, what is repeated, what is never said."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa.rest import RestClient, RestError
from botocore.exceptions import EndpointConnectionError, ReadTimeoutError
from fakes import Clock, aws_failure, check_input


def airflow_says(status: int, body: Any) -> Exception:
    kind = "RestApiClientException" if status < 500 else "RestApiServerException"
    return aws_failure(kind, operation="InvokeRestApi", RestApiStatusCode=status, RestApiResponse=body)


class FakeMwaa:
    """Answers in the order they are given: a body, or an exception to raise."""

    def __init__(self, *answers: Any):
        self.answers = iter(answers)
        self.calls: list[dict[str, Any]] = []

    def invoke_rest_api(self, **params: Any) -> dict[str, Any]:
        check_input("mwaa", "InvokeRestApi", params)
        self.calls.append(params)
        answer = next(self.answers, {})
        if isinstance(answer, Exception):
            raise answer
        return {"RestApiStatusCode": 200, "RestApiResponse": answer}


def rest(*answers: Any) -> tuple[RestClient, FakeMwaa, Clock]:
    mwaa, clock = FakeMwaa(*answers), Clock()
    return RestClient(mwaa, "demo", clock=clock), mwaa, clock


def test_a_call() -> None:
    client, mwaa, _clock = rest({"version": "2.11.2"})
    assert client.call("get", "/version") == (200, {"version": "2.11.2"})
    assert mwaa.calls == [{"Name": "demo", "Method": "GET", "Path": "/version"}]


def test_calls_are_paced_below_mwaas_limit() -> None:
    client, _mwaa, clock = rest()
    start = clock.now
    for _call in range(28):
        client.call("GET", "/dags")
    assert clock.now - start == pytest.approx(27 / 9)


@pytest.mark.parametrize(
    ("method", "path", "sentence"),
    [
        ("GET", "/dags/" + "d" * 60, "the path has 66 characters, MWAA takes 64"),
        ("GET", "dags", "must start with /"),
        ("GET", "/api/v1/dags", "leave /api/v1 or /api/v2 out"),
        ("GET", "/dags?limit=1", "give what follows the ? as query"),
        ("HEAD", "/dags", "the method must be one of"),
    ],
)
def test_what_mwaa_would_refuse_is_not_sent(method: str, path: str, sentence: str) -> None:
    client, mwaa, _clock = rest()
    with pytest.raises(RestError, match=sentence.replace("?", r"\?")):
        client.call(method, path)
    assert mwaa.calls == []


THROTTLED = aws_failure("ThrottlingException", status=429, operation="InvokeRestApi")
SERVER = airflow_says(500, {"title": "Internal Server Error"})
FRONT = aws_failure("InternalServerException", status=500, operation="InvokeRestApi")
SILENT = ReadTimeoutError(endpoint_url="https://env.airflow.eu-central-1.amazonaws.com")
UNSENT = EndpointConnectionError(endpoint_url="https://env.airflow.eu-central-1.amazonaws.com")


@pytest.mark.parametrize("failure", [THROTTLED, UNSENT, airflow_says(429, {})])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_what_surely_did_nothing_is_repeated(failure: Exception, method: str) -> None:
    client, mwaa, _clock = rest(failure, failure, {"ok": True})
    assert client.call(method, "/pools").body == {"ok": True}
    assert len(mwaa.calls) == 3


@pytest.mark.parametrize("failure", [SERVER, FRONT, SILENT])
def test_what_may_have_been_done_is_repeated_unless_it_is_a_post(failure: Exception) -> None:
    client, mwaa, _clock = rest(failure, {"ok": True})
    assert client.call("PATCH", "/pools/etl", body={"slots": 1}).body == {"ok": True}
    client, mwaa, _clock = rest(failure)
    with pytest.raises(RestError, match="may have taken effect") as caught:
        client.call("POST", "/pools", body={"name": "etl", "slots": 1})
    assert caught.value.maybe_done and len(mwaa.calls) == 1


def test_repeating_ends_with_the_budget() -> None:
    client, mwaa, clock = rest(*[THROTTLED] * 1000)
    start = clock.now
    with pytest.raises(RestError, match="kept throttling"):
        client.call("GET", "/dags")
    assert 60 < clock.now - start <= 125 and len(mwaa.calls) < 100


def test_an_expected_status_is_an_answer() -> None:
    client, _mwaa, _clock = rest(airflow_says(404, {"detail": "not here"}))
    assert client.call("GET", "/pools/etl", ok=(404,)) == (404, {"detail": "not here"})


def test_denied_says_that_the_arn_is_the_roles() -> None:
    client, _mwaa, _clock = rest(
        aws_failure("AccessDeniedException", "User: x is not authorized", operation="InvokeRestApi", status=403)
    )
    with pytest.raises(RestError, match="role/ENVIRONMENT/Admin") as caught:
        client.call("GET", "/dags")
    assert caught.value.code == "AccessDeniedException" and caught.value.request_id == "11111111-2222"


@pytest.mark.parametrize(
    "body",
    [
        {
            "detail": [
                {"loc": ["body", "port"], "msg": "Input should be a valid integer", "input": "CANARY-port-01010101"}
            ]
        },
        {"detail": {"reason": "Unique constraint violation", "statement": "INSERT … CANARY-port-01010101"}},
        {"title": "Bad Request", "detail": "'CANARY-port-01010101' is not of type 'integer' - 'port'"},
        {"detail": "x" * 480 + " CANARY-port-01010101, which is cut off here"},
    ],
)
def test_an_explanation_never_repeats_what_was_sent(body: dict[str, Any]) -> None:
    client, _mwaa, _clock = rest(airflow_says(400, body))
    with pytest.raises(RestError) as caught:
        client.call("POST", "/connections", body={"connection_id": "db", "port": "CANARY-port-01010101"})
    assert "CANARY" not in str(caught.value) and caught.value.status == 400
    assert "POST /connections of environment demo: Airflow answered 400: " in str(caught.value)


def test_a_secret_of_several_lines_is_masked_before_the_lines_are_joined() -> None:
    client, _mwaa, _clock = rest(airflow_says(400, {"detail": "no key: CANARY-key-01\n  CANARY-key-02"}))
    with pytest.raises(RestError) as caught:
        client.call("POST", "/variables", body={"key": "pem", "value": "CANARY-key-01\n  CANARY-key-02"})
    assert caught.value.detail == "no key: ***"


def test_pages_follow_the_total_even_when_pages_are_short() -> None:
    client, mwaa, _clock = rest(
        {"total_entries": 5, "variables": [1, 2]},
        {"total_entries": 5, "variables": [3, 4]},
        {"total_entries": 5, "variables": [5]},
    )
    assert list(client.pages("/variables", "variables", {"order_by": "key"})) == [[1, 2], [3, 4], [5]]
    assert [call["QueryParameters"]["offset"] for call in mwaa.calls] == [0, 2, 4]
    assert mwaa.calls[0]["QueryParameters"] == {"order_by": "key", "limit": 100, "offset": 0}


def test_the_module_reads_in_check_mode_and_skips_what_writes(run_module: Any, clock: Any) -> None:
    mwaa = FakeMwaa({"pools": []})
    read = run_module("mwaa_rest_call", {"environment": "demo", "path": "/pools"}, {"mwaa": mwaa}, check=True)
    assert not read["changed"] and read["body"] == {"pools": []}
    write = {
        "environment": "demo",
        "path": "/pools",
        "method": "POST",
        "body": {"name": "etl", "slots": "CANARY-body-02020202"},
    }
    skipped = run_module("mwaa_rest_call", write, {"mwaa": mwaa}, check=True)
    assert skipped["changed"] and skipped["skipped"] and len(mwaa.calls) == 1
    done = run_module("mwaa_rest_call", write, {"mwaa": mwaa})
    assert done["changed"] and mwaa.calls[1]["Body"] == write["body"]
    assert "CANARY" not in json.dumps([skipped, done])


def test_the_module_reads_all_pages(run_module: Any, clock: Any) -> None:
    mwaa = FakeMwaa({"total_entries": 3, "dags": [1, 2]}, {"total_entries": 3, "dags": [3]})
    result = run_module("mwaa_rest_call", {"environment": "demo", "path": "/dags", "all_pages": True}, {"mwaa": mwaa})
    assert result["body"] == [1, 2, 3]


def test_the_module_fails_with_one_sentence(run_module: Any, clock: Any) -> None:
    mwaa = FakeMwaa(airflow_says(404, {"title": "Pool not found", "detail": "Pool with name:'x' not found"}))
    result = run_module("mwaa_rest_call", {"environment": "demo", "path": "/pools/x"}, {"mwaa": mwaa})
    assert result["failed"]
    assert result["msg"] == "GET /pools/x of environment demo: Airflow answered 404: Pool with name:'x' not found"
    assert result["error"]["code"] == "RestApiClientException"
