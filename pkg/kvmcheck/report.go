package kvmcheck

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"
)

// Report is the answer of one check: the verdict, why, and what it was judged from.
type Report struct {
	Agent    string    `json:"agent"` // version of the agent
	Time     time.Time `json:"time"`
	Profile  string    `json:"profile"`
	Verdict  Status    `json:"verdict"`
	Findings []Finding `json:"findings"`
	Facts    Facts     `json:"facts"`
}

// NewReport judges, for a kind of node, facts that were collected at a time by
// a version of the agent.
func NewReport(facts Facts, profile Profile, agent string, at time.Time) Report {
	findings := Evaluate(facts, profile)
	return Report{Agent: agent, Time: at, Profile: cmp.Or(profile.Name, DefaultProfile), Verdict: Verdict(findings), Findings: findings, Facts: facts}
}

// Add adds findings that others have made, and judges anew.
func (r *Report) Add(findings []Finding) {
	r.Findings = append(r.Findings, findings...)
	r.Verdict = Verdict(r.Findings)
}

// Reasons lists why the verdict is not Ready: the reasons of what is required
// and not ready.
func (r Report) Reasons() []Reason {
	reasons := []Reason{}
	for _, finding := range r.Findings {
		if finding.Level == Required && finding.Status != Ready {
			reasons = append(reasons, finding.Reason)
		}
	}
	return reasons
}

// Table says how a report is printed for a person.
type Table struct {
	Width  int // columns; details are wrapped to it
	Colour bool
}

// minDetail keeps details readable on a narrow terminal.
const minDetail = 40

// Write prints the report: a head line, then findings grouped by area, each
// with its status, its detail and, unless it is ready, its reason and remedy.
func (t Table) Write(w io.Writer, report Report) error {
	var out strings.Builder
	t.head(&out, report)
	rows := [][3]string{{"AREA", "CHECK", "STATUS"}}
	area := ""
	findings := together(report.Findings)
	for _, finding := range findings {
		row := [3]string{finding.Area, finding.Check, statusWord(finding)}
		if finding.Area == area {
			row[0] = ""
		}
		area = finding.Area
		rows = append(rows, row)
	}
	widths := columnWidths(rows)
	indent := widths[0] + widths[1] + widths[2] + 6
	t.row(&out, rows[0], widths, "", "DETAIL")
	remedy := ""
	for i, finding := range findings {
		if finding.Remedy == remedy {
			finding.Remedy = "" // just said
		} else {
			remedy = finding.Remedy
		}
		lines := t.detail(finding, indent)
		t.row(&out, rows[i+1], widths, t.colourOf(finding), lines[0])
		for _, line := range lines[1:] {
			fmt.Fprintf(&out, "%*s%s\n", indent, "", line)
		}
	}
	_, err := io.WriteString(w, out.String())
	return err
}

// together joins neighbours that say the same of several checks, as when all
// of them need one device that is missing.
func together(findings []Finding) []Finding {
	var joined []Finding
	var also []string
	finish := func() {
		if len(also) > 0 {
			joined[len(joined)-1].Message += " (also " + strings.Join(also, ", ") + ")"
			also = nil
		}
	}
	for _, finding := range findings {
		if last := len(joined) - 1; last >= 0 && finding.Status != Ready {
			same := joined[last]
			same.Check = finding.Check
			if same == finding {
				also = append(also, finding.Check)
				continue
			}
		}
		finish()
		joined = append(joined, finding)
	}
	finish()
	return joined
}

func (t Table) head(out *strings.Builder, report Report) {
	word, rest, colour := "UNDECIDED", "whether this host can run VMs", yellow
	switch report.Verdict {
	case Ready:
		word, rest, colour = "READY", "to run VMs", green
	case NotReady:
		word, rest, colour = "NOT READY", "to run VMs", red
	}
	host := report.Facts.Host
	machine := []string{host.Arch}
	if host.Kernel != "" {
		machine = append(machine, "Linux "+host.Kernel)
	}
	if product := host.Product; product.Known {
		machine = append(machine, strings.TrimSpace(product.Value.Vendor+" "+product.Value.Name))
	}
	fmt.Fprintf(out, "%s %s (%s)\n\n", t.paint(colour, word), rest, strings.Join(machine, ", "))
}

func (t Table) row(out *strings.Builder, row [3]string, widths [3]int, colour, detail string) {
	status := row[2] + strings.Repeat(" ", widths[2]-len(row[2]))
	fmt.Fprintf(out, "%-*s  %-*s  %s  %s\n", widths[0], row[0], widths[1], row[1], t.paint(colour, status), detail)
}

// detail is the message with its reason, then the remedy, wrapped.
func (t Table) detail(finding Finding, indent int) []string {
	width := max(t.Width-indent, minDetail)
	message := Printable(finding.Message)
	if finding.Reason != "" {
		message = string(finding.Reason) + ": " + message
	}
	lines := wrap(message, width)
	if finding.Remedy != "" {
		lines = append(lines, wrap("fix: "+Printable(finding.Remedy), width)...)
	}
	return lines
}

// statusWord is the status in a person's words: what is optional is not a failure.
func statusWord(finding Finding) string {
	switch {
	case finding.Status == Ready:
		return "ready"
	case finding.Status == Unknown:
		return "unknown"
	case finding.Level == Required:
		return "NOT READY"
	case finding.Level == Recommended:
		return "warning"
	default:
		return "off"
	}
}

// Colours of a terminal (ECMA-48 SGR).
const (
	green  = "32"
	yellow = "33"
	red    = "31"
	faint  = "2"
)

func (t Table) colourOf(finding Finding) string {
	switch statusWord(finding) {
	case "ready":
		return green
	case "NOT READY":
		return red
	case "off":
		return faint
	default:
		return yellow
	}
}

func (t Table) paint(colour, text string) string {
	if !t.Colour || colour == "" {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

// Printable keeps what a hostile file could say from steering the terminal.
func Printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || (r >= 0x80 && r < 0xa0) {
			return '?'
		}
		return r
	}, text)
}

func columnWidths(rows [][3]string) [3]int {
	var widths [3]int
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], len(cell))
		}
	}
	return widths
}

// wrap breaks text at spaces into lines of at most width runes; a longer word
// stands alone. There is always one line.
func wrap(text string, width int) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		switch {
		case line == "":
			line = word
		case utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width:
			lines = append(lines, line)
			line = word
		default:
			line += " " + word
		}
	}
	return append(lines, line)
}
