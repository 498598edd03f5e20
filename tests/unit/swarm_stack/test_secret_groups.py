import hashlib
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mt5kit.key_ring import KeyRing
from swarm_stack.secret_groups import ALL, GROUPS, group_of, made

NOTHING = frozenset[str]()


def test_a_first_run_makes_every_secret_and_keeps_all_of_it_offline() -> None:
    fresh = made(NOTHING, {}, NOTHING)
    assert set(fresh.swarm) == set(ALL)
    assert fresh.swarm.items() <= fresh.offline.items()
    assert all(fresh.swarm.values())


def test_the_key_of_a_caller_is_only_offline_and_the_services_have_its_hash() -> None:
    fresh = made(NOTHING, {}, NOTHING)
    for name, hashes in (("api_key", "api_keys"), ("admin_api_key", "admin_api_keys")):
        assert name not in fresh.swarm
        digest = hashlib.sha256(fresh.offline[name]).hexdigest()
        assert json.loads(fresh.swarm[hashes]) == {"operator": digest}


def test_redis_is_told_hashes_of_the_passwords_that_its_clients_get() -> None:
    fresh = made(NOTHING, {}, NOTHING).swarm
    acl = fresh["redis_acl"].decode()
    pools = re.fullmatch(r"redis://mt5:(.+)@redis:6379/0", fresh["redis_url"].decode())
    assert pools is not None
    exporter = next(iter(json.loads(fresh["redis_exporter_passwords"]).values()))
    clear = [pools[1], exporter, fresh["redis_backup_password"].decode()]
    for password in clear:
        assert password not in acl
        assert f"#{hashlib.sha256(password.encode()).hexdigest()}" in acl
    assert "user default off" in acl


def test_the_owner_of_the_database_has_one_password_in_both_places() -> None:
    fresh = made(NOTHING, {}, NOTHING).swarm
    assert f":{fresh['mt5_owner_password'].decode()}@".encode() in fresh["owner_database_url"]


def test_the_key_ring_is_one_that_services_can_load(tmp_path: Path) -> None:
    ring = tmp_path / "ring.json"
    ring.write_bytes(made(NOTHING, {}, NOTHING).swarm["key_ring"])
    assert len(KeyRing.load(ring).ids) == 1


@given(st.sets(st.sampled_from(ALL)))
def test_what_is_there_is_never_made_anew_unless_its_group_is_incomplete(there: set[str]) -> None:
    fresh = made(frozenset(there), {}, NOTHING).swarm
    for group in GROUPS:
        whole = there.issuperset(group.members)
        assert whole == (not fresh.keys() & set(group.members))
        assert whole or fresh.keys() >= set(group.members)


def test_a_key_ring_in_use_is_not_replaced_by_one_that_opens_nothing() -> None:
    with pytest.raises(ValueError, match="rotating keys"):
        made(frozenset(ALL), {}, frozenset({"key_ring"}))
    assert "key_ring" in made(NOTHING, {}, frozenset({"key_ring"})).swarm


@given(st.sets(st.sampled_from([name for name in ALL if name != "key_ring"])))
def test_what_is_renewed_is_renewed_with_all_that_belongs_to_it(renewed: set[str]) -> None:
    fresh = made(frozenset(ALL), {}, frozenset(renewed)).swarm
    assert fresh.keys() == {member for name in renewed for member in group_of(name).members}


def test_two_runs_make_nothing_alike() -> None:
    one, two = made(NOTHING, {}, NOTHING).swarm, made(NOTHING, {}, NOTHING).swarm
    assert not [name for name in ALL if one[name] == two[name]]


def test_values_of_the_operator_win() -> None:
    fresh = made(frozenset(ALL), {"jwt_secret": b"supabase"}, NOTHING)
    assert fresh.swarm == {"jwt_secret": b"supabase"}
    assert fresh.offline == {"jwt_secret": b"supabase"}


@pytest.mark.parametrize(
    ("values", "error", "said"),
    [
        ({"jwt_sercet": b"x"}, KeyError, "jwt_sercet"),
        ({"jwt_secret": b""}, ValueError, "empty"),
        ({"redis_url": b"redis://x"}, ValueError, "redis_acl"),
    ],
)
def test_values_that_cannot_be_used_are_refused(
    values: dict[str, bytes], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        made(frozenset(ALL), values, NOTHING)


def test_a_group_that_there_is_not_cannot_be_renewed() -> None:
    with pytest.raises(KeyError, match="passwords"):
        made(frozenset(ALL), {}, frozenset({"passwords"}))
