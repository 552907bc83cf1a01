# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a rule, a fact and a finding are, and how rules are run over a snapshot. Pure.

PRIVATE to the collection: no promise is made to other collections.
"""

from __future__ import annotations

import datetime
import inspect
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Callable, NamedTuple

SEVERITIES = ("error", "warning", "info")
COULD_NOT_CHECK = "could-not-check"


class Unread(NamedTuple):
    """A fact that AWS did not tell: the IAM action that was needed, the error's code, and whether it was denied."""

    action: str
    code: str
    denied: bool


class Found(NamedTuple):
    """What a rule yields. severity, why: where they differ from the rule's."""

    resource: str
    what: str
    how: str
    severity: str | None = None
    why: str | None = None


@dataclass(frozen=True)
class Finding:
    """id and resource say which rule and what it is about; what is wrong, why that matters, how to mend it."""

    id: str
    severity: str
    resource: str
    what: str
    why: str
    how: str

    def as_dict(self) -> dict[str, str]:
        return asdict(self)


@dataclass
class Snapshot:
    """What was seen, at one moment.

    wanted: the environment as it is going to be, in the flat form of _mwaa/settings.py: what exists, and over it what
    was asked for. given: names of the options that were asked for. environment: as GetEnvironment shows it, None where
    there is none. faults: what settings.py says of the wanted. published: keys that the bundle will bring, so that they
    need not be there yet. facts: by name; None where there is nothing to look at, Unread where it could not be read.
    The fact `existing` is the environment too, {} where there is none: for rules that need to know that it was looked.
    """

    name: str
    region: str
    account: str
    caller: str
    today: datetime.date
    wanted: dict[str, Any]
    partition: str = "aws"
    given: frozenset[str] = frozenset()
    environment: dict[str, Any] | None = None
    faults: list[str] = field(default_factory=list)
    published: frozenset[str] = frozenset()
    facts: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, option: str) -> Any:
        return self.wanted.get(option)

    @property
    def version(self) -> str:
        """The Airflow version that the environment is going to have."""
        return str(self.wanted["airflow_version"])

    @property
    def arn(self) -> str:
        return f"arn:{self.partition}:airflow:{self.region}:{self.account}:environment/{self.name}"

    @property
    def bucket(self) -> str:
        return str(self.wanted.get("source_bucket"))


@dataclass(frozen=True)
class Rule:
    """judge: takes the snapshot and the facts that its parameters name, and yields what is wrong.

    A rule runs only where all its facts were read and are there; parameters with a default may be None.
    """

    id: str
    area: str
    severity: str
    why: str
    source: str
    judge: Callable[..., Iterable[Found]]

    @property
    def about(self) -> str:
        """What it looks at, in a line."""
        return " ".join((self.judge.__doc__ or "").split("\n")[0].split())


RULES: dict[str, Rule] = {}
AREAS = ("environment", "options", "network", "bucket", "files", "key", "role", "caller", "logs")


def in_order() -> list[Rule]:
    """All rules, area by area."""
    return sorted(RULES.values(), key=lambda one: AREAS.index(one.area))


def rule(identity: str, area: str, *, why: str, source: str, severity: str = "error") -> Callable[..., Any]:
    """Declare a rule. source: the page of the MWAA user guide ("UG …") or what else says so."""

    def declare(judge: Callable[..., Iterable[Found]]) -> Callable[..., Iterable[Found]]:
        if identity in RULES:
            raise ValueError(f"two rules are called {identity}")
        RULES[identity] = Rule(identity, area, severity, why, source, judge)
        return judge

    return declare


@dataclass
class Result:
    """checked: rules that ran. blocked: {rule: Unread} of those that could not. Others had nothing to look at."""

    findings: list[Finding]
    checked: list[str]
    blocked: dict[str, Unread]

    def count(self, severity: str) -> int:
        return sum(finding.severity == severity for finding in self.findings)

    @property
    def summary(self) -> dict[str, int]:
        failed = {finding.id for finding in self.findings}
        return {
            **{f"{severity}s": self.count(severity) for severity in SEVERITIES},
            "checked": len(self.checked),
            "passed": sum(one not in failed for one in self.checked),
            "not_checked": len(self.blocked),
            "not_applicable": len(RULES) - len(self.checked) - len(self.blocked),
        }


def judge(snapshot: Snapshot) -> Result:
    """Run every rule. Findings are sorted by severity, then in the rules' order."""
    findings: list[Finding] = []
    checked: list[str] = []
    blocked: dict[str, Unread] = {}
    for one in in_order():
        facts = _facts_for(one, snapshot)
        if isinstance(facts, Unread):
            blocked[one.id] = facts
        elif facts is not None:
            checked.append(one.id)
            findings += [
                Finding(
                    one.id, found.severity or one.severity, found.resource, found.what, found.why or one.why, found.how
                )
                for found in one.judge(snapshot, **facts)
            ]
    findings += _could_not_check(blocked)
    findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))  # stable: the rules' order stays
    return Result(findings, checked, blocked)


def _facts_for(one: Rule, snapshot: Snapshot) -> dict[str, Any] | Unread | None:
    facts = {}
    for name, parameter in list(inspect.signature(one.judge).parameters.items())[1:]:
        value = snapshot.facts.get(name)
        if isinstance(value, Unread):
            return value
        if value is None and parameter.default is inspect.Parameter.empty:
            return None
        facts[name] = value
    return facts


def _could_not_check(blocked: dict[str, Unread]) -> Iterator[Finding]:
    """One finding for each action that was missing, naming the rules that it kept from looking."""
    for reason in dict.fromkeys(blocked.values()):
        rules = [identity for identity, unread in blocked.items() if unread == reason]
        how = (
            f"allow the caller {reason.action}, or let somebody look who may"
            if reason.denied
            else f"run again; if {reason.action} goes on failing, look at these by hand"
        )
        yield Finding(
            COULD_NOT_CHECK,
            "warning",
            reason.action,
            f"{reason.action} {'was denied' if reason.denied else 'failed'} ({reason.code}), so that nobody looked at"
            f" {', '.join(rules)}",
            "what was not looked at may be wrong: it does not count as passed",
            how,
        )
