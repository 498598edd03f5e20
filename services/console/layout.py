"""The page's elements, and nothing of what they show."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from nicegui import events, ui

from console.api_client import AccountEntry
from console.equity_chart import EquityChart
from console.gate import ROOT
from console.live_table import LiveTable
from console.view import Cell, Table, state_text

Chosen = Callable[[str], Awaitable[None]]

_CARDS: Final = {
    "balance": "Balance",
    "equity": "Equity",
    "margin-free": "Free margin",
    "margin-level": "Margin level",
    "profit": "Floating profit",
}
_POSITIONS: Final = {
    "symbol": "Symbol", "ticket": "Ticket", "side": "Side", "volume": "Volume",
    "open": "Open price", "current": "Current", "sl": "S/L", "tp": "T/P", "swap": "Swap",
    "profit": "Profit",
}  # fmt: skip
_ORDERS: Final = {
    "symbol": "Symbol", "ticket": "Ticket", "kind": "Type", "volume": "Volume",
    "price": "Price", "current": "Current", "sl": "S/L", "tp": "T/P",
}  # fmt: skip
_ORIGIN: Final = {
    "terminal-id": "Terminal",
    "instance-id": "Replica",
    "line": "Stream position",
    "changed": "Last change",
}
_THEMES: Final = {"auto": "Auto", "light": "Light", "dark": "Dark"}


@dataclass(frozen=True, slots=True)
class Panel:
    """A table, and the sentence that stands in its place while it has no rows."""

    table: LiveTable
    empty: ui.label

    def show(self, table: Table, why_empty: str) -> None:
        """Show rows, or the sentence."""
        self.table.show(table)
        if self.empty.text != why_empty:
            self.empty.set_text(why_empty)
        self.table.set_visibility(bool(table.rows))
        self.empty.set_visibility(not table.rows)


@dataclass(frozen=True, slots=True)
class Layout:
    """Handles of everything that changes; labels by their test id."""

    accounts: ui.element
    user: ui.element
    body: ui.element
    nothing: ui.label
    problem: ui.element
    chart: EquityChart
    positions: Panel
    orders: Panel
    labels: dict[str, ui.label]
    _shown: dict[str, Cell] = field(default_factory=dict)

    def show_cells(self, cells: Mapping[str, Cell]) -> None:
        """Set the labels whose cell differs from the one shown."""
        for name, cell in cells.items():
            before = self._shown.get(name)
            if before == cell:
                continue
            self._shown[name] = cell
            label = self.labels[name]
            label.set_text(cell.text)
            if before is None or before.tone != cell.tone:
                label.props["data-tone"] = cell.tone.value

    def show_accounts(self, entries: Sequence[AccountEntry], chosen: str | None) -> None:
        """List the accounts to choose from."""
        self.accounts.clear()
        with self.accounts:
            for entry in entries:
                option = ui.element("option")
                option.props["value"] = entry.account_id
                option.props["label"] = (
                    f"{entry.account_id} \N{MIDDLE DOT} {entry.login} \N{MIDDLE DOT} "
                    f"{state_text(entry.state)}"
                )
        self.accounts.props["value"] = chosen or ""


def build_layout(user_id: str, on_account: Chosen, on_user: Chosen) -> Layout:
    """Build the page into the present client."""
    labels: dict[str, ui.label] = {}
    with _tag("header", "top"):
        accounts, user = _header(user_id, on_account, on_user)
    with _tag("main", "shell"):
        with _tag("div", "problem") as problem:
            problem.props["role"] = "alert"
            problem.props["data-testid"] = "problem"
            problem.set_visibility(False)
            _value(labels, "problem-text")
            _value(labels, "problem-code").classes("code")
        nothing = ui.label().classes("empty panel")
        nothing.props["data-testid"] = "no-account"
        nothing.set_visibility(False)
        with _tag("div", "stack") as body:
            _title(labels)
            _cards(labels)
            chart = _chart(labels)
            positions = _panel("Positions", "positions", _POSITIONS)
            orders = _panel("Pending orders", "orders", _ORDERS)
            _footer(labels)
    return Layout(accounts, user, body, nothing, problem, chart, positions, orders, labels)


def _header(user_id: str, on_account: Chosen, on_user: Chosen) -> tuple[ui.element, ui.element]:
    with _tag("div", "brand"):
        ui.label("mt5-swarm")
        ui.label("console").classes("brand-part")
    with _tag("label", "field"):
        ui.label("Account")
        accounts = _tag("select", "account")
        accounts.props["data-testid"] = "account-select"
        _on_change(accounts, on_account)
    with _tag("label", "field"):
        ui.label("User")
        user = _tag("input", "user")
        user.props.update({"value": user_id, "spellcheck": "false", "data-testid": "user-field"})
        _on_change(user, on_user)
    _tag("div", "spring")
    with _tag("div", "segments") as themes:
        themes.props.update({"role": "group", "aria-label": "Theme"})
        for choice, name in _THEMES.items():
            with _tag("button", "") as button:
                ui.label(name)
            button.props.update({"type": "button", "data-theme-choice": choice})
            button.on("click", js_handler=f"() => mt5Console.theme('{choice}')")
    with _tag("form", "") as form:
        form.props.update({"method": "post", "action": f"{ROOT}/logout"})
        with _tag("button", "") as button:
            ui.label("Sign out")
        button.props["type"] = "submit"
    return accounts, user


def _title(labels: dict[str, ui.label]) -> None:
    with _tag("div", "title"):
        _value(labels, "holder").classes("holder")
        _value(labels, "identity").classes("quiet")
        _value(labels, "leverage").classes("quiet")
        _tag("div", "spring")
        _value(labels, "state").classes("badge")
        _value(labels, "stream").classes("badge")


def _cards(labels: dict[str, ui.label]) -> None:
    with _tag("section", "cards"):
        for key, name in _CARDS.items():
            with _tag("div", "card"):
                ui.label(name).classes("name")
                _value(labels, key).classes("value")


def _chart(labels: dict[str, ui.label]) -> EquityChart:
    with _tag("section", "panel"):
        with _tag("div", "head"):
            _heading("Equity")
            _value(labels, "currency").classes("quiet")
        with _tag("div", "chart-body"):
            return EquityChart()


def _panel(title: str, name: str, columns: Mapping[str, str]) -> Panel:
    with _tag("section", f"panel {name}"):
        with _tag("div", "head"):
            _heading(title)
        table = LiveTable(name, columns)
        table.set_visibility(False)
        empty = ui.label().classes("empty")
        empty.props["data-testid"] = f"{name}-empty"
    return Panel(table, empty)


def _footer(labels: dict[str, ui.label]) -> None:
    with _tag("footer", "foot"):
        for key, name in _ORIGIN.items():
            with _tag("div", "pair"):
                ui.label(name)
                _value(labels, key).classes("value")


def _tag(name: str, classes: str) -> ui.element:
    return ui.element(name).classes(classes)


def _value(labels: dict[str, ui.label], name: str) -> ui.label:
    label = ui.label()
    label.props["data-testid"] = name
    labels[name] = label
    return label


def _heading(text: str) -> None:
    label = ui.label(text).classes("heading")
    label.props.update({"role": "heading", "aria-level": "2"})


def _on_change(element: ui.element, chosen: Chosen) -> None:
    async def changed(event: events.GenericEventArguments) -> None:
        await chosen(str(event.args))

    element.on("change", changed, js_handler="(event) => emit(event.target.value)")
