# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run history on its way: what a bundle holds of it, and what drives the agent at both ends.

PRIVATE to the collection: no promise is made to other collections.

All of it talks to an agent through an Ask, whether that runs on a host or as a DAG of an environment.
"""

from __future__ import annotations

from typing import Any, Callable

#: a request to the agent in, its result out; MigrationError with the agent's sentence where it refuses
Ask = Callable[["dict[str, Any]"], "dict[str, Any]"]
