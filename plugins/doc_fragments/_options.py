# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations


class ModuleDocFragment:
    """Options that several modules share."""

    # the environment that a module works in
    ENVIRONMENT = r"""
options:
  environment:
    description:
      - The name of the MWAA environment.
    type: str
    required: true
"""
