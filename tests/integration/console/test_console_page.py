"""The whole application over plain HTTP: what is served, to whom, and from where."""

import asyncio
import re
from collections.abc import AsyncIterator
from urllib.parse import urljoin, urlsplit

import httpx
import pytest
from pydantic import SecretStr
from tests.integration.console.console_fakes import API_KEY, USER, demo_swarm, served
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from console.app import create_app
from console.gate import COOKIE
from console.settings import ConsoleSettings

TOKEN = "printed-token-of-the-link"
# What NiceGUI's own code speaks of but a browser never asks for.
_NAMES = re.compile(r"https?://(www\.w3\.org|nicegui\.io|github\.com)")


@pytest.fixture
async def console_url() -> AsyncIterator[str]:
    swarm = demo_swarm()
    async with served(swarm.app) as base_url:
        swarm.base_url = base_url
        settings = ConsoleSettings(
            api_url=base_url,
            api_key=SecretStr(API_KEY),
            user_id=USER,
            one_time_token=SecretStr(TOKEN),
            session_secret=SecretStr("a secret of the sessions"),
        )
        async with served(create_app(settings)) as url:
            yield url


@pytest.fixture
async def signed_in(console_url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=console_url, trust_env=False) as client:
        await client.get(f"/console/login?token={TOKEN}")
        yield client


async def test_the_page_is_whole_and_refers_to_nothing_outside(
    signed_in: httpx.AsyncClient,
) -> None:
    page = await signed_in.get("/console/")
    assert page.status_code == 200
    for name in ("equity", "balance", "margin-level", "state", "account-select", "positions"):
        assert f'"{name}"' in page.text or f"&quot;{name}&quot;" in page.text
    addresses = set(re.findall(r'(?:src|href)="([^"]+)"|url\("([^"]+)"\)', page.text))
    links = {one or other for one, other in addresses}
    assert any(link.endswith("console.css") for link in links)
    for link in links:
        if link.startswith("data:"):
            continue
        assert urljoin("/console/", link).startswith("/console/")
        assert (await signed_in.get(link)).status_code == 200
    assert _NAMES.sub("", page.text).count("https://") == 0
    assert "default-src 'self'" in page.headers["content-security-policy"]


async def test_nothing_but_the_sign_in_is_served_without_a_session(console_url: str) -> None:
    async with httpx.AsyncClient(base_url=console_url, trust_env=False) as stranger:
        html = {"accept": "text/html"}
        for path in ("/console", "/console/", "/console/?account=demo-1"):
            answer = await stranger.get(path, headers=html)
            assert (answer.status_code, answer.headers["location"]) == (303, "/console/login")
        refused = await stranger.get("/console/_nicegui_ws/socket.io/?EIO=4&transport=polling")
        assert refused.status_code == 401
        assert (await stranger.get("/console/login")).status_code == 200
        assert (await stranger.get("/console/static/console.css")).status_code == 200


async def test_the_socket_is_behind_the_gate(
    console_url: str, signed_in: httpx.AsyncClient
) -> None:
    where = f"{console_url.replace('http', 'ws', 1)}/console/_nicegui_ws/socket.io/"
    address = f"{where}?EIO=4&transport=websocket"
    with pytest.raises(InvalidStatus) as refused:
        await connect(address, proxy=None)
    assert refused.value.response.status_code == 403
    cookie = {"Cookie": f"{COOKIE}={signed_in.cookies[COOKIE]}"}
    async with connect(address, proxy=None, additional_headers=cookie) as socket:
        assert str(await asyncio.wait_for(socket.recv(), 5)).startswith("0{")


async def test_a_bare_console_address_leads_to_the_page(signed_in: httpx.AsyncClient) -> None:
    answer = await signed_in.get("/console")
    assert (answer.status_code, urlsplit(answer.headers["location"]).path) == (307, "/console/")


async def test_the_service_routes_stand_outside(console_url: str) -> None:
    async with httpx.AsyncClient(base_url=console_url, trust_env=False) as client:
        assert (await client.get("/health/live")).json() == {"status": "ok"}
        assert (await client.get("/health/ready")).json()["open_pages"] == 0
        assert "api_request_duration_seconds" in (await client.get("/metrics")).text
