"""What survives processes: operators' modes, cooldowns, and our own count of calls.

One daemon thread for each running engine of ``ollama_client`` reads and writes the table, on a
connection of its own, so that no call ever waits for the database::

    events of calls  ->  notes    taken where they happen: they neither wait nor fail
                     ->  ledger   what is still to be stored
                     ->  keeper   the thread: reads, follows what is new there, stores what is owed
"""

from .keeper import Keeper, govern, move
from .table import is_migrated

__all__ = ["Keeper", "govern", "is_migrated", "move"]
