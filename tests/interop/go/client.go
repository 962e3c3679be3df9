package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

// client is one connection and its calls. As in the reference one mutex guards writes and pending calls alike:
// while a write blocks, no answer is delivered.
type client struct {
	limits   deadlines
	compress bool

	mu      sync.Mutex
	conn    *websocket.Conn
	frames  *tap
	pending map[string]chan *Response

	unread chan error // how reading ended, for whom it concerns
}

func newClient(limits deadlines, compress bool) *client {
	return &client{limits: limits, compress: compress, pending: map[string]chan *Response{}}
}

func (c *client) obey(next command) error {
	if next.Do == "dial" {
		return c.dial(next.URL)
	}
	if c.conn == nil {
		return errors.New("no connection")
	}
	switch next.Do {
	case "call":
		go c.callAndTell(next)
	case "calls":
		go c.callMany(next)
	case "read_socket":
		go c.readSocket()
	default:
		return obeyOnConnection(next, c.conn, c.frames, &c.mu)
	}
	return nil
}

func (c *client) dial(url string) error {
	dialer := websocket.Dialer{
		ReadBufferSize:  clientBuffer,
		WriteBufferSize: clientBuffer,
		NetDialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			c.frames = &tap{Conn: conn}
			return c.frames, nil
		},
		HandshakeTimeout:  5 * time.Second,
		EnableCompression: c.compress,
	}
	conn, _, err := dialer.Dial(url, nil)
	if err != nil {
		return err
	}
	conn.SetPongHandler(func(text string) error {
		emit("pong", event{"text": text})
		return nil
	})
	c.conn, c.unread = conn, make(chan error, 1)
	emit("opened", event{"subprotocol": conn.Subprotocol()})
	go c.read(conn, c.unread)
	return nil
}

// read delivers answers until reading fails; then, as in the reference, it is deaf and the socket stays open.
func (c *client) read(conn *websocket.Conn, unread chan<- error) {
	for {
		var response Response
		if err := c.limits.readJSON(conn, &response); err != nil {
			emit("closed", ended(err))
			unread <- err
			return
		}
		c.mu.Lock()
		waiter := c.pending[response.MessageID]
		delete(c.pending, response.MessageID)
		c.mu.Unlock()
		if waiter == nil {
			emit("unmatched", event{"response": response})
			continue
		}
		waiter <- &response
	}
}

// call sends a message and waits for its answer.
func (c *client) call(message *SecureMessage, timeout seconds) (*Response, error) {
	waiter := make(chan *Response, 1)
	c.mu.Lock()
	c.pending[message.ID] = waiter
	err := c.limits.writeJSON(c.conn, message)
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.pending, message.ID)
		c.mu.Unlock()
	}()
	if err != nil {
		return nil, err
	}
	select {
	case response := <-waiter:
		if response.TaskID == "" {
			response.TaskID = message.TaskID
		}
		if response.Error != "" {
			response.Success = false
		}
		return response, nil
	case <-time.After(time.Duration(timeout)):
		return nil, errors.New("timeout")
	}
}

func (c *client) callAndTell(next command) {
	response, err := c.call(next.Message, next.Timeout)
	if err != nil {
		emit("failed", event{"id": next.Message.ID, "text": err.Error()})
		return
	}
	emit("answered", event{"id": next.Message.ID, "response": response})
}

// callMany makes a number of calls, so many at a time, to a peer that echoes; every answer is compared.
func (c *client) callMany(next command) {
	var wait sync.WaitGroup
	numbers, failures := make(chan int), make(chan error, next.Count)
	for range make([]struct{}, next.InFlight) {
		wait.Add(1)
		go func() {
			defer wait.Done()
			for number := range numbers {
				failures <- c.callAndCompare(number, next)
			}
		}()
	}
	for number := 0; number < next.Count; number++ {
		numbers <- number
	}
	close(numbers)
	wait.Wait()
	close(failures)
	texts, sound := map[string]int{}, 0
	for err := range failures {
		if err == nil {
			sound++
		} else {
			texts[err.Error()]++
		}
	}
	emit("done", event{"answered": sound, "failures": texts})
}

func (c *client) callAndCompare(number int, next command) error {
	payload := make([]byte, next.Size)
	for i := range payload {
		payload[i] = byte(31*i + number)
	}
	message := &SecureMessage{
		ID: fmt.Sprintf("call-%d", number), TaskID: fmt.Sprintf("task-%d", number),
		DID: "did:sage:go", Payload: payload, Signature: []byte{1, 2, 3},
	}
	response, err := c.call(message, next.Timeout)
	switch {
	case err != nil:
		return err
	case !response.Success || response.Error != "":
		return errors.New("not a success: " + response.Error)
	case response.TaskID != message.TaskID:
		return errors.New("another task id")
	case !bytes.Equal(response.Data, payload):
		return errors.New("other bytes")
	}
	return nil
}

// readSocket reads what nobody reads any more, below the WebSocket: the event "socket_end" says that the peer has
// shut the socket, which this client leaves open.
func (c *client) readSocket() {
	<-c.unread
	socket := c.conn.NetConn()
	_ = socket.SetReadDeadline(soon()) // a failure shows in the read
	if _, err := io.Copy(io.Discard, socket); err != nil {
		emit("error", event{"text": "read_socket: " + err.Error()})
		return
	}
	emit("socket_end", nil)
}
