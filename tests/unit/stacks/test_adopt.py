# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""mwaa_adopt_info: the stack that takes resources in, in whatever state a killed run has left it.

What it finds and refuses is tried in the lab: tests/integration/modules/test_adopt_lab.py.
"""

from __future__ import annotations

from ansible_collections.mwaa.migration.plugins.module_utils._stacks.adopt import Stack, _encryption
from fake_cloudformation import FakeCloudFormation
from fakes import Clock

BUCKET = {"Resources": {"Bucket": {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": "a"}}}}


def test_what_a_killed_run_has_begun_is_waited_for(clock: Clock) -> None:
    cloud = FakeCloudFormation()
    stack = cloud.has("base", "IMPORT_IN_PROGRESS", BUCKET)
    held, stack["_resources"] = stack["_resources"], {}
    stack["_script"] = [[], [], [(None, "IMPORT_COMPLETE", "")]]
    cloud._finish = lambda one: one.update(_resources=held)  # type: ignore[method-assign]
    assert Stack.read(cloud, "base").logical_ids == {("AWS::S3::Bucket", "a"): "Bucket"}


def test_what_a_failed_creation_left_is_no_stack(clock: Clock) -> None:
    cloud = FakeCloudFormation()
    cloud.has("base", "ROLLBACK_COMPLETE", BUCKET)
    assert Stack.read(cloud, "base") == Stack("base", {}, {})


def test_a_buckets_encryption_is_said_whole() -> None:
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": "k"}}
    rule |= {"BucketKeyEnabled": True, "BlockedEncryptionTypes": {"EncryptionType": ["SSE-C"]}}
    (said,) = _encryption({"ServerSideEncryptionConfiguration": {"Rules": [rule]}})["ServerSideEncryptionConfiguration"]
    assert said.pop("ServerSideEncryptionByDefault") == rule.pop("ApplyServerSideEncryptionByDefault")
    assert said == rule
