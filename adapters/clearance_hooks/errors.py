"""A Block as an exception, for hosts whose way of refusing is to raise."""

from __future__ import annotations

from clearance.errors import Denied
from clearance_hooks.results import Block


class Blocked(Denied):
    """A gate said no. `reason_code` is the Block's code; nothing was sent and nothing ran."""

    def __init__(self, block: Block) -> None:
        super().__init__(block.message, details={"code": block.code})
        self.block = block

    @property
    def reason_code(self) -> str:
        return self.block.code
