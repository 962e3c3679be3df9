package main

import (
	"math/rand"
	"sort"
	"sync"
	"sync/atomic"
	"time"
)

// wanted is bench.shapes.Wanted.
type wanted struct {
	Shape struct {
		Connections int
		InFlight    int `json:"in_flight"`
		Figure      string
		Payload     int
	}
	Seconds  float64
	Messages *int64
}

// round is bench.shapes.Round.
type round struct {
	Messages int64    `json:"messages"`
	Seconds  float64  `json:"seconds"`
	P50      *float64 `json:"p50"`
	P99      *float64 `json:"p99"`
}

// warmUp is the part of a round's time that passes before the clock starts, as in bench/driving.py.
const warmUp = 0.1

// many payloads, so that no answer fits them all.
func payloads(size int) [][]byte {
	source, many := rand.New(rand.NewSource(int64(size))), make([][]byte, 61)
	for i := range many {
		many[i] = make([]byte, size)
		source.Read(many[i])
	}
	return many
}

func drive(address string, asked wanted) (*round, error) {
	source := payloads(asked.Shape.Payload)
	clients := make([]*client, asked.Shape.Connections)
	for i := range clients {
		opened, err := dial(address)
		if err != nil {
			return nil, err
		}
		defer opened.close()
		clients[i] = opened
	}
	loops := make([]*client, 0, len(clients)*asked.Shape.InFlight)
	for range make([]struct{}, asked.Shape.InFlight) {
		loops = append(loops, clients...)
	}
	if asked.Messages == nil {
		if _, err := together(loops, source, asked.Seconds*warmUp, nil); err != nil {
			return nil, err
		}
	}
	say(fields{"tick": true})
	var got *round
	var err error
	if asked.Shape.Figure == "p50" {
		got, err = oneByOne(clients[0], source, asked)
	} else {
		got, err = together(loops, source, asked.Seconds, asked.Messages)
	}
	if err != nil {
		return nil, err
	}
	say(fields{"tick": true})
	return got, nil
}

// together keeps one message in flight in each loop.
func together(loops []*client, source [][]byte, seconds float64, most *int64) (*round, error) {
	var wait sync.WaitGroup
	var answered, begun atomic.Int64
	failed := make(chan error, len(loops))
	start := time.Now()
	until := start.Add(time.Duration(seconds * float64(time.Second)))
	for number, loop := range loops {
		wait.Add(1)
		go func(next int, c *client) {
			defer wait.Done()
			for ; time.Now().Before(until); next++ {
				if most != nil && begun.Add(1) > *most {
					return
				}
				if err := c.call(source[next%len(source)]); err != nil {
					failed <- err
					return
				}
				answered.Add(1)
			}
		}(number, loop)
	}
	wait.Wait()
	took := time.Since(start).Seconds()
	select {
	case err := <-failed:
		return nil, err
	default:
		return &round{Messages: answered.Load(), Seconds: took}, nil
	}
}

// oneByOne times each message from its making to its checked answer.
func oneByOne(c *client, source [][]byte, asked wanted) (*round, error) {
	took := make([]float64, 0, 1<<20)
	start := time.Now()
	until := start.Add(time.Duration(asked.Seconds * float64(time.Second)))
	before := start
	for before.Before(until) && (asked.Messages == nil || int64(len(took)) < *asked.Messages) {
		if err := c.call(source[len(took)%len(source)]); err != nil {
			return nil, err
		}
		after := time.Now()
		took = append(took, after.Sub(before).Seconds())
		before = after
	}
	sort.Float64s(took)
	p50, p99 := took[len(took)/2], took[len(took)*99/100]
	return &round{Messages: int64(len(took)), Seconds: before.Sub(start).Seconds(), P50: &p50, P99: &p99}, nil
}
