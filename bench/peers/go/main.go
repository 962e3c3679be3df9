// Command sagebench is one end of a SAGE peer on gorilla/websocket: what the Go package does for a message, and
// what bench/message.py asks of every client. It speaks the lines of bench/child.py.
//
//	sagebench serve
//	sagebench drive
//
//	main.go     the lines
//	message.go  the two messages, and how one is answered
//	server.go   upgrade → read → validate → echo → write
//	client.go   dial → call → pending → answer
//	driver.go   a round: ask, wait, check, ask again
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/gorilla/websocket"
)

// The versions, as go.mod has them, for the report.
const gorilla = "1.5.3"

type fields map[string]any

func main() {
	if len(os.Args) != 2 {
		fail(errors.New("usage: sagebench serve|drive"))
	}
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	switch os.Args[1] {
	case "serve":
		say(fields{
			"address":  listen(),
			"loop":     "Go's runtime",
			"versions": fields{"go": runtime.Version()[2:], "gorilla/websocket": gorilla},
		})
		for lines.Scan() { // until the parent hangs up
		}
	case "drive":
		for lines.Scan() {
			var asked struct {
				Address string
				Wanted  wanted
			}
			if err := json.Unmarshal(lines.Bytes(), &asked); err != nil {
				fail(err)
			}
			got, err := drive(asked.Address, asked.Wanted)
			if err != nil {
				fail(err)
			}
			say(got)
		}
	default:
		fail(errors.New("no such end: " + os.Args[1]))
	}
}

func say(what any) {
	if err := json.NewEncoder(os.Stdout).Encode(what); err != nil {
		os.Exit(1) // nobody listens any more
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// The reference's buffers and limits.
var (
	upgrader = websocket.Upgrader{ReadBufferSize: 1024, WriteBufferSize: 1024}
	dialer   = websocket.Dialer{ReadBufferSize: 4096, WriteBufferSize: 4096}
)
