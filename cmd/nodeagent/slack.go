package main

import (
	"errors"
	"os"
	"strconv"
	"time"
)

// timerSlack is how late the kernel may wake a thread of the agent that sleeps.
// Go's monitor of its own threads sleeps 20 µs at a time while anything runs, which
// was a seventh of what a scrape costs, and is a quarter of that since; no timer of
// the agent is as exact as this.
const timerSlack = 2 * time.Millisecond

// loosenTimers gives the slack to all threads there are; those to come have it
// of the thread that makes them (PR_SET_TIMERSLACK(2const), and
// proc_pid_timerslack_ns(5), which takes a thread's number too). For other
// threads than the caller's it needs CAP_SYS_NICE.
func loosenTimers() error {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	var errs []error
	for _, thread := range threads {
		err := os.WriteFile("/proc/"+thread.Name()+"/timerslack_ns", []byte(strconv.FormatInt(timerSlack.Nanoseconds(), 10)), 0)
		if !errors.Is(err, os.ErrNotExist) { // a thread that has ended
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
