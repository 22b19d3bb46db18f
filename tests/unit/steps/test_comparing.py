from hypothesis import given
from hypothesis import strategies as st

from ragcore.model import BucketObject, JobFailure, KnownObject
from ragcore.steps.comparing import decide, paired, too_many_are_gone

KEYS = st.sets(st.text(alphabet="a/.ё\U0001f600", min_size=1, max_size=5))


def listed(key: str = "k", *, etag: str = "one", size: int = 1, at: int = 5) -> BucketObject:
    return BucketObject("b", key, size, etag, at)


def known(key: str = "k", **options: object) -> KnownObject:
    return KnownObject(key, f"id-of-{key}", 1, **options)  # type: ignore[arg-type]


@given(KEYS, KEYS)
def test_two_sorted_streams_are_brought_together_like_two_tables(
    there: set[str], stored: set[str]
) -> None:
    pairs = list(paired(map(listed, sorted(there)), map(known, sorted(stored))))
    found = [(a.key if a else None, b.key if b else None) for a, b in pairs]
    assert found == [
        (key if key in there else None, key if key in stored else None)
        for key in sorted(there | stored)
    ]


def test_what_an_object_means_follows_from_what_is_known_of_it() -> None:
    now = listed()
    bad = JobFailure("conversion_failed", "", retryable=False)
    away = JobFailure("source_unavailable", "", retryable=True)
    cases = {
        "new": (None, known(), known(newest=now, newest_state="failed", failure=away)),
        "under_way": (known(newest=now, newest_state="pending"),),
        "unchanged": (known(in_place=now, newest=now, newest_state="current"),),
        "changed": (
            known(in_place=listed(etag="other")),
            known(in_place=listed(size=2)),
            known(in_place=listed(at=4)),
            known(in_place=listed(etag="other"), newest=now, newest_state="failed", failure=away),
        ),
        "failed_before": (known(newest=now, newest_state="failed", failure=bad),),
    }
    for action, memories in cases.items():
        for memory in memories:
            assert decide(now, memory) == action, memory


def test_many_missing_objects_are_doubted() -> None:
    def doubted(gone: int, known: int, listed: int, share: float) -> bool:
        return too_many_are_gone(gone=gone, known=known, listed=listed, most_share=share)

    assert doubted(1, 1, 0, 0.2)  # all
    assert not doubted(1, 1, 0, 1)  # all, as meant
    assert not doubted(10, 20, 10, 0.2)  # a few
    assert doubted(21, 100, 79, 0.2)
    assert not doubted(20, 100, 80, 0.2)
    assert not doubted(0, 0, 0, 0.2)
