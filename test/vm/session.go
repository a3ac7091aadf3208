package vm

import (
	"encoding/json"
	"fmt"
	"os"
	"sync"

	"github.com/virtnode/nodeagent/test/vm/wire"
)

// session is the host's end of the port: requests go out, and events come in
// and are handed to the command that they belong to.
type session struct {
	port *os.File

	mu      sync.Mutex
	enc     *json.Encoder
	last    int
	waiting map[int]chan wire.Event
}

func newSession(port *os.File) *session {
	return &session{port: port, enc: json.NewEncoder(port), waiting: map[int]chan wire.Event{}}
}

func (s *session) close() error { return s.port.Close() }

// begin returns the number of a new command, and its events.
func (s *session) begin() (id int, events <-chan wire.Event) {
	s.mu.Lock()
	s.last++
	id = s.last
	s.mu.Unlock()
	return id, s.expect(id)
}

// expect returns the events with the number id; 0 is the guest's greeting.
func (s *session) expect(id int) <-chan wire.Event {
	events := make(chan wire.Event, 64)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting[id] = events
	return events
}

func (s *session) end(id int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.waiting, id)
}

func (s *session) send(r wire.Request) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.enc.Encode(r); err != nil {
		return fmt.Errorf("send to the guest: %w", err)
	}
	return nil
}

// read hands out events until the port is closed or the machine is down.
func (s *session) read(down <-chan struct{}) {
	dec := json.NewDecoder(s.port)
	for {
		var event wire.Event
		if dec.Decode(&event) != nil {
			return // commands learn it from down
		}
		s.mu.Lock()
		events := s.waiting[event.ID]
		s.mu.Unlock()
		if events == nil {
			continue // nobody waits for it any more
		}
		select {
		case events <- event:
		case <-down:
		}
	}
}
