package bpf

import (
	"bufio"
	"crypto/sha256"
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestObjectsAreOfTheirSource finds sources that were changed without
// compiling them, and objects that were not made by make bpf.
func TestObjectsAreOfTheirSource(t *testing.T) {
	sums, err := os.Open("objects.sum")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sums.Close() }()
	count := 0
	for lines := bufio.NewScanner(sums); lines.Scan(); count++ {
		want, name, _ := strings.Cut(lines.Text(), "  ")
		data, err := os.ReadFile(name)
		if err != nil {
			t.Error(err)
		} else if got := fmt.Sprintf("%x", sha256.Sum256(data)); got != want {
			t.Errorf("%s is not what it was when the objects were made; run make bpf and commit", name)
		}
	}
	if count != 7 {
		t.Errorf("objects.sum has %d files, want three objects, their three sources and vm.h", count)
	}
}
