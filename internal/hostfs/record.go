package hostfs

import (
	"errors"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// maxLinks bounds the symbolic links in one path, as the kernel does.
const maxLinks = 40

// Recorder keeps what is read through a [Root]: content, links on the way,
// listings, absences and errors.
type Recorder struct {
	dir string

	mu      sync.Mutex
	files   map[string][]byte // by resolved path
	dirs    map[string]bool   // by resolved path
	links   map[string]string // by resolved path
	listed  map[string][]string
	present map[string]bool
	absent  map[string]bool
	faults  map[string]string
	asked   map[string]bool // "OP PATH"
}

// Record returns a root that reads the same host and remembers what it read.
func (r *Root) Record() (*Root, *Recorder) {
	recorder := &Recorder{
		dir:     r.dir,
		files:   make(map[string][]byte),
		dirs:    make(map[string]bool),
		links:   make(map[string]string),
		listed:  make(map[string][]string),
		present: make(map[string]bool),
		absent:  make(map[string]bool),
		faults:  make(map[string]string),
		asked:   make(map[string]bool),
	}
	root := *r
	root.seen = recorder
	return &root, recorder
}

func (rec *Recorder) file(name string, data []byte, err error) {
	if rec == nil {
		return
	}
	rec.mu.Lock()
	defer rec.mu.Unlock()
	if rec.failed("read", name, err) {
		return
	}
	rec.files[rec.follow(name)] = data
}

func (rec *Recorder) list(name string, names []string, err error) {
	if rec == nil {
		return
	}
	rec.mu.Lock()
	defer rec.mu.Unlock()
	if rec.failed("list", name, err) {
		return
	}
	rec.dirs[rec.follow(name)] = true
	rec.listed[name] = slices.Clone(names) // the prober may sort or cut its own
}

func (rec *Recorder) link(name string, err error) {
	if rec == nil {
		return
	}
	rec.mu.Lock()
	defer rec.mu.Unlock()
	if rec.failed("readlink", name, err) {
		return
	}
	rec.follow(name)
}

func (rec *Recorder) exists(name string, found bool, err error) {
	if rec == nil {
		return
	}
	rec.mu.Lock()
	defer rec.mu.Unlock()
	switch {
	case rec.failed("stat", name, err):
	case !found:
		rec.absent[name] = true
	default:
		resolved := rec.follow(name)
		rec.present[name] = true
		if info, err := os.Stat(filepath.Join(rec.dir, resolved)); err == nil && info.IsDir() {
			rec.dirs[resolved] = true
		}
	}
}

// Operations lists what was asked of the host, each in the form of a key of
// Manifest.Faults: "read /proc/cpuinfo".
func (rec *Recorder) Operations() []string {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	return slices.Sorted(maps.Keys(rec.asked))
}

// failed notes an operation and its error, and reports whether there was one.
func (rec *Recorder) failed(op, name string, err error) bool {
	rec.asked[op+" "+name] = true
	if err == nil {
		return false
	}
	if Absent(err) {
		rec.absent[name] = true
		return true
	}
	text := err.Error()
	if errno := unix.Errno(0); errors.As(err, &errno) {
		text = unix.ErrnoName(errno)
	} else if inner := errors.Unwrap(err); inner != nil {
		text = inner.Error()
	}
	rec.faults[op+" "+name] = text
	return true
}

// follow notes every symbolic link on the way to name, and returns the path
// that the last one leads to.
func (rec *Recorder) follow(name string) string {
	resolved, todo, links := "/", strings.Split(strings.Trim(name, "/"), "/"), 0
	for len(todo) > 0 {
		next := path.Join(resolved, todo[0])
		todo = todo[1:]
		target, err := os.Readlink(filepath.Join(rec.dir, next))
		if err != nil || links == maxLinks {
			resolved = next
			continue
		}
		links++
		rec.links[next] = target
		if path.IsAbs(target) {
			resolved = "/"
		}
		todo = append(strings.Split(strings.Trim(target, "/"), "/"), todo...)
	}
	return resolved
}

// fill writes down in the manifest what files and links cannot say.
func (rec *Recorder) fill(manifest *Manifest) {
	manifest.Version = manifestVersion
	manifest.Listed = rec.listed
	manifest.Present = slices.Sorted(maps.Keys(rec.present))
	manifest.Absent = slices.Sorted(maps.Keys(rec.absent))
	manifest.Faults = rec.faults
}
