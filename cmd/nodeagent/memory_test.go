package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestParseProgramPart(t *testing.T) {
	for line, want := range map[string][2]uintptr{
		"00400000-012fa000 r-xp 00000000 00:1a 77                                 /usr/bin/nodeagent\n": {0x400000, 0x12fa000},
		"012fa000-02422000 r--p 00efa000 00:1a 77                                 /usr/bin/nodeagent\n": {0x12fa000, 0x2422000},
		"02422000-024d4000 rw-p 02022000 00:1a 77                                 /usr/bin/nodeagent\n": {},
		"02422000-024d4000 rwxp 02022000 00:1a 77                                 /usr/bin/nodeagent\n": {},
		"00400000-012fa000 r-xp 00000000 00:1a 77                                 /usr/bin/other\n":     {},
		"dbfea800000-dbfeb400000 rw-p 00000000 00:00 0 \n":                                              {},
		"7ffd-7ffc r-xp 00000000 00:1a 77 /usr/bin/nodeagent\n":                                         {},
		"": {},
	} {
		start, end, found := parseProgramPart(line, "/usr/bin/nodeagent")
		if got := [2]uintptr{start, end}; found && got != want || found != (want != [2]uintptr{}) {
			t.Errorf("%q: %x, %v", line, got, found)
		}
	}
}

// TestGiveBack has this process go on after its program was taken out of memory.
func TestGiveBack(t *testing.T) {
	if os.Getenv("NODEAGENT_TEST_GIVE_BACK") == "" {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(self, "-test.run=^TestGiveBack$", "-test.v")
		cmd.Env = append(os.Environ(), "NODEAGENT_TEST_GIVE_BACK=1")
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "less resident") {
			t.Errorf("%v: %s", err, out)
		}
		return
	}
	before := residentFile(t)
	giveBack()
	after := residentFile(t)
	if after >= before {
		t.Fatalf("resident pages of files: %d before, %d after", before, after)
	}
	t.Logf("%d pages less resident", before-after)
}

// residentFile is how many pages of files this process has in memory (proc(5), statm).
func residentFile(t *testing.T) (pages int) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("/proc/self", "statm"))
	if err != nil {
		t.Fatal(err)
	}
	for _, digit := range strings.Fields(string(data))[2] {
		pages = pages*10 + int(digit-'0')
	}
	return pages
}
