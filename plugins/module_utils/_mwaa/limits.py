# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Amazon MWAA allows, as constants. PRIVATE to the collection.

Sources: [API] the service model in botocore (mwaa/2020-07-01); [UG page] the MWAA User Guide,
https://docs.aws.amazon.com/mwaa/latest/userguide/<page>.html; [image] github.com/aws/amazon-mwaa-docker-images.
"""

from __future__ import annotations

import re

# --- InvokeRestApi ------------------------------------------------------------------------------------------------
REST_PATH_MAX = 64  # characters [API]; botocore does not check it, the service refuses
REST_CALLS_PER_SECOND = 10  # [UG mwaa-faqs]; AWS Support can raise it
REST_PACE = 9.0  # ours, a little below
REST_TIMEOUT = 10  # seconds [UG access-mwaa-apache-airflow-rest-api]
REST_RESPONSE_MAX = 6 * 1024 * 1024  # bytes [UG access-mwaa-apache-airflow-rest-api]
REST_PAGE = 100  # rows; Airflow's default maximum_page_limit, which an environment may lower
REST_SINCE = (2, 4, 3)  # Airflow version [UG access-mwaa-apache-airflow-rest-api]
REST_METHODS = ("GET", "PUT", "POST", "PATCH", "DELETE")  # [API]

# --- the CLI endpoint ---------------------------------------------------------------------------------------------
CLI_AT_ONCE = 4  # more get HTTP 503 [UG t-apache-airflow-202]
TOKEN_SECONDS = 60  # [UG call-mwaa-apis-cli]

# Supported commands [UG airflow-cli-command-reference]. True: the command writes something, or runs user code. The last
# ones are of 1.10.12 [its page, archived], as far as they are used here.
CLI_COMMANDS: dict[str, bool] = {
    "assets details": False,
    "assets list": False,
    "assets materialize": True,
    "backfill create": True,
    "cheat-sheet": False,
    "connections add": True,
    "connections delete": True,
    "dags backfill": True,
    "dags delete": True,
    "dags list": False,
    "dags list-import-errors": False,
    "dags list-jobs": False,
    "dags list-runs": False,
    "dags next-execution": False,
    "dags pause": True,
    "dags report": False,
    "dags reserialize": True,
    "dags show": False,
    "dags state": False,
    "dags test": True,
    "dags trigger": True,
    "dags unpause": True,
    "db clean": True,
    "providers behaviours": False,
    "providers get": False,
    "providers hooks": False,
    "providers links": False,
    "providers list": False,
    "providers notifications": False,
    "providers secrets": False,
    "providers triggerer": False,
    "providers widgets": False,
    "roles add-perms": True,
    "roles create": True,
    "roles del-perms": True,
    "roles list": False,
    "tasks clear": True,
    "tasks failed-deps": False,
    "tasks list": False,
    "tasks render": False,
    "tasks run": True,
    "tasks state": False,
    "tasks states-for-dag-run": False,
    "tasks test": True,
    "variables delete": True,
    "variables get": False,
    "variables list": False,
    "variables set": True,
    "version": False,
    "list_dag_runs": False,
    "trigger_dag": True,
    "unpause": True,
}

# --- environments [API] -------------------------------------------------------------------------------------------
NAME = re.compile(r"[a-zA-Z][0-9a-zA-Z-_]*")
NAME_MAX = 80
ROLE_ARN = re.compile(r"arn:aws(-[a-z]+)?:iam::\d{12}:role/?[a-zA-Z_0-9+=,.@\-_/]+")
BUCKET_ARN = re.compile(r"arn:aws(-[a-z]+)?:s3:::[a-z0-9.\-]+")
ARN_MAX = 1224
S3_PATH_MAX = 1024
SUBNET_ID = re.compile(r"subnet-[a-zA-Z0-9\-._]+")
SECURITY_GROUP_ID = re.compile(r"sg-[a-zA-Z0-9\-._]+")
SUBNETS = 2  # exactly, in two availability zones [UG networking-about]
SECURITY_GROUPS_MAX = 5
OPTION_NAME = re.compile(r"[a-z]+([a-z0-9._]*[a-z0-9_]+)?")
OPTION_NAME_MAX = 64
OPTION_VALUE = re.compile(r"[ -~]+")  # printable ASCII: no newline, nothing empty
OPTION_VALUE_MAX = 65536
# aliases pass the API's pattern, but are not supported [UG custom-keys-certs]
KMS_KEY = re.compile(
    r"((arn:aws(-[a-z]+)?:kms:[a-z]{2}(-[a-z]+)+-\d:\d+:)?key/)?[a-f0-9]{8}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{12}"
)
VERSION = re.compile(r"[0-9a-z.]+")
VERSION_MAX = 32
MAINTENANCE_WINDOW = re.compile(r"(MON|TUE|WED|THU|FRI|SAT|SUN):([01]\d|2[0-3]):(00|30)")
LOG_LEVELS = ("CRITICAL", "ERROR", "WARNING", "INFO", "DEBUG")
ACCESS_MODES = ("PRIVATE_ONLY", "PUBLIC_ONLY", "PUBLIC_AND_PRIVATE")
ACCESS_MODE_BOTH_SINCE = (3, 2)  # Airflow version of PUBLIC_AND_PRIVATE
ACCESS_MODE_BOTH_BOTOCORE = "1.43.30"  # absent in 1.43.0
ENDPOINT_MANAGEMENT = ("CUSTOMER", "SERVICE")
REPLACEMENT_STRATEGIES = ("FORCED", "GRACEFUL")
# [UG environment-class]; the API takes any string, so that a new class needs no release of ours
CLASSES = ("mw1.micro", "mw1.small", "mw1.medium", "mw1.large", "mw1.xlarge", "mw1.2xlarge")
CLASS_DAGS = {  # DAGs that a class is made for [UG environment-class]
    "mw1.micro": 25,
    "mw1.small": 50,
    "mw1.medium": 250,
    "mw1.large": 1000,
    "mw1.xlarge": 2000,
    "mw1.2xlarge": 4000,
}
SCHEDULERS_MAX = 5
QUOTA_ENVIRONMENTS = 10  # of an account in a region; these three can be raised [UG mwaa-quotas]
QUOTA_WORKERS = 25
QUOTA_WEBSERVERS = 5
ARCHIVE_MAX = 1024**3  # bytes of plugins.zip that are recommended at most [UG configuring-dag-import-plugins]
TAGS_MAX = 50
TAG = re.compile(r"[\w\s.:/=+\-@]*")
TAG_KEY_MAX = 128
TAG_VALUE_MAX = 256

# --- statuses [API, UG upgrading-environment] ---------------------------------------------------------------------
STEADY = ("AVAILABLE", "UPDATE_FAILED")  # UPDATE_FAILED: rolled back and usable
BUSY = ("CREATING", "PENDING", "UPDATING", "CREATING_SNAPSHOT", "ROLLING_BACK", "MAINTENANCE", "DELETING")
FAILED = ("CREATE_FAILED", "UPDATE_FAILED", "UNAVAILABLE")
