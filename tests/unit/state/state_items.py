# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Strategies for what an Airflow can hold: control characters, astral planes, JSON in every spelling, 64 KiB.

Left out is what no database of Airflow takes (NUL, lone surrogates, numbers beyond the column).
"""

from __future__ import annotations

import json
import string

from ansible_collections.mwaa.migration.plugins.module_utils._state.model import Connection, Pool, Variable
from hypothesis import strategies as st

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
CONTROL = st.text(st.characters(min_codepoint=1, max_codepoint=0x1F) | st.sampled_from("\x7f\x85\u2028\ufeff😀"))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda children: st.lists(children, max_size=3) | st.dictionaries(TEXT, children, max_size=3),
    max_leaves=5,
).map(lambda value: json.dumps(value, ensure_ascii=False))
SPELLED = st.sampled_from(
    [
        "1e5",
        "007",
        " {} ",
        '{"a":1,"a":2}',
        "NaN",
        '"str"',
        "***",
        "1.10",
        "",
        "null",
        "{",
        "-1",
        "--help",
        " x ",
        "a b",
    ]
)
LONG = st.sampled_from(["x" * 65536, "ü" * 40000, '{"a":"' + "x" * 65500 + '"}'])
WIDE = st.sampled_from(["x" * 600, "ü" * 6000])  # beyond the columns of old Airflows
ANY = TEXT | CONTROL | JSON | SPELLED
MAYBE = st.none() | ANY
IDS = st.text(string.ascii_letters + string.digits + "_.- /é%?#", min_size=1, max_size=70).filter(
    lambda text: text.strip("/")
)
EXTRA = st.none() | ANY | st.dictionaries(TEXT, TEXT, max_size=3).map(json.dumps) | LONG

variables = st.builds(
    Variable, id=IDS | st.sampled_from(["a_password", "Token ", "K" * 250]), value=ANY | LONG, description=MAYBE
)
connections = st.builds(
    Connection,
    id=IDS,
    conn_type=TEXT.filter(bool) | st.sampled_from(["http", "google_cloud_platform", "postgresql", "my-type", "S3"]),
    description=MAYBE | WIDE,
    host=MAYBE | st.sampled_from(["Host.Internal", "https://h/x", "[::1]", "h:1@x"]),
    login=MAYBE | WIDE,
    password=MAYBE | WIDE,
    schema=MAYBE,
    port=st.none() | st.integers(0, 65535),
    extra=EXTRA,
)
pools = st.builds(Pool, id=IDS, slots=st.integers(-1, 2**31 - 1), description=MAYBE, include_deferred=st.booleans())
