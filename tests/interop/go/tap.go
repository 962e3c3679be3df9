package main

import (
	"encoding/binary"
	"net"
	"sync"
)

// tap is a connection that reads along what is written to it after the opening handshake, frame by frame (RFC 6455
// §5.2), so that a test can ask how its messages were really fragmented.
type tap struct {
	net.Conn

	mu     sync.Mutex
	opened bool   // the opening handshake's own head has passed
	header []byte // of a frame, as far as it has come
	skip   uint64 // payload that still comes

	unfinished, continuations, empty, pings int
}

func (t *tap) Write(data []byte) (int, error) {
	t.mu.Lock()
	t.follow(data)
	t.mu.Unlock()
	return t.Conn.Write(data)
}

func (t *tap) follow(data []byte) {
	if !t.opened { // the head is one write, in both roles
		t.opened = true
		return
	}
	for len(data) > 0 {
		if t.skip > 0 {
			passed := min(t.skip, uint64(len(data)))
			t.skip -= passed
			data = data[passed:]
			continue
		}
		t.header = append(t.header, data[0])
		data = data[1:]
		t.count()
	}
}

// count counts the frame whose header has just become complete.
func (t *tap) count() {
	if len(t.header) < 2 {
		return
	}
	length, size := uint64(t.header[1]&0x7f), 2
	switch length {
	case 126:
		size += 2
	case 127:
		size += 8
	}
	extended := size
	if t.header[1]&0x80 != 0 {
		size += 4
	}
	if len(t.header) < size {
		return
	}
	switch extended {
	case 4:
		length = uint64(binary.BigEndian.Uint16(t.header[2:]))
	case 10:
		length = binary.BigEndian.Uint64(t.header[2:])
	}
	switch first := t.header[0]; {
	case first == 0x89:
		t.pings++
	case first&0x80 == 0:
		t.unfinished++
	}
	if t.header[0]&0x0f == 0 {
		t.continuations++
		if length == 0 {
			t.empty++
		}
	}
	t.skip, t.header = length, t.header[:0]
}

// report tells what was counted since the last report.
func (t *tap) report() event {
	t.mu.Lock()
	defer t.mu.Unlock()
	counted := event{
		"unfinished": t.unfinished, "continuations": t.continuations, "empty": t.empty, "pings": t.pings,
	}
	t.unfinished, t.continuations, t.empty, t.pings = 0, 0, 0, 0
	return counted
}

// tappedListener taps whatever it accepts.
type tappedListener struct{ net.Listener }

func (l tappedListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &tap{Conn: conn}, nil
}
