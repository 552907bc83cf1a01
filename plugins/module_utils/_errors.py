# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one exception of this collection, and what AWS's exceptions mean in one sentence.

PRIVATE to the collection: no promise is made to other collections.

Nothing here imports botocore (only _aws.py does): AWS's exceptions are told by their shape and by the names of their
classes.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")


class MigrationError(Exception):
    """One sentence: what is wrong, where, how to mend it.

    `code` and `request_id` are AWS's where AWS said so; `details` are further return values of the failed module
    (never secrets), such as `results` of a batch.
    """

    def __init__(self, message: str, *, code: str | None = None, request_id: str | None = None, **details: Any):
        super().__init__(message)
        self.message = message
        self.code = code
        self.request_id = request_id
        self.details = details
        self.faults: list[str] = []  # of Faults, one by one

    def as_failure(self) -> dict[str, Any]:
        """The arguments of fail_json."""
        failure: dict[str, Any] = {"msg": self.message, **self.details}
        if self.code:
            failure["error"] = {"code": self.code, "request_id": self.request_id}
        return failure


class Faults:
    """Collects what is wrong with an input, so that everything is reported at once and nothing is done before."""

    def __init__(self, what: str):
        """what: the subject of the sentence, such as 'mwaa_environment demo'."""
        self.what = what
        self.found: list[str] = []

    def add(self, fault: str) -> None:
        self.found.append(fault)

    def raise_if_any(self) -> None:
        """Raises MigrationError naming all faults, numbered when there are several."""
        if not self.found:
            return
        listed = "; ".join(f"({number}) {fault}" for number, fault in enumerate(self.found, 1))
        several = f"{len(self.found)} faults: {listed}" if len(self.found) > 1 else self.found[0]
        error = MigrationError(f"{self.what}: {several}")
        error.faults = list(self.found)
        raise error

    @contextlib.contextmanager
    def collecting(self) -> Iterator[None]:
        """What a check raises inside is one more fault (or several), and the next check has its turn."""
        try:
            yield
        except MigrationError as error:
            self.found += error.faults or [error.message]


# AWS error codes by meaning. Sources: botocore's data (mwaa, s3, kms, sts), botocore/retries/standard.py, the S3 and
# STS error references.
EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"}
BAD_CREDENTIALS = {
    "InvalidClientTokenId",
    "UnrecognizedClientException",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "InvalidSignatureException",
    "IncompleteSignature",
    "InvalidToken",
    "AuthFailure",
    "MissingAuthenticationToken",
    "MissingAuthenticationTokenException",
}
DENIED = {
    "AccessDenied",
    "AccessDeniedException",
    "UnauthorizedOperation",
    "NotAuthorized",
    "Forbidden",
    "403",
    "AuthorizationError",
}
THROTTLED = {
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "TooManyRequestsException",
    "TooManyRequests",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestThrottledException",
    "LimitExceededException",
    "SlowDown",
    "BandwidthLimitExceeded",
    "PriorRequestNotComplete",
    "ProvisionedThroughputExceededException",
    "429",
}
# what was reached may be a quota of the account or, with LimitExceededException, a rate
QUOTA = {"ServiceQuotaExceededException", "LimitExceededException", "LimitExceeded", "ResourceLimitExceeded"}
TRANSIENT = {
    "InternalServerException",
    "InternalServerError",
    "InternalError",
    "InternalFailure",
    "ServiceUnavailable",
    "ServiceUnavailableException",
    "RequestTimeout",
    "RequestTimeoutException",
    "500",
    "502",
    "503",
    "504",
}
MISSING = {
    "ResourceNotFoundException",
    "NoSuchBucket",
    "NoSuchKey",
    "NoSuchVersion",
    "NotFoundException",
    "NotFound",
    "404",
}
CLOCK = {"RequestTimeTooSkewed"}
KEY_UNUSABLE = {"DisabledException", "KMSInvalidStateException", "KeyUnavailableException"}

# urllib3's get through where the answer to a refused GetObject breaks off (botocore/endpoint.py reads it unguarded)
_SDK_PACKAGES = ("botocore.", "boto3.", "urllib3.")
_BROKEN = {"ConnectionError", "HTTPClientError", "ResponseStreamingError", "IncompleteReadError", "ProtocolError"}


def is_aws_error(exception: BaseException) -> bool:
    """Whether the AWS SDK raised it (client errors, connection errors, missing credentials, bad parameters)."""
    return any(kind.__module__.startswith(_SDK_PACKAGES) for kind in type(exception).__mro__)


def error_code(exception: BaseException) -> str | None:
    """AWS's error code, such as AccessDeniedException; None where AWS never answered."""
    response = getattr(exception, "response", None)
    if isinstance(response, dict):
        return (response.get("Error") or {}).get("Code")
    return None


def request_id(exception: BaseException) -> str | None:
    """The id AWS gave to the failed request; AWS Support asks for it."""
    response = getattr(exception, "response", None)
    if not isinstance(response, dict):
        return None
    metadata = response.get("ResponseMetadata") or {}
    headers = metadata.get("HTTPHeaders") or {}
    return metadata.get("RequestId") or headers.get("x-amzn-requestid") or headers.get("x-amz-request-id")


def http_status(exception: BaseException) -> int | None:
    """The HTTP status of AWS's answer."""
    response = getattr(exception, "response", None)
    if isinstance(response, dict):
        return (response.get("ResponseMetadata") or {}).get("HTTPStatusCode")
    return None


def is_missing(exception: BaseException) -> bool:
    """Whether AWS said that the thing does not exist."""
    return error_code(exception) in MISSING


def is_throttle(exception: BaseException) -> bool:
    """Whether AWS refused the call because there were too many: nothing was done."""
    return error_code(exception) in THROTTLED or http_status(exception) == 429


def is_transient(exception: BaseException) -> bool:
    """Whether the same call may succeed later: 5xx, resets, time-outs. It MAY have taken effect."""
    if error_code(exception) is not None:
        return error_code(exception) in TRANSIENT or (http_status(exception) or 0) >= 500
    names = _class_names(exception)
    return bool(names & {*_BROKEN, "ReadTimeoutError"}) and "SSLError" not in names


def never_sent(exception: BaseException) -> bool:
    """Whether the request surely did not reach AWS, so that repeating it is safe whatever it does."""
    return bool(_class_names(exception) & {"EndpointConnectionError", "ConnectTimeoutError", "ProxyConnectionError"})


def explain(exception: BaseException, doing: str | None = None) -> str:
    """One sentence about a botocore exception: what failed, AWS's code and request id, and what to do.

    doing: what was attempted, in the infinitive after "cannot": 'read environment demo'.
    """
    code = error_code(exception)
    if code is not None:
        said, advice = _client_error(exception, code)
    else:
        said, advice = _local_error(exception)
    start = f"cannot {doing}: " if doing else ""
    sentence = f"{start}{said}"
    if code is not None:
        identity = f"{code}, request id {request_id(exception) or 'unknown'}"
        operation = getattr(exception, "operation_name", None)
        sentence += f" ({operation}: {identity})" if operation else f" ({identity})"
    return f"{sentence}; {advice}" if advice else sentence


def aws_error(exception: BaseException, doing: str | None = None) -> MigrationError:
    """The same as a MigrationError with code and request id."""
    return MigrationError(explain(exception, doing), code=error_code(exception), request_id=request_id(exception))


@contextlib.contextmanager
def aws_errors(doing: str) -> Iterator[None]:
    """with aws_errors("read environment demo"): botocore's exceptions inside become MigrationErrors that say so."""
    try:
        yield
    except Exception as exception:
        if is_aws_error(exception):
            raise aws_error(exception, doing) from exception
        raise


def unless_missing(
    call: Callable[[], T], doing: str, missing: Callable[[BaseException], bool] = is_missing
) -> T | None:
    """What the call returns; None where AWS says that there is no such thing. doing: as in aws_errors."""
    with aws_errors(doing):
        try:
            return call()
        except Exception as exception:
            if is_aws_error(exception) and missing(exception):
                return None
            raise


def _class_names(exception: BaseException) -> set[str]:
    return {kind.__name__ for kind in type(exception).__mro__}


def _client_error(exception: BaseException, code: str) -> tuple[str, str]:
    message = str((exception.response.get("Error") or {}).get("Message") or "").strip().rstrip(".")  # type: ignore[attr-defined]
    if code in EXPIRED:
        return (
            "the AWS credentials have expired",
            "get new ones (for example: aws sso login, or assume the role again) and run again",
        )
    if code in CLOCK:
        return "AWS refused the signature because this machine's clock is wrong", "set the clock (NTP) and run again"
    if code in BAD_CREDENTIALS:
        return (
            f"AWS does not accept the credentials{_quoted(message)}",
            "check access_key, secret_key and session_token (or the profile, or the AWS_* variables): temporary"
            " keys need their session token",
        )
    if code in DENIED:
        action = "" if "is not authorized to perform" in message else _action(exception, code)
        return (
            f"AWS denied it{_quoted(message)}",
            f"allow {action or 'the named action'} in the caller's IAM policy (and look for an SCP or a bucket, key or"
            " endpoint policy that denies it)",
        )
    if code in QUOTA:
        return (
            f"a limit of the account or the region is reached{_quoted(message)}",
            "ask for a higher quota (Service Quotas, or AWS Support), or remove what is not needed; if it was a rate,"
            " run again later",
        )
    if code in THROTTLED:
        return (
            "AWS kept throttling the call although it was repeated with growing pauses",
            "run again later, or ask AWS Support for a higher rate",
        )
    if code in TRANSIENT:
        return (
            f"AWS had an internal failure although the call was repeated{_quoted(message)}",
            "run again; if it stays, give the request id to AWS Support",
        )
    if code in {"PermanentRedirect", "AuthorizationHeaderMalformed", "301", "IllegalLocationConstraintException"}:
        region = _true_region(exception)
        where = f"region {region}" if region else "another region"
        return (
            f"the bucket is in {where}",
            "use a bucket in the environment's own region, or set region to the bucket's",
        )
    if code in KEY_UNUSABLE:
        return (
            f"the key cannot be used{_quoted(message)}",
            "enable it (aws kms enable-key, or cancel-key-deletion before), or name another key",
        )
    if code in MISSING:
        return f"it does not exist{_quoted(message)}", "check its name, the region and the account"
    return f"AWS refused it{_quoted(message)}", ""


# S3 answers HEAD without a word, and others' buckets with two; what the operation takes is then ours to say [SAR s3].
_OF_S3 = {
    "HeadBucket": "ListBucket",
    "ListObjects": "ListBucket",
    "ListObjectsV2": "ListBucket",
    "ListObjectVersions": "ListBucketVersions",
    "ListMultipartUploads": "ListBucketMultipartUploads",
    "HeadObject": "GetObject (of a version: s3:GetObjectVersion)",
    "GetObject": "GetObject (of a version: s3:GetObjectVersion)",
    "PutObject": "PutObject",
    "CopyObject": "PutObject",
    "CreateMultipartUpload": "PutObject",
    "UploadPart": "PutObject",
    "CompleteMultipartUpload": "PutObject",
    "AbortMultipartUpload": "AbortMultipartUpload",
    "DeleteObject": "DeleteObject (of a version: s3:DeleteObjectVersion)",
    "DeleteObjects": "DeleteObject (of a version: s3:DeleteObjectVersion)",
    "GetBucketVersioning": "GetBucketVersioning",
    "GetBucketEncryption": "GetEncryptionConfiguration",
    "GetBucketLocation": "GetBucketLocation",
    "GetBucketPolicy": "GetBucketPolicy",
    "GetBucketTagging": "GetBucketTagging",
}


def _action(exception: BaseException, code: str) -> str:
    """The IAM action of the operation that was denied, where AWS does not say it; "" where nobody knows."""
    operation = getattr(exception, "operation_name", None) or ""
    if code == "UnauthorizedOperation":
        return f"ec2:{operation}"
    if operation == "GetPublicAccessBlock":
        return "s3:GetBucketPublicAccessBlock"
    return f"s3:{_OF_S3[operation]}" if operation in _OF_S3 else ""


def _local_error(exception: BaseException) -> tuple[str, str]:
    names = _class_names(exception)
    text = " ".join(str(exception).split()).rstrip(".")
    if "NoCredentialsError" in names:
        return (
            "no AWS credentials were found",
            "set profile, or access_key and secret_key, or the AWS_* environment variables, or run where an"
            " instance or task role is attached",
        )
    if "PartialCredentialsError" in names:
        return f"the AWS credentials are incomplete ({text})", "set both access_key and secret_key"
    if "ProfileNotFound" in names:
        return (
            f"the AWS profile {_named(text)} does not exist",
            "correct profile (or AWS_PROFILE), or add it to ~/.aws/config",
        )
    if "NoRegionError" in names:
        return "no AWS region is set", "set region (or AWS_REGION, or region in the profile)"
    if names & {"InvalidRegionError", "UnknownRegionError"}:
        return f"the AWS region is not valid ({text})", "set region to one such as eu-central-1"
    if names & {
        "UnauthorizedSSOTokenError",
        "SSOTokenLoadError",
        "TokenRetrievalError",
        "LoginRefreshRequired",
        "LoginTokenLoadError",
    }:
        return f"the single sign-on session is missing or has expired ({text})", "run aws sso login and try again"
    if names & {"CredentialRetrievalError", "MetadataRetrievalError", "RefreshWithMFAUnsupportedError"}:
        return (
            f"the AWS credentials could not be fetched ({text})",
            "check the profile's credential_process, role_arn or the instance's metadata service",
        )
    if names & {"SSLError"}:
        return (
            f"the TLS certificate of the AWS endpoint is not trusted ({text})",
            "set aws_ca_bundle (or AWS_CA_BUNDLE) to the certificate authority that signs for it",
        )
    if names & {"EndpointConnectionError", "ConnectTimeoutError", "ProxyConnectionError"}:
        return (
            f"AWS cannot be reached ({text})",
            "check the region, endpoint_url (or AWS_ENDPOINT_URL), the proxy, DNS and, inside a private VPC, the"
            " interface endpoint of the service",
        )
    if "ReadTimeoutError" in names:
        return f"AWS did not answer in time ({text})", "run again"
    if names & _BROKEN:
        return f"the connection to AWS broke ({text})", "run again"
    if "ParamValidationError" in names:
        return f"a parameter is not what AWS takes ({_without_values(str(exception))})", ""
    return f"the AWS SDK failed ({type(exception).__name__}: {text})", ""


def _quoted(message: str) -> str:
    return f": {message}" if message else ""


def _named(text: str) -> str:
    found = re.search(r"\((.+?)\)", text)
    return found.group(1) if found else "that was named"


def _true_region(exception: BaseException) -> str | None:
    response: dict[str, Any] = exception.response  # type: ignore[attr-defined]
    headers = (response.get("ResponseMetadata") or {}).get("HTTPHeaders") or {}
    return headers.get("x-amz-bucket-region") or (response.get("Error") or {}).get("Region")


def _without_values(text: str) -> str:
    # botocore repeats the values it was given, and they may be secret
    lines = [
        line.strip()
        for line in text.splitlines()
        if line.strip() and not line.startswith("Parameter validation failed")
    ]
    return "; ".join(re.sub(r"(, )?value: .*?(, (?=valid|type:))|(, )?value: .*$", " ", line).strip() for line in lines)
