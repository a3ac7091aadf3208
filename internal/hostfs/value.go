package hostfs

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
)

// ReadString returns the single value in a file, white space trimmed.
func (r *Root) ReadString(name string) (string, error) {
	data, err := r.ReadFile(name)
	if err != nil {
		return "", err
	}
	value, err := parseString(data)
	if err != nil {
		return "", pathError("parse", name, err)
	}
	return value, nil
}

// ReadUint returns the unsigned decimal number that a file holds.
func (r *Root) ReadUint(name string) (uint64, error) {
	return readValue(r, name, parseUint)
}

// ReadInt returns the decimal number that a file holds.
func (r *Root) ReadInt(name string) (int64, error) {
	return readValue(r, name, parseInt)
}

// ReadBool returns a kernel boolean: Y or N, or a number that is zero or not.
func (r *Root) ReadBool(name string) (bool, error) {
	return readValue(r, name, parseBool)
}

func readValue[T any](r *Root, name string, parse func([]byte) (T, error)) (T, error) {
	data, err := r.ReadFile(name)
	if err != nil {
		var zero T
		return zero, err
	}
	value, err := parse(data)
	if err != nil {
		return value, pathError("parse", name, err)
	}
	return value, nil
}

// Absent reports whether err says for certain that a path is not there.
func Absent(err error) bool { return errors.Is(err, fs.ErrNotExist) }

func parseString(data []byte) (string, error) {
	value := strings.TrimSpace(string(data))
	if len(value) > 64<<10 {
		return "", fmt.Errorf("value of %d bytes", len(value))
	}
	if strings.ContainsRune(value, 0) {
		return "", errors.New("value holds a NUL byte")
	}
	return value, nil
}

// errCut says that a value may have lost its end: the kernel ends each with a
// newline (sysfs_emit), and half of 2048 is a number too.
var errCut = errors.New("the value does not end with a newline: it may be cut short")

func whole(data []byte) error {
	if !bytes.HasSuffix(data, []byte("\n")) {
		return fmt.Errorf("%w: %q", errCut, clip(data))
	}
	return nil
}

func parseUint(data []byte) (uint64, error) {
	if err := whole(data); err != nil {
		return 0, err
	}
	value, err := strconv.ParseUint(strings.TrimSpace(string(data)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("want an unsigned number, have %q", clip(data))
	}
	return value, nil
}

func parseInt(data []byte) (int64, error) {
	if err := whole(data); err != nil {
		return 0, err
	}
	value, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("want a number, have %q", clip(data))
	}
	return value, nil
}

func parseBool(data []byte) (bool, error) {
	if err := whole(data); err != nil {
		return false, err
	}
	switch value := strings.TrimSpace(string(data)); value {
	case "Y", "y":
		return true, nil
	case "N", "n":
		return false, nil
	default:
		number, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			return false, fmt.Errorf("want Y, N or a number, have %q", clip(data))
		}
		return number != 0, nil
	}
}

// clip keeps a message about a lying file short.
func clip(data []byte) []byte { return data[:min(len(data), 64)] }
