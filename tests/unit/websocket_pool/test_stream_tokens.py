"""What a token must say, and that nothing else will do."""

import base64
import string
from typing import Any, NamedTuple
from uuid import UUID

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from tests.unit.websocket_pool.issuer import (
    AUDIENCE,
    EC,
    ES_HEADER,
    GOOD,
    HS_HEADER,
    ISSUER,
    NOW,
    PEM,
    SECRET,
    URL,
    USER,
    Signer,
    World,
    claims,
    es,
    hs,
    published,
    sign,
)

from mt5kit.errors import Unauthenticated
from websocket_pool.compact import header_of
from websocket_pool.tokens import Bearer, TokenVerifier


@pytest.fixture
def world() -> World:
    return World(published())


@pytest.mark.parametrize(("header", "signer"), GOOD)
async def test_a_good_token_tells_the_user_and_its_end(
    world: World, header: dict[str, str], signer: Signer
) -> None:
    token = sign(signer, header, claims())
    assert await world.verify(token) == Bearer(UUID(USER), NOW + 3600)


@pytest.mark.parametrize(
    "changes",
    [
        {"iat": None},
        {"is_anonymous": None},
        {"nbf": NOW + 29, "iat": NOW + 29},
        {"aud": ["other", AUDIENCE]},
        {"exp": NOW + 0.5},
        {"exp": int(NOW) + 7 * 24 * 3600},
        {"sub": USER.upper()},
    ],
    ids=str,
)
async def test_what_is_unusual_in_a_good_token_is_taken(
    world: World, changes: dict[str, object]
) -> None:
    bearer = await world.verify(sign(hs(), HS_HEADER, claims(**changes)))
    assert bearer.user_id == UUID(USER)


class Claim(NamedTuple):
    changes: dict[str, object]
    says: str


@pytest.mark.parametrize(
    "claim",
    [
        Claim({"iss": "https://evil.example/auth/v1"}, "issuer"),
        Claim({"iss": ISSUER + "/"}, "issuer"),
        Claim({"iss": [ISSUER]}, "issuer"),
        Claim({"iss": None}, "issuer"),
        Claim({"aud": "other"}, "audience"),
        Claim({"aud": None}, "audience"),
        Claim({"aud": []}, "audience"),
        Claim({"aud": ["other", "authenticate"]}, "audience"),
        Claim({"aud": [[AUDIENCE]]}, "audience"),
        Claim({"aud": {AUDIENCE: 1}}, "audience"),
        Claim({"exp": None}, "exp"),
        Claim({"exp": str(NOW + 60)}, "exp"),
        Claim({"exp": True}, "exp"),
        Claim({"exp": NOW}, "expired"),
        Claim({"exp": NOW - 1}, "expired"),
        Claim({"exp": -1e308}, "expired"),
        Claim({"exp": NOW + 7 * 24 * 3600 + 1}, "week"),
        Claim({"exp": 10**400}, "week"),
        Claim({"nbf": NOW + 31}, "nbf"),
        Claim({"nbf": "0"}, "nbf"),
        Claim({"iat": NOW + 31}, "iat"),
        Claim({"iat": False}, "iat"),
        Claim({"role": "service_role"}, "signed in"),
        Claim({"role": "anon"}, "signed in"),
        Claim({"role": None}, "signed in"),
        Claim({"role": ["authenticated"]}, "signed in"),
        Claim({"is_anonymous": True}, "anonymous"),
        Claim({"is_anonymous": "false"}, "anonymous"),
        Claim({"sub": None}, "sub"),
        Claim({"sub": "1 OR 1=1"}, "sub"),
        Claim({"sub": USER.replace("-", "")}, "sub"),
        Claim({"sub": "{" + USER + "}"}, "sub"),
        Claim({"sub": "urn:uuid:" + USER}, "sub"),
        Claim({"sub": 7}, "sub"),
    ],
    ids=lambda claim: str(claim.changes),
)
async def test_a_signed_claim_that_does_not_do_is_refused(world: World, claim: Claim) -> None:
    for header, signer in GOOD[1:3]:
        with pytest.raises(Unauthenticated) as refused:
            await world.verify(sign(signer, header, claims(**claim.changes)))
        assert claim.says in refused.value.message


async def test_a_published_key_does_no_hs256_without_a_secret() -> None:
    world = World(published(), None)
    with pytest.raises(Unauthenticated, match="not accepted"):
        await world.verify(sign(hs(), HS_HEADER, claims()))


async def test_a_token_with_extensions_is_refused_for_them(world: World) -> None:
    with pytest.raises(Unauthenticated, match="extensions"):
        await world.verify(sign(es(EC), ES_HEADER | {"crit": ["b64"], "b64": True}, claims()))


async def test_without_keys_only_the_secret_does() -> None:
    world = World()
    await world.verify(sign(hs(), HS_HEADER, claims()))
    with pytest.raises(Unauthenticated, match="not accepted"):
        await world.verify(sign(es(EC), ES_HEADER, claims()))


def verifier(**changes: Any) -> TokenVerifier:
    options: dict[str, Any] = {
        "secret": SecretStr(SECRET),
        "jwks_url": URL,
        "issuer": ISSUER,
        "audience": AUDIENCE,
        "client": httpx.AsyncClient(),
    }
    return TokenVerifier.of(**(options | changes))


async def test_where_nothing_is_configured_tokens_are_not_accepted() -> None:
    nothing = verifier(secret=None, jwks_url=None, issuer=None)
    with pytest.raises(Unauthenticated, match="tokens are not accepted here"):
        await nothing.verify(sign(hs(), HS_HEADER, claims()))


@pytest.mark.parametrize(
    "changes",
    [
        {"secret": SecretStr("x" * 31)},
        {"secret": SecretStr(PEM.decode())},
        {"issuer": None},
        {"issuer": ""},
        {"audience": ""},
        {"jwks_url": "http://project.example/jwks.json"},
        {"jwks_url": "http://127.0.0.1.evil.example/jwks.json"},
        {"jwks_url": "http://localhost@evil.example/jwks.json"},
        {"jwks_url": "https://user:pass@project.example/jwks.json"},
        {"jwks_url": "file:///etc/passwd"},
        {"jwks_url": "project.example/jwks.json"},
        {"jwks_url": "https://"},
        {"jwks_url": "https://project.example:port/jwks.json"},
    ],
    ids=str,
)
def test_settings_that_would_let_others_in_are_refused_at_start(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011 - the settings differ, not the kind
        verifier(**changes)
    assert not isinstance(refused.value, UnicodeError)
    assert "x" * 31 not in str(refused.value)


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost", "[::1]:9"])
def test_keys_may_be_read_from_this_machine_without_tls(host: str) -> None:
    verifier(jwks_url=f"http://{host}/jwks.json")


def test_secrets_show_in_no_repr(world: World) -> None:
    assert SECRET not in repr(world.verifier._secret) + repr(world.verifier)


LETTERS = string.ascii_letters + string.digits + "-_=.+/ \n\0é"


@given(data=st.data())
async def test_any_change_to_a_good_token_makes_it_bad(data: st.DataObject) -> None:
    header, signer = data.draw(st.sampled_from(GOOD))
    good = sign(signer, header, claims())
    at = data.draw(st.integers(0, len(good)))
    put = data.draw(st.text(LETTERS, max_size=2))
    taken = data.draw(st.integers(0, 2))
    changed = good[:at] + put + good[at + taken :]
    world = World(published())
    if changed == good:
        await world.verify(changed)
    else:
        with pytest.raises(Unauthenticated):
            await world.verify(changed)


@given(last=st.sampled_from(string.ascii_letters + string.digits + "-_"))
async def test_a_signature_has_one_spelling(last: str) -> None:
    """The last letter of 32 or 64 bytes holds bits that decoders throw away."""
    for header, signer in GOOD:
        good = sign(signer, header, claims())
        changed = good[:-1] + last
        if changed == good:
            continue
        with pytest.raises(Unauthenticated):
            await World(published()).verify(changed)
        if bytes_of(changed) == bytes_of(good):
            with pytest.raises(Unauthenticated):
                header_of(changed)


def bytes_of(token: str) -> bytes:
    return base64.urlsafe_b64decode(token.rpartition(".")[2] + "==")
