"""``make demo``: agents in one process, clients in another, thousands of signed messages between them.

=============  ===========================================================================
``text.txt``   what they talk about
``signing``    who signs which bytes, and how a signature is checked
``process``    a child process and its parent: JSON lines, and nobody outlives the other
``agents``     the agents' process: four of them behind one server, and the same over HTTP
``clients``    the clients' process: ask, check every signature and answer, take times
``report``     what the clients' process tells of it while it runs
``screen``     progress and the table, with rich or in plain lines
``command``    the parent of both: starts them, shows the reports, judges the last ones
=============  ===========================================================================
"""
