# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""AWS_ENDPOINT_URL for the botocore of old Airflows, which learned to heed it in 1.31 (July 2023).

Real AWS needs none of this: it stands in for the network that leads there. Python 3.6 syntax.
"""

import importlib.abc
import importlib.machinery
import os
import sys

HEEDS = (1, 31)


class _Finder(importlib.abc.MetaPathFinder):
    """Changes botocore.session as it is imported, so that nothing is imported on its behalf."""

    def find_spec(self, name, path, target=None):
        if name != "botocore.session":
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        loader = getattr(spec, "loader", None)
        if loader is not None:
            load = loader.exec_module

            def exec_module(module):
                load(module)
                _change(module.Session)

            setattr(loader, "exec_module", exec_module)  # noqa: B010 - a method of this one loader
        return spec


def _change(session):
    import botocore

    if tuple(int(part) for part in botocore.__version__.split(".")[:2]) >= HEEDS:
        return
    from botocore.config import Config

    create = session.create_client

    def create_client(self, service_name, region_name=None, api_version=None, use_ssl=True, verify=None,
                      endpoint_url=None, *arguments, **named):  # fmt: skip
        if endpoint_url is None:
            endpoint_url = os.environ["AWS_ENDPOINT_URL"]
            lab = Config(s3={"addressing_style": "path"}, inject_host_prefix=False)
            names = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token", "config")
            named.update(zip(names, arguments))
            named["config"] = lab.merge(named["config"]) if named.get("config") else lab
            arguments = ()
        return create(self, service_name, region_name, api_version, use_ssl, verify, endpoint_url, *arguments, **named)

    session.create_client = create_client


def install():
    sys.meta_path.insert(0, _Finder())
