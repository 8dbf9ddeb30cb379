"""The reliability test: what it does, what it finds, and what that proves.

::

    askers     ask in one of the four forms: chat, stream, achat, astream (on ``runners``)
    trial      runs the parts in turn and gathers evidence: health, crowd, drills, recovery,
               failover (``chaos`` says how its endpoints misbehave, ``conduct`` lets them)
    judgement  decides, without any I/O, what the evidence proves (``proofs``)
    document   evidence and verdict as plain JSON values
    table      the same for people, in 80 columns

``manage.py ollama_reliability_test`` is the thin edge: arguments in, report and exit code out.
"""
