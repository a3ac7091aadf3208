package kvmcheck

// What a sibling package needs to state facts and findings of its own.

// Known returns a value that source showed.
func Known[T any](source string, value T) Reading[T] { return known(source, value) }

// NotKnown returns the absence of a value, and why.
func NotKnown[T any](source string, err error) Reading[T] { return unknown[T](source, err) }

// ReadingOf returns value, or err if there is one.
func ReadingOf[T any](source string, value T, err error) Reading[T] {
	return reading(source, value, err)
}

// Found is a finding that is fine.
func Found(area, check, message string) Finding { return found(area, check, message) }

// Lacking is a finding that is definitely not fine.
func Lacking(area, check string, reason Reason, message, remedy string) Finding {
	return lacking(area, check, reason, message, remedy)
}

// Undecided is a finding about which nobody can tell.
func Undecided(area, check, message string) Finding { return undecided(area, check, message) }
