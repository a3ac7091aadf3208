package vm

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestWriteCPIO(t *testing.T) {
	root := t.TempDir()
	for _, err := range []error{
		os.MkdirAll(filepath.Join(root, "bin/deep"), 0o755),
		os.WriteFile(filepath.Join(root, "bin/tool"), []byte("12345"), 0o755),
		os.WriteFile(filepath.Join(root, "bin/deep/empty"), nil, 0o644),
		os.Symlink("tool", filepath.Join(root, "bin/link")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	var first, second bytes.Buffer
	for _, w := range []io.Writer{&first, &second} {
		if err := writeCPIO(w, root); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("two archives of one tree differ")
	}
	want := `
040755 bin
040755 bin/deep
100644 bin/deep/empty
120777 bin/link "tool"
100755 bin/tool "12345"
000000 TRAILER!!!
`
	if diff := cmp.Diff(want, "\n"+listCPIO(t, first.Bytes())); diff != "" {
		t.Error(diff)
	}
}

// A device, a socket or a pipe in the tree would be a mistake.
func TestWriteCPIORefusesOtherFiles(t *testing.T) {
	if err := writeCPIO(io.Discard, "/dev"); err == nil {
		t.Error("archived /dev")
	}
}

// listCPIO reads an archive as the kernel does: every header and every content
// starts at a multiple of 4.
func listCPIO(t *testing.T, archive []byte) string {
	t.Helper()
	var list strings.Builder
	for at := 0; at < len(archive); {
		head := string(archive[at : at+110])
		if head[:6] != "070701" {
			t.Fatalf("no header at %d: %q", at, head)
		}
		field := func(n int) int {
			v, err := strconv.ParseUint(head[6+8*n:14+8*n], 16, 32)
			if err != nil {
				t.Fatal(err)
			}
			return int(v)
		}
		mode, size, nameSize := field(1), field(6), field(11)
		name := strings.TrimSuffix(string(archive[at+110:at+110+nameSize]), "\x00")
		at = (at + 110 + nameSize + 3) &^ 3
		fmt.Fprintf(&list, "%06o %s", mode, name)
		if size > 0 {
			fmt.Fprintf(&list, " %q", archive[at:at+size])
		}
		list.WriteString("\n")
		at = (at + size + 3) &^ 3
	}
	return list.String()
}
