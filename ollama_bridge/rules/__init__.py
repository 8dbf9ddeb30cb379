"""What a setting may hold: one small class for each kind of value.

A rule turns what a person wrote into the value that the code works with, or raises ``InvalidError``
with the end of a sentence that begins with the setting's name. ``clean`` takes a Python value;
``read`` first turns the text of an environment variable into one, and hands on what it cannot read,
so that every complaint is made in one place, by ``clean``.

Rules for values that may be secret never show them.
"""

from .base import InvalidError, OrNone, Rule, cleaned
from .lists import Headers, Names, Options, Statuses
from .scalars import (
    A_YEAR,
    Choice,
    Duration,
    Key,
    Name,
    Number,
    Rate,
    Switch,
    Text,
    Verification,
    Whole,
)

__all__ = [
    "A_YEAR",
    "Choice",
    "Duration",
    "Headers",
    "InvalidError",
    "Key",
    "Name",
    "Names",
    "Number",
    "Options",
    "OrNone",
    "Rate",
    "Rule",
    "Statuses",
    "Switch",
    "Text",
    "Verification",
    "Whole",
    "cleaned",
]
