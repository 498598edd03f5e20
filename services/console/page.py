"""The page's life: which account it shows, and painting what is known of it."""

import datetime as dt
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode
from uuid import UUID

from nicegui import Client, ui

from console.api_client import AccountEntry, ApiClient, ApiFailure, Problem
from console.equity_chart import DEFAULT_DIGITS, EquityTrace
from console.figures import PriceDigits
from console.gate import LOGIN, ROOT
from console.layout import Layout, build_layout
from console.view import Cell, PageView, view_of
from console.watch import AccountWatch, Known

# The stream brings ten messages a second at most; painting faster would show nothing new.
PAINT_S: Final = 0.1
# New accounts and states of accounts not shown appear within this.
LIST_S: Final = 15.0
# Without news only the ages change.
IDLE_PAINT_S: Final = 1.0
_NO_USER = Problem("A user is a UUID, like 3f0c9d7e-0000-4000-8000-000000000000.", "INVALID_USER")


@dataclass(frozen=True, slots=True)
class _Painted:
    """What the page shows, since when (epoch seconds), and what it complains of."""

    known: Known
    at: float
    problem: Problem | None


class ConsolePage:
    """One open page.

    Args:
        api: Asks REST.
        client: NiceGUI's handle of the browser.
        user_id: Whose accounts to list first.
        account_id: Which account to show first, if it is in the list.
        signed_in: Whether the session under which it was opened still stands.
    """

    def __init__(
        self,
        api: ApiClient,
        client: Client,
        user_id: UUID,
        account_id: str,
        signed_in: Callable[[], bool],
    ) -> None:
        self._api = api
        self._client = client
        self._user_id = user_id
        self._wanted = account_id
        self._signed_in = signed_in
        self._entries: tuple[AccountEntry, ...] = ()
        self._list_problem: Problem | None = None
        self._watch: AccountWatch | None = None
        self._trace: EquityTrace | None = None
        self._digits = PriceDigits()
        self._painted: _Painted | None = None
        self._closed = False
        self._layout: Layout = build_layout(str(user_id), self.show_account, self.show_user)

    async def start(self) -> None:
        """Begin, once the browser is there."""
        self._client.run_javascript("mt5Console.ready()")
        await self._list()
        if self._closed:
            return
        ui.timer(PAINT_S, self._paint)
        ui.timer(LIST_S, self._list, immediate=False)

    async def aclose(self) -> None:
        """End the stream of this page, for good."""
        self._closed = True
        await self._follow(None)

    async def show_user(self, text: str) -> None:
        """List another user's accounts, and show the first."""
        self._layout.user.props["value"] = text
        try:
            user_id = UUID(text.strip())
        except ValueError:
            self._list_problem = _NO_USER
            self._layout.user.props["aria-invalid"] = "true"
            return
        self._layout.user.props["aria-invalid"] = "false"
        self._user_id, self._wanted, self._entries = user_id, "", ()
        self._layout.show_accounts((), None)
        await self._follow(None)
        await self._list()

    async def show_account(self, account_id: str) -> None:
        """Show an account of the list; another is ignored."""
        if account_id not in {entry.account_id for entry in self._entries}:
            return
        self._wanted = account_id
        # What the browser was not told to show, its next drawing takes back.
        self._layout.accounts.props["value"] = account_id
        query = urlencode({"user": self._user_id, "account": account_id})
        where = json.dumps(f"?{query}")
        self._client.run_javascript(f'history.replaceState(null, "", {where})')
        await self._follow(AccountWatch(self._api, self._user_id, account_id))

    async def _follow(self, watch: AccountWatch | None) -> None:
        # Swapped before anything is awaited: of two quick choices only the last is followed.
        before, self._watch = self._watch, None if self._closed else watch
        self._painted, self._trace, self._digits = None, None, PriceDigits()
        if not self._closed:
            self._layout.chart.clear(DEFAULT_DIGITS)
        if self._watch is not None:
            self._watch.start()
        if before is not None:
            await before.aclose()

    async def _list(self) -> None:
        user_id = self._user_id
        try:
            entries = await self._api.accounts(user_id)
        except ApiFailure as refused:
            self._list_problem = refused.problem
            return
        if user_id != self._user_id:
            return
        self._list_problem = None
        changed, self._entries = entries != self._entries, entries
        ids = [entry.account_id for entry in entries]
        if not ids:
            await self._follow(None)
        elif self._watch is None or self._watch.account_id not in ids:
            await self.show_account(self._wanted if self._wanted in ids else ids[0])
        if changed:
            self._layout.show_accounts(entries, self._watch.account_id if self._watch else None)

    async def _paint(self) -> None:
        if self._closed or not self._client.has_socket_connection:
            return
        if not self._signed_in():
            await self.aclose()
            # NiceGUI puts the mount path before what begins with a slash.
            ui.navigate.to(LOGIN.removeprefix(ROOT))
            return
        problem = self._list_problem
        self._layout.body.set_visibility(self._watch is not None)
        self._layout.nothing.set_visibility(self._watch is None)
        if self._watch is None:
            self._layout.nothing.set_text(
                "Nothing to show yet." if problem else "This user has no accounts."
            )
        else:
            problem = problem or self._paint_account(self._watch.known)
        self._show_problem(problem)

    def _paint_account(self, known: Known) -> Problem | None:
        now = time.time()
        before = self._painted
        if before is not None and before.known.same_as(known) and now < before.at + IDLE_PAINT_S:
            return before.problem
        view = view_of(known, dt.datetime.fromtimestamp(now, dt.UTC), self._digits)
        self._painted = _Painted(known, now, view.problem)
        layout = self._layout
        layout.show_cells(view.cells)
        waiting = "Waiting for the first figures." if view.equity is None else None
        layout.positions.show(view.positions, waiting or "No open positions.")
        layout.orders.show(view.orders, waiting or "No pending orders.")
        self._draw(view, round(now * 1000))
        return view.problem

    def _draw(self, view: PageView, now_ms: int) -> None:
        if view.equity is None:
            return
        if self._trace is None:
            self._trace = EquityTrace()
            self._layout.chart.clear(view.money_digits)
        point = self._trace.offer(*view.equity, now_ms=now_ms)
        if point is not None:
            self._layout.chart.append([point])

    def _show_problem(self, problem: Problem | None) -> None:
        self._layout.problem.set_visibility(problem is not None)
        if problem is not None:
            texts = {"problem-text": Cell(problem.message), "problem-code": Cell(problem.code)}
            self._layout.show_cells(texts)
