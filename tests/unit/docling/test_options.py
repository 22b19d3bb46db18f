"""The adapter's options are the settings' group, without knowing it."""

from dataclasses import fields

from ragcore.adapters.docling.options import ConversionOptions
from ragcore.adapters.docling.processes import child_environment
from ragcore.settings import ConversionSettings


def test_every_setting_is_an_option_with_the_same_default() -> None:
    defaults = ConversionSettings().model_dump()
    options = {field.name: field.default for field in fields(ConversionOptions)}
    assert defaults.items() <= options.items()


def test_a_child_inherits_no_secret() -> None:
    environment = child_environment(
        {"PATH": "/bin", "RAGCORE_REDIS_URL": "s", "AWS_SECRET_ACCESS_KEY": "s", "PYTHONPATH": "."}
    )
    assert "s" not in environment.values()
    assert environment["PATH"] == "/bin"
    assert environment["PYTHONPATH"].startswith("/")
    assert environment["HF_HUB_OFFLINE"] == "1"
