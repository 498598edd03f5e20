import base64
import copy
import json
import pickle
import traceback
from pathlib import Path
from uuid import UUID

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mt5kit.errors import InternalFault
from mt5kit.secret import Secret
from mt5kit.vault import (
    AccountBinding,
    KeyMissing,
    KeyRing,
    KeyRingInvalid,
    SealBroken,
    Sealed,
    Vault,
    keyed_hash,
)

BOUNDED = settings(max_examples=100)
RING = KeyRing.generate("2026-11")
VAULT = Vault(RING)
KEY = base64.b64encode(bytes(range(32))).decode()

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=80)
bindings = st.builds(
    AccountBinding,
    account_uuid=st.uuids(),
    login=st.integers(1, 2**63 - 1),
    server=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30),
)
BINDING = AccountBinding(UUID(int=7), 5_000_001, "Demo-Server")


@BOUNDED
@given(text=texts, binding=bindings)
def test_what_is_sealed_opens_for_the_same_account(text: str, binding: AccountBinding) -> None:
    assert VAULT.open(VAULT.seal(Secret(text), binding), binding).reveal() == text


@BOUNDED
@given(data=st.data(), field=st.sampled_from(["ciphertext", "wrapped_key"]))
def test_no_flipped_bit_goes_unseen(data: st.DataObject, field: str) -> None:
    sealed = VAULT.seal(Secret("correct horse"), BINDING)
    blob = bytearray(getattr(sealed, field))
    bit = data.draw(st.integers(0, len(blob) * 8 - 1))
    blob[bit // 8] ^= 1 << bit % 8
    with pytest.raises(SealBroken):
        VAULT.open(msgspec.structs.replace(sealed, **{field: bytes(blob)}), BINDING)


@pytest.mark.parametrize("length", [0, 5, 12, 20])
@pytest.mark.parametrize("field", ["ciphertext", "wrapped_key"])
def test_a_cut_off_seal_is_broken(field: str, length: int) -> None:
    sealed = VAULT.seal(Secret("correct horse"), BINDING)
    cut = getattr(sealed, field)[:length]
    with pytest.raises(SealBroken):
        VAULT.open(msgspec.structs.replace(sealed, **{field: cut}), BINDING)


@BOUNDED
@given(mine=bindings, other=bindings)
def test_a_seal_opens_for_no_other_binding(mine: AccountBinding, other: AccountBinding) -> None:
    sealed = VAULT.seal(Secret("correct horse"), mine)
    # One field at a time: each of the three binds by itself.
    for field in mine.__struct_fields__:
        if getattr(mine, field) == getattr(other, field):
            continue
        moved = msgspec.structs.replace(mine, **{field: getattr(other, field)})
        with pytest.raises(SealBroken):
            VAULT.open(sealed, moved)
        with pytest.raises(SealBroken):
            VAULT.rewrap(sealed, moved)


def test_parts_of_two_seals_of_one_account_do_not_mix() -> None:
    one, two = (VAULT.seal(Secret("same"), BINDING) for _ in range(2))
    assert one.ciphertext != two.ciphertext
    with pytest.raises(SealBroken):
        VAULT.open(Sealed(one.ciphertext, two.wrapped_key, one.key_id), BINDING)


@BOUNDED
@given(one=bindings, two=bindings)
def test_the_bytes_of_two_bindings_differ(one: AccountBinding, two: AccountBinding) -> None:
    same = one.associated_data("data") == two.associated_data("data")
    assert same == (one == two)


def test_a_binding_s_digits_do_not_run_into_its_server() -> None:
    one = AccountBinding(BINDING.account_uuid, 12, "3-Live")
    two = AccountBinding(BINDING.account_uuid, 1, "23-Live")
    assert one.associated_data("data") != two.associated_data("data")


@BOUNDED
@given(text=texts)
def test_rewrap_changes_the_wrapped_key_only(text: str) -> None:
    old_key, new_key = bytes(32), bytes(range(32))
    sealed = Vault(KeyRing("old", {"old": old_key})).seal(Secret(text), BINDING)
    rewrapped = Vault(KeyRing("new", {"old": old_key, "new": new_key})).rewrap(sealed, BINDING)
    assert rewrapped.ciphertext == sealed.ciphertext
    assert rewrapped.wrapped_key != sealed.wrapped_key
    assert rewrapped.key_id == "new"
    after = Vault(KeyRing("new", {"new": new_key}))
    assert after.open(rewrapped, BINDING).reveal() == text


def test_a_missing_key_is_named() -> None:
    sealed = VAULT.seal(Secret("x"), BINDING)
    with pytest.raises(KeyMissing, match="2026-11"):
        Vault(KeyRing.generate("2027-01")).open(sealed, BINDING)


def test_a_seal_under_another_key_of_the_same_id_is_broken() -> None:
    with pytest.raises(SealBroken):
        Vault(KeyRing.generate("2026-11")).open(VAULT.seal(Secret("x"), BINDING), BINDING)


def test_vault_errors_are_our_own_faults() -> None:
    assert all(issubclass(e, InternalFault) for e in (KeyMissing, SealBroken, KeyRingInvalid))


def test_no_traceback_shows_the_secret() -> None:
    secret = Secret("hunter2-of-the-broker")
    broken = AccountBinding(BINDING.account_uuid, 1, "\ud800")
    for attempt in (
        lambda: VAULT.seal(secret, broken),
        lambda: VAULT.open(VAULT.seal(secret, BINDING), broken),
        lambda: pickle.dumps(secret),
        lambda: msgspec.json.encode(secret),
    ):
        with pytest.raises((ValueError, TypeError)) as caught:
            attempt()
        shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
        assert "hunter2" not in "".join(shown.format())


@BOUNDED
@given(text=st.text(st.characters(exclude_categories=["Cs"]), min_size=12, max_size=40))
def test_a_secret_does_not_show_itself(text: str) -> None:
    secret = Secret(text)
    for shown in (repr(secret), str(secret), f"{secret}", f"{secret:>40}", f"{[secret]}"):
        assert text not in shown
    assert secret.reveal() == text


def test_secrets_compare_by_value_and_are_not_hashed() -> None:
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert copy.deepcopy(Secret("a")) == Secret("a")
    assert not Secret("")
    with pytest.raises(TypeError):
        hash(Secret("a"))


def test_half_a_surrogate_pair_is_refused_without_showing_the_rest() -> None:
    with pytest.raises(ValueError, match="valid Unicode") as caught:
        Secret("hunter2\ud800")
    assert "hunter2" not in repr(vars(caught.value)) + str(caught.value)


def test_a_key_ring_survives_its_file(tmp_path: Path) -> None:
    file = tmp_path / "ring.json"
    file.write_bytes(RING.dump())
    again = KeyRing.load(file)
    assert again.active == "2026-11"
    assert Vault(again).open(VAULT.seal(Secret("x"), BINDING), BINDING) == Secret("x")


def test_a_key_ring_does_not_show_its_keys() -> None:
    ring = KeyRing("a", {"a": bytes(range(32))})
    assert KEY not in repr(ring)
    assert repr(bytes(range(32))) not in repr(ring)
    with pytest.raises(TypeError):
        pickle.dumps(ring)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("\ufffe", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "must be an object"),
        ('{"active": "a"}', "must be an object"),
        ('{"active": 1, "keys": {}}', "must be a key id"),
        ('{"active": "a", "keys": []}', "must be a key id"),
        ('{"active": "a", "keys": {}}', "'a' is not among"),
        (f'{{"active": "b", "keys": {{"a": "{KEY}"}}}}', "'b' is not among"),
        (f'{{"active": "a", "active": "a", "keys": {{"a": "{KEY}"}}}}', "'active' stands twice"),
        (f'{{"active": "a", "keys": {{"a": "{KEY}", "a": "{KEY}"}}}}', "'a' stands twice"),
        (f'{{"active": "a", "keys": {{"a": "{KEY}", "b": "{KEY}"}}}}', "the same key"),
        (f'{{"active": "a", "keys": {{"a": "{KEY[:-4]}"}}}}', "'a' has 30 bytes"),
        ('{"active": "a", "keys": {"a": ""}}', "'a' has 0 bytes"),
        (f'{{"active": "a", "keys": {{"a": "{KEY}!"}}}}', "'a' is not base64"),
        ('{"active": "a", "keys": {"a": "ä"}}', "'a' is not base64"),
        ('{"active": "a", "keys": {"a": 7}}', "'a' is not base64"),
        (f'{{"active": "a", "keys": {{"{KEY}": "a"}}}}', "not base64"),
        (f'{{"active": "{KEY}", "keys": {{}}}}', "is not among"),
        (f'{{"active": "{KEY}", "keys": {{"{KEY}": "{KEY}"}}}}', "a key id is not"),
    ],
)
def test_a_bad_key_ring_file_is_named_and_not_quoted(
    tmp_path: Path, text: str, complaint: str
) -> None:
    file = tmp_path / "ring.json"
    file.write_text(text)
    with pytest.raises(KeyRingInvalid, match=complaint) as caught:
        KeyRing.load(file)
    shown = "".join(traceback.format_exception(caught.value))
    assert str(file) in caught.value.message
    assert KEY[:-4] not in shown


def test_a_missing_key_ring_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(KeyRingInvalid, match=r"absent\.json: No such file"):
        KeyRing.load(tmp_path / "absent.json")


def test_a_generated_ring_is_named_by_its_day() -> None:
    ring = json.loads(KeyRing.generate().dump())
    assert list(ring["keys"]) == [ring["active"]]


def test_keyed_hash_is_hmac_sha256() -> None:
    # RFC 4231, test case 1.
    expected = "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"
    assert keyed_hash(b"\x0b" * 20, "Hi There") == expected
    with pytest.raises(ValueError, match="at least 16"):
        keyed_hash(b"short", "x")
