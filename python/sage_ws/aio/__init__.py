"""The only room with sockets, tasks and clocks: dialling, links, the client and the server.

========================  ==============================================================================
a client's way            ``client``, ``state``; ``turns`` and ``reaching``, by which calls get a connection;
                          ``dialing`` with ``proxying`` and ``refused``, by which that is made; around one
                          call ``repeating``, ``intercepting``, ``streaming``
a server's way            ``server``; ``listener``; ``accepting`` with ``forwarded`` and ``quota``, by which
                          somebody comes in; ``lifespan``; ``once``, which is what ``dedupe=`` does;
                          ``pushing``
the opening handshake     ``opening``, the rules of both sides; ``head``, ``extensions``
one connection            ``link``, below it the halves ``asking`` and ``answering``; its two ends ``calls``,
                          the client's, and ``serving``, the server's; ``streams``; of one request that is
                          served ``call``, ``deadline``, ``running``, and while it waits ``weight``
what several share        ``hub`` and ``direct``, of a loop's links; ``workers``, which run handlers;
                          ``changes``
processes                 ``run``, ``certificate``, ``stopping``; with workers ``supervisor``, ``lifeline``,
                          ``shared_port``; ``forked``
========================  ==============================================================================
"""
