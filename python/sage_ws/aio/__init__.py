"""The only room with sockets, tasks and clocks: dialling, links, the client and the server."""
