"""The entry point of group ``pydantic``: loading it installs the import hook, see :mod:`rft_ilab.host.hook`."""

from __future__ import annotations

from typing import Any

from rft_ilab.host import hook


class Plugin:
    """What pydantic wants of an entry point in its group; it takes part in no validation."""

    def new_schema_validator(self, *args: Any, **kwargs: Any) -> tuple[None, None, None]:
        return None, None, None


plugin = Plugin()
hook.install()
