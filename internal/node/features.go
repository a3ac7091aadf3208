package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// FeatureFileName is the agent's file among those that Node Feature Discovery
// (NFD) reads. NFD passes over names that begin with a dot, such as that of the
// file that is to take its place.
const (
	FeatureFileName = "virtnode"
	featureFileNext = ".virtnode.next"
)

// featureFileHead begins the agent's file: one without it is somebody else's.
const featureFileHead = "# Written by nodeagent, which writes it anew: changes are lost.\n"

// mostFeatureFile is more than the agent writes: a line per label.
const mostFeatureFile = 16 << 10

// FeatureUse is what NFD is to make of the agent's labels.
type FeatureUse int

const (
	// NoFeatures leaves no file.
	NoFeatures FeatureUse = iota
	// FeaturesOnly are for NFD's rules: the agent labels the Node itself.
	FeaturesOnly
	// FeaturesAsLabels lets NFD label the Node.
	FeaturesAsLabels
)

// FeatureFile keeps the labels of a node in a file for NFD's worker, which reads
// the folder features.d. They go as slowly as those of a [Publisher].
type FeatureFile struct {
	open func() (*os.Root, error)
	use  FeatureUse
	log  *slog.Logger

	observer
	writes int
}

// NewFeatureFile returns the keeper of the file in the folder that open opens.
func NewFeatureFile(open func() (*os.Root, error), use FeatureUse, now func() time.Time, log *slog.Logger) *FeatureFile {
	return &FeatureFile{open: open, use: use, log: log, observer: newObserver(now)}
}

// Run keeps the file until ctx ends. Then it stays, as labels do.
func (f *FeatureFile) Run(ctx context.Context, ready func()) error {
	ready()
	backoff := newBackoff()
	retry := time.NewTimer(0)
	defer retry.Stop()
	failing := ""
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-f.wake:
		case <-retry.C:
		}
		err := f.round()
		switch {
		case err != nil:
			if err.Error() != failing {
				f.log.Warn("the features for NFD cannot be kept; it is tried again", "error", err)
			}
			failing = err.Error()
			retry.Reset(backoff.Step())
		case failing != "":
			f.log.Info("the features for NFD are kept again")
			failing, backoff = "", newBackoff()
		}
	}
}

// round makes the file what it shall be, and writes only what differs.
func (f *FeatureFile) round() error {
	if f.use == NoFeatures {
		_, err := RemoveFeatures(f.open)
		return err
	}
	dir, err := f.open()
	if err != nil {
		return fmt.Errorf("open NFD's folder: %w: has the node an NFD worker, and is the folder mounted into the agent's pod?", err)
	}
	defer func() { _ = dir.Close() }()
	is, mine, err := readFeatures(dir)
	switch {
	case err != nil:
		return err
	case !mine && is != nil:
		return fmt.Errorf("%s in NFD's folder is not of nodeagent; move it away", FeatureFileName)
	}
	want, known := f.want(is)
	if !known || string(is) == want {
		return nil
	}
	if err := replaceFeatures(dir, want); err != nil {
		return fmt.Errorf("write the features for NFD: %w", err)
	}
	f.mu.Lock()
	f.writes++
	f.mu.Unlock()
	return nil
}

// RemoveFeatures removes the agent's file from NFD's folder, which open opens,
// and reports whether there was one. Another's stays.
func RemoveFeatures(open func() (*os.Root, error)) (removed bool, err error) {
	dir, err := open()
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("open NFD's folder: %w", err)
	}
	defer func() { _ = dir.Close() }()
	if _, mine, err := readFeatures(dir); err != nil || !mine {
		return false, err
	}
	return true, dir.Remove(FeatureFileName)
}

// want is what the file shall hold, once there was a look.
func (f *FeatureFile) want(is []byte) (text string, known bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seed(func() truth { return parseFeatures(is) })
	if !f.truth.seen {
		return "", false
	}
	return featuresOf(f.truth.want().labels, f.use), true
}

// featuresOf writes labels in the format of NFD's local source: a name and a
// value a line. A directive holds for the next of them.
func featuresOf(labels map[string]string, use FeatureUse) string {
	var b strings.Builder
	b.WriteString(featureFileHead)
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		if use == FeaturesOnly {
			b.WriteString("# +no-label\n")
		}
		fmt.Fprintf(&b, "%s=%s\n", key, labels[key])
	}
	return b.String()
}

// parseFeatures is the truth that a file of the agent's holds.
func parseFeatures(data []byte) truth {
	t := truth{labels: held[struct{}]{}, network: networkTruth{labels: held[struct{}]{}, conditions: held[Condition]{}}}
	for line := range strings.Lines(string(data)) {
		key, value, found := strings.Cut(strings.TrimSpace(line), "=")
		if !found || !strings.HasPrefix(key, Prefix) || value == "" || labelValue(value) != value {
			continue
		}
		of := t.labels
		if strings.HasPrefix(key, networkPrefix) {
			of = t.network.labels
		}
		of[key] = said[struct{}]{value: value}
	}
	return t
}

// readFeatures reads the file, which is nil if there is none, and says whether
// the agent wrote it. What is no plain file is not read, and nobody's link is
// followed.
func readFeatures(dir *os.Root) (data []byte, mine bool, err error) {
	before, err := dir.Lstat(FeatureFileName)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, false, nil
	case err != nil:
		return nil, false, err
	case !before.Mode().IsRegular() || before.Size() > mostFeatureFile:
		return []byte{}, false, nil
	}
	file, err := dir.OpenFile(FeatureFileName, os.O_RDONLY|unix.O_NONBLOCK, 0) // a FIFO by now must not hold us
	if err != nil {
		return nil, false, err
	}
	defer func() { _ = file.Close() }()
	now, err := file.Stat()
	if err != nil {
		return nil, false, err
	}
	if !os.SameFile(before, now) {
		return nil, false, fmt.Errorf("%s in NFD's folder was replaced while it was read", FeatureFileName)
	}
	data, err = io.ReadAll(io.LimitReader(file, mostFeatureFile))
	return data, strings.HasPrefix(string(data), featureFileHead), err
}

// replaceFeatures puts a file in the place of the one before, so that NFD reads
// the one or the other, whole.
func replaceFeatures(dir *os.Root, text string) (err error) {
	if err := dir.Remove(featureFileNext); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err // of an agent that was killed
	}
	next, err := dir.OpenFile(featureFileNext, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = next.WriteString(text)
	err = errors.Join(err, next.Sync(), next.Close())
	if err == nil {
		err = dir.Rename(featureFileNext, FeatureFileName)
	}
	if err != nil {
		return errors.Join(err, dir.Remove(featureFileNext))
	}
	return nil
}
