package top

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// View is how a table is drawn.
type View struct {
	Width, Height int // of the terminal; 0: no limit
	Colour        bool
	Order         Order
	Interval      time.Duration
	Troubles      []string // what is wrong with sources, a line each
}

// column is one of the table; rows align right but the first two.
type column struct {
	title string
	order string // that the title belongs to
	width int
	text  func(*Row) string
}

func columns() []column {
	return []column{
		{"STATE", "", 9, func(r *Row) string { return orDash(r.State) }},
		{"VCPUS", "", 5, func(r *Row) string { return number(r.VCPUs) }},
		{"CPU%", "cpu", 7, func(r *Row) string { return decimal(r.CPU) }},
		{"DELAY%", "delay", 7, func(r *Row) string { return decimal(r.Delay) }},
		{"EXITS/s", "exits", 8, func(r *Row) string { return number(r.Exits) }},
		{"MEM", "memory", 7, func(r *Row) string { return size(r.Memory) }},
		{"READ/s", "io", 7, func(r *Row) string { return size(r.ReadBytes) }},
		{"WRITE/s", "io", 7, func(r *Row) string { return size(r.WriteBytes) }},
		{"IOPS", "io", 7, func(r *Row) string { return number(r.Requests) }},
		{"RX/s", "net", 7, func(r *Row) string { return size(r.RxBytes) }},
		{"TX/s", "net", 7, func(r *Row) string { return size(r.TxBytes) }},
		{"PKT/s", "net", 8, func(r *Row) string { return number(r.Packets) }},
		{"DROP/s", "net", 7, func(r *Row) string { return number(r.Drops) }},
	}
}

const (
	bold, reverse, red, plain = "\x1b[1m", "\x1b[7m", "\x1b[31m", "\x1b[0m"

	leastName, mostName = 12, 40
)

// Render draws rows as lines, none wider or more than the view.
func Render(rows []Row, view View) string {
	all := columns()
	name := leastName
	for i := range rows {
		name = min(max(name, utf8.RuneCountInString(nameOf(&rows[i]))), mostName)
	}
	used := name
	if view.Width > 0 && view.Width < name+widthOf(all) {
		// What it is sorted by goes first, since the last columns do not fit.
		slices.SortStableFunc(all[1:], func(a, b column) int {
			return cmp.Compare(view.rank(a), view.rank(b))
		})
	}
	for i, c := range all {
		if view.Width > 0 && used+1+c.width > view.Width {
			all = all[:i] // the last columns go first
			break
		}
		used += 1 + c.width
	}
	lines := []string{fmt.Sprintf("%d VMs, every %v, by %s", len(rows), view.Interval, view.Order.Name)}
	for _, trouble := range view.Troubles {
		lines = append(lines, view.paint(red, printable(trouble)))
	}
	lines = append(lines, view.titles(name, all))
	for i := range rows {
		lines = append(lines, view.row(&rows[i], name, all))
	}
	footer := keysLine()
	if view.Height > 0 && len(lines) > view.Height-1 {
		lines = lines[:max(view.Height-1, 0)]
	}
	if view.Height > 0 {
		lines = append(lines, footer)
	}
	for i, line := range lines {
		lines[i] = cut(line, view.Width)
	}
	return strings.Join(lines, "\n") + "\n"
}

func (v View) rank(c column) int {
	if c.order == v.Order.Name && c.order != "" {
		return 0
	}
	return 1
}

func widthOf(columns []column) int {
	width := 0
	for _, c := range columns {
		width += 1 + c.width
	}
	return width
}

func (v View) titles(name int, columns []column) string {
	var line strings.Builder
	line.WriteString(pad("VM", -name))
	for _, c := range columns {
		title := pad(c.title, c.width)
		if v.rank(c) == 0 {
			title = v.paint(reverse, title)
		}
		line.WriteString(" " + title)
	}
	return v.paint(bold, line.String())
}

func (v View) row(r *Row, name int, columns []column) string {
	var line strings.Builder
	line.WriteString(pad(nameOf(r), -name))
	for _, c := range columns {
		line.WriteString(" " + pad(c.text(r), c.width))
	}
	return strings.TrimRight(line.String(), " ")
}

func (v View) paint(with, text string) string {
	if !v.Colour {
		return text
	}
	return with + text + plain
}

func keysLine() string {
	var keys []string
	for _, o := range orders {
		keys = append(keys, string(o.Key)+" "+o.Name)
	}
	return strings.Join(append(keys, "q quit"), "  ")
}

func nameOf(r *Row) string {
	if r.Namespace == "" {
		return printable(r.Name)
	}
	return printable(r.Namespace + "/" + r.Name)
}

// printable replaces what could move a terminal's cursor, or worse.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == utf8.RuneError || r >= 0x7f && r < 0xa0 || r >= 0x2028 && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
			return '?'
		}
		return r
	}, text)
}

// pad fills text up to a width, on its left if that is positive, and cuts what
// is longer.
func pad(text string, width int) string {
	left, width := width > 0, max(width, -width)
	if over := utf8.RuneCountInString(text) - width; over > 0 {
		return string([]rune(text)[:width-1]) + "…"
	}
	blanks := strings.Repeat(" ", width-utf8.RuneCountInString(text))
	if left {
		return blanks + text
	}
	return text + blanks
}

// cut shortens a line to what a terminal shows. Control sequences count nothing.
func cut(line string, width int) string {
	if width <= 0 {
		return line
	}
	shown := 0
	for i := 0; i < len(line); {
		if line[i] == '\x1b' {
			i += strings.IndexByte(line[i:], 'm') + 1
			continue
		}
		if shown++; shown > width {
			return line[:i] + plainIf(strings.Contains(line, "\x1b"))
		}
		_, size := utf8.DecodeRuneInString(line[i:])
		i += size
	}
	return line
}

func plainIf(coloured bool) string {
	if coloured {
		return plain
	}
	return ""
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return printable(text)
}

func decimal(r Rate) string {
	if r == nil {
		return "-"
	}
	return fmt.Sprintf("%.1f", *r)
}

func number(r Rate) string {
	if r == nil {
		return "-"
	}
	return fmt.Sprintf("%.0f", *r)
}

// size writes bytes with four digits at most and a binary prefix.
func size(r Rate) string {
	if r == nil {
		return "-"
	}
	v, prefixes := *r, " KMGTPE"
	for v >= 999.5 && len(prefixes) > 1 {
		v, prefixes = v/1024, prefixes[1:]
	}
	switch {
	case prefixes[0] == ' ':
		return fmt.Sprintf("%.0f", v)
	case v < 9.95:
		return fmt.Sprintf("%.1f%ci", v, prefixes[0])
	default:
		return fmt.Sprintf("%.0f%ci", v, prefixes[0])
	}
}
