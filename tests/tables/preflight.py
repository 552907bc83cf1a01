# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: E501 - prose of a page
"""Writes docs/preflight.md: every rule with what it looks at, how grave it is, and who says so.

python tests/tables/preflight.py > docs/preflight.md
"""

from __future__ import annotations

from ansible_collections.mwaa.migration.plugins.module_utils._preflight import check  # noqa: F401 - declares the rules
from ansible_collections.mwaa.migration.plugins.module_utils._preflight.frame import AREAS, RULES, in_order

HEAD = """\
# What preflight looks at

`mwaa_preflight` (the role [preflight](../roles/preflight/README.md), the playbook `mwaa.migration.preflight`) reads a set-up and judges it by these {count} rules. A
rule that has nothing to look at (no key of one's own, no requirements) is not among those that were `checked`; one that could not look, because a read was
denied, is a finding, `could-not-check`, which names the missing action.

A finding has an `id` (below), a `severity`, a `resource`, and says `what` is wrong, `why` that matters and `how` to mend it. An **error** is something that creating the
environment, or its tasks, fail on; a **warning** works and will hurt; **info** is worth knowing. A rule can say less or more than stands here where it knows more:
a route to nowhere is a warning, and an error where it is the default route.

It covers what AWS's own script `verify_env` (github.com/awslabs/aws-support-tools, MWAA) looks at, but for what that script does besides reading: it sends nothing
through the network (`AWSSupport-ConnectivityTroubleshooter`; routes, groups, ACLs and endpoints are thought through instead), and runs no DAG.
"""

TITLES = {
    "environment": "The environment",
    "options": "Airflow's options",
    "network": "The network",
    "bucket": "The bucket",
    "files": "What lies in the bucket",
    "key": "The KMS key",
    "role": "The execution role",
    "caller": "Whoever creates the environment",
    "logs": "Logs",
}

READS = """\
## What it reads

The caller needs to be allowed what is in [caller-policy/preflight.json](caller-policy/preflight.json), all of it reads ([caller-policy.md](caller-policy.md)).
Service control policies, session policies and permission sets of the caller are
known as far as IAM's simulation tells them.
"""


def page() -> str:
    parts = [HEAD.format(count=len(RULES))]
    for area in AREAS:
        parts += [f"## {TITLES[area]}\n", "| rule | | looks whether | source |", "|---|---|---|---|"]
        for one in in_order():
            if one.area == area:
                about = one.about.rstrip(".")
                about = (
                    about[0].lower() + about[1:] if not about.startswith(("MWAA", "AWS", "S3", "Airflow")) else about
                )
                parts.append(f"| `{one.id}` | {one.severity} | {about} | {one.source} |")
        parts.append("")
    parts.append(READS)
    parts.append(
        "UG: the MWAA user guide, `https://docs.aws.amazon.com/mwaa/latest/userguide/<page>.html`. Image: github.com/aws/amazon-mwaa-docker-images."
    )
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    print(page(), end="")
