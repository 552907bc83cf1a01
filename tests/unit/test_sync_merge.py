# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Several sources in one environment: each in its folder, and what contradicts itself named at once."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mwaa.migration.plugins.module_utils._dags import IgnoreRules
from ansible_collections.mwaa.migration.plugins.module_utils._errors import MigrationError
from ansible_collections.mwaa.migration.plugins.module_utils._sync import requirements
from ansible_collections.mwaa.migration.plugins.module_utils._sync.merge import moved_patterns
from ansible_collections.mwaa.migration.plugins.module_utils._sync.publish import publish
from ansible_collections.mwaa.migration.plugins.module_utils._sync.source import Source, Target, open_sources
from ansible_collections.mwaa.migration.plugins.module_utils._sync.tree import folder_tree
from fake_s3 import FakeS3
from hypothesis import given, settings
from hypothesis import strategies as st

CALM = b"from airflow import DAG\nDAG('calm')\n"
EAGER = b"from airflow import DAG\nDAG('eager', is_paused_upon_creation=False)\n"
TARGET = Target("bucket", "dags", "plugins.zip", "requirements.txt", "startup.sh", airflow_version="2.11.2")


@pytest.fixture
def source(tmp_path: Path) -> Any:
    """source("sales", {"a.py": b"…"}, into="sales", requirements=b"…") -> a Source of a folder of that name."""

    def make(name: str, files: dict[str, bytes], plugins: dict[str, bytes] | None = None, **more: Any) -> Source:
        for kind, wanted in (("dags", files), ("plugins", plugins or {})):
            for path, content in wanted.items():
                place = tmp_path / name / kind / path
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(content)
        more.setdefault("syntax", "regexp")
        more.setdefault("into", name)
        of_plugins = folder_tree(tmp_path / name / "plugins", kind="plugin_file") if plugins else None
        return Source(name, folder_tree(tmp_path / name / "dags"), of_plugins, **more)

    return make


def run(s3: FakeS3, *sources: Source, **options: Any) -> dict[str, Any]:
    return publish(s3, sources, options.pop("target", TARGET), **{"check_mode": False, **options})


def test_two_sources_one_environment(source: Any) -> None:
    s3 = FakeS3()
    sales = source("sales", {"etl.py": CALM, "eager.py": EAGER}, {"s.py": b"s = 1", "both.py": b"b"})
    finance = source("finance", {"etl.py": CALM, "lib/x.py": b"x = 1"}, {"f.py": b"f = 1", "both.py": b"b"})
    sales.requirements, finance.requirements = b"pandas==2.1.0\nboto3\n", b"boto3\nrequests>=2\npandas == 2.1.0\n"
    sales.startup_script, finance.startup_script = b"export A='1'\n", b"export B='2'\nexport A='1'\n"
    result = run(s3, sales, finance)
    assert sorted(key for key in s3.objects if key.startswith("dags/")) == [
        "dags/finance/etl.py",
        "dags/finance/lib/x.py",
        "dags/sales/.airflowignore",
        "dags/sales/eager.py",
        "dags/sales/etl.py",
    ]
    assert [item["path"] for item in result["held_back"]] == ["sales/eager.py"]
    assert s3.objects["requirements.txt"][0] == b"boto3\npandas==2.1.0\nrequests>=2\n"
    assert s3.objects["startup.sh"][0] == b"export A='1'\n\nexport B='2'\nexport A='1'\n"
    assert not run(s3, sales, finance)["changed"]


def test_all_that_contradicts_itself_is_said_at_once_and_nothing_is_written(source: Any) -> None:
    s3 = FakeS3()
    sales = source("sales", {"a.py": CALM, "b": b"a file"}, {"p.py": b"1"}, into="")
    finance = source("finance", {"a.py": EAGER, "b/c.py": CALM}, {"p.py": b"2"}, into="")
    sales.requirements, finance.requirements = b"pandas==2.1.0\n", b"pandas==2.2.0\n"
    sales.startup_script, finance.startup_script = b"export KEY=CANARY-one-00aa11bb\n", b"export KEY=two\n"
    sales.dag_ids, finance.dag_ids = {"daily": "a.py"}, {"daily": "b/c.py"}
    with pytest.raises(MigrationError) as caught:
        run(s3, sales, finance)
    listed = caught.value.message.partition(": 6 faults: ")[2]
    assert re.split(r";? ?\(\d\) ", listed)[1:] == [
        "the DAG file a.py differs between sales and finance",
        "b is a file in sales and a folder in finance",
        "the DAG daily is in sales and in finance; exclude one of its files",
        "the plugin p.py differs between sales and finance",
        "pandas is pandas==2.1.0 in sales and pandas==2.2.0 in finance",
        "the startup scripts of sales and finance set KEY to different values",
    ]
    assert "CANARY" not in json.dumps(caught.value.as_failure()) and s3.writes() == []


def test_one_sources_ignore_file_may_not_hide_anothers_files(source: Any) -> None:
    sales = source("sales", {".airflowignore": b"etl\n", "a.py": CALM}, into="")
    finance = source("finance", {"etl.py": CALM})
    with pytest.raises(
        MigrationError, match=r"change what Airflow sees of finance \(etl.py\): give each source a fold"
    ):
        run(FakeS3(), sales, finance)
    sales.into = "sales"
    assert run(FakeS3(), sales, finance)["ignored"] == []


def test_two_syntaxes_cannot_be_read_by_one_environment(source: Any) -> None:
    old = source("old", {".airflowignore": b"^a\n", "a.py": CALM})
    new = source("new", {".airflowignore": b"/a.py\n", "a.py": CALM}, syntax="glob")
    with pytest.raises(MigrationError, match="written as regexp in old and glob in new"):
        run(FakeS3(), old, new)
    plain = source("plain", {"a.py": CALM}, syntax="glob")
    assert run(FakeS3(), old, plain)["ignored"] == ["old/a.py"]


def test_published_one_after_the_other_each_keeps_what_it_hides(source: Any) -> None:
    s3 = FakeS3()
    sales, finance = source("sales", {"eager.py": EAGER}), source("finance", {"other.py": EAGER})
    run(s3, sales)
    run(s3, finance)
    assert b"^sales/eager\\.py$" in s3.objects["dags/sales/.airflowignore"][0]
    assert b"^finance/other\\.py$" in s3.objects["dags/finance/.airflowignore"][0]
    run(s3, finance, hold_back=False)
    assert b"^sales/eager\\.py$" in s3.objects["dags/sales/.airflowignore"][0]
    assert s3.objects["dags/finance/.airflowignore"][0] == b""


def test_what_another_source_published_is_replaced_with_a_word_about_it(source: Any) -> None:
    s3 = FakeS3()
    sales, finance = source("sales", {"a.py": CALM}), source("finance", {"a.py": CALM})
    sales.requirements, finance.requirements = b"boto3\n", b"pandas\n"
    run(s3, sales)
    (found,) = run(s3, finance)["findings"]
    assert found["where"] == "requirements.txt"
    assert found["what"] == "published from sales before, and replaced by finance"


def test_imports_that_a_folder_breaks_are_listed(source: Any) -> None:
    files = {
        "a.py": b"from common.tool import x\nimport os\n",
        "common/tool.py": b"from . import y\n",
        "b.py": b"import a",
    }
    found = run(FakeS3(), source("sales", files))["findings"]
    assert [(item["where"], item["what"]) for item in found] == [
        ("sales/a.py", "imports common/tool.py, which now lies in the folder sales"),
        ("sales/b.py", "imports a.py, which now lies in the folder sales"),
    ]
    assert run(FakeS3(), source("sales", files, into=""))["findings"] == []


PATTERNS = st.sampled_from(
    [
        "^team",
        "team/",
        r"\Aetl",
        "[^a]b",
        "^(a|b)/",
        "a|^b",
        "(?i)^ETL",
        ".*",
        r"x\.py$",
        r"\^a",
        "[]^]a",
        "(?<!b)a",
        "[broken",
        "# a comment",
        "",
        "  team  # why",
    ]
)
PATHS = st.lists(
    st.sampled_from(["team", "etl", "a", "b", "ab", "into", "x.py", "^a", "ETL.py"]), min_size=1, max_size=4
)


@settings(max_examples=300, deadline=None)
@given(st.lists(PATTERNS, max_size=4), PATHS.map("/".join), st.sampled_from(["into", "a/b", "x.y-z"]))
def test_regular_expressions_mean_in_a_folder_what_they_meant(lines: list[str], path: str, into: str) -> None:
    content = "\n".join(lines).encode()
    before = IgnoreRules({".airflowignore": content}, "regexp")
    after = IgnoreRules({f"{into}/.airflowignore": moved_patterns(content, into)}, "regexp")
    assert after.hides(f"{into}/{path}") == before.hides(path)
    assert not after.hides(f"other/{into}/{path}") and not after.hides("team/etl/a/b/x.py")


# --- requirements -----------------------------------------------------------------------------------------------------


def test_the_same_line_once_and_a_name_gives_way_to_its_version() -> None:
    one = b"""--constraint "https://c/2.11.2.txt"
Apache_Airflow-providers.http
Pillow # why
pandas[excel]==2.1 \\
  ; python_version>'3'
"""
    other = b"-c https://c/2.11.2.txt\napache-airflow-providers-http==4.0\n--extra-index-url https://u:CANARY@i/\n"
    merged, conflicts = requirements.merge([("a", one), ("b", other)])
    assert conflicts == []
    assert merged.decode().splitlines() == [
        '--constraint "https://c/2.11.2.txt"',
        "--extra-index-url https://u:CANARY@i/",
        "apache-airflow-providers-http==4.0",
        "pandas[excel]==2.1    ; python_version>'3'",
        "Pillow",
    ]


def test_conflicts_name_both_and_no_credential() -> None:
    one = b"--index-url https://u:CANARY-pass-0a1b2c3d@one/\nx==1\n"
    other = b"-i https://u:CANARY-pass-0a1b2c3d@two/\nX == 2\n"
    assert requirements.merge([("a", one), ("b", other)])[1] == [
        "--index-url is https://***@one/ in a and https://***@two/ in b",
        "x is x==1 in a and X == 2 in b",
    ]


def test_requirements_without_an_index() -> None:
    text = b"""--constraint "https://c/2.11.2.txt"
--index-url https://i/simple
pandas==2.1.0  # a comment
mine @ file:///home/me/mine-1.4-py3-none-any.whl
./wheels/other_lib-2.0-cp311-cp311-manylinux_2_17_x86_64.whl
"""
    assert requirements.offline(text, {"mine": "1.4", "other-lib": "2.0"}).decode().splitlines() == [
        "--find-links /usr/local/airflow/plugins",
        "--no-index",
        "pandas==2.1.0",
        "mine==1.4",
        "other-lib==2.0",
    ]


def test_what_does_not_work_on_mwaa_is_found() -> None:
    text = b"""--extra-index-url https://user:CANARY-pass-0a1b2c3d@i/simple
--extra-index-url https://${AIRFLOW__FOO__USER}:${AIRFLOW__FOO__PASS}@i/simple
-e ./mine
mine @ file:///home/me/mine-1.4-py3-none-any.whl
git+https://github.com/x/y.git
pandas
"""
    found = requirements.findings(text, "requirements.txt", private=True, packed=False)
    assert [item["what"] for item in found] == [
        "a URL with a credential is published in clear: --extra-index-url https://***@i/simple",
        "-e ./mine names a place that the environment may not have",
        "mine @ file:///home/me/mine-1.4-py3-none-any.whl names a place that the environment may not have",
        "git+https://github.com/x/y.git names a place that the environment may not have",
        "the web server is private and reaches no package index, so that pip cannot install mine, pandas",
    ]
    assert requirements.findings(b"pandas\n", "r", private=False, packed=False) == []


# --- what the options say ---------------------------------------------------------------------------------------------


def options(**given: Any) -> dict[str, Any]:
    names = ("plugins", "requirements", "startup_script", "ignore_syntax", "kms_key_id", "sources", "source")
    return {**dict.fromkeys(names), **given}


def test_sources_are_checked_all_at_once(tmp_path: Path) -> None:
    one = {"source": str(tmp_path), "into": "../x"}
    with pytest.raises(MigrationError) as caught:
        open_sources(None, options(sources=[one, {"source": "s3://b/x"}, {"source": "s3://b/x"}]))
    assert "sources: 2 faults: (1) into '../x' of number 1" in caught.value.message
    assert "(2) s3://b/x is given twice" in caught.value.message


@pytest.mark.parametrize(("joins", "script"), [(False, b"mine\n"), (True, b"theirs\n\nmine\n")])
def test_a_startup_script_of_the_users_takes_the_place_or_joins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, joins: bool, script: bytes
) -> None:
    from ansible_collections.mwaa.migration.plugins.module_utils._sync import source as source_module

    (tmp_path / "mine.sh").write_text("mine\n")
    theirs = Source("s3://b/x", folder_tree(tmp_path), startup_script=b"theirs\n")
    monkeypatch.setattr(source_module, "open_source", lambda *_args, **_more: theirs)
    given_options = options(source="s3://b/x", startup_script=str(tmp_path / "mine.sh"), startup_script_joins=joins)
    assert open_sources(None, given_options)[0].startup_script == script
