import pytest
from pydantic import SecretStr, ValidationError

from ragcore.settings import AccessSettings, Settings


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org", ""])  # noqa: S104
def test_addresses_that_other_machines_reach_need_a_key(host: str) -> None:
    assert Settings(host=host).needs_key


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_loopback_of_the_embedded_mode_needs_none_unless_it_is_told_to(host: str) -> None:
    assert not Settings(host=host).needs_key
    assert Settings(host=host, access=AccessSettings(require_key=True)).needs_key


def test_loopback_before_a_shared_database_needs_a_key() -> None:
    assert Settings(database_url=SecretStr("postgresql://somewhere/else")).needs_key


def test_a_misspelt_secret_is_named_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAGCORE_LANGFUSE__SECRET", "sk-hidden")
    with pytest.raises(ValidationError, match=r"langfuse\.secret") as refusal:
        Settings()
    assert "sk-hidden" not in str(refusal.value)
