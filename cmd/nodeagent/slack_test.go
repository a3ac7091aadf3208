package main

import (
	"errors"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestAllThreadsHaveTimerSlack(t *testing.T) {
	if err := loosenTimers(); errors.Is(err, os.ErrPermission) {
		t.Skip("needs CAP_SYS_NICE: ", err)
	} else if err != nil {
		t.Fatal(err)
	}
	made := make(chan int)
	go func() {
		runtime.LockOSThread() // which makes another thread for the others
		made <- unix.Gettid()
		<-t.Context().Done()
	}()
	<-made
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, thread := range threads {
		slack, err := os.ReadFile("/proc/" + thread.Name() + "/timerslack_ns")
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if want := strconv.FormatInt(timerSlack.Nanoseconds(), 10); err != nil || strings.TrimSpace(string(slack)) != want {
			t.Errorf("thread %s: %q, %v, want %s", thread.Name(), slack, err, want)
		}
	}
}
