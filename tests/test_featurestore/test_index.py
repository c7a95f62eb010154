"""The row index answers as all the records together would, whatever became of its segments."""

import json
import random
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from featurestore import index, segment
from featurestore.errors import DamageError
from featurestore.index import RowIndex
from featurestore.records import COMMIT_SCHEMA, Record, read_record, record_file
from featurestore.segment import Cover, Segment, encode_segment, item_hashes
from featurestore.shards import crc32

ROWS = 3
PAGE = 4096


@pytest.fixture
def folder(tmp_path):
    """Of an empty feature set."""
    path = tmp_path / "img@00000000"
    (path / "commits" / "v0").mkdir(parents=True)
    return path


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Segments of few shards, so that a test has many."""
    monkeypatch.setattr(index, "SIZES", (8, 2))


@pytest.fixture(params=["few", "many"])
def way(request, monkeypatch):
    """Both ways to look up: the pages of some rows alone, or whole segments."""
    monkeypatch.setattr(index, "_FEW", 1e9 if request.param == "few" else 0.0)


def item(number: int) -> str:
    return f"d/{'ü' * (number % 3)}{number}"


def record_of(folder, shard, rng, items=40) -> Record:
    """A random record: items that other shards have too, failures, nulls, no rows at all."""
    if rng.random() < 0.2:
        return Record(folder.name, 0, shard, shard * ROWS, "0" * 12, "abandoned")
    ids = [item(i) for i in rng.sample(range(items), rng.randrange(1, ROWS + 1))]
    failed = {i: f"not readable\n{'x' * rng.randrange(9)}" for i in range(len(ids)) if rng.random() < 0.2}
    return Record(
        folder.name,
        0,
        shard,
        shard * ROWS,
        f"{rng.getrandbits(48):012x}",
        items=ids,
        stamps=[rng.choice([None, "", f"{rng.random()}"]) for _ in ids],
        content=[rng.choice([None, f"{rng.getrandbits(256):064x}"]) for _ in ids],
        tokens=[None if i in failed else rng.randrange(1, 500) for i in range(len(ids))],
        failed=failed,
        truncated=[i for i in range(len(ids)) if rng.random() < 0.3],
        crc32={"tokens/v0": [None if i in failed else rng.getrandbits(32) for i in range(len(ids))]},
        files={f"tokens/v0/c.{shard}.0.0": {"bytes": 9, "crc32": rng.getrandbits(32)}},
    )


def decide(folder, record: Record) -> None:
    (folder / record_file(0, record.shard)).write_bytes(record.encode())


def decided(folder) -> list[int]:
    return sorted(int(p.stem) for p in (folder / "commits" / "v0").iterdir())


def slow(folder, items=None) -> pl.DataFrame:
    """Every record, read and put together."""
    frames = [read_record(folder / record_file(0, shard)).frame() for shard in decided(folder)]
    frame = pl.concat([COMMIT_SCHEMA.to_frame(), *frames])
    return frame if items is None else frame.filter(pl.col("item").is_in(items))


def same(found: pl.DataFrame, expected: pl.DataFrame) -> bool:
    return found.schema == COMMIT_SCHEMA and found.equals(expected, null_equal=True)


def segments(folder) -> list[str]:
    return sorted(p.name for p in (folder / "index" / "v0").iterdir()) if (folder / "index").exists() else []


def fill(folder, shards=range(8), seed=0) -> None:
    rng = random.Random(seed)
    for shard in shards:
        decide(folder, record_of(folder, shard, rng))


@pytest.mark.parametrize("seed", range(6))
def test_any_sequence_of_commits_compactions_and_damage_gives_what_the_records_say(folder, way, seed):
    rng = random.Random(seed)
    kept = RowIndex(folder, 0)
    for _ in range(60):
        action, free = rng.random(), sorted(set(range(26)) - set(decided(folder)))
        if action < 0.6 and free:
            decide(folder, record_of(folder, rng.choice(free[:6]), rng))
        elif action < 0.8:
            RowIndex(folder, 0).compact()
        elif action < 0.85 and decided(folder):
            (folder / record_file(0, rng.choice(decided(folder)))).unlink()
            RowIndex(folder, 0).compact()  # as planning does, before the shard may be decided otherwise
        elif segments(folder):
            path = folder / "index" / "v0" / rng.choice(segments(folder))
            data = bytearray(path.read_bytes())
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            path.unlink()  # nobody cuts a file in place: the old one may be mapped
            kind = rng.randrange(3)
            if kind:
                path.write_bytes(data if kind == 1 else data[: rng.randrange(len(data))])
        items = [item(rng.randrange(45)) for _ in range(rng.randrange(6))]
        fresh = RowIndex(folder, 0)
        kept.refresh()
        for rows in (fresh, kept):
            assert same(rows.lookup(items), slow(folder, items))
            assert same(rows.lookup(None), slow(folder))


def test_segments_grow_into_larger_ones_and_leave_few_records_to_read(folder, monkeypatch):
    read = []
    monkeypatch.setattr(index, "read_record", lambda path: (read.append(path.stem), read_record(path))[1])
    fill(folder, [*range(5), 7])
    assert RowIndex(folder, 0).compact() == 2
    assert segments(folder) == ["00000000-00000001.rows", "00000002-00000003.rows"]
    fill(folder, [5, 6, 8, 9, 10], seed=1)
    read.clear()
    assert RowIndex(folder, 0).compact() == 2
    assert sorted(read) == [f"{n:08d}" for n in (4, 5, 6, 7, 8, 9)]
    assert segments(folder) == ["00000000-00000007.rows", "00000008-00000009.rows"]
    read.clear()
    assert same(RowIndex(folder, 0).lookup(None), slow(folder))
    assert read == ["00000010"]
    assert RowIndex(folder, 0).compact() == 0


def test_a_segment_over_an_undecided_shard_is_not_believed_and_goes(folder):
    fill(folder)
    RowIndex(folder, 0).compact()
    (folder / record_file(0, 3)).unlink()
    assert same(RowIndex(folder, 0).lookup(None), slow(folder))
    RowIndex(folder, 0).compact()
    assert segments(folder) == ["00000000-00000001.rows", "00000004-00000005.rows", "00000006-00000007.rows"]


def test_a_segment_of_another_set_or_view_or_range_is_not_believed(folder, tmp_path):
    other = tmp_path / "txt@00000000"
    (other / "commits" / "v0").mkdir(parents=True)
    fill(other, seed=5)
    fill(folder)
    RowIndex(other, 0).compact()
    RowIndex(folder, 0).compact()
    path = folder / "index" / "v0" / segments(folder)[0]
    path.write_bytes((other / "index" / "v0" / segments(other)[0]).read_bytes())
    assert same(RowIndex(folder, 0).lookup(None), slow(folder))
    fill(folder, range(8, 16), seed=1)
    RowIndex(folder, 0).compact()
    path.write_bytes((path.parent / "00000008-00000015.rows").read_bytes())
    assert same(RowIndex(folder, 0).lookup(None), slow(folder))
    assert RowIndex(folder, 0).compact() == 1
    path.with_name("00000003-00000004.rows").write_bytes(path.read_bytes())  # of no size that there is
    assert same(RowIndex(folder, 0).lookup(None), slow(folder))


def test_every_flipped_byte_and_every_cut_is_noticed(folder, way):
    fill(folder)
    RowIndex(folder, 0).compact()
    path = folder / "index" / "v0" / segments(folder)[0]
    whole, expected = path.read_bytes(), slow(folder)
    items = expected["item"].unique()
    rng = random.Random(0)
    header = len(whole[:PAGE].rstrip(b"\0"))
    for at in [*range(0, header, 7), *rng.sample(range(PAGE, len(whole)), 150)]:
        path.unlink(missing_ok=True)
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 16]) + whole[at + 1 :])
        assert same(RowIndex(folder, 0).lookup(items), expected), at
    for length in [0, 1, 15, 16, header, PAGE, PAGE + 1, len(whole) - 4, len(whole) - 1]:
        path.unlink(missing_ok=True)
        path.write_bytes(whole[:length])
        assert same(RowIndex(folder, 0).lookup(items), expected), length
    path.unlink(missing_ok=True)
    path.write_bytes(whole + b"\0" * PAGE)
    assert same(RowIndex(folder, 0).lookup(items), expected)


@pytest.mark.parametrize("at", [0, PAGE, -1])
def test_a_damaged_segment_is_made_anew(folder, at):
    fill(folder)
    RowIndex(folder, 0).compact()
    (name,) = segments(folder)
    path = folder / "index" / "v0" / name
    whole = path.read_bytes()
    data = bytearray(whole)
    data[at] ^= 1
    path.unlink()
    path.write_bytes(data)
    RowIndex(folder, 0).lookup(None)
    assert RowIndex(folder, 0).compact() == 1
    assert path.read_bytes() == whole


def test_a_larger_segment_is_not_made_from_a_damaged_one(folder):
    fill(folder, range(6))
    RowIndex(folder, 0).compact()
    path = folder / "index" / "v0" / segments(folder)[0]
    data = bytearray(path.read_bytes())
    data[PAGE] ^= 1
    path.unlink()
    path.write_bytes(data)
    fill(folder, [6, 7], seed=1)
    RowIndex(folder, 0).compact()
    assert segments(folder) == ["00000000-00000007.rows"]
    assert same(RowIndex(folder, 0).lookup(None), slow(folder))


def forge(cover: Cover, frame: pl.DataFrame, change, **header) -> bytes:
    """A segment whose checksums fit what a stranger made of it: `change` is given its columns to write into."""
    _, body, _ = encode_segment(cover, frame)
    data = bytearray(body)
    texts = {name: sum(len((text or "").encode()) for text in frame[name]) for name in segment._TEXTS}
    places = np.frombuffer(data, segment._PLACE, len(frame), 8 * len(frame))
    change(np.frombuffer(data, "<u8", len(frame)), places, data)
    checks = np.array([crc32(bytes(data[at : at + PAGE])) for at in range(0, len(data), PAGE)], "<u4").tobytes()
    said = {**vars(cover), "rows": len(frame), "texts": texts, "checks": crc32(checks), **header}
    raw = json.dumps(said).encode()
    page = b"RADFSIX1" + len(raw).to_bytes(4, "little") + crc32(raw).to_bytes(4, "little") + raw
    return page + bytes(PAGE - len(page)) + data + checks


def nothing(hashes, places, data):
    pass


def beyond(hashes, places, data):
    places["ends"][1] = 2**31 - 1


def negative(hashes, places, data):
    places["ends"][1] = -(2**31)


def backwards(hashes, places, data):
    places["ends"][:] = places["ends"][::-1].copy()


def no_utf8(hashes, places, data):
    data[8 * len(places) + places.nbytes] = 0xFF


LIES = [
    (beyond, {}),
    (negative, {}),
    (backwards, {}),
    (no_utf8, {}),
    (nothing, {"rows": -1}),
    (nothing, {"rows": 10**12}),
    (nothing, {"rows": 10**30}),
    (nothing, {"rows": True}),
    (nothing, {"rows": None}),
    (nothing, {"rows": 1}),
    (nothing, {"texts": {"item": 2**62, "content": 0, "stamp": 0, "reason": 0}}),
    (nothing, {"texts": {"item": -8, "content": 0, "stamp": 0, "reason": 0}}),
    (nothing, {"texts": []}),
    (nothing, {"checks": 0}),
    (nothing, {"view": 1}),
    (nothing, {"feature_set": {}}),
]


@pytest.mark.parametrize(("change", "header"), LIES)
def test_a_strangers_segment_is_left_aside(folder, way, change, header):
    rng = random.Random(0)
    for shard in range(8):
        record = record_of(folder, shard, rng)
        while record.state == "abandoned":
            record = record_of(folder, shard, rng)
        decide(folder, record)
    expected = slow(folder)
    path = folder / "index" / "v0" / "00000000-00000007.rows"
    path.parent.mkdir(parents=True)
    cover = Cover(folder.name, 0, 0, 7)
    path.write_bytes(forge(cover, expected, nothing))
    assert len(Segment(path, cover).whole()) == len(expected)  # the forgery is good but for the lie
    path.unlink()
    path.write_bytes(forge(cover, expected, change, **header))
    with pytest.raises(DamageError, match=r"segment 00000000-00000007\.rows .* is made anew"):
        Segment(path, cover).whole()
    assert same(RowIndex(folder, 0).lookup(expected["item"]), expected)


@pytest.mark.parametrize("seed", range(20))
def test_a_forgery_with_right_checksums_says_what_it_likes_and_harms_nothing(folder, way, seed):
    fill(folder)
    expected = slow(folder)
    path = folder / "index" / "v0" / "00000000-00000007.rows"
    path.parent.mkdir(parents=True)
    rng = np.random.default_rng(seed)

    def anything(hashes, places, data):
        for _ in range(1 + seed // 4):
            data[rng.integers(len(data))] = rng.integers(256)
        if seed % 2:
            rng.shuffle(hashes)

    path.write_bytes(forge(Cover(folder.name, 0, 0, 7), expected, anything))
    found = RowIndex(folder, 0).lookup(expected["item"])
    assert found.schema == COMMIT_SCHEMA
    assert found["item"].is_in(expected["item"].implode()).all()


def test_ids_that_share_a_hash_are_told_apart(folder, way, monkeypatch):
    for module in (index, segment):
        monkeypatch.setattr(module, "item_hashes", lambda items: np.array([len(i) % 2 for i in items], dtype="<u8"))
    fill(folder, range(20))
    RowIndex(folder, 0).compact()
    for number in range(40):
        assert same(RowIndex(folder, 0).lookup([item(number)]), slow(folder, [item(number)]))


def test_the_hash_is_the_same_for_everybody():
    assert item_hashes(["d/1", "d/ü"]).tolist() == [5019329994816538076, 8413903026805216789]


def test_a_lookup_touches_the_pages_of_its_rows_alone(folder, monkeypatch):
    monkeypatch.setattr(index, "SIZES", (2,))
    n = 20_000
    for shard in range(2):
        ids = [f"d/{shard}-{i}" for i in range(n)]
        empty = Record(folder.name, 0, shard, shard * n, "0" * 12, items=ids)
        decide(folder, replace(empty, stamps=[None] * n, content=["0" * 64] * n, tokens=[1] * n))
    RowIndex(folder, 0).compact()
    rows = RowIndex(folder, 0)
    assert rows.lookup(["d/0-5", "d/1-6", "d/absent"])["row"].to_list() == [5, n + 6]
    (held,) = rows._segments.values()
    assert 0 < held._checked.sum() <= 3 * 2 + 2 * 8
    assert len(held._checked) > 1000


def test_a_damaged_record_is_an_error_where_it_must_be_read_and_keeps_its_range_out(folder):
    fill(folder)
    (folder / record_file(0, 5)).write_bytes(b"torn")
    assert RowIndex(folder, 0).compact() == 3
    assert segments(folder) == ["00000000-00000001.rows", "00000002-00000003.rows", "00000006-00000007.rows"]
    with pytest.raises(DamageError, match="00000005"):
        RowIndex(folder, 0).lookup(["d/0"])


def test_names_that_are_no_records_are_not_counted(folder):
    fill(folder, range(2))
    expected = slow(folder)
    commits = folder / "commits" / "v0"
    for name in (
        ".00000003.json",
        "00000003.json.partial",
        "3.json",
        "٠٠٠٠٠٠٠٣.json",
        "x\n00000003.json",
        "000000003.json",
    ):
        (commits / name).write_bytes(b"")
    assert same(RowIndex(folder, 0).lookup(None), expected)


def test_a_segment_that_goes_while_it_is_opened_is_no_error(folder, monkeypatch):
    fill(folder)
    RowIndex(folder, 0).compact()
    plain = index.local_file
    monkeypatch.setattr(index, "local_file", lambda path: (path.unlink(), plain(path))[1])
    assert same(RowIndex(folder, 0).lookup(None), slow(folder))


def test_a_set_without_shards_has_no_rows(tmp_path):
    rows = RowIndex(tmp_path / "img@00000000", 0)
    assert same(rows.lookup(["d/1"]), COMMIT_SCHEMA.to_frame())
    assert same(rows.lookup([]), COMMIT_SCHEMA.to_frame())
    assert same(rows.lookup(None), COMMIT_SCHEMA.to_frame())
    assert rows.compact() == 0
