package kvmcheck

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
)

// Reading is one value read off the host: known, or not known and why.
// The zero value is not known.
type Reading[T any] struct {
	Value  T
	Known  bool
	Source string // file, ioctl or instruction that showed it
	Err    string // why it is not known; names the path
}

// known returns a value that source showed.
func known[T any](source string, value T) Reading[T] {
	return Reading[T]{Value: value, Known: true, Source: source}
}

// unknown returns the absence of a value, and why.
func unknown[T any](source string, err error) Reading[T] {
	return Reading[T]{Source: source, Err: explain(source, err)}
}

// reading returns value, or err if there is one.
func reading[T any](source string, value T, err error) Reading[T] {
	if err != nil {
		return unknown[T](source, err)
	}
	return known(source, value)
}

// explain makes one short line of an error, with the path in it.
func explain(source string, err error) string {
	if _, ok := errors.AsType[*fs.PathError](err); ok {
		return err.Error()
	}
	return fmt.Sprintf("%s: %v", source, err)
}

// readingJSON keeps the value raw: what is known may well be null or zero.
type readingJSON struct {
	Value  json.RawMessage `json:"value,omitempty"`
	Source string          `json:"source,omitempty"`
	Err    string          `json:"error,omitempty"`
}

// MarshalJSON gives {"value":…,"source":…} or {"source":…,"error":…}.
func (r Reading[T]) MarshalJSON() ([]byte, error) {
	out := readingJSON{Source: r.Source, Err: r.Err}
	if r.Known {
		value, err := json.Marshal(r.Value)
		if err != nil {
			return nil, err
		}
		out.Value = value
	}
	return json.Marshal(out)
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (r *Reading[T]) UnmarshalJSON(data []byte) error {
	var in readingJSON
	if err := json.Unmarshal(data, &in); err != nil {
		return err
	}
	*r = Reading[T]{Source: in.Source, Err: in.Err, Known: in.Value != nil}
	if in.Value == nil {
		return nil
	}
	return json.Unmarshal(in.Value, &r.Value)
}
