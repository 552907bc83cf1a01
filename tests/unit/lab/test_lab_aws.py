# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's AWS in examples, without a server: naming of calls, rules, faults, MWAA's limits."""

from __future__ import annotations

import datetime

import pytest

pytest.importorskip("mwaa_lab", reason="the lab is not installed in this environment")

from mwaa_lab.aws import journal, limits, model, rules  # noqa: E402
from mwaa_lab.aws.faults import Faults  # noqa: E402
from mwaa_lab.aws.journal import Call  # noqa: E402
from mwaa_lab.aws.rates import Rates  # noqa: E402

DAY = 24 * 3600 * 1000
NOW = 1_800_000_000_000
TODAY = datetime.date(2026, 11, 21)


# --- which operation a request is ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("service", "method", "path", "query", "headers", "operation"),
    [
        ("s3", "GET", "/", {}, {}, "ListBuckets"),
        ("s3", "GET", "/b/k/l.txt", {}, {}, "GetObject"),
        ("s3", "GET", "/b", {"list-type": ["2"], "prefix": ["a"]}, {}, "ListObjectsV2"),
        ("s3", "GET", "/b", {"versions": [""]}, {}, "ListObjectVersions"),
        ("s3", "PUT", "/b", {"versioning": [""]}, {}, "PutBucketVersioning"),
        ("s3", "PUT", "/b/k", {}, {}, "PutObject"),
        ("s3", "PUT", "/b/k", {}, {"x-amz-copy-source": "/b/other"}, "CopyObject"),
        ("s3", "PUT", "/b/k", {"partNumber": ["1"], "uploadId": ["u"]}, {}, "UploadPart"),
        ("s3", "DELETE", "/b/k", {"uploadId": ["u"]}, {}, "AbortMultipartUpload"),
        ("s3", "POST", "/b", {"delete": [""]}, {}, "DeleteObjects"),
        ("airflow", "GET", "/environments/e", {}, {}, "GetEnvironment"),
        ("airflow", "DELETE", "/tags/arn%3Aaws%3Ax%2Fe", {"tagKeys": ["a"]}, {}, "UntagResource"),
        ("nonsense", "GET", "/", {}, {}, None),
    ],
)
def test_rest_operations(service, method, path, query, headers, operation):
    assert model.rest_operation(service, method, path, query, headers)[0] == operation


def test_labels_are_decoded():
    _, labels = model.rest_operation("s3", "GET", "/b/a%20b/c%2Bd", {}, {})
    assert labels == {"Bucket": "b", "Key": "a b/c+d"}


def test_operations_of_json_and_query_services():
    target = {"x-amz-target": "secretsmanager.GetSecretValue"}
    assert journal.operation_of("secretsmanager", "POST", "/", {}, target, b"{}")[0] == "GetSecretValue"
    form = {"content-type": "application/x-www-form-urlencoded; charset=utf-8"}
    body = b"Action=CreateStack&StackName=s"
    assert journal.operation_of("cloudformation", "POST", "/", {}, form, body)[0] == "CreateStack"
    assert journal.names("CreateStack", "cloudformation", {}, form, body) == {"stack_name": "s"}


# --- the journal -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("service", "operation", "keys", "access"),
    [
        ("s3", "GetObject", {}, "read"),
        ("s3", "HeadBucket", {}, "read"),
        ("s3", "PutObject", {}, "write"),
        ("s3", "DeleteObjects", {}, "write"),
        ("cloudformation", "CreateChangeSet", {}, "write"),
        ("cloudformation", "ValidateTemplate", {}, "read"),
        ("kms", "GenerateDataKey", {}, "read"),
        ("kms", "CreateKey", {}, "write"),
        ("sts", "AssumeRole", {}, "read"),
        ("mwaa", "CreateCliToken", {}, "read"),
        ("mwaa", "UpdateEnvironment", {}, "write"),
        ("mwaa", "InvokeRestApi", {"method": "GET", "path": "/dags"}, "read"),
        ("mwaa", "InvokeRestApi", {"method": "POST", "path": "/dags/~/dagRuns/list"}, "read"),
        ("mwaa", "InvokeRestApi", {"method": "PATCH", "path": "/variables"}, "write"),
    ],
)
def test_reads_and_writes(service, operation, keys, access):
    call = Call(service=service, operation=operation, keys=keys)
    call.classify()
    assert call.access == access


def test_names_are_taken_from_a_list_of_members_that_name_things():
    body = b'{"Name": "/a/b", "Value": "CANARY-value-0badcafe", "Description": "CANARY-x-0badcafe"}'
    assert journal.names("PutParameter", "ssm", {}, {}, body) == {"name": "/a/b"}


# --- input against the service model ---------------------------------------------------------------------------------


def create(**members):
    import json

    service = model.service_model("airflow")
    body = {
        "ExecutionRoleArn": "arn:aws:iam::000000000000:role/r",
        "SourceBucketArn": "arn:aws:s3:::b",
        "DagS3Path": "dags",
        "NetworkConfiguration": {"SubnetIds": ["subnet-1", "subnet-2"], "SecurityGroupIds": ["sg-1"]},
        **members,
    }
    return model.parse_input(service.operation_model("CreateEnvironment"), {"Name": "e"}, {}, json.dumps(body).encode())


def test_good_input_comes_back_as_it_was():
    assert create(MaxWorkers=3, Tags={"schlüssel": "a b"})["MaxWorkers"] == 3


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (
            {"WebserverAccessMode": "X"},
            "1 validation error detected: Value 'X' at 'webserverAccessMode' failed to satisfy constraint: "
            "Member must satisfy enum value set: [PRIVATE_ONLY, PUBLIC_ONLY, PUBLIC_AND_PRIVATE]",
        ),
        (
            {"MaxWorkers": 0},
            "1 validation error detected: Value '0' at 'maxWorkers' failed to satisfy constraint: "
            "Member must have value greater than or equal to 1",
        ),
        (
            {"LoggingConfiguration": {"TaskLogs": {"Enabled": True}}},
            "1 validation error detected: Value null at 'loggingConfiguration.taskLogs.logLevel' failed to satisfy "
            "constraint: Member must not be null",
        ),
        (
            {"AirflowConfigurationOptions": {"core.x": "CANARY-option-0badcafe\t"}},
            "1 validation error detected: Value at 'airflowConfigurationOptions' failed to satisfy constraint: "
            "Map value must satisfy constraint: [Member must satisfy regular expression pattern: [ -~]+]",
        ),
        (
            {"WeeklyMaintenanceWindowStart": "SUN:3:15", "Tags": {}},
            "2 validation errors detected: ",
        ),
    ],
)
def test_faults_are_all_named_in_awss_words(members, message):
    with pytest.raises(model.ApiError) as caught:
        create(**members)
    assert (caught.value.code, caught.value.status) == ("ValidationException", 400)
    assert caught.value.message.startswith(message)


@pytest.mark.parametrize("members", [{"MaxWorkers": "3"}, {"MaxWorkers": True}, {"DagS3Path": 3}, {"Tags": []}])
def test_wrong_kinds_are_refused_before_constraints(members):
    with pytest.raises(model.ApiError) as caught:
        create(**members)
    assert caught.value.code == "SerializationException"


# --- CloudWatch Logs -------------------------------------------------------------------------------------------------


def events(*times):
    return [{"timestamp": time, "message": "m"} for time in times]


def test_events_that_are_too_old_or_too_new_are_left_out_and_reported():
    kept, info = rules.log_events(events(NOW - 14 * DAY - 1, NOW - 14 * DAY), NOW, None)
    assert (kept, info) == (events(NOW - 14 * DAY), {"tooOldLogEventEndIndex": 1})
    kept, info = rules.log_events(events(NOW, NOW + 2 * 3600 * 1000, NOW + 2 * 3600 * 1000 + 1), NOW, None)
    assert (len(kept), info) == (2, {"tooNewLogEventStartIndex": 2})
    kept, info = rules.log_events(events(NOW - 2 * DAY, NOW - DAY), NOW, 1)
    assert (kept, info) == (events(NOW - DAY), {"expiredLogEventEndIndex": 1})
    assert rules.log_events(events(NOW), NOW, None) == (events(NOW), {})


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        ([], "greater than or equal to 1"),
        (events(*[NOW] * 10_001), "less than or equal to 10000"),
        (events(NOW, NOW - 1), "chronological"),
        (events(NOW - DAY - 1, NOW), "24 hours"),
        ([{"timestamp": NOW, "message": "é" * 524_276}], "exceeds limit of 1048576"),
        ([{"timestamp": NOW, "message": ""}], "greater than or equal to 1"),
    ],
)
def test_batches_that_are_refused_whole(batch, words):
    with pytest.raises(model.ApiError, match=words):
        rules.log_events(batch, NOW, None)


def test_the_largest_batch_is_taken():
    rules.log_events([{"timestamp": NOW, "message": "é" * 524_275}], NOW, None)
    rules.log_events(events(*[NOW] * 10_000), NOW, None)


def test_a_stream_has_no_colon_in_its_name_and_a_page_no_more_than_a_megabyte():
    assert rules.log_stream("dag_id=a/run_id=b_00/attempt=1.log") is None
    assert all(rules.log_stream(name).code == "InvalidParameterException" for name in ("a:b", "a*", "", "x" * 513))
    assert rules.log_page(["x" * 100] * 10) == 10 and rules.log_page([]) == 0
    assert rules.log_page(["x" * 600_000] * 3) == 1


# --- S3 --------------------------------------------------------------------------------------------------------------


def test_only_awss_own_chunks():
    put = Call(service="s3", operation="PutObject", access="write")
    assert rules.refuse(put, {"transfer-encoding": "chunked"}, b"").status == 501
    assert rules.refuse(put, {"transfer-encoding": "chunked", "x-amz-decoded-content-length": "3"}, b"") is None
    assert rules.refuse(put, {"content-length": "3"}, b"") is None


# --- faults ----------------------------------------------------------------------------------------------------------


def test_a_rule_counts_skips_and_matches():
    faults, call = Faults(), Call(service="s3", operation="PutObject", keys={"bucket": "b", "key": "dags/x.py"})
    faults.replace(
        [{"service": "s3", "operation": "Put*", "match": "x.py", "skip": 1, "times": 2, "error": "SlowDown"}]
    )
    assert [faults.take(call) is not None for _ in range(5)] == [False, True, True, False, False]
    assert faults.take(Call(service="s3", operation="GetObject")) is None
    assert faults.show()[0]["fired"] == 2


def test_rules_are_for_users_calls_unless_said_otherwise():
    faults, call = Faults(), Call(service="s3", operation="GetObject", caller="service")
    faults.replace([{"service": "s3"}])
    assert faults.take(call) is None
    faults.replace([{"service": "s3", "caller": "*"}])
    assert faults.take(call) is not None


def test_a_rate_spares_so_many_calls_a_second():
    now = [0.0]
    faults, call = Faults(lambda: now[0]), Call("s3", "PutObject")
    faults.replace([{"per_second": 2, "times": None, "error": "SlowDown"}])
    assert [faults.take(call) is not None for _ in range(4)] == [False, False, True, True]
    now[0] = 1.0
    assert [faults.take(call) is not None for _ in range(3)] == [False, False, True]


@pytest.mark.parametrize(("error", "status"), [("SlowDown", 503), ("ThrottlingException", 429), ("Oops", 400)])
def test_errors_have_their_usual_status(error, status):
    faults = Faults()
    faults.replace([{"error": error}])
    assert faults.take(Call("s3", "GetObject")).http_status == status


@pytest.mark.parametrize(
    ("operations", "most"),
    [
        (["CreateSecret"], 50),
        (["PutSecretValue", "UpdateSecret"], 50),  # counted together
        (["BatchGetSecretValue"], 100),
        (["ListSecrets"], 100),
        (["GetSecretValue", "DescribeSecret"], 10_000),
    ],
)
def test_secrets_manager_has_rates_of_its_own(operations, most):
    now = [0.0]
    rates = Rates(lambda: now[0])

    def refused(number, account="1", region="eu-west-1"):
        name = {"secret_id": f"s{number}"}
        return rates.refuse(
            Call("secretsmanager", operations[number % len(operations)], region=region, keys=name), account
        )

    assert [refused(number) for number in range(most)] == [None] * most
    assert (refused(0).code, refused(0).status) == ("ThrottlingException", 400)
    assert refused(0, account="2") is None
    assert refused(0, region="eu-central-1") is None
    now[0] = 1.0
    assert refused(0) is None


@pytest.mark.parametrize(("operation", "most"), [("CreateLogStream", 50), ("GetLogEvents", 25)])
def test_cloudwatch_logs_has_rates_too(operation, most):
    rates = Rates(lambda: 0.0)
    assert [rates.refuse(Call("logs", operation), "1") for _ in range(most)] == [None] * most
    assert rates.refuse(Call("logs", operation), "1").code == "ThrottlingException"
    assert rates.refuse(Call("logs", "DeleteLogStream"), "1") is None


def test_a_secret_has_no_more_than_a_hundred_versions():
    now = [0.0]
    rates = Rates(lambda: now[0])

    def call(operation):
        now[0] += 1
        keys = {"name" if operation == "CreateSecret" else "secret_id": "airflow/variables/x"}
        return rates.refuse(Call("secretsmanager", operation, keys=keys), "1")

    assert call("CreateSecret") is None
    assert [call("PutSecretValue") for _ in range(99)] == [None] * 99
    assert call("UpdateSecret").code == "LimitExceededException"
    assert call("DeleteSecret") is None
    assert call("PutSecretValue") is None


@pytest.mark.parametrize(
    ("name", "taken"),
    [("airflow/variables/a_b-c.d@e+f=g", True), ("airflow/variables/a b", False), ("x" * 513, False), ("ä", False)],
)
def test_names_of_secrets(name, taken):
    call = Call("secretsmanager", "CreateSecret", keys={"name": name}, access="write")
    assert (rules.refuse(call, {}, b"{}") is None) is taken


# --- MWAA's limits ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "version", "allowed"),
    [
        ("version", "2.7.2", True),
        ("variables set", "3.2.1", True),
        ("variables import", "2.11.2", False),
        ("pools list", "2.11.2", False),
        ("db clean", "2.11.2", True),
        ("db migrate", "2.11.2", False),
        ("tasks run", "2.11.2", True),
        ("tasks run", "3.0.6", False),
        ("backfill create", "2.11.2", False),
        ("backfill create", "3.0.6", True),
        ("providers notifications", "2.7.2", False),
        ("providers notifications", "2.8.1", True),
        ("connections add", "2.0.2", True),
        ("connections import", "2.0.2", False),
        ("connections import", "2.2.2", False),
        ("variables import", "2.2.2", False),
        ("dags backfill", "2.0.2", False),
        ("dags backfill", "2.2.2", True),
        ("db clean", "2.2.2", False),
        ("dags reserialize", "2.2.2", False),
        ("db clean", "2.4.3", True),
        ("variables set", "1.10.12", False),
        ("variables", "1.10.12", True),
        ("connections", "1.10.12", False),
        ("pool", "1.10.12", True),
        ("trigger_dag", "2.0.2", False),
    ],
)
def test_the_clis_allow_list(command, version, allowed):
    assert limits.cli_allowed(command, version) is allowed


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("version", "version"),
        ("dags list -o json", "dags list"),
        ("version --help", "version"),
        ("dags --help", "dags"),
        ("variables set a b", "variables set"),
        ("variables import -", "variables import"),
        ("variables -s a b", "variables"),
        ("trigger_dag nightly", "trigger_dag"),
        ("", ""),
    ],
)
def test_a_commands_name_has_no_arguments(line, command):
    assert limits.cli_command(line.split()) == command


@pytest.mark.parametrize(
    ("old", "new", "possible"),
    [
        ("2.7.2", "2.11.2", True),
        ("2.11.2", "2.10.3", True),
        ("2.11.2", "3.2.1", True),
        ("3.3.1", "2.11.0", True),
        ("3.2.1", "3.0.6", True),
        ("2.10.3", "3.0.6", False),
        ("3.0.6", "2.10.3", False),
        ("2.7.2", "2.6.3", False),
        ("3.0.6", "3.1.0", False),
    ],
)
def test_where_an_environment_can_move(old, new, possible):
    assert (limits.upgrade_fault(old, new, TODAY) is None) is possible


@pytest.mark.parametrize(
    ("version", "day", "words"),
    [
        ("2.11.2", "2026-11-21", None),
        ("2.0.2", "2024-04-29", None),  # its last day
        ("2.0.2", "2024-04-30", "reached its end of support"),
        ("2.5.1", "2026-11-21", "reached its end of support"),
        ("3.3.1", "2026-08-31", "is not supported. Valid versions are: 2.7.2, "),  # not yet
        ("3.1.0", "2026-11-21", "is not supported"),  # never
    ],
)
def test_what_aws_offers_on_a_day(version, day, words):
    fault = limits.not_offered(version, datetime.date.fromisoformat(day))
    assert fault is None if words is None else words in fault


def test_the_latest_version_is_the_highest_of_that_day():
    assert limits.offered(datetime.date(2026, 7, 22))[-1] == "3.2.1"  # 2.11.2 came a day before, and is lower
