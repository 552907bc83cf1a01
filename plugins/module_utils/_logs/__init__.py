# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Task logs on their way: from folders, S3 and CloudWatch into the streams in which the target's Airflow looks.

PRIVATE to the collection: no promise is made to other collections.

layout: which log is whose, and what its stream is called. lines: events of a log, and batches of them. record: what a
bundle holds of logs. export: from a host into a bundle. sources: what is to be copied. target: CloudWatch Logs, never
twice. copy: all of it.
"""
