"""Transports beside WebSocket, a module each, imported when ``select_by_url`` meets its scheme."""
