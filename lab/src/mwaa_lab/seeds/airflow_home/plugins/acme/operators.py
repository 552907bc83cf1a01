# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every platform team has: an operator of its own."""

from airflow.models.baseoperator import BaseOperator


class GreetOperator(BaseOperator):
    template_fields = ("name",)

    def __init__(self, *, name, **kwargs):
        super().__init__(**kwargs)
        self.name = name

    def execute(self, context):
        self.log.info("hello %s", self.name)
        return self.name
