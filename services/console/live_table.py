"""A table whose cells change many times a second without being built anew."""

from collections.abc import Mapping

from nicegui.element import Element

from console.table_patch import table_patch
from console.view import Table


class LiveTable(Element, component="live_table.js"):
    """Shows a `Table`; only cells that differ travel to the browser, as text.

    Args:
        name: Test id of the table; its rows carry `<name>-row` and `data-ticket`.
        columns: Headings by column key, in order.
    """

    def __init__(self, name: str, columns: Mapping[str, str]) -> None:
        super().__init__()
        self._props["name"] = name
        self._props["columns"] = [{"key": key, "label": label} for key, label in columns.items()]
        self._shown = Table()

    def show(self, table: Table) -> None:
        """Bring the browser's table to this one."""
        patch = table_patch(self._shown, table)
        if patch is not None:
            self._shown = table
            self.run_method("patch", patch)
