from pathlib import Path

import pytest

from swarm_stack.deployment import FILE, DeploymentInvalid, read_deployment


def test_the_example_is_a_deployment_and_its_comments_name_every_setting() -> None:
    example = Path("deployment.example.toml")
    deployment = read_deployment(example, domain=None, simulated=False)
    text = example.read_text()
    assert not [name for name in deployment.__struct_fields__ if name not in text]


def test_the_command_line_wins(tmp_path: Path) -> None:
    file = tmp_path / "deployment.toml"
    file.write_text('domain = "one.example.com"\nhttps_port = 8443\n')
    deployment = read_deployment(file, domain="two.example.com", simulated=False)
    assert deployment.origin == "https://two.example.com:8443"
    assert deployment.ws_base_url == "wss://two.example.com:8443"


def test_on_simulated_terminals_nothing_has_to_be_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    deployment = read_deployment(FILE, domain=None, simulated=True)
    assert deployment.origin == "https://localhost"
    assert set(deployment.broker_servers) == {"MT5Swarm-Demo"}


def test_a_file_that_was_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(DeploymentInvalid, match="no such file"):
        read_deployment(tmp_path / "other.toml", domain="x", simulated=True)


def test_a_second_place_for_backups_and_who_knows_its_name(tmp_path: Path) -> None:
    file = tmp_path / "deployment.toml"
    file.write_text('domain = "x"\n[backup_s3]\nbucket = "mt5"\nresolver = "9.9.9.9"\n')
    place = read_deployment(file, domain=None, simulated=False).backup_s3
    assert place is not None
    assert (place.bucket, place.resolver, place.region) == ("mt5", "9.9.9.9", "us-east-1")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "DOMAIN="),
        ('domain = "x"\nhttps_prot = 1\n', "https_prot"),
        ('domain = "x"\nhttps_port = 0\n', "https_port"),
        ("domain = \n", r"deployment\.toml"),
        ('domain = "x"\nconsole_user = "me"\n', "console_user"),
        ('domain = "x"\n[backup_s3]\nbucket = "b"\n', "resolver"),
        ('domain = "x"\n[backup_s3]\nbucket = "b"\nresolver = "dns"\n', "dns"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "deployment.toml"
    file.write_text(text)
    with pytest.raises(DeploymentInvalid, match=said):
        read_deployment(file, domain=None, simulated=False)
