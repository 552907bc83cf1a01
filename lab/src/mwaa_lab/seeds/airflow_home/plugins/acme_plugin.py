# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Registers a macro."""

from airflow.plugins_manager import AirflowPlugin


def fiscal_year(ds):
    return int(ds[:4]) + (ds[5:7] >= "10")


class AcmePlugin(AirflowPlugin):
    name = "acme"
    macros = [fiscal_year]
