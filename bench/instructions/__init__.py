"""How many instructions a message takes: a figure that does not drift as times do.

::

    make counts                           the table, beside what was recorded
    make counts COUNTS_ARGS=--record      keep the counts in results/instructions.json

Two programs run under valgrind's callgrind, each operation so many times and then twice as many: the
difference, divided, is what one operation costs, start-up left out. What the kernel does is not in it. All
of it is plain SAGE JSON, whole ends by ``encoding="plain"``: so counts stay comparable with what was recorded
before there was CBOR.

================  =====================================================================
``core``          in Rust, ``rust/core/examples/instructions.rs``: the pieces, and both
                  ends of a message without Python
``package``       in Python on the native core: the crossing, then dispatch and whole
                  round trips over loopback, on asyncio's own loop
``callgrind``     runs a program, and reads what was counted between its marks
``record``        what was recorded, what rose since, the table, the JSON
================  =====================================================================

The record holds, besides the machine and the versions, ``counts``: program to operation to instructions
for each message (or for each call, of ``core``'s pieces). Run to run they differ by less than 0.5 %; with
another compiler, interpreter, libc or processor by more. Valgrind shows programs a processor of its own:
what is chosen at run time goes up to AVX2 where the machine has it, and never to AVX-512. A copy by ``rep
movsb``, which libc prefers for large ones, counts once a byte and so looks dearer than it is.
"""
