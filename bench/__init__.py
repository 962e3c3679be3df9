"""How fast, beside what: the same messages over sage_ws and over its alternatives, in one interleaved run.

::

    make bench                                          the tables, and results/latest.json
    make bench BENCH_ARGS="--rounds 11 --seconds 2"     calmer figures
    make bench BENCH_ARGS=--record                      keep the result, rewrite the pages' figures

Every alternative is a *peer*: a module of `bench.peers` with a server and a client. Each end runs in a
process of its own, the server pinned to one core and the client to another. The shapes of the traffic take
turns, and inside a shape the peers do: A B C D A B C D … Machines drift, so a ratio is taken inside a
round, between neighbours, and the median of these ratios is what is printed.

===============  ====================================================================
``shapes``       how the messages travel, and what a round of them gave
``message``      what every peer sends and checks
``peers``        what every peer offers, and the peers, a module each
``driving``      the client's loops, for peers written in Python
``child``        the processes: one end of one peer
``race``         starts them and lets them take turns
``report``       ratios, the machine, the tables, the JSON, the block in the pages
``conftest``     pytest's options, the race as a fixture, the tables at the end
``test_shapes``  a benchmark for each shape and peer, in pytest-benchmark's form
===============  ====================================================================

A further peer is a module in ``peers/`` and its line in `bench.peers.PEERS`; a further shape is a line in
`bench.shapes.SHAPES`. Instructions, which do not drift as seconds do: `bench.instructions` (``make counts``).
"""
