"""The console in a real browser on the real stack: the numbers, the life, the looks.

Needs Debian's chromium. With MT5_SCREENSHOT_DIR set, the pictures are left there.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import pytest
import uvicorn
from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright
from pydantic import SecretStr

from console.app import create_app
from console.settings import ConsoleSettings

T = TypeVar("T")
Json = dict[str, Any]

PASSWORD = "the operator's password"
CHROMIUM = "/usr/bin/chromium"
START_S = 90.0
PATIENCE_S = 60.0
DESKTOP = ViewportSize(width=1280, height=800)
PHONE = ViewportSize(width=390, height=844)
# So many points are a line worth a picture; a test is content with the first few.
POINTS_OF_A_PICTURE = 60
POINTS_OF_A_TEST = 5

# Every text that is seen, with the contrast of its colour against what lies behind it.
CONTRAST = """() => {
  const channels = (css) => css.match(/[\\d.]+/g).map(Number);
  const linear = (c) => (c / 255 <= 0.03928 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const [r, g, b, a = 1] = channels(getComputedStyle(at).backgroundColor);
      if (a === 1) return [r, g, b];
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const element of document.querySelectorAll("header *, main *, footer *")) {
    const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !element.checkVisibility()) continue;
    const two = [light(channels(getComputedStyle(element).color)), light(behind(element))];
    found.push([element.textContent, (Math.max(...two) + 0.05) / (Math.min(...two) + 0.05)]);
  }
  return found;
}"""

SHOWN = """() => ({
  identity: document.querySelector('[data-testid=identity]').textContent,
  balance: document.querySelector('[data-testid=balance]').textContent,
  rows: Object.fromEntries(
    [...document.querySelectorAll('[data-testid=positions-row]')].map((row) => [
      row.dataset.ticket,
      ['symbol', 'side', 'volume', 'open'].map(
        (column) => row.querySelector(`[data-column=${column}]`).textContent),
    ])),
  orders: [...document.querySelectorAll('[data-testid=orders-row]')].map((r) => r.dataset.ticket),
})"""


def until(look: Callable[[], T], wanted: Callable[[T], bool], what: str) -> T:
    """The first look that is as wanted; the last one is told if none is."""
    deadline = time.monotonic() + PATIENCE_S
    while not wanted(seen := look()):
        assert time.monotonic() < deadline, f"{what} did not come; last seen: {seen!r}"
        time.sleep(0.05)
    return seen


@contextmanager
def running_stack(data_dir: Path) -> Iterator[Json]:
    """The local stack, ended as Ctrl-C ends it; its credentials and the sign-in link."""
    command = [sys.executable, "-m", "local_stack", "run", "--port", "0"]
    with (data_dir.parent / "stack.log").open("w+") as output:
        stack = subprocess.Popen(
            [*command, "--data-dir", str(data_dir)], stdout=output, stderr=subprocess.STDOUT
        )
        try:
            link = data_dir / "console.json"
            deadline = time.monotonic() + START_S
            while not link.exists():
                output.seek(0)
                assert stack.poll() is None, f"the stack ended: {output.read()}"
                assert time.monotonic() < deadline, f"the stack did not start: {output.read()}"
                time.sleep(0.1)
            credentials = json.loads((data_dir / "credentials.json").read_text())
            url = json.loads(link.read_text())["url"]
            yield {**credentials, "link": url, "log": data_dir / "services.log"}
        finally:
            stack.send_signal(signal.SIGINT)
            stack.wait(START_S)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Json]:
    with running_stack(tmp_path_factory.mktemp("stack") / "data") as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if shutil.which(CHROMIUM) is None:
        pytest.fail(
            "this test needs Debian's chromium: apt-get update && apt-get install -y chromium"
        )
    arguments = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield launched
        launched.close()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return Path(os.environ.get("MT5_SCREENSHOT_DIR", tmp_path))


class Witness:
    """Everything a page asked for and complained of."""

    def __init__(self, page: Page) -> None:
        self.addresses: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self.addresses.append(request.url))
        page.on("websocket", lambda socket: self.addresses.append(socket.url))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", lambda message: self._said(message.type, message.text))

    def _said(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.complaints.append(f"{kind}: {text}")

    @property
    def outside(self) -> list[str]:
        local = ("127.0.0.1", None)  # data: addresses have no host
        return [url for url in self.addresses if urlsplit(url).hostname not in local]


class Rest:
    """The same questions, asked of the API directly."""

    def __init__(self, stack: Json) -> None:
        self._users = {one["account_id"]: one["user_id"] for one in stack["accounts"]}
        self._http = httpx.Client(
            base_url=stack["base_url"], headers={"X-API-Key": stack["api_key"]}, trust_env=False
        )

    def expected(self, account_id: str) -> Json:
        """What the page should show of an account now."""
        path = f"/api/mt5/account/{account_id}/snapshot"
        headers = {"X-User-ID": self._users[account_id]}
        answer = self._http.get(path, params={"fresh": "1"}, headers=headers)
        answer.raise_for_status()
        body = answer.json()
        account = body["account"]
        return {
            "identity": f"{account['login']} at {account['server']}",
            "balance": account["balance"],
            "rows": {
                str(held["ticket"]): [
                    held["symbol"],
                    "Sell" if held["type"] else "Buy",
                    held["volume"],
                    held["price_open"],
                ]
                for held in body["positions"]
            },
            "orders": [str(pending["ticket"]) for pending in body["orders"]],
        }

    def close(self) -> None:
        self._http.close()


@pytest.fixture
def rest(stack: Json) -> Iterator[Rest]:
    asked = Rest(stack)
    yield asked
    asked.close()


def number(text: str) -> float | None:
    """None while the page has none to show yet."""
    plain = text.replace(",", "").replace("\N{MINUS SIGN}", "-")
    return float(plain) if any(character.isdigit() for character in plain) else None


def shown(page: Page) -> Json:
    seen: Json = page.evaluate(SHOWN)
    rows = {
        ticket: [symbol, side, number(volume), number(price)]
        for ticket, (symbol, side, volume, price) in seen["rows"].items()
    }
    return {**seen, "balance": number(seen["balance"]), "rows": rows}


def text_of(page: Page, name: str) -> str:
    return page.get_by_test_id(name).inner_text()


def agree_with_rest(page: Page, rest: Rest, account_id: str) -> None:
    # A trade may fall between the two looks: then the next pair agrees.
    until(
        lambda: (shown(page), rest.expected(account_id)),
        lambda pair: pair[0] == pair[1],
        f"the page's agreement with REST on {account_id}",
    )


def points(page: Page) -> int:
    return int(page.get_by_test_id("equity-chart").get_attribute("data-points") or 0)


def open_streams(stack: Json) -> int:
    """How many sockets the websocket pool serves."""
    metrics = httpx.get(f"{stack['base_url']}/services/websocket-pool/metrics", trust_env=False)
    found = re.search(r"^ws_active_connections (\S+)$", metrics.text, re.MULTILINE)
    assert found is not None
    return int(float(found[1]))


def readable(page: Page) -> None:
    faint = [(text, ratio) for text, ratio in page.evaluate(CONTRAST) if ratio < 4.5]
    assert faint == []


def sees_it_move(page: Page) -> None:
    equity, drawn = text_of(page, "equity"), points(page)
    profits = page.locator("[data-testid=positions-row] [data-column=profit]")
    before = profits.all_inner_texts()
    until(lambda: text_of(page, "equity"), lambda now: now != equity, "a change of equity")
    until(profits.all_inner_texts, lambda now: now != before, "a change of profit")
    until(lambda: points(page), lambda now: now > drawn, "a longer line")


@pytest.mark.timeout(300)
def test_an_operator_watches_accounts(
    stack: Json, browser: Browser, rest: Rest, pictures: Path
) -> None:
    page = browser.new_context(viewport=DESKTOP, color_scheme="light").new_page()
    page.set_default_timeout(PATIENCE_S * 1000)
    witness = Witness(page)

    page.goto(f"{stack['base_url']}/console")
    assert page.url.endswith("/console/login")
    page.goto(stack["link"])
    page.wait_for_url("**/console/**account=demo-1")
    until(lambda: text_of(page, "stream"), lambda text: text == "Live", "the stream")
    assert text_of(page, "state") == "Connected"
    agree_with_rest(page, rest, "demo-1")
    sees_it_move(page)

    page.get_by_test_id("account-select").select_option("demo-2")
    page.wait_for_url("**account=demo-2")
    agree_with_rest(page, rest, "demo-2")
    until(lambda: text_of(page, "stream"), lambda text: text == "Live", "the second stream")
    sees_it_move(page)
    assert page.get_by_test_id("account-select").input_value() == "demo-2"
    page.reload()
    agree_with_rest(page, rest, "demo-2")

    wanted = POINTS_OF_A_PICTURE if "MT5_SCREENSHOT_DIR" in os.environ else POINTS_OF_A_TEST
    until(lambda: points(page), lambda now: now >= wanted, "a line of points")
    readable(page)
    page.screenshot(path=pictures / "console.png")
    page.locator("[data-theme-choice=dark]").click()
    readable(page)
    page.screenshot(path=pictures / "console-dark.png")
    page.reload()
    assert page.locator("html").get_attribute("data-theme") == "dark"

    page.set_viewport_size(PHONE)
    agree_with_rest(page, rest, "demo-2")
    readable(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    page.screenshot(path=pictures / "console-phone.png", full_page=True)

    other = page.context.new_page()
    other.goto(page.url)
    until(lambda: text_of(other, "stream"), lambda text: text == "Live", "the other tab's stream")
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url("**/console/login")
    other.wait_for_url("**/console/login")
    until(lambda: open_streams(stack), lambda count: count == 0, "the end of the streams")

    assert witness.outside == []
    assert witness.complaints == []


@pytest.mark.timeout(300)
def test_the_link_has_been_spent(stack: Json, browser: Browser) -> None:
    page = browser.new_context(color_scheme="dark").new_page()
    page.goto(stack["link"])
    page.goto(stack["link"])
    assert page.locator("html").get_attribute("data-theme") == "dark"
    assert "has been used" in text_of(page, "problem")
    log = stack["log"].read_text()
    assert "/console/login" in log
    assert stack["link"].partition("token=")[2] not in log


@contextmanager
def console_alone() -> Iterator[str]:
    """A console with a password, whose API is away; its address."""
    config = ConsoleSettings(
        api_url="http://127.0.0.1:9",
        api_key=SecretStr("key"),
        user_id=uuid4(),
        operator_password=SecretStr(PASSWORD),
        session_secret=SecretStr("a secret of the sessions"),
    )
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(create_app(config), log_config=None, timeout_graceful_shutdown=1)
    )
    serving = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    serving.start()
    try:
        until(lambda: server.started, bool, "the console")
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/console"
    finally:
        server.should_exit = True
        serving.join(START_S)
        listener.close()


@pytest.mark.timeout(300)
def test_the_password_form_and_an_api_that_is_away(browser: Browser) -> None:
    with console_alone() as address:
        page = browser.new_context().new_page()
        page.goto(address)
        page.get_by_label("Operator password").fill("a guess")
        page.get_by_role("button", name="Sign in").click()
        assert "Wrong password" in text_of(page, "problem")

        def try_again() -> str:
            page.get_by_label("Operator password").fill(PASSWORD)
            page.get_by_role("button", name="Sign in").click()
            return page.url

        until(try_again, lambda url: url == f"{address}/", "the page behind the form")
        until(
            lambda: text_of(page, "problem-code"),
            lambda code: code == "API_UNREACHABLE",
            "word of the API",
        )
        page.get_by_test_id("user-field").fill("nobody")
        page.get_by_test_id("user-field").press("Enter")
        until(
            lambda: text_of(page, "problem-code"),
            lambda code: code == "INVALID_USER",
            "word of the user",
        )
        assert page.get_by_test_id("user-field").input_value() == "nobody"
