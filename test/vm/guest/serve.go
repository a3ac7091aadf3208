package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/virtnode/nodeagent/test/vm/wire"
)

// serve runs the host's commands until the port is closed.
func serve() error {
	port, err := awaitPort()
	if err != nil {
		return err
	}
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return fmt.Errorf("read the kernel's release: %w", err)
	}
	out := &events{enc: json.NewEncoder(port)}
	if err := out.send(wire.Event{Ready: unix.ByteSliceToString(name.Release[:])}); err != nil {
		return err
	}
	running := map[int]*command{}
	requests := json.NewDecoder(port)
	for {
		var r wire.Request
		if err := requests.Decode(&r); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read a request: %w", err)
		}
		if r.Run != nil {
			running[r.ID] = newCommand(r.ID, *r.Run, out)
			go running[r.ID].run()
			continue
		}
		// Commands that have ended stay in the map: a test has dozens.
		if c := running[r.ID]; c != nil {
			c.tell(r)
		}
	}
}

// awaitPort opens the host's port. A port gets its name when QEMU tells it, which
// may be after this process has started.
func awaitPort() (*os.File, error) {
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		port, err := openPort()
		if err == nil || time.Now().After(deadline) {
			return port, err
		}
	}
}

// openPort opens the virtio-serial port by its name in
// /sys/class/virtio-ports/*/name; there is no udev that would name it in /dev.
func openPort() (*os.File, error) {
	names, err := filepath.Glob("/sys/class/virtio-ports/*/name")
	if err != nil {
		return nil, fmt.Errorf("list virtio-serial ports: %w", err)
	}
	for _, file := range names {
		name, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("read a port's name: %w", err)
		}
		if strings.TrimSpace(string(name)) != wire.Port {
			continue
		}
		port, err := os.OpenFile(filepath.Join("/dev", filepath.Base(filepath.Dir(file))), os.O_RDWR, 0)
		if err != nil {
			return nil, fmt.Errorf("open the host's port: %w", err)
		}
		return port, nil
	}
	return nil, fmt.Errorf("no virtio-serial port named %s", wire.Port)
}

// events sends messages of several commands through the one port.
type events struct {
	mu  sync.Mutex
	enc *json.Encoder
}

func (e *events) send(event wire.Event) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.enc.Encode(event); err != nil {
		return fmt.Errorf("send to the host: %w", err)
	}
	return nil
}

// stream is an io.Writer that sends what is written as one command's output.
type stream func(chunk []byte) error

func (s stream) Write(chunk []byte) (int, error) {
	if err := s(chunk); err != nil {
		return 0, err
	}
	return len(chunk), nil
}
