package main

import (
	"time"

	"github.com/gorilla/websocket"
)

// SecureMessage goes from client to server.
type SecureMessage struct {
	ID        string            `json:"id"`
	ContextID string            `json:"context_id,omitempty"`
	TaskID    string            `json:"task_id,omitempty"`
	Payload   []byte            `json:"payload"`
	DID       string            `json:"did"`
	Signature []byte            `json:"signature"`
	Metadata  map[string]string `json:"metadata,omitempty"`
	Role      string            `json:"role,omitempty"`
}

// Response goes from server to client.
type Response struct {
	Success   bool   `json:"success"`
	MessageID string `json:"message_id"`
	TaskID    string `json:"task_id,omitempty"`
	Data      []byte `json:"data,omitempty"`
	Error     string `json:"error,omitempty"`
}

func (m *SecureMessage) refuse(text string) *Response {
	return &Response{MessageID: m.ID, TaskID: m.TaskID, Error: text}
}

// validate gives the answer to a message that is not sound, nil to one that is.
func (m *SecureMessage) validate() *Response {
	switch {
	case m.ID == "":
		return &Response{Error: "message ID is required"}
	case m.DID == "":
		return m.refuse("DID is required")
	case len(m.Payload) == 0:
		return m.refuse("payload is required")
	}
	return nil
}

// The reference's buffers: what they overflow with leaves as fragments.
const (
	serverBuffer = 1024
	clientBuffer = 4096
)

func (d deadlines) readJSON(conn *websocket.Conn, value any) error {
	if err := conn.SetReadDeadline(time.Now().Add(d.read)); err != nil {
		return err
	}
	return conn.ReadJSON(value)
}

func (d deadlines) writeJSON(conn *websocket.Conn, value any) error {
	if err := conn.SetWriteDeadline(time.Now().Add(d.write)); err != nil {
		return err
	}
	return conn.WriteJSON(value)
}
