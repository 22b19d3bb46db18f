import pytest
from pydantic import ValidationError

from ragcore.errors import NotConfigured
from ragcore.settings import Settings, require_loopback


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org", ""])  # noqa: S104
def test_addresses_that_other_machines_reach_are_refused(host: str) -> None:
    with pytest.raises(NotConfigured, match="RAGCORE_HOST"):
        require_loopback(host)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_loopback_is_let_through(host: str) -> None:
    require_loopback(host)


def test_a_misspelt_secret_is_named_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAGCORE_LANGFUSE__SECRET", "sk-hidden")
    with pytest.raises(ValidationError, match=r"langfuse\.secret") as refusal:
        Settings()
    assert "sk-hidden" not in str(refusal.value)
