"""Settings come from the environment, or from the files it names."""

from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from mt5kit.settings import ServiceSettings, from_environment


class Example(ServiceSettings):
    token: SecretStr
    servers: dict[str, str]


def test_a_secret_may_be_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret\n")
    (tmp_path / "servers").write_text('{"A": "UTC"}')
    monkeypatch.setenv("TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("SERVERS_FILE", str(tmp_path / "servers"))
    settings = Example()
    assert settings.token.get_secret_value() == "s3cret"
    assert settings.servers == {"A": "UTC"}
    assert "s3cret" not in repr(settings)


def test_both_forms_at_once_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("one")
    monkeypatch.setenv("TOKEN", "two")
    monkeypatch.setenv("TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("SERVERS", "{}")
    with pytest.raises(ValueError, match="keep one"):
        Example()


def test_a_refusal_does_not_show_what_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "t0ken-value")
    monkeypatch.setenv("SERVERS", '["t0ken-value"]')
    with pytest.raises(ValidationError) as refused:
        Example()
    assert "t0ken-value" not in str(refused.value)


def test_a_variable_that_is_empty_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "")
    monkeypatch.setenv("SERVERS", "{}")
    with pytest.raises(ValidationError, match="token"):
        Example()


def test_a_secret_file_that_is_empty_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN_FILE", "")
    monkeypatch.setenv("TOKEN", "one")
    monkeypatch.setenv("SERVERS", "{}")
    assert Example().token.get_secret_value() == "one"


def test_a_process_that_cannot_start_says_all_that_is_missing_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SERVERS", '["t0ken-value"]')
    with pytest.raises(SystemExit) as ended:
        from_environment(Example)
    said = str(ended.value)
    assert said.startswith("settings: TOKEN: Field required; SERVERS: ")
    assert "t0ken-value" not in said
    assert "\n" not in said


def test_a_secret_file_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN_FILE", "/nowhere/token")
    with pytest.raises(SystemExit, match="/nowhere/token"):
        from_environment(Example)
