package nodestack

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/virtnode/nodeagent/pkg/kvmcheck"
)

// Live answers what no file says.
type Live interface {
	// Running lists the processes and the libvirt VMs that checks ask about.
	Running() Running
	// Runtime asks a container runtime over its CRI socket, until ctx ends.
	Runtime(ctx context.Context, socket string) Runtime
	// Volume asks for the room on the file system of a directory.
	Volume(dir string) kvmcheck.Reading[Volume]
	// Program looks into an executable, and does not start it.
	Program(file string) kvmcheck.Reading[Program]
	// Clock asks the kernel whether the clock is disciplined.
	Clock() kvmcheck.Reading[Clock]
}

// Running is what runs on the host, as far as checks ask.
type Running struct {
	Daemons kvmcheck.Reading[[]Daemon] `json:"daemons"`
	Domains kvmcheck.Reading[[]Domain] `json:"domains"`
}

// answers is the stack's part of a recording.
type answers struct {
	Running  *Running                             `json:"running,omitempty"`
	Runtimes map[string]Runtime                   `json:"runtimes,omitempty"`
	Volumes  map[string]kvmcheck.Reading[Volume]  `json:"volumes,omitempty"`
	Programs map[string]kvmcheck.Reading[Program] `json:"programs,omitempty"`
	Clock    *kvmcheck.Reading[Clock]             `json:"clock,omitempty"`
}

var errNotRecorded = errors.New("not part of this recording")

// recordedLive replays the answers of a recording.
type recordedLive struct{ answers answers }

func parseAnswers(data json.RawMessage) (*recordedLive, error) {
	live := new(recordedLive)
	if err := json.Unmarshal(data, &live.answers); err != nil {
		return nil, fmt.Errorf("parse the recorded answers of the stack: %w", err)
	}
	return live, nil
}

func (l *recordedLive) Running() Running {
	if l.answers.Running != nil {
		return *l.answers.Running
	}
	return Running{
		Daemons: kvmcheck.NotKnown[[]Daemon](procDir, errNotRecorded),
		Domains: kvmcheck.NotKnown[[]Domain](domainsDir, errNotRecorded),
	}
}

func (l *recordedLive) Runtime(_ context.Context, socket string) Runtime {
	if runtime, found := l.answers.Runtimes[socket]; found {
		return runtime
	}
	return Runtime{Socket: socket, Err: fmt.Sprintf("%s: %v", socket, errNotRecorded)}
}

func (l *recordedLive) Volume(dir string) kvmcheck.Reading[Volume] {
	return recorded(l.answers.Volumes, dir)
}

func (l *recordedLive) Program(file string) kvmcheck.Reading[Program] {
	return recorded(l.answers.Programs, file)
}

func (l *recordedLive) Clock() kvmcheck.Reading[Clock] {
	if l.answers.Clock != nil {
		return *l.answers.Clock
	}
	return kvmcheck.NotKnown[Clock](clockSource, errNotRecorded)
}

func recorded[T any](answers map[string]kvmcheck.Reading[T], name string) kvmcheck.Reading[T] {
	if answer, found := answers[name]; found {
		return answer
	}
	return kvmcheck.NotKnown[T](name, errNotRecorded)
}

// recordingLive asks the real host and keeps what it answered.
type recordingLive struct {
	real    Live
	answers answers
}

func (l *recordingLive) Running() Running {
	running := l.real.Running()
	l.answers.Running = &running
	return running
}

func (l *recordingLive) Runtime(ctx context.Context, socket string) Runtime {
	return keep(&l.answers.Runtimes, socket, l.real.Runtime(ctx, socket))
}

func (l *recordingLive) Volume(dir string) kvmcheck.Reading[Volume] {
	return keep(&l.answers.Volumes, dir, l.real.Volume(dir))
}

func (l *recordingLive) Program(file string) kvmcheck.Reading[Program] {
	return keep(&l.answers.Programs, file, l.real.Program(file))
}

func (l *recordingLive) Clock() kvmcheck.Reading[Clock] {
	clock := l.real.Clock()
	l.answers.Clock = &clock
	return clock
}

func keep[T any](answers *map[string]T, name string, answer T) T {
	if *answers == nil {
		*answers = make(map[string]T)
	}
	(*answers)[name] = answer
	return answer
}
