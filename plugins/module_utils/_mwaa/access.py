# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which of an environment's doors answer from where this runs.

PRIVATE to the collection: no promise is made to other collections.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ansible_collections.mwaa.migration.plugins.module_utils._errors import THROTTLED
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa import limits
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa.cli import Cli
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa.environment import version
from ansible_collections.mwaa.migration.plugins.module_utils._mwaa.rest import RestClient, RestError

PROBE_SECONDS = 20.0  # that a broken connection is given to mend, before the door counts as closed


class Access(NamedTuple):
    """rest, cli: whether calls of the REST API and of the CLI arrive. reason: one sentence, for who reads a result."""

    rest: bool
    cli: bool
    reason: str


def reach(aws: Any, environment: dict[str, Any]) -> Access:
    """What can be called. aws: _aws.Aws. environment: GetEnvironment's Environment.

    A web server that is public is taken at its word. A private one is tried, once each way: nothing else tells whether
    this machine, or api_host, is inside.
    """
    name, airflow = environment["Name"], version(environment)
    old = airflow < limits.REST_SINCE
    without = f"Airflow {'.'.join(map(str, airflow))} has no REST API in MWAA (it begins with 2.4.3)"
    if environment.get("WebserverAccessMode") != "PRIVATE_ONLY":
        return Access(not old, True, f"{without}, its CLI answers." if old else "The web server is public.")
    inside = " through api_host" if aws.tunnel else ""
    if not old:
        refused = _rest_refused(aws, name)
        if not refused:
            return Access(True, True, f"The web server is private and answers{inside}.")
    else:
        refused = without
    closed = Cli.of(aws, name).unreachable()
    if not closed:
        return Access(False, True, f"The web server is private; its CLI answers{inside}, REST does not: {refused}.")
    return Access(
        False, False, f"The web server is private and cannot be reached{inside}: {refused if not old else closed}."
    )


def _rest_refused(aws: Any, name: str) -> str:
    try:
        RestClient(aws.client("mwaa"), name, budget=PROBE_SECONDS).call("GET", "/version")
    except RestError as error:
        if error.status is None and error.code not in THROTTLED:  # otherwise Airflow, or its door, has answered
            return error.message
    return ""


def source_aws(aws: Any, params: dict[str, Any]) -> Any:
    """The credentials and the region that an MWAA environment that is left is reached with. aws: the target's."""
    return aws.elsewhere(
        region=params["source_region"], profile=params["source_profile"], role_arn=params["source_role_arn"]
    )
