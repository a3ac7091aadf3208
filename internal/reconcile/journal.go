package reconcile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

// ErrBusy says that another process works on the same host.
var ErrBusy = errors.New("another nodeagent is changing this host")

// journal is the transaction under way, in one file of one record a line.
type journal struct {
	dir    string
	lock   *os.File
	file   *os.File        // nil: no transaction is under way
	notice func(r *Record) // called when a record is on the disk; nil outside tests
}

// openJournal takes the host for this process, until close.
func openJournal(dir string) (*journal, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = ErrBusy
		}
		return nil, errors.Join(fmt.Errorf("lock %s: %w", lock.Name(), err), lock.Close())
	}
	return &journal{dir: dir, lock: lock}, nil
}

func (j *journal) close() error {
	var err error
	if j.file != nil {
		err = j.file.Close()
	}
	return errors.Join(err, j.lock.Close()) // which unlocks
}

func (j *journal) path() string { return filepath.Join(j.dir, journalFile) }

// read returns the records of the transaction under way, and makes ready to go
// on with it. A last line that is torn was never acknowledged, and is cut off.
func (j *journal) read() ([]Record, error) {
	data, err := os.ReadFile(j.path())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read journal: %w", err)
	}
	records, whole, err := parseJournal(data)
	if err != nil {
		return nil, fmt.Errorf("read journal %s: %w", j.path(), err)
	}
	if j.file, err = os.OpenFile(j.path(), os.O_WRONLY|os.O_APPEND, 0o600); err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	if err := j.file.Truncate(int64(whole)); err != nil {
		return nil, fmt.Errorf("cut journal: %w", err)
	}
	return records, nil
}

// parseJournal reads records up to the last whole line, and returns how long
// that is.
func parseJournal(data []byte) (records []Record, whole int, err error) {
	for {
		line, _, complete := bytes.Cut(data[whole:], []byte("\n"))
		if !complete {
			return records, whole, nil
		}
		var r Record
		if err := json.Unmarshal(line, &r); err != nil {
			return nil, 0, fmt.Errorf("line %d: %w", len(records)+1, err)
		}
		if err := plausible(r, records); err != nil {
			return nil, 0, fmt.Errorf("line %d: %w", len(records)+1, err)
		}
		records = append(records, r)
		whole += len(line) + 1
	}
}

// plausible refuses what no agent has written.
func plausible(r Record, before []Record) error {
	switch {
	case (r.Event == Intent) != (len(before) == 0):
		return fmt.Errorf("event %q: a journal has one intent, at its beginning", r.Event)
	case r.Event == Intent && r.Request == nil:
		return errors.New("an intent without a request")
	case r.Step != nil && (*r.Step < 0 || len(before) == 0 || *r.Step >= len(before[0].Steps)):
		return fmt.Errorf("step %d: there is none", *r.Step)
	}
	return nil
}

// begin starts a transaction.
func (j *journal) begin(intent *Record) error {
	file, err := os.OpenFile(j.path(), os.O_WRONLY|os.O_APPEND|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("begin journal: %w", err)
	}
	j.file = file
	if err := errors.Join(j.append(intent), syncDir(j.dir)); err != nil {
		return errors.Join(err, j.drop())
	}
	return nil
}

// append returns when a record is on the disk. A record that is not on the
// disk as a whole is not in the journal at all.
func (j *journal) append(r *Record) error {
	text, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	info, err := j.file.Stat()
	if err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	_, err = j.file.Write(append(text, '\n'))
	if err = errors.Join(err, j.file.Sync()); err != nil {
		return errors.Join(fmt.Errorf("write journal: %w", err), j.file.Truncate(info.Size()))
	}
	if j.notice != nil {
		j.notice(r)
	}
	return nil
}

// drop forgets the transaction under way.
func (j *journal) drop() error {
	err := j.file.Close()
	j.file = nil
	return errors.Join(err, os.Remove(j.path()), syncDir(j.dir))
}

// finish puts the transaction with those that are over. If there is no space
// for that, it is forgotten.
func (j *journal) finish(transaction string) error {
	history := filepath.Join(j.dir, historyDir)
	err := os.MkdirAll(history, 0o700)
	if err == nil {
		err = os.Rename(j.path(), filepath.Join(history, transaction))
	}
	if err != nil {
		return j.drop()
	}
	err = j.file.Close()
	j.file = nil
	entries, readErr := os.ReadDir(history)
	err = errors.Join(err, readErr)
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return bytes.Compare([]byte(b.Name()), []byte(a.Name())) })
	for _, entry := range entries[min(len(entries), mostHistory):] {
		err = errors.Join(err, os.Remove(filepath.Join(history, entry.Name())))
	}
	return errors.Join(err, syncDir(j.dir))
}
