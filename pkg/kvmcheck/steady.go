package kvmcheck

import (
	"slices"
	"time"
)

// A check is durably NotReady after so many definite negatives in a row, over
// at least so long.
const (
	steadyNegatives = 3
	steadyTime      = time.Minute
)

// Negatives counts the definite negatives that came in a row. The zero value
// is an empty row.
type Negatives struct {
	count int
	since time.Time // the first of them
}

// Add counts a negative of a time, and reports whether they are enough to be
// believed: three in a row over at least a minute.
func (n *Negatives) Add(at time.Time) bool {
	if n.count == 0 {
		n.since = at
	}
	n.count = min(n.count+1, steadyNegatives)
	return n.count == steadyNegatives && at.Sub(n.since) >= steadyTime
}

// Durable is a verdict on a check that does not flap, so that labels, and with
// them the placement of VMs, may follow it.
type Durable struct {
	Area        string
	Check       string
	Level       Level
	Status      Status // Unknown until it is decided for the first time
	Transitions uint64 // how often it went from Ready to NotReady or back
}

// Key names the check: "kvm/device".
func (d Durable) Key() string { return d.Area + "/" + d.Check }

// Steady holds the durable verdicts of a host. The zero value has seen
// nothing; [Steady.Observe] is the only way from one to the next.
type Steady struct{ checks []steadyCheck }

type steadyCheck struct {
	Durable
	negatives Negatives // up to now
}

// Observe returns the verdicts after the findings of a time. A check becomes
// Ready at once; it becomes NotReady after three definite negatives in a row
// over at least a minute. Unknown decides nothing and breaks the row. A check
// that is no longer made (its device is gone) is forgotten as slowly, and not
// at all while anything in its area is Unknown.
func (s Steady) Observe(at time.Time, findings []Finding) Steady {
	next := make([]steadyCheck, 0, max(len(s.checks), len(findings)))
	unsure := make(map[string]bool) // areas
	seen := make(map[string]bool)   // checks
	before := make(map[string]steadyCheck, len(s.checks))
	for _, check := range s.checks {
		before[check.Key()] = check
	}
	for _, finding := range findings {
		check, known := before[finding.Key()]
		if !known {
			check.Area, check.Check = finding.Area, finding.Check
		}
		check.Level = finding.Level
		check.observe(at, finding.Status)
		next = append(next, check)
		seen[finding.Key()] = true
		unsure[finding.Area] = unsure[finding.Area] || finding.Status == Unknown
	}
	for _, check := range s.checks {
		switch {
		case seen[check.Key()]:
		case unsure[check.Area]:
			check.negatives = Negatives{}
			next = append(next, check)
		case !check.negatives.Add(at):
			next = append(next, check)
		}
	}
	return Steady{checks: next}
}

// Checks lists the durable verdicts, in the order of the findings.
func (s Steady) Checks() []Durable {
	durable := make([]Durable, 0, len(s.checks))
	for _, check := range s.checks {
		durable = append(durable, check.Durable)
	}
	return durable
}

// Verdict is the durable word for the whole node; Unknown before it is decided.
func (s Steady) Verdict() Status {
	if len(s.checks) == 0 {
		return Unknown
	}
	findings := make([]Finding, 0, len(s.checks))
	for _, check := range s.checks {
		findings = append(findings, Finding{Level: check.Level, Status: check.Status})
	}
	return Verdict(findings)
}

// Pending reports whether another look would help: some check says no, and it
// is too early to believe it.
func (s Steady) Pending() bool {
	return slices.ContainsFunc(s.checks, func(check steadyCheck) bool {
		return check.negatives.count > 0 && check.Status != NotReady
	})
}

func (c *steadyCheck) observe(at time.Time, status Status) {
	switch status {
	case Ready:
		c.negatives = Negatives{}
		c.turn(Ready)
	case NotReady:
		if c.negatives.Add(at) {
			c.turn(NotReady)
		}
	default:
		c.negatives = Negatives{}
	}
}

func (c *steadyCheck) turn(to Status) {
	if c.Status != Unknown && c.Status != to {
		c.Transitions++
	}
	c.Status = to
}
