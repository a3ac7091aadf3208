package main

import (
	"bufio"
	"fmt"
	"io"
	"strings"
)

// printBenchmarks reads what go test -bench prints, and writes it as one table.
// It fails when go test did: its output would be taken for the whole.
func printBenchmarks(in io.Reader, out io.Writer) error {
	var text strings.Builder
	text.WriteString("\n| benchmark | time | allocations | other |\n|---|--:|--:|---|\n")
	pkg, failed, count := "", "", 0
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		line := lines.Text()
		switch fields := strings.Fields(line); {
		case strings.HasPrefix(line, "pkg: ") && len(fields) == 2:
			parts := strings.Split(fields[1], "/")
			pkg = strings.Join(parts[min(3, len(parts)-1):], "/")
		case strings.HasPrefix(line, "FAIL"), strings.HasPrefix(line, "--- FAIL"):
			failed = line
		case strings.HasPrefix(line, "Benchmark") && len(fields) >= 4:
			count++
			text.WriteString(benchmarkRow(pkg, fields))
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read what go test prints: %w", err)
	}
	if failed != "" || count == 0 {
		return fmt.Errorf("go test -bench: %d benchmarks, then %q", count, failed)
	}
	_, err := io.WriteString(out, text.String())
	return err
}

// benchmarkRow writes one line: name, iterations, then values with their units.
func benchmarkRow(pkg string, fields []string) string {
	name, _, _ := strings.Cut(strings.TrimPrefix(fields[0], "Benchmark"), "-")
	values := make(map[string]string)
	var other []string
	for i := 2; i+1 < len(fields); i += 2 {
		switch value, unit := fields[i], fields[i+1]; unit {
		case "ns/op", "allocs/op":
			values[unit] = value
		case "B/op":
		default:
			other = append(other, value+" "+unit)
		}
	}
	return fmt.Sprintf("| %s %s | %s | %s | %s |\n", pkg, name, duration(values["ns/op"]), values["allocs/op"], strings.Join(other, ", "))
}

// duration prints nanoseconds with three digits.
func duration(text string) string {
	var ns float64
	if _, err := fmt.Sscan(text, &ns); err != nil {
		return text
	}
	for _, unit := range []struct {
		size float64
		name string
	}{{1e9, "s"}, {1e6, "ms"}, {1e3, "µs"}} {
		if ns >= unit.size {
			return number(ns/unit.size, unit.name)
		}
	}
	return number(ns, "ns")
}
