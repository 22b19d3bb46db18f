import pytest

from ragcore.adapters.postgres.pool import checked_url
from ragcore.errors import NotConfigured


@pytest.mark.parametrize(
    "url", ["mysql://ann:hidden@host/db", "postgresql://ann:hid den@host/db", "ann:hidden@host"]
)
def test_an_address_that_can_not_be_read_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(NotConfigured, match="RAGCORE_DATABASE_URL") as refusal:
        checked_url(url)
    assert "hid" not in str(refusal.value)
    assert refusal.value.__suppress_context__


@pytest.mark.parametrize("url", ["postgresql://ann:x@host:5432/db", "host=/tmp dbname=db"])
def test_an_address_is_returned_as_it_is(url: str) -> None:
    assert checked_url(url) == url
