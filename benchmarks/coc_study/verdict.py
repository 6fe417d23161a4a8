"""What the measurements say of a claim of the paper."""

from dataclasses import dataclass
from enum import Enum


class Status(Enum):
    """Supported or contradicted only where chance is an unlikely reason."""

    SUPPORTED = "supported"
    CONTRADICTED = "contradicted"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Claim:
    """A claim, by the number under which the project lists it."""

    number: int
    title: str
    status: Status
    evidence: str
    """one sentence with the figures"""
