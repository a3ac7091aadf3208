package qemu

import (
	"bytes"
	"strings"
	"testing"
)

func TestParseStat(t *testing.T) {
	line := statLine(42, "CPU 0/KVM", 101, 777)
	got, err := parseStat([]byte(line))
	if err != nil || string(got.comm) != "CPU 0/KVM" || got.state != 'S' || got.user != 760e6 || got.system != 250e6 || got.start != 777 ||
		got.minor != 100 || got.major != 5 || got.threads != 4 {
		t.Errorf("have %+v, %v", got, err)
	}
	got, err = parseStat([]byte(statLine(42, "a) R 1 (b", 5, 6)))
	if err != nil || string(got.comm) != "a) R 1 (b" || got.state != 'S' || got.start != 6 {
		t.Errorf("a name with parentheses: have %+v, %v", got, err)
	}
	for name, text := range map[string]string{
		"empty": "", "no name": "42 S 1 1", "cut": line[:60], "not a number": strings.Replace(line, " 777 ", " x ", 1),
		"parentheses the wrong way round": ") 42 (", "no state": "42 (a)", "a long state": "42 (a) SS 1",
	} {
		if got, err := parseStat([]byte(text)); err == nil {
			t.Errorf("%s: no error but %+v", name, got)
		}
	}
}

func TestParseSchedstat(t *testing.T) {
	for text, want := range map[string]Num{"5440428 9536155 3\n": Some(9536155), "1 0 1\n": Some(0), "0 0 0\n": {}} {
		if got, err := parseSchedstat([]byte(text)); err != nil || got != want {
			t.Errorf("%q: have %+v, %v; want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "1 2\n", "1 x 3\n", "18446744073709551616 1 1\n"} {
		if got, err := parseSchedstat([]byte(text)); err == nil {
			t.Errorf("%q: no error but %+v", text, got)
		}
	}
}

func TestParseStatus(t *testing.T) {
	const kib = 1024
	for text, want := range map[string]status{
		"Name:\tx\nVmRSS:\t   12 kB\nVmSwap:\t 3 kB\nRssAnon:\t 7 kB\nRssFile:\t 4 kB\nRssShmem:\t 1 kB\nHugetlbPages:\t 2048 kB\n": {
			resident: Some(12 * kib), swap: Some(3 * kib), anonymous: Some(7 * kib), file: Some(4 * kib), shared: Some(1 * kib), huge: Some(2048 * kib),
		},
		"Name:\tVmRSS:\nState:\tZ (zombie)\n":                           {},
		"VmRSS:\t0 kB\n\nno colon":                                      {resident: Some(0)},
		"voluntary_ctxt_switches:\t5\nnonvoluntary_ctxt_switches:\t6\n": {voluntary: Some(5), involuntary: Some(6)},
	} {
		if got, err := parseStatus([]byte(text)); err != nil || got != want {
			t.Errorf("%q: have %+v, %v; want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{"VmRSS:\t12\n", "VmRSS:\t-1 kB\n", "VmRSS:\t99999999999999999999 kB\n", "VmSwap:\t18014398509481984 kB\n"} {
		if got, err := parseStatus([]byte(text)); err == nil {
			t.Errorf("%q: no error but %+v", text, got)
		}
	}
}

func TestParseIO(t *testing.T) {
	got, err := parseIO([]byte("rchar: 1\nwchar: 2\nsyscr: 3\nsyscw: 4\nread_bytes: 5\nwrite_bytes: 6\ncancelled_write_bytes: 7\nnew: 8\n"))
	want := ProcessIO{ReadChars: Some(1), WriteChars: Some(2), ReadCalls: Some(3), WriteCalls: Some(4), ReadBytes: Some(5), WriteBytes: Some(6), CancelledWrites: Some(7)}
	if err != nil || got != want {
		t.Errorf("have %+v, %v", got, err)
	}
	if got, err := parseIO([]byte("rchar: -1\n")); err == nil {
		t.Errorf("no error but %+v", got)
	}
}

func TestNumber(t *testing.T) {
	for text, want := range map[string]uint64{"0": 0, "18446744073709551615 x": 1<<64 - 1, "007": 7, "10000000000000000000": 1e19} {
		if got, _, ok := number([]byte(text)); !ok || got != want {
			t.Errorf("%s: have %d, %v", text, got, ok)
		}
	}
	for _, text := range []string{"", " 1", "-1", "18446744073709551616", "99999999999999999999", "100000000000000000000", "28446744073709551616"} {
		if got, _, ok := number([]byte(text)); ok {
			t.Errorf("%s: have %d", text, got)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte(statLine(1, "a) b", 3, 4)))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := parseStat(data)
		if err == nil && !bytes.Contains(data, append(append([]byte("("), s.comm...), ')')) {
			t.Errorf("name %q", s.comm)
		}
	})
}

// FuzzProcFiles gives one text to the parsers of all small files of /proc.
func FuzzProcFiles(f *testing.F) {
	f.Add([]byte("VmRSS:\t 12 kB\n"))
	f.Add([]byte("1 2 3\n"))
	f.Add([]byte("rchar: 1\n"))
	f.Add([]byte("pos:\t0\niff:\ttap0\n"))
	f.Add([]byte("  eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if s, err := parseStatus(data); err != nil && s != (status{}) {
			t.Errorf("%+v and %v", s, err)
		}
		if n, err := parseSchedstat(data); n.Set && err != nil {
			t.Errorf("%+v and %v", n, err)
		}
		_, _ = parseIO(data)
		_ = parseTunName(data)
		_ = parseDeviceName(data, "2")
		for rest := data; len(rest) > 0; {
			name, _, _, after, err := nextDevice(rest)
			if err == nil && bytes.ContainsRune(name, '\n') || len(after) >= len(rest) {
				t.Fatalf("name %q, %d bytes of %d left", name, len(after), len(rest))
			}
			rest = after
		}
	})
}
