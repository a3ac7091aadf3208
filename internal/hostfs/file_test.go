package hostfs

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

func TestAKeptFileSaysWhatIsTrueNow(t *testing.T) {
	root := tree(t, map[string]string{"proc/7/stat": "one\n"})
	file := root.File("/proc/7/stat")
	defer file.Close()
	if file.Open() {
		t.Error("open before it was read")
	}
	for _, content := range []string{"one\n", "two, longer\n", "3\n", string(bytes.Repeat([]byte("long"), 10_000))} {
		if err := os.WriteFile(filepath.Join(root.Dir(), "proc/7/stat"), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		data, err := file.Read(make([]byte, 0, 3))
		if string(data) != content || err != nil || !file.Open() {
			t.Errorf("have %d bytes, %v, want %d", len(data), err, len(content))
		}
	}
	if _, err := root.File("/proc/8/stat").Read(nil); !Absent(err) {
		t.Errorf("no such file: %v", err)
	}
	if _, err := root.File("/sys/none").Read(nil); !errors.Is(err, ErrNotMounted) {
		t.Errorf("nothing mounted: %v", err)
	}
}

func TestAKeptFileOfAnEndedProcess(t *testing.T) {
	root, err := Open("/")
	if err != nil {
		t.Fatal(err)
	}
	sleeper := exec.CommandContext(t.Context(), "sleep", "1000")
	if err := sleeper.Start(); err != nil {
		t.Fatal(err)
	}
	file := root.File(fmt.Sprintf("/proc/%d/stat", sleeper.Process.Pid))
	if data, err := file.Read(nil); err != nil || !bytes.Contains(data, []byte("(sleep)")) {
		t.Fatalf("%q, %v", data, err)
	}
	if err := sleeper.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = sleeper.Wait() // killed
	if _, err := file.Read(nil); !errors.Is(err, unix.ESRCH) || file.Open() {
		t.Errorf("have %v and open %v, want no such process and a closed file", err, file.Open())
	}
	if _, err := file.Read(nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("opened again: %v", err)
	}
}

func TestReadNumbers(t *testing.T) {
	files := map[string]string{"proc/self/stat": "", "proc/12x/stat": "", "proc/99999999999999999999/stat": "", "proc/-1/stat": ""}
	var want []int
	for i := range 500 { // more than one call of the kernel tells
		files["proc/"+strconv.Itoa(i)+"/comm"] = ""
		want = append(want, i)
	}
	root := tree(t, files)
	for name, root := range map[string]*Root{"plain": root, "bounded": root.Within(t.Context())} {
		got, err := root.ReadNumbers("/proc", nil)
		slices.Sort(got)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: have %d numbers, %v", name, len(got), err)
		}
	}
	if _, err := root.ReadNumbers("/proc/1/task", nil); !Absent(err) {
		t.Errorf("no such directory: %v", err)
	}
}

func TestReadingAKeptFileAllocatesNothing(t *testing.T) {
	root := tree(t, map[string]string{"proc/7/stat": "one\n", "proc/8/stat": "x"})
	file := root.File("/proc/7/stat")
	defer file.Close()
	buf := make([]byte, 0, 2*os.Getpagesize())
	numbers := make([]int, 0, 10)
	allocs := testing.AllocsPerRun(100, func() {
		if _, err := file.Read(buf); err != nil {
			t.Fatal(err)
		}
		if _, err := listNumbers(filepath.Join(root.dir, "proc"), numbers); err != nil {
			t.Fatal(err)
		}
	})
	if allocs > 4 { // the joined path, and the system call's copies of it
		t.Errorf("%v allocations", allocs)
	}
}
