"""The rows of a teacher cache: what goes in comes out, what is spoilt is noticed."""

import contextlib
import errno
import fcntl
import itertools
import json
import os
import re
import shutil
import time
import types

import numpy as np
import pytest

from tf_mskd.teacher_cache.encoding import TopRows, WholeRows
from tf_mskd.teacher_cache.parts import Part, read_part
from tf_mskd.teacher_cache.store import TeacherCache
from tf_mskd.utils.errors import UserError

SIZES = {"exit_1": 6, "embedding_1": 4}
LAYOUT = {"views": 3, "examples": 10}
IDS = np.array([7, 2, 3])


def vectors(seed=0, rows=3):
    generator = np.random.default_rng(seed)
    return {n: generator.normal(size=(rows, size)) for n, size in SIZES.items()}


def open_cache(folder, identity=None, sizes=None, **layout):
    identity = {"teacher": "abc"} if identity is None else identity
    return TeacherCache(folder, identity, sizes or SIZES, **{**LAYOUT, **layout})


@pytest.fixture
def cache(tmp_path):
    """Three rows of view 1."""
    cache = open_cache(tmp_path / "cache")
    cache.write(1, IDS, vectors())
    return cache


def test_rows_come_out_as_float16_of_what_went_in(cache):
    for name, expected in vectors().items():
        for one in (cache, open_cache(cache.folder)):
            got = one.read(1, IDS)[name]
            assert got.dtype == np.float16
            np.testing.assert_array_equal(got, expected.astype(np.float16))
            np.testing.assert_allclose(got, expected, rtol=2**-11)
    np.testing.assert_array_equal(
        cache.read(1, IDS[::-1])["exit_1"], cache.read(1, IDS)["exit_1"][::-1]
    )


def test_only_written_rows_are_there(cache):
    assert cache.missing(1, np.arange(10)).tolist() == [0, 1, 4, 5, 6, 8, 9]
    assert cache.missing(0, IDS).tolist() == IDS.tolist()
    assert cache.filled(1, np.arange(10)).tolist() == [2, 3, 7]


def test_an_output_may_be_added_later(tmp_path):
    sizes = {"exit_1": 6}
    first = open_cache(tmp_path, sizes=sizes)
    first.write(1, IDS, vectors())
    both = open_cache(tmp_path)
    assert len(both.missing(1, IDS)) == 3  # the embedding is
    assert not len(open_cache(tmp_path, sizes=sizes).missing(1, IDS))


def test_what_is_not_filled_takes_no_space(tmp_path):
    cache = open_cache(tmp_path, examples=10**6)
    files = [p.stat() for p in tmp_path.iterdir()]
    assert sum(s.st_size for s in files) > 10**7
    assert sum(s.st_blocks * 512 for s in files) < 10**5
    assert cache.bytes_per_view() == 10**6 * (2 * 10 + 8 * 2)


def spoil(cache, kind, position, value):
    path = cache.folder / f"exit_1.{kind}"
    data = np.memmap(path, np.uint16 if kind == "rows" else np.uint64, "r+")
    data[position] = value
    data.flush()


@pytest.mark.parametrize("kind", ["rows", "sums"])
def test_a_damaged_row_counts_as_missing(cache, kind, capsys):
    row = 1 * 10 + 2  # of view 1, example 2
    spoil(cache, kind, row * 6 if kind == "rows" else row, 12345)
    assert open_cache(cache.folder).missing(1, IDS).tolist() == [2]
    assert "1 damaged rows, computed again" in capsys.readouterr().out


def test_a_row_at_another_place_is_no_row(cache):
    path = cache.folder / "exit_1.rows"
    rows = np.memmap(path, np.uint16, "r+", shape=(3, 10, 6))
    sums = np.memmap(cache.folder / "exit_1.sums", np.uint64, "r+", shape=(3, 10))
    for data in (rows, sums):
        data[1, [2, 3]] = data[1, [3, 2]]
    assert sorted(cache.missing(1, IDS)) == [2, 3]


def test_a_kill_between_row_and_sum_leaves_the_row_missing(cache, monkeypatch):
    written = []
    pwrite = os.pwrite

    def some(*arguments):
        written.append(arguments)
        if len(written) == 5:  # three rows, one sum, and then nothing
            raise KeyboardInterrupt
        return pwrite(*arguments)

    monkeypatch.setattr(os, "pwrite", some)
    with pytest.raises(KeyboardInterrupt):
        cache.write(2, IDS, vectors())
    monkeypatch.undo()
    assert cache.filled(2, IDS).tolist() == []
    assert cache.missing(2, IDS).tolist() == IDS.tolist()


def test_two_fillers_take_turns(cache, capsys):
    other = open_cache(cache.folder)
    asked = iter([False, False, True])
    with cache.locked() as mine, other.locked(lambda: next(asked)) as theirs:
        assert mine and not theirs
    assert capsys.readouterr().out.count("another process is filling") == 1
    with other.locked() as theirs:
        assert theirs


def test_opening_waits_for_another_opening_alone_and_says_nothing(
    cache, monkeypatch, capsys
):
    with cache.locked():  # as one that fills, for hours
        with contextlib.ExitStack() as opening:

            def moment_later(seconds):
                assert is_held, "waits for what nobody holds"
                is_held.clear()
                opening.close()

            is_held = []
            monkeypatch.setattr(time, "sleep", moment_later)
            open_cache(cache.folder)
            is_held.append(opening.enter_context(cache.locked(name="lock_to_open")))
            open_cache(cache.folder)
            assert not is_held
    assert capsys.readouterr().out == ""


def test_a_disk_without_locks_is_one_line(cache, monkeypatch):
    def fails(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", fails)
    with pytest.raises(UserError, match="No locks available. Put --teacher_cache on"):
        open_cache(cache.folder)


def test_a_full_disk_is_one_line_and_keeps_the_rows(cache, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(UserError, match="Cannot write to .*: No space left on device"):
        cache.write(0, IDS, vectors())
    assert not len(cache.missing(1, IDS))


# ---- several processes, each with a part


def test_parts_are_whole_batches_and_together_all():
    ids = np.arange(100, 127)  # seven batches of four, the last of three
    for count in range(1, 8):
        parts = [part.of(ids, 4) for part in Part(1, count).siblings]
        assert np.concatenate(parts).tolist() == ids.tolist()
        assert all(len(part) % 4 == 0 for part in parts[:-1])
        sizes = [-(-len(part) // 4) for part in parts]
        assert min(sizes) >= 1 and max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(
    "text", ["0/4", "5/4", "x", "4", "-1/4", "1/0", "1/", "1/2/3", "1.0/2", "1 /2"]
)
def test_what_is_no_part_is_refused(text):
    message = (
        "--part must be K/N with 1 <= K <= N, such as 2/4 for the second of four "
        f"parts, got {text!r}."
    )
    with pytest.raises(UserError, match=re.escape(message)):
        read_part(text)


@pytest.mark.parametrize("count", [4, 11])  # more than batches, than images
def test_more_parts_than_batches_are_refused(count):
    message = (
        f"--part=1/{count} needs at least {count} batches, the 10 training images make "
        "3 of --batch_size=4: ask for fewer parts."
    )
    with pytest.raises(UserError, match=re.escape(message)):
        Part(1, count).of(np.arange(10), 4)


def test_parts_do_not_wait_for_each_other(cache, capsys):
    first, second, other = Part(1, 2).lock, Part(2, 2).lock, Part(1, 3).lock
    with cache.locked(name=first) as mine:
        again = open_cache(cache.folder)
        with again.locked(name=second) as theirs, again.locked(name=other) as third:
            assert mine and theirs and third
        assert "waiting" not in capsys.readouterr().out
        asked = iter([False, True])
        with again.locked(lambda: next(asked), first) as same:
            assert not same
    assert "another process is filling" in capsys.readouterr().out


def writes_of(cache, values, monkeypatch):
    """The calls of os.pwrite that write one row: path, bytes, place."""
    calls = []

    def note(file, data, place):
        path = os.readlink(f"/proc/self/fd/{file}")
        calls.append((path, data, place))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", note)
        cache.write(0, np.array([4]), values)
    return calls


def merged(one, two):
    """All orders of two sequences that keep the order of each."""
    for places in itertools.combinations(range(len(one) + len(two)), len(one)):
        a, b = iter(one), iter(two)
        yield [next(a if k in places else b) for k in range(len(one) + len(two))]


def test_two_writers_of_a_row_leave_one_of_both_or_none(tmp_path, monkeypatch):
    """Every order of their writes, two files an output; the last bits may differ."""
    cache = open_cache(tmp_path)
    one, two = vectors(1, rows=1), vectors(2, rows=1)
    calls = [writes_of(cache, values, monkeypatch) for values in (one, two)]
    assert [len(c) for c in calls] == [4, 4]
    kept = set()
    for order in merged(*calls):
        for path, data, place in order:
            with open(path, "r+b") as file:
                os.pwrite(file.fileno(), data, place)
        for name in SIZES:
            part = open_cache(tmp_path, sizes={name: SIZES[name]})
            (row,) = part.read(0, np.array([4]))[name]
            whole = [np.array_equal(row, v[name][0].astype("f2")) for v in (one, two)]
            assert sum(whole) == 1
            is_missing = len(part.missing(0, np.array([4])))
            kept.add((name, whole.index(True), bool(is_missing)))
    assert len(kept) == 8  # each of both outputs: either writer's row, valid or torn
    cache.write(0, np.array([4]), one)
    assert not len(cache.missing(0, np.array([4])))


def test_a_row_of_two_halves_is_missing(cache):
    """Of two processes whose writes were torn; the sum may be of either."""
    one, two = (vectors(seed, rows=1)["exit_1"].astype("f2")[0] for seed in (1, 2))
    for whole, other in ((one, two), (two, one)):
        both = {**vectors(0, rows=1), "exit_1": whole[None]}
        cache.write(0, np.array([4]), both)
        assert not len(cache.missing(0, np.array([4])))
        spoil(cache, "rows", slice(4 * 6 + 3, 4 * 6 + 6), other[3:].view(np.uint16))
        assert cache.missing(0, np.array([4])).tolist() == [4]


SPACE = 3 * 10 * (2 * 10 + 8 * 2)  # bytes of all rows and sums


def free_space(monkeypatch, free, total=10**9):
    usage = types.SimpleNamespace(total=total, free=free)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)


def test_a_cache_that_the_disk_cannot_hold_is_not_begun(tmp_path, monkeypatch):
    free_space(monkeypatch, SPACE - 1)
    text = (
        f"Teacher cache of 3 views of 10 images needs {SPACE} bytes of disk space, "
        f"{SPACE - 1} bytes are free in {tmp_path}: lower --cached_augmentations, set "
        "or lower --cache_top_k, or put --teacher_cache on another disk."
    )
    with pytest.raises(UserError, match=re.escape(text)):
        open_cache(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["lock_to_open"]
    open_cache(tmp_path, views=2)  # as the line says
    open_cache(tmp_path, views=2)  # its space is its own already


def test_only_added_outputs_need_space(tmp_path, monkeypatch):
    open_cache(tmp_path, sizes={"exit_1": 6})
    more = 3 * 10 * (2 * 4 + 8)
    free_space(monkeypatch, more - 1)
    open_cache(tmp_path, sizes={"exit_1": 6})
    with pytest.raises(UserError, match=f"needs {more} bytes of disk space"):
        open_cache(tmp_path)
    free_space(monkeypatch, more)
    open_cache(tmp_path)


def test_a_file_system_that_tells_no_size_has_room(tmp_path, monkeypatch):
    free_space(monkeypatch, 0, total=0)
    open_cache(tmp_path / "one")

    def fails(folder):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(shutil, "disk_usage", fails)
    open_cache(tmp_path / "two")


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e5])
def test_what_float16_cannot_hold_is_refused(cache, value):
    values = vectors()
    values["exit_1"][0, 0] = value
    with pytest.raises(UserError, match="float16 cannot hold"):
        cache.write(0, IDS, values)


SPOILT = {  # what happens to the folder -> the message
    "another teacher": "was made for another teacher .there abc, here xyz.",
    "other views": "for another views .there 3, here 4.",
    "top k": "for another top_k .there 0, here 2.",
    "truncated": r"exit_1.rows is damaged: it has 100 bytes instead of 360",
    "grown": r"exit_1.sums is damaged: it has 248 bytes instead of 240",
    "rows gone": "exit_1.rows is missing but its checksum file exists",
    "record gone": "has rows but no cache.json",
    "record damaged": "cache.json is damaged",
    "record no object": "cache.json is damaged",
    "record of the future": "for another format .there 2, here 1.",
}


@pytest.mark.parametrize("what", SPOILT)
def test_spoilt_caches_are_refused(cache, what):
    record, arguments = cache.folder / "cache.json", {}
    if what == "another teacher":
        arguments["identity"] = {"teacher": "xyz"}
    elif what == "other views":
        arguments["views"] = 4
    elif what == "top k":
        arguments.update(top_k=2, sizes={"exit_1": 6})
    elif what == "truncated":
        os.truncate(cache.folder / "exit_1.rows", 100)
    elif what == "grown":
        os.truncate(cache.folder / "exit_1.sums", 248)
    elif what == "rows gone":
        (cache.folder / "exit_1.rows").unlink()
    elif what == "record gone":
        record.unlink()
    elif what == "record damaged":
        record.write_text(record.read_text()[:30])
    elif what == "record no object":
        record.write_text("[]")
    else:
        record.write_text(json.dumps({**json.loads(record.read_text()), "format": 2}))
    with pytest.raises(UserError, match=SPOILT[what]):
        open_cache(cache.folder, **arguments)


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Cannot make teacher cache .*/file/cache"):
        open_cache(tmp_path / "file" / "cache")


def test_the_largest_logits_are_of_one_temperature(tmp_path):
    whole, top = tmp_path / "whole", {"top_k": 2, "sizes": {"exit_1": 6}}
    for temperature in (1.0, 4.0):
        open_cache(whole, temperature=temperature)  # of all logits
    open_cache(tmp_path / "top", **top)
    message = "made for another temperature .there None, here 4.0.: use another"
    with pytest.raises(UserError, match=message):
        open_cache(tmp_path / "top", temperature=4.0, **top)


# ---- the words of a row


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_top_rows_against_a_float64_reference(temperature):
    logits = np.random.default_rng(0).normal(size=(5, 12)) * 3
    codec = TopRows(12, 4, temperature)
    got = codec.decode(codec.encode(logits)).astype(np.float64)
    assert codec.words == 9
    exponentials = np.exp(logits / temperature)
    probabilities = exponentials / exponentials.sum(1, keepdims=True)
    for row, p, z in zip(got, probabilities, logits, strict=True):
        q = np.exp(row / temperature) / np.exp(row / temperature).sum()
        top = np.argsort(-z)[:4]
        rest = np.setdiff1d(np.arange(12), top)
        np.testing.assert_allclose(q[top], p[top], rtol=4e-3)
        np.testing.assert_allclose(q[rest], p[rest].mean(), rtol=4e-3)
        np.testing.assert_allclose(row[top], z[top], rtol=2**-11)


def test_whole_rows_keep_extremes():
    values = np.array([[65504.0, -65504.0, 0.0, 6e-8]])
    codec = WholeRows(4)
    np.testing.assert_allclose(codec.decode(codec.encode(values)), values, rtol=0.01)


@pytest.mark.parametrize("k", [0, 12, 13])
def test_top_k_must_leave_something_out(k):
    with pytest.raises(UserError, match=f"below the 12 classes, got {k}"):
        TopRows(12, k)
