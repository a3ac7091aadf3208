package qemu

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/virtnode/nodeagent/internal/hostfs"
)

const (
	// maxLaunchers bounds the pods that are watched and read. A kubelet runs
	// 110 unless told otherwise, and a few hundred at the most.
	maxLaunchers = 4096
	// launcherRescan is how long a change may go unseen where inotify tells of
	// changes, and launcherBlind where it does not.
	launcherRescan = time.Minute
	launcherBlind  = 10 * time.Second
	// launcherSettle is the time between two looks, however much changes.
	launcherSettle = 500 * time.Millisecond
)

// launcherVolume is where the kubelet keeps a virt-launcher pod's
// /var/run/libvirt, below the pod's directory.
var launcherVolume = [...]string{"volumes", "kubernetes.io~empty-dir", "libvirt-runtime"}

// launcherSockets are the sockets there, the modular daemon's first: KubeVirt
// before 0.59 ran the monolithic one.
var launcherSockets = [...]string{"virtqemud-sock", "libvirt-sock"}

// pod is what the kubelet says about a pod, whatever the pod itself says.
type pod struct {
	uid       string
	namespace string // empty: unknown
	name      string // likewise
}

// launchers knows which pods of a node run a libvirt daemon for their VM. The
// kubelet owns the directories of pods, but all below a pod's volume belongs
// to the pod, which may put there what it likes.
type launchers struct {
	root   *hostfs.Root
	dir    string // of all pods
	log    *slog.Logger
	watch  func() (*watch, error)
	rescan time.Duration
	blind  time.Duration
	settle time.Duration
	warned bool // that changes are not announced

	mu   sync.Mutex
	uids []string       // of those with a socket, sorted
	pods map[string]pod // all that the kubelet names, by UID
}

// podLogs is where the kubelet logs, in a directory per pod whose name has
// the pod's namespace, name and UID.
const podLogs = "/var/log/pods"

func newLaunchers(root *hostfs.Root, kubelet string, log *slog.Logger) *launchers {
	return &launchers{
		root: root, dir: path.Join(kubelet, "pods"), log: log, watch: newWatch,
		rescan: launcherRescan, blind: launcherBlind, settle: launcherSettle,
	}
}

// targets returns the daemons of the pods, in the order of their UIDs.
func (l *launchers) targets() []target {
	l.mu.Lock()
	defer l.mu.Unlock()
	targets := make([]target, 0, len(l.uids))
	for _, uid := range l.uids {
		targets = append(targets, target{name: "pod:" + uid, dir: l.dir, pod: uid, owner: -1})
	}
	return targets
}

// pod returns what is known about a pod besides its UID.
func (l *launchers) pod(uid string) pod {
	l.mu.Lock()
	defer l.mu.Unlock()
	if known, found := l.pods[uid]; found {
		return known
	}
	return pod{uid: uid}
}

// run looks for pods when something changes and now and then, until ctx ends.
func (l *launchers) run(ctx context.Context) {
	w, err := l.watch()
	if err != nil {
		l.warn(err)
	}
	changed := make(chan struct{})
	var reader sync.WaitGroup
	if w != nil {
		reader.Go(func() { tell(ctx, w, changed) })
		defer reader.Wait()
		defer w.close()
	}
	for {
		next := l.rescan
		if !l.scan(w) {
			next = min(next, l.blind)
		}
		again := time.NewTimer(next)
		select {
		case <-again.C:
		case <-changed:
			// Who changes something without end is not looked at without end.
			again.Reset(min(next, l.settle))
			select {
			case <-again.C:
			case <-ctx.Done():
			}
		case <-ctx.Done():
		}
		again.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// tell passes on that something changed, as fast as it is taken.
func tell(ctx context.Context, w *watch, changed chan<- struct{}) {
	for w.wait() == nil {
		select {
		case changed <- struct{}{}:
		case <-ctx.Done():
			return
		}
	}
}

// warn says once that changes are not announced.
func (l *launchers) warn(err error) {
	if !l.warned {
		l.warned = true
		l.log.Warn("virt-launcher pods are looked for by time only", "interval", l.blind.String(), "err", err)
	}
}

// scan brings the list of pods up to date. It reports whether the next change
// will be announced. What changes between a look and the watch for changes is
// not, so after each new watch there is another look.
func (l *launchers) scan(w *watch) bool {
	for range len(launcherVolume) + 2 {
		look := &launcherScan{launchers: l, announce: w, wanted: make(map[uint32]bool), complete: w != nil}
		uids, pods := look.sockets(), look.names()
		l.mu.Lock()
		l.uids, l.pods = uids, pods
		l.mu.Unlock()
		if w != nil {
			w.keep(look.wanted)
		}
		if !look.fresh {
			return look.complete
		}
	}
	return false
}

// launcherScan is one look at all pods.
type launcherScan struct {
	*launchers
	announce *watch
	wanted   map[uint32]bool
	fresh    bool // a watch is new
	complete bool // every directory that matters is watched
}

// sockets returns the UIDs of pods with a socket.
func (s *launcherScan) sockets() []string {
	dir, err := s.root.OpenBeneath(s.dir)
	if err != nil {
		// No kubelet, or none yet.
		s.complete = false
		return nil
	}
	defer func() { _ = dir.Close() }()
	s.place(dir)
	names, err := s.root.ReadDir(s.dir)
	if err != nil {
		s.complete = false
		return nil
	}
	names = slices.DeleteFunc(names, func(name string) bool { return !isPodUID(name) })
	return slices.DeleteFunc(names[:min(len(names), maxLaunchers)], func(uid string) bool { return !s.hasSocket(dir, uid) })
}

// hasSocket reports whether a pod has a libvirt socket, or something else in
// the place of one, which will be refused for all to see. It watches the
// deepest directory on the way there.
func (s *launcherScan) hasSocket(pods *os.File, uid string) bool {
	at, err := hostfs.OpenAt(pods, uid)
	if err != nil {
		return false
	}
	defer func() { _ = at.Close() }()
	for _, name := range launcherVolume {
		next, err := hostfs.OpenAt(at, name)
		if err != nil {
			s.place(at)
			return false
		}
		_ = at.Close()
		at = next
	}
	s.place(at)
	socket, err := openPodSocket(at)
	if err == nil {
		_ = socket.Close()
	}
	return !errors.Is(err, fs.ErrNotExist)
}

// openPodSocket returns a handle of the socket in a pod's volume.
func openPodSocket(volume *os.File) (file *os.File, err error) {
	for _, name := range launcherSockets {
		if file, err = hostfs.OpenAt(volume, name); !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	return file, err
}

// place watches a directory.
func (s *launcherScan) place(dir *os.File) {
	if s.announce == nil {
		return
	}
	id, fresh, err := s.announce.add(dir)
	if err != nil {
		s.complete = false
		s.warn(err)
		return
	}
	s.wanted[id] = true
	s.fresh = s.fresh || fresh
}

// names returns the namespaces and names of all pods. Without the kubelet's
// logs they are unknown.
func (s *launcherScan) names() map[string]pod {
	logs, _ := s.root.ReadDir(podLogs)
	pods := make(map[string]pod, len(logs))
	for _, log := range logs {
		if named, ok := parsePodLog(log); ok {
			pods[named.uid] = named
		}
	}
	return pods
}

// parsePodLog reads NAMESPACE_NAME_UID. Names of Kubernetes hold no underscore.
func parsePodLog(name string) (pod, bool) {
	namespace, rest, _ := strings.Cut(name, "_")
	name, uid, _ := strings.Cut(rest, "_")
	if !isNamespace(namespace) || !isPodName(name) || !isPodUID(uid) {
		return pod{}, false
	}
	return pod{uid: uid, namespace: namespace, name: name}, true
}
