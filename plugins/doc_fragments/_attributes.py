# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations


class ModuleDocFragment:
    """Attributes of modules: what they say about check mode, diff mode, repeating, and defaults for all of them."""

    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Can run in C(check_mode) and return the changes it would make, without making them.
  diff_mode:
    description: Returns what changes, or would change in C(check_mode), when in diff mode. Secrets are masked.
  idempotent:
    description: When run again with the same arguments and nothing else happened, it changes nothing.
"""

    # for modules that only read
    INFO_MODULE = r"""
options: {}
attributes:
  check_mode:
    description: Can run in C(check_mode) and return the changes it would make, without making them.
    support: full
    details:
      - This module changes nothing.
  diff_mode:
    description: Returns what changes, or would change in C(check_mode), when in diff mode. Secrets are masked.
    support: N/A
    details:
      - This module changes nothing.
  idempotent:
    description: When run again with the same arguments and nothing else happened, it changes nothing.
    support: full
    details:
      - This module changes nothing.
"""

    # for all modules that speak to AWS
    AWS = r"""
options: {}
attributes:
  action_group:
    description:
      - Use C(group/mwaa.migration.aws) in C(module_defaults) to set defaults for this module, and for those of
        amazon.aws.
    support: full
    membership:
      - mwaa.migration.aws
requirements:
  - botocore >= 1.38.0
"""
