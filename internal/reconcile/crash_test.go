package reconcile

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// crashEnv makes the test binary apply a plan and be killed by itself:
// "HOST-DIR STATE-DIR MOMENT N", where MOMENT is record or write, or undo for
// a record of a run in which the last step fails.
const crashEnv = "NODEAGENT_TEST_CRASH"

func TestMain(m *testing.M) {
	if args := strings.Fields(os.Getenv(crashEnv)); len(args) == 4 {
		crash(args[0], args[1], args[2], args[3])
	}
	os.Exit(m.Run())
}

func crash(hostDir, stateDir, moment, number string) {
	left, err := strconv.Atoi(number)
	if err != nil {
		panic(err)
	}
	count := func() {
		if left--; left == 0 {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
	h := &fakeHost{dir: hostDir}
	loop := h.loop(stateDir)
	switch moment {
	case "write":
		h.between = count
	case "undo":
		h.broken = map[string]string{"fake/value d": "between"}
		loop.notice = func(*Record) { count() }
	default:
		loop.notice = func(*Record) { count() }
	}
	if _, err := loop.Apply(context.Background(), request(), h.plan(wantAfter())); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(0)
}

// TestKilledAnywhere kills the agent after each record of the journal and in
// the middle of each write, until it comes through. The next start ends in one
// of the two states, and says in which.
func TestKilledAnywhere(t *testing.T) {
	for moment, least := range map[string]int{"record": 11, "write": 4, "undo": 13} {
		for number := 1; ; number++ {
			h, loop := newHost(t)
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s %s %d", crashEnv, h.dir, loop.Dir, moment, number))
			out, err := cmd.CombinedOutput()
			if err == nil {
				if number <= least {
					t.Errorf("%s: only %d moments", moment, number-1)
				}
				break
			}
			if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
				t.Fatalf("%s %d: %v\n%s", moment, number, err, out)
			}
			outcome, err := loop.Recover(t.Context())
			if err != nil {
				t.Fatalf("%s %d: %v", moment, number, err)
			}
			want := map[Result]string{Kept: dumpAfter, Reverted: dumpBefore}[outcome.Result]
			if got := h.dump(t); got != want || want == "" {
				t.Errorf("%s %d: said %s, the host is at %s", moment, number, outcome.Result, got)
			}
			state, err := ReadState(loop.Dir)
			if ours := len(state.Originals) > 0; err != nil || ours != (outcome.Result == Kept) {
				t.Errorf("%s %d: %s, and the originals are %v, %v", moment, number, outcome.Result, state.Originals, err)
			}
			if again, err := loop.Recover(t.Context()); err != nil || again.Result != Converged {
				t.Errorf("%s %d: recovered twice: %+v, %v", moment, number, again, err)
			}
		}
	}
}

func TestKilledBeforeItWasConfirmed(t *testing.T) {
	for name, test := range map[string]struct {
		boot    string
		confirm error
		want    Result
		dump    string
	}{
		"reachable":    {"boot-1", nil, Kept, dumpAfter},
		"cut off":      {"boot-1", errors.New("no answer"), Reverted, dumpBefore},
		"another boot": {"boot-2", nil, Reverted, dumpBefore},
	} {
		h, loop := newHost(t)
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s record 10", crashEnv, h.dir, loop.Dir)) // intent, 4 × begin and done, applied
		if err := cmd.Run(); err == nil {
			t.Fatal("it came through")
		}
		loop.Boot, loop.Confirm = test.boot, func(context.Context, Request) error { return test.confirm }
		outcome, err := loop.Recover(t.Context())
		if err != nil || outcome.Result != test.want || h.dump(t) != test.dump || outcome.CutOff != (test.confirm != nil) {
			t.Errorf("%s: %+v, %v, %s", name, outcome, err, h.dump(t))
		}
	}
}

func TestTornLineWasNeverWritten(t *testing.T) {
	h, loop := newHost(t)
	before := h.plan(wantAfter())
	intent := Record{Event: Intent, Transaction: "1", Request: &Request{}, Steps: before.Steps}
	text, err := json.Marshal(intent)
	if err != nil {
		t.Fatal(err)
	}
	for cut, want := range map[int]Result{len(text) / 2: Converged, len(text): Converged} {
		if err := os.WriteFile(filepath.Join(loop.Dir, journalFile), text[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		if outcome, err := loop.Recover(t.Context()); err != nil || outcome.Result != want {
			t.Errorf("cut at %d of %d: %+v, %v", cut, len(text), outcome, err)
		}
	}
	whole := string(text) + "\n" + `{"event":"begin","step":0}` + "\n" + `{"event":"do`
	if err := os.WriteFile(filepath.Join(loop.Dir, journalFile), []byte(whole), 0o600); err != nil {
		t.Fatal(err)
	}
	if outcome, err := loop.Recover(t.Context()); err != nil || outcome.Result != Reverted {
		t.Errorf("got %+v, %v", outcome, err)
	}
}

func FuzzParseJournal(f *testing.F) {
	f.Add([]byte(`{"event":"intent","transaction":"1","request":{"who":"x"},"steps":[{"kind":"a/b","target":"c","was":1,"want":2}]}` + "\n" + `{"event":"begin","step":0}` + "\n"))
	f.Add([]byte(`{"event":"begin","step":-1}` + "\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		records, whole, err := parseJournal(data)
		if err != nil || len(records) == 0 {
			return
		}
		if whole > len(data) || data[whole-1] != '\n' {
			t.Errorf("whole up to %d of %d", whole, len(data))
		}
		new(Loop).resume(nil, records) // no index is out of range
	})
}
