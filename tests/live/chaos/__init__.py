"""Fault tests on real servers: a mesh in processes of its own, a ledger of what was acknowledged, faults, a checker.

    python -m tests.live.chaos                 all faults at full scale; writes bench/results/chaos.json
    python -m tests.live.chaos F01 F06         some of them
    python -m tests.live.chaos --scale ci F01  as the tests run it

`faults.py` is the table; `field.py` the mesh and its load; `checker.py` the judge, a process of its own.
"""
