# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can be seen of a set-up before MWAA needs half an hour to fail on it. PRIVATE to the collection.

gather.py reads AWS and makes a Snapshot of facts; the rules_*.py judge it and are pure; report.py shows what was found.
"""
