"""The second place: all backups copied to S3-compatible storage, and back from there.

Nothing is ever removed there: whoever could remove backups here could then remove them everywhere.
A rule of the bucket lets them go after some 40 days.
"""

from pathlib import Path
from typing import Final

from backup.commands import Commands
from backup.settings import Remote, Settings

_UNFINISHED: Final = ("*.partial", "*.unfinished", "*.tmp", "*.lock", "*/streaming/*")
"""What is still being written; the log is copied when its segment is complete."""


class RemoteCopy:
    """Copies with Amazon's own command, which most of these storages are tested with.

    Args:
        commands: Runs it.
        settings: With the second place and its secrets.
        remote: The place.

    Raises:
        SettingWrong: A secret cannot be used.
    """

    def __init__(self, commands: Commands, settings: Settings, remote: Remote) -> None:
        self._commands = commands
        self._directory = settings.directory
        self._remote = remote
        self._environment = {
            "AWS_ACCESS_KEY_ID": settings.secret("s3_access_key_id"),
            "AWS_SECRET_ACCESS_KEY": settings.secret("s3_secret_access_key"),
            "AWS_DEFAULT_REGION": remote.region,
            # Newer ones than other storages know.
            "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
            "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def push(self) -> None:
        """Copy what is new or changed.

        Raises:
            CommandFailed: Not all of it got there.
        """
        excluded = [f"--exclude={pattern}" for pattern in _UNFINISHED]
        self._sync(str(self._directory), self._remote.url, *excluded)

    def pull(self, directory: Path) -> None:
        """Copy everything back into a directory.

        Raises:
            CommandFailed: Not all of it got here.
        """
        self._sync(self._remote.url, str(directory))

    def _sync(self, source: str, target: str, *options: str) -> None:
        endpoint = (
            [] if self._remote.endpoint is None else [f"--endpoint-url={self._remote.endpoint}"]
        )
        self._commands(
            *("aws", *endpoint, "s3", "sync", "--only-show-errors", *options, source, target),
            timeout_s=None,
            env=self._environment,
        )
