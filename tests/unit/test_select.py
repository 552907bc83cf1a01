# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which ids are carried, and under which names."""

from __future__ import annotations

import pytest
from ansible_collections.mwaa.migration.plugins.module_utils._errors import MigrationError
from ansible_collections.mwaa.migration.plugins.module_utils._select import Selection


def test_all_by_default() -> None:
    chosen = Selection().apply(["a", "B c", "ü"])
    assert chosen.ids == {"a": "a", "B c": "B c", "ü": "ü"} and not chosen.left and not chosen.renamed


def test_exclude_wins_over_include() -> None:
    chosen = Selection(["team_a_*", "shared"], ["*_tmp"]).apply(["team_a_db", "team_a_tmp", "shared", "Shared"])
    assert list(chosen.ids) == ["team_a_db", "shared"] and chosen.left == ["team_a_tmp", "Shared"]


def test_the_first_rule_that_matches_the_whole_id_names_it() -> None:
    rules = [{"match": "(?i)PROD_(?P<what>.+)", "to": r"\g<what>_prod"}, {"match": "(.*)_db", "to": r"\1"}]
    chosen = Selection(rename=rules).apply(["prod_db", "x_db", "my_prod_db2", "db"])
    assert chosen.ids == {"prod_db": "db_prod", "x_db": "x", "my_prod_db2": "my_prod_db2", "db": "db"}
    assert chosen.renamed == {"db_prod": "prod_db", "x": "x_db"}


def test_every_bad_rule_is_named() -> None:
    rules = [{"match": "(", "to": "x"}, {"match": "a", "to": r"\1"}, {"match": "b"}, {"match": "ok", "to": r"\g<0>"}]
    with pytest.raises(MigrationError, match=r"3 faults: \(1\) index 0 .* \(2\) index 1 .* \(3\) index 2: to is miss"):
        Selection(rename=rules)  # type: ignore[list-item]


def test_every_collision_is_named() -> None:
    rules = [{"match": "[ab]", "to": "c"}, {"match": "gone", "to": ""}]
    with pytest.raises(MigrationError, match="'a', 'b', 'c' would all become 'c'.*'gone' would have an empty name"):
        Selection(rename=rules).apply(["a", "b", "c", "gone"])


def test_an_unknown_part() -> None:
    with pytest.raises(MigrationError, match="not 'includes'"):
        Selection.of({"includes": ["*"]})
