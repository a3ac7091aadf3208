package main

import (
	"bytes"
	"os"
	"strconv"
	"testing"
)

// TestShedStartup: the program is mapped less, and goes on.
func TestShedStartup(t *testing.T) {
	newRoot().Commands() // some of what starts the agent
	before := residentFile(t)
	if err := shedStartup(); err != nil {
		t.Fatal(err)
	}
	if after := residentFile(t); after >= before*3/4 {
		t.Errorf("%d kB of files are resident, %d before", after, before)
	}
	var out bytes.Buffer
	root := newRoot()
	root.SetArgs([]string{"config"})
	root.SetOut(&out)
	if err := root.Execute(); err != nil || out.Len() == 0 {
		t.Errorf("nodeagent config, after that: %v, %d bytes", err, out.Len())
	}
}

// residentFile is RssFile of this process, in kB.
func residentFile(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := bytes.Cut(status, []byte("RssFile:"))
	kB, err := strconv.Atoi(string(bytes.Fields(rest)[0]))
	if err != nil {
		t.Fatal(err)
	}
	return kB
}
