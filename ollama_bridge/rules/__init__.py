"""What a setting may hold: one small class for each kind of value.

A rule turns what a person wrote into the value that the code works with, or raises ``InvalidError``
with the end of a sentence that begins with the setting's name. ``clean`` takes a Python value;
``read`` first turns the text of an environment variable into one, and hands on what it cannot read,
so that every complaint is made in one place, by ``clean``.

Rules for values that may be secret never show them.
"""

from .base import DOTTED, VISIBLE, InvalidError, OrNone, Rule, cleaned
from .lists import Dict, Headers, Names, Options, Section, Statuses
from .scalars import (
    A_YEAR,
    Choice,
    ChoiceOrPath,
    CloudName,
    Duration,
    Handle,
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
    "DOTTED",
    "VISIBLE",
    "Choice",
    "ChoiceOrPath",
    "CloudName",
    "Dict",
    "Duration",
    "Handle",
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
    "Section",
    "Statuses",
    "Switch",
    "Text",
    "Verification",
    "Whole",
    "cleaned",
]
