# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A source that is reached as a role: STS's own answers become credentials that every client has."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.mwaa.migration.plugins.module_utils._aws import Aws
from ansible_collections.mwaa.migration.plugins.module_utils._errors import MigrationError

pytestmark = pytest.mark.lab


def test_clients_of_a_role_are_the_roles(base: Any, options: dict[str, Any]) -> None:
    here = Aws.for_plugin(options)
    there = here.elsewhere(role_arn=base.role, region="eu-west-1")
    assert there.region == "eu-west-1" and there.caller["Arn"] != here.caller["Arn"]
    assert f":assumed-role/{base.role.rpartition('/')[2]}/mwaa-migration" in there.caller["Arn"]
    s3 = there.client("s3")
    url = s3.generate_presigned_url("get_object", Params={"Bucket": "b", "Key": "k"})
    assert s3.list_buckets()["Buckets"] and "oken=" in url and hasattr(s3, "upload_fileobj")


def test_a_role_that_nobody_may_assume_is_a_sentence_at_once(options: dict[str, Any]) -> None:
    with pytest.raises(MigrationError, match="cannot assume the role nonsense"):
        Aws.for_plugin(options).elsewhere(role_arn="nonsense")
