package main

import (
	"errors"
	"net"
	"net/http"
	"sync"

	"github.com/gorilla/websocket"
)

// server serves any number of connections; commands go to the newest.
type server struct {
	limits   deadlines
	upgrader websocket.Upgrader
	newest   struct {
		sync.Mutex
		conn   *websocket.Conn
		frames *tap
		write  *sync.Mutex
	}
}

// listen serves on a free port of this machine; the event "listening" tells which.
func listen(limits deadlines, compress bool) *server {
	s := &server{limits: limits, upgrader: websocket.Upgrader{
		ReadBufferSize:    serverBuffer,
		WriteBufferSize:   serverBuffer,
		EnableCompression: compress,
		CheckOrigin:       func(*http.Request) bool { return true },
	}}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fail(err)
	}
	emit("listening", event{"port": listener.Addr().(*net.TCPAddr).Port})
	go func() { fail(http.Serve(tappedListener{listener}, s)) }()
	return s
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	conn, err := s.upgrader.Upgrade(w, r, nil)
	if err != nil {
		return // the upgrader has answered
	}
	defer conn.Close()
	conn.SetPongHandler(func(text string) error {
		emit("pong", event{"text": text})
		return nil
	})
	var write sync.Mutex
	s.newest.Lock()
	s.newest.conn, s.newest.frames, s.newest.write = conn, conn.NetConn().(*tap), &write
	s.newest.Unlock()
	emit("opened", nil)
	emit("closed", ended(s.serve(conn, &write)))
}

// serve handles one message after the other until the connection ends, and says why it did.
func (s *server) serve(conn *websocket.Conn, write *sync.Mutex) error {
	for {
		var message SecureMessage
		if err := s.limits.readJSON(conn, &message); err != nil {
			return err
		}
		response := message.validate()
		received := event{"id": message.ID, "valid": response == nil}
		if len(message.Payload) <= serverBuffer {
			received["message"] = message
		}
		emit("received", received)
		if response == nil {
			response = handle(&message)
		}
		if response == nil {
			continue
		}
		write.Lock()
		err := s.limits.writeJSON(conn, response)
		write.Unlock()
		if err != nil {
			return err
		}
	}
}

// handle does what the metadata ask for: "fail" with a text, "hold" the answer back, else echo. The task id is
// left to the client to fill in.
func handle(message *SecureMessage) *Response {
	switch message.Metadata["do"] {
	case "fail":
		return message.refuse(message.Metadata["text"])
	case "hold":
		return nil
	}
	return &Response{Success: true, MessageID: message.ID, Data: message.Payload}
}

func (s *server) obey(next command) error {
	s.newest.Lock()
	conn, frames, write := s.newest.conn, s.newest.frames, s.newest.write
	s.newest.Unlock()
	if conn == nil {
		return errors.New("no connection")
	}
	return obeyOnConnection(next, conn, frames, write)
}
