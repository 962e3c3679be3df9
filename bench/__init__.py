"""How fast, beside what: the same messages over sage_ws and over its alternatives, in one interleaved run.

::

    make bench                              a short and honest run: tables, plots, results/latest.json
    make bench-full                         all of it, calmer
    make bench BENCH=bench/test_shapes.py BENCH_ARGS="--peers sage-rust,picows --rounds 11"
    make bench-full BENCH_ARGS=--record     keep the result, write docs/performance.md anew
    make bench-page                         write it anew from what was kept, without measuring
    make bench-micro                        the small steps of a message

Every alternative is a *peer* with a server and a client. Each end runs in a process of its own, the server
pinned to one core and the client to another. The shapes of the traffic take turns, and inside a shape the
peers do: A B C D A B C D … Machines drift, so a ratio is taken inside a round, between neighbours, and the
median of these ratios is what is printed.

==================  ====================================================================
``shapes``          how the messages travel, and what a round of them gave
``message``         what every peer sends and checks; ``orjson_message`` for those in a hurry
``peer``            what a peer is
``peers``           the peers, a module each, and the list of them
``driving``         the client's loops, for peers written in Python
``child``           the processes: one end of one peer, and the lines that it speaks
``building``        programs in other languages, built on demand
``processes``       starts the processes, talks to them, reads their clocks from outside
``record``          what a run gave, as JSON
``race``            lets the peers take turns at each shape
``curves``          the same over connections, messages pending, payloads, handlers that sleep
``idle``            opening handshakes, memory and pings, by ``raw_clients``
``startup``         the import, the wheel
``workers``         `run(workers=…)`
``wire``            among ours: CBOR and JSON, compression, both directions, streams
``effort``          how long all of this may take
``report``          ratios, figures, tables
``targets``         what was to be reached, row by row
``losses``          where we lose, and why
``plots``           the SVGs
``page``            ``docs/performance.md`` from ``performance.md`` here, and the blocks in other pages
``conftest``        pytest's options, the record as a fixture, the tables at the end
``test_shapes``     a benchmark for each shape and peer, in pytest-benchmark's form
``test_more``       the curves and what follows them in this list
``test_micro``      the small steps of a message, for pytest-benchmark
==================  ====================================================================

A further peer is a module in ``peers/`` and its line in `bench.peers.RACING`; a further shape is a line in
`bench.shapes.SHAPES`, a contest among ours in `bench.wire.CONTESTS`, a curve in `bench.curves.CURVES`, a row
to reach in `bench.targets.TARGETS`. Why we lose where we do is written in `bench.losses.REASONS`.
Instructions, which do not drift as seconds do:
`bench.instructions` (``make counts``).
"""
