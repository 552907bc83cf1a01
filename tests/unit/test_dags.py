# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Airflow makes of a DAG folder: .airflowignore, and which files would start by themselves."""

from __future__ import annotations

import io
import zipfile

import pytest
from ansible_collections.mwaa.migration.plugins.module_utils._dags import (
    SYNTAXES,
    Facts,
    IgnoreRules,
    default_syntax,
    early_files,
    facts_of,
    ignore_lines,
    with_block,
)


def hidden(files: dict[str, str], syntax: str, path: str) -> bool:
    return IgnoreRules({name: text.encode() for name, text in files.items()}, syntax).hides(path)


@pytest.mark.parametrize(
    ("patterns", "path", "expected"),
    [
        ("helpers", "helpers/sql.py", True),
        ("helpers", "my_helpers_dag.py", True),  # searched anywhere in the path
        (r"^team/[^/]+\.py$", "team/a.py", True),
        (r"^team/[^/]+\.py$", "team/sub/a.py", False),
        ("tests  # not DAGs", "tests/a.py", True),
        ("# tests", "tests/a.py", False),
        ("a(b", "a(b.py", False),  # does not compile: passed over
        ("old\r\nnew\r\n", "new.py", True),  # written on Windows
    ],
)
def test_regexp_patterns_are_searched_in_the_path(patterns: str, path: str, expected: bool) -> None:
    assert hidden({".airflowignore": patterns}, "regexp", path) is expected


@pytest.mark.parametrize(
    ("patterns", "path", "expected"),
    [
        ("*.tmp.py", "a/b.tmp.py", True),  # without an inner slash the name alone is matched
        ("helpers/", "helpers/sql.py", True),
        ("helpers/", "deep/helpers/sql.py", True),
        ("helpers/", "helpers", False),  # a file of that name
        ("/helpers", "helpers/sql.py", True),
        ("/helpers", "deep/helpers/sql.py", False),
        ("a/*.py", "a/x.py", True),
        ("a/*.py", "b/a/x.py", False),
        ("**/x.py", "a/b/x.py", True),
        ("a/**/x.py", "a/x.py", True),
        ("a/**", "a/b/c.py", True),
        ("dag_[0-9].py", "dag_7.py", True),
        ("dag_[!0-9].py", "dag_7.py", False),
        ("*.py\n!keep.py", "keep.py", False),  # the later pattern wins
        ("!keep.py\n*.py", "keep.py", True),
        ("sub/\n!sub/keep.py", "sub/keep.py", True),  # a hidden folder is not entered
        ("file\\*.py", "file*.py", True),
        ("file\\*.py", "filex.py", False),
        ("/", "a.py", False),
        ("trailing.py   ", "trailing.py", True),
    ],
)
def test_glob_patterns_are_gitignores(patterns: str, path: str, expected: bool) -> None:
    assert hidden({".airflowignore": patterns}, "glob", path) is expected


def test_a_nested_file_counts_below_its_folder_only() -> None:
    nested = {"team/.airflowignore": "/draft.py"}
    assert hidden(nested, "glob", "team/draft.py")
    assert not hidden(nested, "glob", "draft.py")
    # regexp patterns of nested files are searched in the path from the DAG folder
    assert hidden({"team/.airflowignore": "^team/draft"}, "regexp", "team/draft.py")
    assert not hidden({"team/.airflowignore": "draft"}, "regexp", "other/draft.py")


def test_patterns_that_do_not_compile_are_named() -> None:
    assert IgnoreRules({".airflowignore": b"ok\n*.py\n"}, "regexp").invalid == [".airflowignore:2"]


@pytest.mark.parametrize("syntax", ["regexp", "glob"])
@pytest.mark.parametrize(
    "path", ["eager.py", "team/a b.py", "x#1.py", "we[i]rd*.py", "!not.py", "a/b/c-d.e.py", "ä.py"]
)
def test_its_lines_hide_a_file_and_no_other_in_either_syntax(syntax: str, path: str) -> None:
    rules = IgnoreRules({".airflowignore": with_block(b"", ignore_lines(path))}, syntax)
    assert rules.hides(path)
    assert not rules.hides("other.py")
    assert not rules.hides("deeper" + path)
    line = IgnoreRules({".airflowignore": ignore_lines(path)[SYNTAXES.index(syntax)].encode()}, syntax)
    assert not line.hides("deep/" + path) and not line.hides(path + "x")


def test_the_block_is_replaced_and_taken_out_again() -> None:
    found = b"helpers\n"
    once = with_block(found, ["^a\\.py$"])
    assert once.startswith(found)
    assert with_block(once, ["^a\\.py$"]) == once
    assert b"b\\.py" in with_block(once, ["^b\\.py$"]) and b"a\\.py" not in with_block(once, ["^b\\.py$"])
    assert with_block(once, []) == found


def test_what_is_not_ours_is_kept_byte_for_byte() -> None:
    assert with_block(b"a\r\n\xff no utf-8", []) == b"a\r\n\xff no utf-8"


def test_the_default_syntax_changed_with_airflow_3() -> None:
    assert [default_syntax(version) for version in ("2.10.3", "2.11.2", "3.0.6")] == ["regexp", "regexp", "glob"]


def early(source: str) -> int:
    return facts_of("python", source.encode()).early


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("from airflow import DAG\nDAG('a', is_paused_upon_creation=False)", 2),
        ("DAG('a', is_paused_upon_creation=True)", 0),
        ("DAG('a', is_paused_upon_creation=None)", 0),
        ("@dag(\n  is_paused_upon_creation = False,\n)\ndef f(): ...", 2),
        ("DAG('a', is_paused_upon_creation=PAUSED)", 1),  # may be False when it runs
        ("DAG('a', **{'is_paused_upon_creation': False})", 1),
        ("KW = dict(is_paused_upon_creation=0)", 1),
        ("d = DAG('a')\nd.is_paused_upon_creation = False", 2),
        ("kw['is_paused_upon_creation'] = False", 1),
        ("# is_paused_upon_creation=False", 0),
        ("'''is_paused_upon_creation=False'''", 0),
        ("print 'Python 2'\nDAG('a', is_paused_upon_creation=False)", 2),
        ("print 'Python 2'\nDAG('a', is_paused_upon_creation=True)", 0),
    ],
)
def test_what_unpauses_itself_is_found_without_running_it(source: str, line: int) -> None:
    assert early(source) == line


def test_an_archive_is_looked_into() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("inner.py", "from airflow import DAG\n\nDAG('z', is_paused_upon_creation=False)")
    assert facts_of("zip", buffer.getvalue()) == Facts(early=3, dag=True, imports=())
    assert facts_of("zip", b"no archive") == Facts()


def test_data_of_dag_factories() -> None:
    assert facts_of("data", b"daily:\n  is_paused_upon_creation: false\n").early == 2
    assert facts_of("data", b'{"is_paused_upon_creation": true}').early == 0


def test_who_imports_a_factory_that_unpauses_starts_early_too() -> None:
    texts = {
        "common/__init__.py": "",
        "common/factory.py": "from airflow import DAG\ndef make(i): return DAG(i, is_paused_upon_creation=False)",
        "team/uses.py": "from airflow import DAG\nfrom common import factory\nd = factory.make('a')",
        "team/relative.py": "from ..common.factory import make\nimport airflow\ndag = make('b')",
        "team/indirect.py": "import airflow\nfrom team.uses import d as dag",
        "team/helper.py": "from common import factory",  # no DAG file by Airflow's heuristic
        "calm.py": "from airflow import DAG\nd = DAG('calm')",
        "plugged.py": "from airflow import DAG\nfrom my_plugin import make\nd = make('c')",
    }
    facts = {path: facts_of("python", text.encode()) for path, text in texts.items()}
    plugins = {
        "my_plugin.py": facts_of("python", b"import airflow\ndef make(i): DAG(i, is_paused_upon_creation=False)")
    }
    assert early_files(facts, plugins) == {
        "common/factory.py": (2, "is_paused_upon_creation is not True"),
        "plugged.py": (0, "imports plugins:my_plugin.py, where is_paused_upon_creation is not True"),
        "team/indirect.py": (0, "imports team/uses.py, where is_paused_upon_creation is not True"),
        "team/relative.py": (0, "imports common/factory.py, where is_paused_upon_creation is not True"),
        "team/uses.py": (0, "imports common/factory.py, where is_paused_upon_creation is not True"),
    }
