"""Puts `surveys/`, `simulators/` and `configs/` inside the wheel; editable installs mount them instead."""

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class MountedFolders(BuildHookInterface):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version != "editable":
            for folder in ("surveys", "simulators", "configs"):
                build_data["force_include"][folder] = f"sbi_da/{folder}"
