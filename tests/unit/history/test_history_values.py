# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Values as text and back, and pickles that nobody runs."""

from __future__ import annotations

import collections
import datetime
import os
import pickle
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_airflow import history

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**80), 2**80)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.datetimes()
    | st.datetimes(timezones=st.just(datetime.timezone.utc))
    | st.dates()
    | st.times()
    | st.timedeltas()
)
KEYS = st.text() | st.integers() | st.none() | st.tuples(st.integers(), st.text())
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(KEYS, inner) | st.sets(st.integers()),
    max_leaves=20,
)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_text_and_back(text: str) -> None:
    line = history.escaped(text)
    assert history.unescaped(line) == text and not set(line) & set("\t\n\r\x08\x0b\x0c")
    assert line != history.NULL


@given(st.binary())
def test_bytes_and_back(data: bytes) -> None:
    text = history.bytes_text(data)
    assert history.text_bytes(text) == data and text.isascii()


@given(st.floats(allow_nan=False))
def test_floats_and_back(value: float) -> None:
    assert struct.pack("d", float(history.float_text(value))) == struct.pack("d", value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (-0.0, "-0"),
        (5.0, "5"),
        (0.1, "0.1"),
        (1e15, "1e+15"),
        (1e14, "100000000000000"),
        (123456789012345.6, "123456789012345.6"),
        (0.0001, "0.0001"),
        (0.00001, "1e-05"),
        (1.5e300, "1.5e+300"),
        (5e-324, "5e-324"),
        # Python's shortest text is none that PostgreSQL takes
        (1.835669789678133e16, "1.8356697896781328e+16"),
        (9007199254740993.0, "9.007199254740992e+15"),
        (2.0**60, "1.152921504606847e+18"),
        (1e22, "1e+22"),
        (float("nan"), "NaN"),
        (float("-inf"), "-Infinity"),
    ],
)
def test_floats_are_spelled_as_postgresql_does(value: float, text: str) -> None:
    assert history.float_text(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("2024-01-02 03:04:05.000000", "2024-01-02 03:04:05+00"),
        ("2024-01-02T03:04:05.120000+00:00", "2024-01-02 03:04:05.12+00"),
        (datetime.datetime(2024, 1, 2, 3, 4, 5, 6), "2024-01-02 03:04:05.000006+00"),
        (datetime.datetime(2024, 1, 2, tzinfo=datetime.timezone.utc), "2024-01-02 00:00:00+00"),
    ],
)
def test_times(value: Any, text: str) -> None:
    assert history.time_text(value) == text


def test_a_time_that_is_not_in_utc_is_none() -> None:
    with pytest.raises(ValueError, match="UTC"):
        history.time_text("2024-01-02 03:04:05+02:00")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@given(value=VALUES)
def test_plain_pickles_are_read_as_pickle_reads_them(protocol: int, value: Any) -> None:
    data = pickle.dumps(value, protocol)
    expected = pickle.loads(data)  # old protocols forget a datetime's fold
    read = history.read_pickle(data)
    assert read == expected and history.plain(read) == history.plain(expected)


@given(VALUES)
def test_plain_and_back(value: Any) -> None:
    again = history.unplain(history.plain(value))
    assert again == value and type(again) is type(value)


def test_the_forms_that_json_has_stay_as_they_are() -> None:
    assert history.plain({"a": [1, 2.5, None, True, "ü"]}) == '{"a": [1, 2.5, null, true, "\\u00fc"]}'
    assert history.unplain(history.plain({history.TAG: 1})) == {history.TAG: 1}
    assert history.read_pickle(pickle.dumps(collections.OrderedDict(a=1))) == {"a": 1}


class Evil:
    def __init__(self, *call: Any):
        self.call = call

    def __reduce__(self) -> Any:
        return self.call[0], tuple(self.call[1:])


def nested(depth: int) -> bytes:
    return b"\x80\x04" + b"]" * depth + b"a" * (depth - 1) + b"."


def laughs() -> bytes:
    """Thirty lists, each holding the one before twice: small in memory, 2**30 values when written down."""
    value: Any = ["ha"]
    for _turn in range(30):
        value = [value, value]
    return pickle.dumps(value)


def deep_key() -> bytes:
    return b"\x80\x04}" + b")" + b"\x85" * 500000 + b"K\x01s."


def wide_key() -> bytes:
    """A key of five tuples, each of which holds the one before 1000 times: hashing it takes for ever."""
    levels = b"".join(b"(" + bytes((0x68, level)) * 1000 + b"t\x94" for level in range(5))
    return b"\x80\x04}" + b")\x94" + levels.replace(b"t\x94(", b"t\x940(").replace(b"(", b"0(", 1) + b"K\x01s."


def alike_keys() -> bytes:
    """Numbers that all have one hash: telling them apart takes the square of their count."""
    one = (1 << 61) - 1
    keys = b"".join(b"\x8a\x0a" + (one * number).to_bytes(10, "little") + b"N" for number in range(1, 10002))
    return b"\x80\x04}(" + keys + b"u."


CYCLE: list[Any] = []
CYCLE.append(CYCLE)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (pickle.dumps(Evil(os.system, "touch marker")), "it calls (posix|nt).system"),
        (pickle.dumps(Evil(os.system, "touch marker"), 0), "it calls (posix|nt).system"),
        (pickle.dumps(Evil(eval, "open('marker', 'w')")), "it calls builtins.eval"),
        (pickle.dumps({"a": [Evil(os.system, "touch marker")]}), "it calls"),
        (pickle.dumps(os.system), "it is no value"),
        (pickle.dumps([os.system]), "it holds a _Name"),
        (pickle.dumps(Evil(bytearray, 10**12)), "it calls builtins.bytearray"),
        (pickle.dumps(Evil(datetime.timedelta, 10**30)), "no pickle, or a broken one"),
        (pickle.dumps(Path("/tmp")), "it calls pathlib"),
        (nested(200), "nested more than 100 deep"),
        (nested(200000), "nested more than 100 deep"),
        (pickle.dumps(CYCLE), "nested more than 100 deep"),
        (deep_key(), "a key that is nested too deeply"),
        (wide_key(), "a key that is nested too deeply"),
        (alike_keys(), "more than 10000 keys that are no text"),
        (b"\x80\x04}" + b"\x8b\xa0\x0f\x00\x00" + b"\x01" * 4000 + b"Ns.", "thousands of digits"),
        (b"\x80\x04cos\nsystem\n\x8c\x02ls\x85R.", "it calls os.system"),
        (b"\x80\x04K\x01r\xff\xff\xff\xff.", None),  # a memo of 4 billion entries, for pickle's own reader
        (b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.", "broken"),
        (b"\x80\x04B\xff\xff\xff\x7fabc.", "broken"),
        (b"L" + b"9" * 10000000 + b"L\n.", "thousands of digits"),
        (pickle.dumps(10**20000), "thousands of digits"),
        (b"\x80\x04]" + b"N" * 10 + b".", "no value"),
        (b"\x80\x04}(K\x01K\x02K\x03u.", "a key without a value"),
        (b"\x80\x04N", "no end"),
        (b"", "no end"),
        (b"\xff\xff", "broken"),
        (b"\x80\x04P1\n.", "instruction PERSID|broken"),
        (b"\x80\x04\x82\x01.", "instruction EXT1"),
        (pickle.dumps(collections.Counter("a")), "calls|instruction"),
    ],
)
def test_hostile_pickles_are_never_run(
    data: bytes, reason: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if reason is None:
        assert history.plain(history.read_pickle(data)) == "1"
    else:
        with pytest.raises(history.Unreadable, match=reason):
            history.plain(history.read_pickle(data))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"\x80\x02U\x03Caf.", "Caf"),
        ("\x80\x02U\x05".encode("latin-1") + "Café".encode() + b".", "Café"),
        (b"\x80\x02T\x02\x00\x00\x00\xff\xfe.", b"\xff\xfe"),
        (b"\x80\x02cdatetime\ndate\nU\x04\x07\xe4\x01\x02\x85R.", datetime.date(2020, 1, 2)),
        (b"\x80\x02cdatetime\ntime\nU\x06\x0c\x00\x00\x0e\xc2\xa0\x85R.", datetime.time(12, microsecond=0x0EC2A0)),
    ],
)
def test_strings_of_python_2_are_text_where_they_are_utf_8(data: bytes, value: Any) -> None:
    assert history.read_pickle(data) == value


def test_what_multiplies_when_written_down_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "PICKLE_STEPS", 10000)
    for read in (lambda data: history.plain(history.read_pickle(data)), history.xcom_text):
        with pytest.raises(history.Unreadable, match="more than 10000 values"):
            read(laughs())


def test_a_text_that_is_referred_to_often_is_given_up() -> None:
    data = pickle.dumps(["x" * 1000000] * 100)
    assert len(data) < 1100000
    for read in (lambda data: history.plain(history.read_pickle(data)), history.xcom_text):
        with pytest.raises(history.Unreadable, match="written down it has more than 16 MB"):
            read(data)


def test_size_and_steps_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "PICKLE_STEPS", 1000)
    with pytest.raises(history.Unreadable, match="more than 1000 steps"):
        history.read_pickle(pickle.dumps(list(range(2000))))
    monkeypatch.setattr(history, "PICKLE_BYTES", 1 << 20)
    with pytest.raises(history.Unreadable, match="more than 1 MB"):
        history.read_pickle(b"\x80\x04" + b"N" * (2 << 20))


def peak_of(values: int) -> int:
    numbers = pickle.dumps(list(range(300, 300 + values)))
    tracemalloc.start()
    try:
        assert history.plain(history.read_pickle(numbers)).endswith(f" {299 + values}]")
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_what_the_largest_pickle_makes_is_held_in_64_mb() -> None:
    tenth = history.PICKLE_STEPS // 10 - 500  # which shows what more of them need; the whole takes long to count
    small, large = peak_of(tenth), peak_of(2 * tenth)
    assert large + 8 * (large - small) < 64 << 20
