package kvmcheck

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/virtnode/nodeagent/internal/hostfs"
)

// CPUIDRegisters is what the instruction CPUID answers to one leaf.
type CPUIDRegisters struct{ EAX, EBX, ECX, EDX uint32 }

// registerAnswer is a recorded register: its words, or why it could not be read.
type registerAnswer struct {
	Words []string `json:"words,omitempty"` // "0x5"; a CPUID leaf has four
	Errno string   `json:"errno,omitempty"`
	Err   string   `json:"error,omitempty"`
}

func msrPath(cpu int) string   { return fmt.Sprintf("/dev/cpu/%d/msr", cpu) }
func cpuidPath(cpu int) string { return fmt.Sprintf("/dev/cpu/%d/cpuid", cpu) }

// registerKey names a register in a recording: "/dev/cpu/0/msr 0x3a".
func registerKey(path string, register uint32) string { return fmt.Sprintf("%s %#x", path, register) }

func (d *recordedDevices) ReadMSR(cpu int, register uint32) (uint64, error) {
	words, err := d.register(msrPath(cpu), register, 1)
	if err != nil {
		return 0, err
	}
	return words[0], nil
}

func (d *recordedDevices) ReadCPUID(cpu int, leaf uint32) (CPUIDRegisters, error) {
	words, err := d.register(cpuidPath(cpu), leaf, 4)
	if err != nil {
		return CPUIDRegisters{}, err
	}
	return CPUIDRegisters{uint32(words[0]), uint32(words[1]), uint32(words[2]), uint32(words[3])}, nil
}

// register replays an answer of so many words.
func (d *recordedDevices) register(path string, register uint32, count int) ([]uint64, error) {
	answer, found := d.answers.Registers[registerKey(path, register)]
	if !found {
		return nil, &fs.PathError{Op: "read", Path: path, Err: hostfs.ErrNotRecorded}
	}
	if answer.Errno != "" || answer.Err != "" {
		return nil, &fs.PathError{Op: "read", Path: path, Err: answer.cause()}
	}
	if len(answer.Words) != count {
		return nil, &fs.PathError{Op: "parse", Path: path, Err: fmt.Errorf("%d words recorded, want %d", len(answer.Words), count)}
	}
	words := make([]uint64, count)
	for i, text := range answer.Words {
		word, err := strconv.ParseUint(text, 0, 64)
		if err != nil {
			return nil, &fs.PathError{Op: "parse", Path: path, Err: err}
		}
		words[i] = word
	}
	return words, nil
}

// cause is the error that was recorded.
func (a registerAnswer) cause() error {
	for errno := unix.Errno(1); errno < 200; errno++ {
		if a.Errno != "" && unix.ErrnoName(errno) == a.Errno {
			return errno
		}
	}
	return errors.New(cmp.Or(a.Err, a.Errno))
}

func (d *recordingDevices) ReadMSR(cpu int, register uint32) (uint64, error) {
	value, err := d.real.ReadMSR(cpu, register)
	d.keep(msrPath(cpu), register, err, value)
	return value, err
}

func (d *recordingDevices) ReadCPUID(cpu int, leaf uint32) (CPUIDRegisters, error) {
	id, err := d.real.ReadCPUID(cpu, leaf)
	d.keep(cpuidPath(cpu), leaf, err, uint64(id.EAX), uint64(id.EBX), uint64(id.ECX), uint64(id.EDX))
	return id, err
}

func (d *recordingDevices) keep(path string, register uint32, err error, words ...uint64) {
	var answer registerAnswer
	if err != nil {
		answer.Errno, answer.Err = errnoName(err), reasonOf(err)
	} else {
		for _, word := range words {
			answer.Words = append(answer.Words, fmt.Sprintf("%#x", word))
		}
	}
	if d.answers.Registers == nil {
		d.answers.Registers = make(map[string]registerAnswer)
	}
	d.answers.Registers[registerKey(path, register)] = answer
}

// reasonOf is an error's text without the path, which the key has.
func reasonOf(err error) string {
	if inner, ok := errors.AsType[*fs.PathError](err); ok {
		return inner.Err.Error()
	}
	return err.Error()
}
