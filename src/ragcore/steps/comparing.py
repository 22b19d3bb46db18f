"""A bucket as it is listed and as it is known → what is new, changed, gone."""

from collections.abc import Iterable, Iterator
from typing import Final, Literal

from ragcore.model import BucketObject, KnownObject

Pair = tuple[BucketObject | None, KnownObject | None]
"""What is listed of a key and what is known of it; one of the two is there."""
Action = Literal["new", "changed", "unchanged", "under_way", "failed_before", "gone"]

_ALWAYS_ALLOWED: Final = 10
"""Deletions that no share forbids."""


def decide(listed: BucketObject, known: KnownObject | None) -> Action:
    """Say what an object that is in the bucket now means for the document it is.

    One that failed is tried again when that may help, or when it has changed.
    """
    if known is None:
        return "new"
    if known.newest == listed and known.newest_state == "pending":
        return "under_way"
    if known.in_place == listed:
        return "unchanged"
    if (
        known.newest == listed
        and known.newest_state == "failed"
        and known.failure is not None
        and not known.failure.retryable
    ):
        return "failed_before"
    return "new" if known.in_place is None else "changed"


def paired(listed: Iterable[BucketObject], known: Iterable[KnownObject]) -> Iterator[Pair]:
    """Bring together what has the same key, in one pass over both.

    Both must be in order of their keys, by code point, each key at most once; so is what is
    yielded. Memory holds one of each.
    """
    listings, memories = iter(listed), iter(known)
    one, other = next(listings, None), next(memories, None)
    while one is not None or other is not None:
        if other is None or (one is not None and one.key < other.key):
            yield one, None
            one = next(listings, None)
        elif one is None or other.key < one.key:
            yield None, other
            other = next(memories, None)
        else:
            yield one, other
            one, other = next(listings, None), next(memories, None)


def too_many_are_gone(*, gone: int, known: int, listed: int, most_share: float) -> bool:
    """Say whether so much is missing that the listing is rather to be doubted than believed.

    A few may always go, but never all of them, unless `most_share` is 1.
    """
    if most_share >= 1 or gone == 0:
        return False
    return listed == 0 or gone > max(_ALWAYS_ALLOWED, most_share * known)
