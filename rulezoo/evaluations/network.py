"""The trained network of a stored run, made from its kept weights."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

from rulezoo.errors import UserError
from rulezoo.options import as_text
from rulezoo.results import weights

if TYPE_CHECKING:
    from rulezoo.discovery.registry import Registry
    from rulezoo.results.records import Device, Record
    from rulezoo.results.store import Store
    from rulezoo.trained import TrainedNetwork
