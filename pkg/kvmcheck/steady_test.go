package kvmcheck

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// seeing is what a check says at a time: + Ready, - NotReady, ? Unknown,
// . not made at all, ! not made because its area cannot be read.
func seeing(word rune) []Finding {
	other := Finding{Area: "kvm", Check: "module", Level: Required, Status: Ready}
	finding := Finding{Area: "kvm", Check: "device", Level: Required}
	switch word {
	case '+':
		finding.Status = Ready
	case '-':
		finding.Status = NotReady
	case '.':
		return []Finding{other}
	case '!':
		other.Status = Unknown
		return []Finding{other}
	}
	return []Finding{other, finding}
}

// device is the durable verdict on the check of seeing.
func device(s Steady) (Durable, bool) {
	for _, check := range s.Checks() {
		if check.Check == "device" {
			return check, true
		}
	}
	return Durable{}, false
}

// show writes a durable verdict as seeing reads one.
func show(s Steady) rune {
	check, found := device(s)
	switch {
	case !found:
		return '.'
	case check.Status == Ready:
		return '+'
	case check.Status == NotReady:
		return '-'
	default:
		return '?'
	}
}

func TestSteady(t *testing.T) {
	for name, test := range map[string]struct {
		every       time.Duration
		seen, want  string // one letter per observation
		transitions uint64
	}{
		"ready at once":                                {30 * time.Second, "+", "+", 0},
		"three negatives over a minute":                {30 * time.Second, "+---", "+++-", 1},
		"three negatives in less than a minute":        {29 * time.Second, "+---", "++++", 0},
		"many negatives, a minute after the first":     {10 * time.Second, "+-------", "+++++++-", 1},
		"two negatives however long":                   {time.Hour, "+--", "+++", 0},
		"back at once":                                 {30 * time.Second, "+---+", "+++-+", 2},
		"flapping":                                     {30 * time.Second, "+--+--+-+--+", "++++++++++++", 0},
		"unknown never decides":                        {time.Hour, "+????????", "+++++++++", 0},
		"unknown never brings back":                    {30 * time.Second, "+---????", "+++-----", 1},
		"unknown breaks a row":                         {30 * time.Second, "+--?--?---", "+++++++++-", 1},
		"unknown from the start":                       {time.Hour, "???", "???", 0},
		"a negative at the start is not believed":      {30 * time.Second, "---", "??-", 0},
		"first no, then yes":                           {30 * time.Second, "--+", "??+", 0},
		"a check that is made no more is forgotten":    {30 * time.Second, "+...", "+++.", 0},
		"a check that cannot be made is kept":          {30 * time.Second, "+!!!!!!", "+++++++", 0},
		"unreadable, then gone":                        {30 * time.Second, "+..!...", "++++++.", 0},
		"a check that comes back":                      {30 * time.Second, "+...+", "+++.+", 0},
		"a check that comes back before it is forgot":  {30 * time.Second, "+..+..+", "+++++++", 0},
		"no, then not made: neither is a reason alone": {30 * time.Second, "+--.", "+++.", 0},
	} {
		t.Run(name, func(t *testing.T) {
			var steady Steady
			at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
			var got strings.Builder
			for _, word := range test.seen {
				steady = steady.Observe(at, seeing(word))
				at = at.Add(test.every)
				got.WriteRune(show(steady))
			}
			if got.String() != test.want {
				t.Errorf("saw %s, said %s, want %s", test.seen, got.String(), test.want)
			}
			if check, _ := device(steady); check.Transitions != test.transitions {
				t.Errorf("%d transitions, want %d", check.Transitions, test.transitions)
			}
		})
	}
}

func TestSteadyVerdictAndPending(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	var steady Steady
	if steady.Verdict() != Unknown || steady.Pending() {
		t.Error("a verdict out of nothing")
	}
	for i, step := range []struct {
		seen    rune
		verdict Status
		pending bool
	}{{'+', Ready, false}, {'-', Ready, true}, {'?', Ready, false}, {'-', Ready, true}, {'-', Ready, true}, {'-', NotReady, false}, {'?', NotReady, false}, {'+', Ready, false}} {
		steady = steady.Observe(at, seeing(step.seen))
		at = at.Add(time.Minute)
		if steady.Verdict() != step.verdict || steady.Pending() != step.pending {
			t.Errorf("step %d (%c): %v, pending %v", i, step.seen, steady.Verdict(), steady.Pending())
		}
	}
}

func TestSteadyFollowsTheLevel(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	findings := seeing('+')
	steady := Steady{}.Observe(at, findings)
	findings[1].Level = Optional
	check, _ := device(steady.Observe(at, findings))
	want := Durable{Area: "kvm", Check: "device", Level: Optional, Status: Ready}
	if diff := cmp.Diff(want, check); diff != "" {
		t.Error(diff)
	}
}

// FuzzSteady walks a check through anything and holds the promises.
func FuzzSteady(f *testing.F) {
	f.Add([]byte("\x01\x02\x02\x02\x00\x03"))
	f.Add([]byte{1, 242, 242, 242, 3, 242, 1})
	f.Fuzz(func(t *testing.T, walk []byte) {
		var steady Steady
		at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
		row, first := 0, at // of definite negatives, as the test counts them
		for _, step := range walk {
			at = at.Add(time.Duration(step>>3) * 2 * time.Second)
			seen := rune("?+-!"[step%4])
			before := show(steady)
			old := steady
			steady = steady.Observe(at, seeing(seen))
			after := show(steady)
			if show(old) != before {
				t.Fatal("an observation changed the value that it was made on")
			}
			if seen != '-' {
				row = 0
			} else if row++; row == 1 {
				first = at
			}
			enough := row >= steadyNegatives && at.Sub(first) >= steadyTime
			switch {
			case seen == '+' && after != '+':
				t.Fatal("Ready did not come at once")
			case (seen == '?' || seen == '!') && after != before && (before != '.' || after != '?'):
				t.Fatalf("%c turned %c into %c", seen, before, after)
			case after == '-' && before != '-' && !enough:
				t.Fatalf("NotReady after %d negatives over %v", row, at.Sub(first))
			case seen == '-' && enough && after != '-':
				t.Fatal("still not NotReady")
			}
		}
	})
}
