package main

import (
	"bytes"
	"errors"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"
)

var signature = bytes.Repeat([]byte{0x5a, 0xc3}, 32)

// client is one connection. As in the reference one mutex guards writes and pending calls alike.
type client struct {
	mu      sync.Mutex
	conn    *websocket.Conn
	pending map[string]chan *response
	ended   chan struct{} // closed when nothing is read any more
}

func dial(address string) (*client, error) {
	conn, _, err := dialer.Dial(address, nil)
	if err != nil {
		return nil, err
	}
	c := &client{conn: conn, pending: map[string]chan *response{}, ended: make(chan struct{})}
	go c.read()
	return c, nil
}

// read delivers answers until reading fails.
func (c *client) read() {
	defer close(c.ended)
	for {
		var got response
		if readJSON(c.conn, &got) != nil {
			return
		}
		c.mu.Lock()
		waiter := c.pending[got.MessageID]
		c.mu.Unlock()
		if waiter != nil {
			waiter <- &got
		}
	}
}

// call sends a fresh message, awaits its answer and checks it.
func (c *client) call(payload []byte) error {
	asked := &message{
		ID: uuid.NewString(), ContextID: "ctx-7f3c9a52", TaskID: "task-000042", Payload: payload,
		DID: "did:sage:ethereum:0x742d35cc6634c0532925a3b844bc454e4438f44e", Signature: signature,
		Metadata: map[string]string{"action": "summarise"}, Role: "agent",
	}
	waiter := make(chan *response, 1)
	c.mu.Lock()
	c.pending[asked.ID] = waiter
	err := writeJSON(c.conn, asked)
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.pending, asked.ID)
		c.mu.Unlock()
	}()
	if err != nil {
		return err
	}
	timeout := time.NewTimer(readDeadline)
	defer timeout.Stop()
	select {
	case got := <-waiter:
		if got.MessageID != asked.ID || !bytes.Equal(got.Data, payload) {
			return errors.New("the answer is wrong")
		}
		return nil
	case <-c.ended:
		return errors.New("the connection ended")
	case <-timeout.C:
		return errors.New("timeout")
	}
}

func (c *client) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	goodbye := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")
	_ = c.conn.WriteControl(websocket.CloseMessage, goodbye, time.Now().Add(time.Second)) // it is over in any case
	_ = c.conn.Close()
}
