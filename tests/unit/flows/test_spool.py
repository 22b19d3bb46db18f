import random
from pathlib import Path

from ragcore.flows.spool import Spool
from ragcore.model import BucketObject


def entry(key: str, at: int = 0) -> BucketObject:
    return BucketObject("b", key, 1, f"etag of {key}", at)


def test_a_listing_in_any_order_is_read_in_order_as_often_as_wanted(tmp_path: Path) -> None:
    keys = [f"{number:05}/ё\n{number}" for number in range(1000)]
    shuffled = random.Random(7).sample(keys, len(keys))
    spool = Spool(tmp_path, run_length=64)
    for first in range(0, len(shuffled), 100):
        spool.add(map(entry, shuffled[first : first + 100]))
    for _ in range(2):
        assert list(spool.objects()) == [entry(key) for key in keys]


def test_a_listing_in_order_makes_one_file(tmp_path: Path) -> None:
    spool = Spool(tmp_path, run_length=10)
    spool.add(entry(f"{number:04}") for number in range(95))
    assert len(list(spool.objects())) == 95
    assert len(list(tmp_path.iterdir())) == 1


def test_a_key_that_is_listed_twice_is_read_once_as_it_is_newest(tmp_path: Path) -> None:
    spool = Spool(tmp_path, run_length=2)
    spool.add([entry("a", 1), entry("b", 5), entry("b", 3), entry("a", 2)])
    assert [(each.key, each.modified_at) for each in spool.objects()] == [("a", 2), ("b", 5)]
