package main

import (
	"net"
	"net/http"
)

// listen serves on a free port, and gives the address to dial.
func listen() string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fail(err)
	}
	go func() { fail(http.Serve(listener, http.HandlerFunc(upgrade))) }()
	return "ws://" + listener.Addr().String() + "/ws"
}

// upgrade answers one message after the other until the connection ends, as the reference does.
func upgrade(w http.ResponseWriter, r *http.Request) {
	conn, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return // the upgrader has answered
	}
	defer conn.Close()
	for {
		var asked message
		if readJSON(conn, &asked) != nil || writeJSON(conn, answer(&asked)) != nil {
			return
		}
	}
}
