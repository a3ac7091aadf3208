package v1alpha1

import (
	"fmt"
	"time"
)

// Duration is written as 500ms, 30s or 1m30s. It stays text, so that what
// cannot be read is refused with its place in the document.
type Duration string

// Parse returns how long it is.
func (d Duration) Parse() (time.Duration, error) {
	value, err := time.ParseDuration(string(d))
	if err != nil {
		return 0, fmt.Errorf("%q is not a duration; write it as 500ms, 5s or 1m30s", string(d))
	}
	return value, nil
}
