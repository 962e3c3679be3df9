// Command sagepeer is a stock SAGE peer on gorilla/websocket, as wire.md describes one: a server that handles
// one message at a time, or a client that holds one mutex for its writes and its pending calls.
//
//	sagepeer server [-read-deadline 60s] [-write-deadline 30s] [-compress]
//	sagepeer client [-read-deadline 60s] [-write-deadline 30s] [-compress]
//
// The reference never compresses; with -compress it does what gorilla/websocket can.
//
// It is driven by JSON lines: a command on standard input, an event on standard output. It ends with its input.
//
//	main.go     flags, commands, events
//	wire.go     the two messages, and how the reference writes and reads them
//	server.go   upgrade → read → validate → handle → write
//	client.go   dial → call → pending → answer
//	tap.go      counts the frames that really leave
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

// command is one line of standard input; each Do reads the fields that it needs.
type command struct {
	Do string

	URL     string         // dial
	Message *SecureMessage // call
	Timeout seconds        // call, calls

	Count    int // calls, as are the next two
	InFlight int `json:"in_flight"`
	Size     int

	Kind  string // write: "text" or "binary"
	Text  string // write, ping
	Pings bool   // write: a ping after each fragment but the last

	Code   int    // close_frame
	Reason string // close_frame
}

type event map[string]any

// peer is what both roles can be told.
type peer interface {
	obey(command) error
}

var events = struct {
	sync.Mutex
	*json.Encoder
}{Encoder: json.NewEncoder(os.Stdout)}

func emit(name string, fields event) {
	if fields == nil {
		fields = event{}
	}
	fields["event"] = name
	events.Lock()
	defer events.Unlock()
	if err := events.Encode(fields); err != nil {
		os.Exit(1) // nobody listens any more
	}
}

// deadlines are the reference's: a new one before each read and each write.
type deadlines struct {
	read, write time.Duration
}

func main() {
	if len(os.Args) < 2 {
		fail(errors.New("usage: sagepeer server|client [flags]"))
	}
	var limits deadlines
	flags := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	flags.DurationVar(&limits.read, "read-deadline", 60*time.Second, "for each message")
	flags.DurationVar(&limits.write, "write-deadline", 30*time.Second, "for each message")
	compress := flags.Bool("compress", false, "offer or accept permessage-deflate")
	_ = flags.Parse(os.Args[2:]) // ExitOnError

	var role peer
	switch os.Args[1] {
	case "server":
		role = listen(limits, *compress)
	case "client":
		role = newClient(limits, *compress)
	default:
		fail(fmt.Errorf("no such role: %s", os.Args[1]))
	}
	commands := json.NewDecoder(os.Stdin)
	for {
		var next command
		if err := commands.Decode(&next); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			fail(err)
		}
		if err := role.obey(next); err != nil {
			emit("error", event{"text": next.Do + ": " + err.Error()})
		}
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// obeyOnConnection does what is the same for both roles: writing by hand on one connection.
func obeyOnConnection(next command, conn *websocket.Conn, frames *tap, write *sync.Mutex) error {
	write.Lock()
	defer write.Unlock()
	switch next.Do {
	case "write":
		return writeText(conn, next)
	case "ping":
		return conn.WriteControl(websocket.PingMessage, []byte(next.Text), soon())
	case "close_frame":
		message := websocket.FormatCloseMessage(next.Code, next.Reason)
		return conn.WriteControl(websocket.CloseMessage, message, soon())
	case "close":
		return closeAsReference(conn)
	case "frames":
		emit("frames", frames.report())
		return nil
	default:
		return errors.New("no such command for this role")
	}
}

// writeText writes one message of any text: in one go, or in fragments that overflow the write buffer, each
// followed by a ping.
func writeText(conn *websocket.Conn, next command) error {
	kind := websocket.TextMessage
	if next.Kind == "binary" {
		kind = websocket.BinaryMessage
	}
	if !next.Pings {
		return conn.WriteMessage(kind, []byte(next.Text))
	}
	message, err := conn.NextWriter(kind)
	if err != nil {
		return err
	}
	for rest := []byte(next.Text); len(rest) > 0; {
		size := min(len(rest), 3*clientBuffer)
		if _, err := message.Write(rest[:size]); err != nil {
			return err
		}
		if rest = rest[size:]; len(rest) > 0 {
			if err := conn.WriteControl(websocket.PingMessage, []byte("between"), soon()); err != nil {
				return err
			}
		}
	}
	return message.Close()
}

// closeAsReference is the reference's Close in both roles: 1000 without a reason, and the socket shut at once.
func closeAsReference(conn *websocket.Conn) error {
	message := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")
	if err := conn.WriteControl(websocket.CloseMessage, message, soon()); err != nil {
		return err
	}
	return conn.Close()
}

func soon() time.Time { return time.Now().Add(5 * time.Second) }

// ended tells how the reading of a connection ended.
func ended(err error) event {
	fields := event{"text": err.Error()}
	var closed *websocket.CloseError
	if errors.As(err, &closed) {
		fields["code"], fields["reason"] = closed.Code, closed.Text
	}
	return fields
}

// seconds is a duration that JSON carries as a number.
type seconds time.Duration

func (s *seconds) UnmarshalJSON(text []byte) error {
	var number float64
	err := json.Unmarshal(text, &number)
	*s = seconds(number * float64(time.Second))
	return err
}
