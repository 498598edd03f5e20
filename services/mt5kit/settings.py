"""Settings by concern, read from the environment once, by whoever starts a process.

Every setting NAME may instead be given as NAME_FILE, the path of a file that holds it: that is
how Docker secrets arrive.
"""

import os
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict


class SecretFiles(PydanticBaseSettingsSource):
    """Reads NAME from the file that NAME_FILE points to."""

    def get_field_value(
        self,
        field: FieldInfo,
        field_name: str,
    ) -> tuple[Any, str, bool]:
        """(value or None, name, whether the value is JSON).

        Raises:
            OSError: The file cannot be read.
            ValueError: Both NAME and NAME_FILE are set.
        """
        name = field_name.upper()
        path = os.environ.get(f"{name}_FILE")
        # Empty, as a stack file says that there is none.
        if not path:
            return None, field_name, False
        if name in os.environ:
            raise ValueError(f"{name} and {name}_FILE are both set; keep one")
        text = Path(path).read_text(encoding="utf-8").strip()
        return self.prepare_field_value(field_name, field, text, False), field_name, False

    def __call__(self) -> dict[str, Any]:
        """Every field that has a file."""
        found = {}
        for name, field in self.settings_cls.model_fields.items():
            value, key, _ = self.get_field_value(field, name)
            if value is not None:
                found[key] = value
        return found


class ServiceSettings(BaseSettings):
    """Base of every settings class: frozen, environment and NAME_FILE, nothing else."""

    model_config = SettingsConfigDict(
        # A stack file cannot leave a variable out: one that is empty is not set.
        frozen=True,
        extra="ignore",
        hide_input_in_errors=True,
        env_ignore_empty=True,
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - no .env files here
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - NAME_FILE instead
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What is given in code wins over the environment, and that over secret files."""
        return init_settings, env_settings, SecretFiles(settings_cls)


S = TypeVar("S", bound=ServiceSettings)


def from_environment(kind: type[S]) -> S:
    """The settings of a process, or its end with a line that says what to mend.

    Raises:
        SystemExit: Some are missing, or have values they may not have. Values are not shown.
    """
    try:
        return kind()
    except ValidationError as invalid:
        found = [
            f"{'.'.join(str(part) for part in problem['loc']).upper()}: {problem['msg']}"
            for problem in invalid.errors()
        ]
    except (OSError, ValueError) as unread:
        found = [str(unread)]
    raise SystemExit("settings: " + "; ".join(found))
