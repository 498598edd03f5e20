"""What `make run` leaves for people and scripts: credentials.json and three lines to try."""

from pathlib import Path

import msgspec

from local_stack.demo import write_private
from local_stack.stack import RunningStack


def write_credentials(data_dir: Path, stack: RunningStack) -> None:
    """Write `credentials.json` (contracts §8) and `console.json`, readable by their owner only."""
    accounts = [
        {
            "account_id": account.account_id,
            "user_id": str(account.user_id),
            "login": account.login,
            "password": account.password,
            "investor_password": account.investor_password,
            "server": account.server,
            "connected": account.account_id in stack.connected,
        }
        for account in stack.demo.accounts
    ]
    credentials = {
        "base_url": stack.base_url,
        "ws_url": stack.ws_url,
        "api_key": stack.demo.api_key,
        "admin_api_key": stack.demo.admin_api_key,
        "accounts": accounts,
        "simulator": {
            "control_url": stack.control_url,
            "control_key": stack.demo.supervisor_key,
            "terminals": stack.terminals,
        },
    }
    _write(data_dir / "credentials.json", credentials)
    _write(data_dir / "console.json", {"url": console_url(stack)})


def console_url(stack: RunningStack) -> str:
    """The link that signs in to the console, once."""
    return f"{stack.base_url}/console/login?token={stack.console_token}"


def _write(path: Path, content: object) -> None:
    write_private(path, msgspec.json.format(msgspec.json.encode(content)) + b"\n")
