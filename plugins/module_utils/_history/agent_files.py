# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The agent's files for run history. Ansible puts into a module's archive what it sees imported: what makes an
AgentLane with history=True imports this, and the lane finds the files there (`source_file`).

PRIVATE to the collection: no promise is made to other collections.
"""

from __future__ import annotations

from ansible_collections.mwaa.migration.plugins.module_utils._history import airflow_history, airflow_history_import

FILES = (airflow_history, airflow_history_import)
