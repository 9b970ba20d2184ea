"""Imported by the server from which tests start processes: all that costs seconds, computing nothing."""

from ssod.engine import train  # noqa: F401
from ssod.registry import register_all_modules

register_all_modules()
