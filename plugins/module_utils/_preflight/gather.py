# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading AWS for preflight: facts by name, in parallel, each failure a fact of its own. Writes nothing.

PRIVATE to the collection: no promise is made to other collections.
"""

from __future__ import annotations

import contextlib
import io
import json
import threading
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable

from ansible_collections.mwaa.migration.plugins.module_utils import _versions
from ansible_collections.mwaa.migration.plugins.module_utils._errors import (
    BAD_CREDENTIALS,
    DENIED,
    EXPIRED,
    MISSING,
    error_code,
    http_status,
    is_aws_error,
)
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa import limits, settings
from ansible_collections.mwaa.migration.plugins.module_utils._preflight import permissions
from ansible_collections.mwaa.migration.plugins.module_utils._preflight.frame import Snapshot, Unread

SIMULATIONS = 4  # of one principal at once; IAM's own rate is low
OBJECTS = 20_000  # of the DAG folder that are listed at most
TEXT = 1024 * 1024  # bytes of requirements.txt and of a startup script that are read at most
ARCHIVE_READ = 512 * 1024  # bytes of one read from plugins.zip
LOG_HOUR = 3600  # seconds of logs that are looked through
LOG_PATTERN = "?ERROR ?CRITICAL ?Traceback"  # one of these

FACTS: dict[str, Callable[[Any], Any]] = {}


class _Unreadable(Exception):
    def __init__(self, unread: Unread):
        super().__init__(unread.action)
        self.unread = unread


def fact(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Declares a fact: the method's name is the fact's, what it returns its value."""
    FACTS[read.__name__] = read
    return read


@contextlib.contextmanager
def _reading(action: str) -> Iterator[None]:
    """What AWS refuses inside becomes Unread, naming the action that IAM would have to allow."""
    try:
        yield
    except Exception as exception:
        if not is_aws_error(exception):
            raise
        code = error_code(exception) or type(exception).__name__
        denied = code in DENIED or (http_status(exception) == 403 and code not in EXPIRED | BAD_CREDENTIALS)
        raise _Unreadable(Unread(action, code, denied)) from exception


def _is(exception: BaseException, *codes: str) -> bool:
    return is_aws_error(exception) and error_code(exception) in codes


class Reader:
    """Facts of one set-up. Each is read once, by the thread that asks first; a fact may ask for others."""

    def __init__(self, aws: Any, snapshot: Snapshot, principal: str | None, role_policy: dict[str, Any] | None = None):
        """principal: ARN of the role that creates the environment in the caller's place. role_policy: what the
        execution role is going to get besides what it has.
        """
        self.aws, self.s, self._principal, self._role_policy = aws, snapshot, principal, role_policy
        self._locks = {name: threading.RLock() for name in FACTS}

    def read_all(self) -> None:
        """Fill the snapshot's facts."""
        with ThreadPoolExecutor(len(FACTS)) as pool:  # many of them wait for another
            list(pool.map(self._settle, FACTS))

    def _settle(self, name: str) -> Any:
        with self._locks[name]:
            if name not in self.s.facts:
                try:
                    self.s.facts[name] = FACTS[name](self)
                except _Unreadable as failure:
                    self.s.facts[name] = failure.unread
            return self.s.facts[name]

    def _of(self, name: str) -> Any:
        value = self._settle(name)
        if isinstance(value, Unread):
            raise _Unreadable(value)
        return value

    # --- the network --------------------------------------------------------------------------------------------

    def _described(self, operation: str, key: str, filters: dict[str, list[str]]) -> list[dict[str, Any]]:
        """All pages of an ec2:Describe…; filters leave nothing out that they should not, but may let too much in."""
        action = "ec2:" + "".join(word.capitalize() for word in operation.split("_"))
        with _reading(action):
            pages = (
                self.aws.client("ec2")
                .get_paginator(operation)
                .paginate(Filters=[{"Name": name, "Values": values} for name, values in filters.items()])
            )
            return [one for page in pages for one in page[key]]

    @fact
    def found_subnets(self) -> Any:
        """Those that exist."""
        ids = self.s["subnet_ids"]
        if not ids:
            return None
        found = self._described("describe_subnets", "Subnets", {"subnet-id": ids})
        return [one for one in found if one["SubnetId"] in ids]

    @fact
    def subnets(self) -> Any:
        """All of them; None where one does not exist, which the rule about that says."""
        found = self._of("found_subnets")
        return found if found and len(found) == len(self.s["subnet_ids"]) else None

    @fact
    def vpc(self) -> Any:
        """The id of the subnets' VPC; None where they are in several."""
        ids = {subnet["VpcId"] for subnet in self._of("subnets") or []}
        return ids.pop() if len(ids) == 1 else None

    def _in_vpc(self, operation: str, key: str) -> Any:
        vpc = self._of("vpc")
        if vpc is None:
            return None
        return [one for one in self._described(operation, key, {"vpc-id": [vpc]}) if one.get("VpcId") == vpc]

    @fact
    def vpc_dns(self) -> Any:
        """{"enableDnsSupport": bool, "enableDnsHostnames": bool}."""
        vpc = self._of("vpc")
        if vpc is None:
            return None
        answer = {}
        for name in ("enableDnsSupport", "enableDnsHostnames"):
            with _reading("ec2:DescribeVpcAttribute"):
                said = self.aws.client("ec2").describe_vpc_attribute(VpcId=vpc, Attribute=name)
                answer[name] = bool(said[name[0].upper() + name[1:]].get("Value"))
        return answer

    @fact
    def route_tables(self) -> Any:
        return self._in_vpc("describe_route_tables", "RouteTables")

    @fact
    def nat_gateways(self) -> Any:
        return self._in_vpc("describe_nat_gateways", "NatGateways") if self._of("vpc") else None

    @fact
    def network_acls(self) -> Any:
        return self._in_vpc("describe_network_acls", "NetworkAcls")

    @fact
    def endpoints(self) -> Any:
        return self._in_vpc("describe_vpc_endpoints", "VpcEndpoints")

    @fact
    def found_groups(self) -> Any:
        """The environment's security groups that exist."""
        ids = self.s["security_group_ids"]
        if not ids:
            return None
        found = self._described("describe_security_groups", "SecurityGroups", {"group-id": ids})
        return [one for one in found if one["GroupId"] in ids]

    @fact
    def groups(self) -> Any:
        found = self._of("found_groups")
        return found if found and len(found) == len(self.s["security_group_ids"]) else None

    @fact
    def endpoint_groups(self) -> Any:
        """The security groups of the VPC's interface endpoints, by id."""
        ids = {group["GroupId"] for endpoint in self._of("endpoints") or [] for group in endpoint.get("Groups") or []}
        if not ids:
            return {}
        found = self._described("describe_security_groups", "SecurityGroups", {"group-id": sorted(ids)})
        return {one["GroupId"]: one for one in found if one["GroupId"] in ids}

    # --- the bucket ---------------------------------------------------------------------------------------------

    def _s3(self, action: str, operation: str, missing: tuple[str, ...] = (), **arguments: Any) -> Any:
        """The answer about the bucket; None where AWS says by one of these codes that there is none."""
        with _reading(f"s3:{action}"):
            try:
                return getattr(self.aws.client("s3"), operation)(Bucket=self.s.bucket, **arguments)
            except Exception as exception:
                if _is(exception, *missing):
                    return None
                raise

    @fact
    def bucket(self) -> Any:
        """{"state": "there" | "missing" | "foreign" | "denied", "region": where it is, if that is known}.

        denied: the caller may not list it, and what else there is to know is asked one by one.
        """
        if not self.s["source_bucket"]:
            return None
        with _reading("s3:ListBucket"):
            try:
                answer = self.aws.client("s3").head_bucket(Bucket=self.s.bucket)
            except Exception as exception:
                if not is_aws_error(exception):
                    raise
                headers = (getattr(exception, "response", {}).get("ResponseMetadata") or {}).get("HTTPHeaders") or {}
                region = headers.get("x-amz-bucket-region")
                if error_code(exception) in MISSING:
                    return {"state": "missing", "region": None}
                if region and region != self.s.region:
                    return {"state": "there", "region": region}
                if http_status(exception) == 403:
                    return {"state": "foreign" if self._is_foreign() else "denied", "region": region}
                raise
        headers = (answer.get("ResponseMetadata") or {}).get("HTTPHeaders") or {}
        region = answer.get("BucketRegion") or headers.get("x-amz-bucket-region")
        if not region:
            said = self._s3("GetBucketLocation", "get_bucket_location").get("LocationConstraint")
            region = {None: "us-east-1", "": "us-east-1", "EU": "eu-west-1"}.get(said, said)
        return {"state": "there", "region": region}

    def _is_foreign(self) -> bool:
        """Whether the bucket is not among the account's own; False where that may not be asked."""
        try:
            return self.s.bucket not in {one["Name"] for one in self.aws.client("s3").list_buckets()["Buckets"]}
        except Exception as exception:
            if not is_aws_error(exception):
                raise
            return False

    def _bucket_here(self) -> bool:
        bucket = self._of("bucket") or {"state": "missing"}
        if bucket["state"] == "denied":
            return True
        return bucket["state"] == "there" and bucket["region"] == self.s.region

    @fact
    def versioning(self) -> Any:
        """The bucket's: "Enabled", "Suspended" or "never enabled"."""
        if not self._bucket_here():
            return None
        return self._s3("GetBucketVersioning", "get_bucket_versioning").get("Status") or "never enabled"

    @fact
    def public_access(self) -> Any:
        """The switches of the public access block that are on, of the bucket or of the account.

        An account whose block cannot be read has none that one could count on.
        """
        if not self._bucket_here():
            return None
        none = "NoSuchPublicAccessBlockConfiguration"
        mine = self._s3("GetBucketPublicAccessBlock", "get_public_access_block", (none,)) or {}
        on = {name for name, value in (mine.get("PublicAccessBlockConfiguration") or {}).items() if value}
        if len(on) < 4:
            try:
                account = self.aws.client("s3control").get_public_access_block(AccountId=self.s.account)
            except Exception as exception:
                if not is_aws_error(exception):
                    raise
                account = {}
            on |= {name for name, value in (account.get("PublicAccessBlockConfiguration") or {}).items() if value}
        return on

    @fact
    def bucket_key(self) -> Any:
        """The ARN of the customer's key that encrypts the bucket by default; "" where it is none, or AWS's."""
        if not self._bucket_here():
            return None
        missing = "ServerSideEncryptionConfigurationNotFoundError"
        answer = self._s3("GetEncryptionConfiguration", "get_bucket_encryption", (missing,)) or {}
        for one in (answer.get("ServerSideEncryptionConfiguration") or {}).get("Rules") or []:
            default = one.get("ApplyServerSideEncryptionByDefault") or {}
            if default.get("SSEAlgorithm") in ("aws:kms", "aws:kms:dsse"):
                name = default.get("KMSMasterKeyID") or "alias/aws/s3"
                key = self._key(name)
                if (key or {}).get("KeyManager") == "AWS":
                    return ""
                return key["Arn"] if key else name
        return ""

    @fact
    def bucket_policy(self) -> Any:
        """Its text; "" where there is none."""
        if not self._bucket_here():
            return None
        answer = self._s3("GetBucketPolicy", "get_bucket_policy", ("NoSuchBucketPolicy",))
        return answer["Policy"] if answer else ""

    @fact
    def dag_keys(self) -> Any:
        """The keys below the DAG folder, without the folder's own name."""
        path = self.s["dag_s3_path"]
        if not path or not self._bucket_here():
            return None
        prefix = path.strip("/") + "/"
        keys: list[str] = []
        with _reading("s3:ListBucket"):
            pages = self.aws.client("s3").get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self.s.bucket, Prefix=prefix):
                keys += [one["Key"][len(prefix) :] for one in page.get("Contents") or [] if one["Key"] != prefix]
                if len(keys) >= OBJECTS:
                    break
        return keys

    @fact
    def airflowignore(self) -> Any:
        """The text of the DAG folder's .airflowignore; "" where there is none."""
        if ".airflowignore" not in (self._of("dag_keys") or []):
            return "" if self._of("dag_keys") is not None else None
        return self._text(f"{self.s['dag_s3_path'].strip('/')}/.airflowignore", None)

    @fact
    def objects(self) -> Any:
        """{option of the path: None where the object is missing, else {"key", "version", "size", "latest"}}.

        latest: the version that is current, which an environment that pins another does not use.
        """
        if not self._bucket_here():
            return None
        found: dict[str, Any] = {}
        for path, version in settings.PINNED.items():
            key, pinned = self.s[path], self.s[version]
            if not key:
                continue
            latest = self._head(key, None)
            one = self._head(key, pinned) if pinned else latest
            found[path] = one and {
                "key": key,
                "version": one.get("VersionId") or "null",
                "size": one["ContentLength"],
                "latest": (latest or {}).get("VersionId"),
            }
        return found

    def _head(self, key: str, version: str | None) -> Any:
        more: dict[str, Any] = {"VersionId": version} if version else {}
        missing = ("404", "NoSuchKey", "NoSuchVersion", "400", "InvalidArgument", "405", "MethodNotAllowed")
        return self._s3("GetObjectVersion" if version else "GetObject", "head_object", missing, Key=key, **more)

    def _text(self, key: str, version: str | None) -> str:
        more: dict[str, Any] = {"VersionId": version} if version else {}
        answer = self._s3("GetObject", "get_object", Key=key, Range=f"bytes=0-{TEXT - 1}", **more)
        with _reading("s3:GetObject"):
            return answer["Body"].read().decode("utf-8", "replace")

    def _content(self, path: str) -> Any:
        one = (self._of("objects") or {}).get(path)
        if one is None:
            return None
        return "" if one["size"] == 0 else self._text(one["key"], self.s[settings.PINNED[path]])

    @fact
    def requirements(self) -> Any:
        """The text of requirements.txt."""
        return self._content("requirements_s3_path")

    @fact
    def startup_script(self) -> Any:
        return self._content("startup_script_s3_path")

    @fact
    def plugins(self) -> Any:
        """{"size": bytes, "names": of the archive's files, None where it is no archive}."""
        one = (self._of("objects") or {}).get("plugins_s3_path")
        if one is None:
            return None
        version = self.s["plugins_s3_object_version"]

        def read(start: int, end: int) -> bytes:
            more: dict[str, Any] = {"VersionId": version} if version else {}
            answer = self._s3("GetObject", "get_object", Key=one["key"], Range=f"bytes={start}-{end - 1}", **more)
            with _reading("s3:GetObject"):
                return answer["Body"].read()

        try:
            # the directory stands at the end: an archive of a gigabyte is not downloaded for it
            with zipfile.ZipFile(io.BufferedReader(_Remote(one["size"], read), ARCHIVE_READ)) as archive:
                return {"size": one["size"], "names": archive.namelist()}
        except zipfile.BadZipFile:
            return {"size": one["size"], "names": None}

    # --- the key ------------------------------------------------------------------------------------------------

    def _key(self, name: str) -> Any:
        with _reading("kms:DescribeKey"):
            try:
                return self.aws.client("kms").describe_key(KeyId=name)["KeyMetadata"]
            except Exception as exception:
                if _is(exception, *MISSING):
                    return None
                raise

    @fact
    def found_key(self) -> Any:
        """The metadata of the environment's key; {} where it does not exist, None where AWS's own is used."""
        name = self.s["kms_key"]
        if not name or "alias/" in name:
            return None
        if name.startswith("arn:") and name.count(":") != 5:
            return None  # nonsense, which a rule says
        if name.startswith("arn:") and name.split(":")[3] != self.s.region:
            return {"Arn": name, "elsewhere": name.split(":")[3]}
        return self._key(name) or {}

    @fact
    def key(self) -> Any:
        found = self._of("found_key")
        return found if found and "KeyState" in found else None

    @fact
    def key_policy(self) -> Any:
        key = self._of("key")
        if key is None:
            return None
        with _reading("kms:GetKeyPolicy"):
            return self.aws.client("kms").get_key_policy(KeyId=key["Arn"], PolicyName="default")["Policy"]

    @fact
    def key_grants(self) -> Any:
        """Who has been granted the key, where the environment exists and should have got grants on it."""
        key = self._of("key")
        if key is None or (self.s.environment or {}).get("Status") not in ("AVAILABLE", "UPDATE_FAILED"):
            return None
        with _reading("kms:ListGrants"):
            pages = self.aws.client("kms").get_paginator("list_grants").paginate(KeyId=key["Arn"])
            return [one.get("GranteePrincipal") or "" for page in pages for one in page["Grants"]]

    def _key_arn(self) -> str | None:
        """Of the environment's key, also where it may not be described."""
        name = self.s["kms_key"]
        if not name:
            return None
        found = self._settle("found_key")
        if isinstance(found, dict) and found.get("Arn"):
            return str(found["Arn"])
        own = f"arn:{self.s.partition}:kms:{self.s.region}:{self.s.account}:key/"
        return name if name.startswith("arn:") else own + name.rpartition("/")[2]

    # --- roles --------------------------------------------------------------------------------------------------

    def _role(self, name: str) -> Any:
        with _reading("iam:GetRole"):
            try:
                return self.aws.client("iam").get_role(RoleName=name)["Role"]
            except Exception as exception:
                if _is(exception, "NoSuchEntity", "NoSuchEntityException", *MISSING):
                    return None
                raise

    @fact
    def found_role(self) -> Any:
        """The execution role; {} where it does not exist."""
        arn = self.s["execution_role_arn"]
        if not arn or arn.split(":")[4] != self.s.account:
            return None
        return self._role(arn.rsplit("/", 1)[-1]) or {}

    @fact
    def role(self) -> Any:
        return self._of("found_role") or None

    @fact
    def linked_role(self) -> Any:
        """Whether MWAA's service-linked role is there."""
        return self._role(permissions.LINKED_ROLE) is not None

    def _simulated(
        self, principal: str, need: permissions.Need, more: dict[str, Any] | None = None
    ) -> list[tuple[permissions.Need, str, str]]:
        """(need, action, how IAM would decide) for what is not allowed. more: a policy besides the principal's own."""
        parts = need.resource.split(":")
        known = {
            "aws:PrincipalAccount": self.s.account,
            "aws:RequestedRegion": self.s.region,
            "aws:ResourceAccount": (parts[4] if len(parts) > 4 else "") or self.s.account,
            **need.context,
        }
        entries = [
            {"ContextKeyName": key, "ContextKeyValues": [value], "ContextKeyType": "string"}
            for key, value in known.items()
        ]
        entries += [
            {"ContextKeyName": key, "ContextKeyValues": [value], "ContextKeyType": "boolean"}
            for key, value in permissions.ALWAYS.items()
        ]
        policies = {"PolicyInputList": [json.dumps(more)]} if more else {}
        with _reading("iam:SimulatePrincipalPolicy"):
            answer = self.aws.client("iam").simulate_principal_policy(
                PolicySourceArn=principal,
                ActionNames=list(need.actions),
                ResourceArns=[need.resource],
                ContextEntries=entries,
                **policies,
            )
        denied = []
        for one in answer["EvaluationResults"]:
            if one["EvalDecision"] == "allowed":
                continue
            how = one["EvalDecision"]
            if (one.get("PermissionsBoundaryDecisionDetail") or {}).get("AllowedByPermissionsBoundary") is False:
                how = "boundary"
            elif (one.get("OrganizationsDecisionDetail") or {}).get("AllowedByOrganizations") is False:
                how = "organization"
            elif missing := _unknown(one):
                how = f"condition {', '.join(missing)}"
            elif self.s.partition == "aws-cn" and "kms:ViaService" in need.context:
                how = "condition kms:ViaService"  # whether China's names of services end in .cn there is not documented
            denied.append((need, one["EvalActionName"], how))
        return denied

    def _all_simulated(
        self, principal: str, needs: list[permissions.Need], more: dict[str, Any] | None = None
    ) -> list[Any]:
        with ThreadPoolExecutor(SIMULATIONS) as pool:
            found = pool.map(lambda need: self._simulated(principal, need, more), needs)
            return [one for denied in found for one in denied]

    @fact
    def denied_to_role(self) -> Any:
        """What the execution role needs and may not."""
        role = self._of("role")
        if role is None:
            return None
        return self._all_simulated(role["Arn"], permissions.of_role(self.s, self._key_arn()), self._role_policy)

    @fact
    def lists_buckets(self) -> Any:
        """Whether the execution role may list the account's buckets."""
        role = self._of("role")
        if role is None:
            return None
        return not self._simulated(role["Arn"], permissions.Need("*", ("s3:ListAllMyBuckets",), {}, ""))

    @fact
    def creator(self) -> Any:
        """The ARN of the user or role that creates the environment; "" for the account's root, who may everything."""
        if self._principal:
            return self._principal
        kind, _slash, name = self.s.caller.split(":", 5)[5].partition("/")
        if kind == "assumed-role":
            role = self._role(name.partition("/")[0])
            return (
                role["Arn"] if role else f"arn:{self.s.partition}:iam::{self.s.account}:role/{name.partition('/')[0]}"
            )
        return "" if kind == "root" else self.s.caller

    @fact
    def denied_to_creator(self) -> Any:
        """{rule: what whoever creates the environment needs and may not}; {} for root."""
        creator = self._of("creator")
        if not creator:
            return {}
        vpc = self._settle("vpc")  # where it is not known, the rule about it says so
        needs = permissions.of_caller(self.s, self._key_arn(), vpc if isinstance(vpc, str) else None)
        flat = [(identity, need) for identity, several in needs.items() for need in several]
        denied = self._all_simulated(creator, [need for _identity, need in flat])
        return {
            identity: [one for one in denied if one[0] in several] for identity, several in needs.items() if several
        }

    # --- the account, the name ----------------------------------------------------------------------------------

    @fact
    def environments(self) -> Any:
        """Names of all environments of the account in the region."""
        with _reading("airflow:ListEnvironments"):
            pages = self.aws.client("mwaa").get_paginator("list_environments").paginate()
            return [name for page in pages for name in page["Environments"]]

    @fact
    def quotas(self) -> Any:
        """{name in lower case: value} of MWAA's quotas; {} where AWS lists none, which then are the documented ones."""
        with _reading("servicequotas:ListServiceQuotas"):
            pages = self.aws.client("service-quotas").get_paginator("list_service_quotas")
            return {
                one["QuotaName"].lower(): one["Value"]
                for page in pages.paginate(ServiceCode="airflow")
                for one in page["Quotas"]
            }

    @fact
    def claiming_stack(self) -> Any:
        """The stack that has a resource of this name although there is no such environment; "" for none."""
        if self.s.environment is not None:
            return None
        with _reading("cloudformation:DescribeStackResources"):
            try:
                found = self.aws.client("cloudformation").describe_stack_resources(PhysicalResourceId=self.s.name)
            except Exception as exception:
                if _is(exception, "ValidationError"):
                    return ""
                raise
        for one in found["StackResources"]:
            if one["ResourceType"] == "AWS::MWAA::Environment" and one.get("PhysicalResourceId") == self.s.name:
                return "" if one["ResourceStatus"].startswith("DELETE_COMPLETE") else one["StackName"]
        return ""

    @fact
    def log_groups(self) -> Any:
        """Those that the environment's name leads to, by name."""
        with _reading("logs:DescribeLogGroups"):
            pages = self.aws.client("logs").get_paginator("describe_log_groups")
            prefix = f"airflow-{self.s.name}-"
            found = [one for page in pages.paginate(logGroupNamePrefix=prefix) for one in page["logGroups"]]
        # airflow-a- is also the beginning of the groups of an environment a-b
        return {
            one["logGroupName"]: one
            for one in found
            if one["logGroupName"][len(prefix) :] in ("DAGProcessing", "Scheduler", "Task", "WebServer", "Worker")
        }

    @fact
    def health(self) -> Any:
        """{component: "healthy" or not} as its REST API tells; of a web server that answers from outside."""
        shown = self.s.environment or {}
        version = str(shown.get("AirflowVersion") or "")
        if (
            shown.get("Status") not in ("AVAILABLE", "UPDATE_FAILED")
            or shown.get("WebserverAccessMode") == "PRIVATE_ONLY"
        ):
            return None
        if _versions.numbers(version) < limits.REST_SINCE:
            return None
        path = "/monitor/health" if _versions.at_least(version, "3") else "/health"
        with _reading("airflow:InvokeRestApi"):
            said = self.aws.client("mwaa").invoke_rest_api(Name=self.s.name, Path=path, Method="GET")
        return {
            name: str(one.get("status"))
            for name, one in (said.get("RestApiResponse") or {}).items()
            if isinstance(one, dict) and one.get("status") is not None  # null: it runs no such component
        }

    @fact
    def failing_logs(self) -> Any:
        """{log group: streams with errors in the last hour}, of an environment that exists. Never what they say."""
        groups = self._of("log_groups")
        if self.s.environment is None or not groups:
            return None
        start = int((time.time() - LOG_HOUR) * 1000)
        found: dict[str, set[str]] = {}
        for group in groups:
            if group.endswith("-Task"):
                continue  # a task that fails is no fault of the environment's
            with _reading("logs:FilterLogEvents"):
                answer = self.aws.client("logs").filter_log_events(
                    logGroupName=group, startTime=start, filterPattern=LOG_PATTERN, limit=100
                )
            streams = {one["logStreamName"] for one in answer.get("events") or []}
            if streams:
                found[group] = streams
        return found


def _unknown(result: dict[str, Any]) -> list[str]:
    """Keys of conditions that a simulation was not told: with their values it may decide otherwise."""
    parts = [result, *(result.get("ResourceSpecificResults") or [])]
    return sorted({key for part in parts for key in part.get("MissingContextValues") or []})


class _Remote(io.RawIOBase):
    """An object as a file that is read where it is looked into."""

    def __init__(self, size: int, read: Callable[[int, int], bytes]):
        self._size, self._read, self._at = size, read, 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if self._at < 0:
            raise OSError("before the beginning")
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        end = min(self._at + len(buffer), self._size)
        if end <= self._at:
            return 0
        data = self._read(self._at, end)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
