package main

import (
	"time"

	"github.com/gorilla/websocket"
)

// message goes from client to server.
type message struct {
	ID        string            `json:"id"`
	ContextID string            `json:"context_id,omitempty"`
	TaskID    string            `json:"task_id,omitempty"`
	Payload   []byte            `json:"payload"`
	DID       string            `json:"did"`
	Signature []byte            `json:"signature"`
	Metadata  map[string]string `json:"metadata,omitempty"`
	Role      string            `json:"role,omitempty"`
}

// response goes from server to client.
type response struct {
	Success   bool   `json:"success"`
	MessageID string `json:"message_id"`
	TaskID    string `json:"task_id,omitempty"`
	Data      []byte `json:"data,omitempty"`
	Error     string `json:"error,omitempty"`
}

// answer is the echo of a sound message, and says what is wrong with another.
func answer(asked *message) *response {
	switch {
	case asked.ID == "":
		return &response{Error: "message ID is required"}
	case asked.DID == "":
		return &response{MessageID: asked.ID, TaskID: asked.TaskID, Error: "DID is required"}
	case len(asked.Payload) == 0:
		return &response{MessageID: asked.ID, TaskID: asked.TaskID, Error: "payload is required"}
	}
	return &response{Success: true, MessageID: asked.ID, TaskID: asked.TaskID, Data: asked.Payload}
}

// The reference sets a new deadline before each read and each write.
const (
	readDeadline  = 60 * time.Second
	writeDeadline = 30 * time.Second
)

func readJSON(conn *websocket.Conn, value any) error {
	if err := conn.SetReadDeadline(time.Now().Add(readDeadline)); err != nil {
		return err
	}
	return conn.ReadJSON(value)
}

func writeJSON(conn *websocket.Conn, value any) error {
	if err := conn.SetWriteDeadline(time.Now().Add(writeDeadline)); err != nil {
		return err
	}
	return conn.WriteJSON(value)
}
