package kvmcheck

import (
	"strings"
	"testing"
)

func TestParseChoice(t *testing.T) {
	for in, want := range map[string]string{
		"always [madvise] never": "madvise", "[always] madvise never": "always", "always defer [defer+madvise] madvise never": "defer+madvise",
		"": "", "always": "", "[]": "", "[": "", "always [mad vise]": "",
	} {
		if got, err := parseChoice(in); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: got %q, %v", in, got, err)
		}
	}
}

func TestParseSwap(t *testing.T) {
	got, err := parseSwap([]byte("MemTotal: 9 kB\nSwapCached: 1 kB\nSwapTotal:       2097148 kB\nSwapFree:        1048572 kB\n"))
	if err != nil || got != (Swap{TotalKiB: 2097148, UsedKiB: 1048576}) {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, in := range []string{"", "SwapTotal: 5 kB\n", "SwapFree: 5 kB\n", "SwapTotal: 5 kB\nSwapFree: 6 kB\n", "SwapTotal: x kB\nSwapFree: 0 kB\n", "SwapTotal: 5\nSwapFree: 5\n"} {
		if got, err := parseSwap([]byte(in)); err == nil {
			t.Errorf("%q: got %+v, want an error", in, got)
		}
	}
}

func TestParseCPUList(t *testing.T) {
	for in, want := range map[string]int{"": 0, "\n": 0, "0": 1, "0-3": 4, "0-3,8-11\n": 8, "0,2,4": 3, "0-65535": 65536} {
		if got, err := parseCPUList(in); err != nil || got != want {
			t.Errorf("%q: got %d, %v; want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"x", "1-", "-1", "3-0", "0,,1", "0-99999999", strings.Repeat("0-65535,", 9) + "0"} {
		if got, err := parseCPUList(in); err == nil {
			t.Errorf("%q: got %d, want an error", in, got)
		}
	}
}

func TestParseRemappingCapability(t *testing.T) {
	for in, want := range map[string]bool{"f00f4a": true, "f020df": true, "f00f42": false, "0": false} {
		if got, err := parseRemappingCapability(in); err != nil || got != want {
			t.Errorf("%q: got %v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "no", "0x8", strings.Repeat("f", 17)} {
		if got, err := parseRemappingCapability(in); err == nil {
			t.Errorf("%q: got %v, want an error", in, got)
		}
	}
}

func FuzzParseMemoryAndPassthrough(f *testing.F) {
	for _, seed := range []string{"always [madvise] never", "SwapTotal: 5 kB\nSwapFree: 5 kB\n", "0-3,8-11", "f00f4a", "IR-PCI-MSI"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		text := string(data)
		if choice, err := parseChoice(text); err == nil && (choice == "" || !strings.Contains(text, "["+choice+"]")) {
			t.Errorf("choice %q of %q", choice, text)
		}
		if swap, err := parseSwap(data); err == nil && swap.UsedKiB > swap.TotalKiB {
			t.Errorf("more swap used than there is: %+v", swap)
		}
		if count, err := parseCPUList(text); err == nil && (count < 0 || count > maxCPUs) {
			t.Errorf("%d CPUs", count)
		}
		_, _ = parseRemappingCapability(text)
		_ = remapping(text)
	})
}
