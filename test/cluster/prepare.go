package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Prepare compiles what a control plane and the manifests' tests need into the
// cache, and with nodes also what a whole cluster needs. What is there already
// stays; on a cold machine it takes ten minutes, and a few minutes more for nodes.
// It tells log what it does. It may run in several processes at once, and be
// killed: a binary appears whole or not at all.
func Prepare(ctx context.Context, nodes bool, log func(string)) error {
	a, err := findAssets()
	if err != nil {
		return err
	}
	batches := []batch{a.tether, a.plane, a.packaging}
	if nodes {
		batches = append(batches, a.nodes, a.multus)
	}
	for _, b := range batches {
		if err := b.build(ctx, compile, log); err != nil {
			return err
		}
	}
	log("ready: Kubernetes " + a.version + " in " + a.plane.dir)
	return nil
}

// A batch is a set of binaries that are built from one module into one folder.
type batch struct {
	dir        string // named by the key
	module     string // the folder the go command runs in
	flags      string // for the linker
	components []component
}

// A compiler makes the binary out of the component c of the batch b.
type compiler func(ctx context.Context, b batch, c component, out string) error

// tempPattern names a binary that is not whole yet.
const tempPattern = ".building-*"

// missing returns the components without a binary.
func (b batch) missing() []component {
	var missing []component
	for _, c := range b.components {
		info, err := os.Stat(filepath.Join(b.dir, c.name))
		if err != nil || !info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0 {
			missing = append(missing, c)
		}
	}
	return missing
}

// build makes the missing binaries, one process at a time.
func (b batch) build(ctx context.Context, compile compiler, log func(string)) (err error) {
	if len(b.missing()) == 0 {
		return nil
	}
	if err := os.MkdirAll(b.dir, 0o755); err != nil {
		return fmt.Errorf("make the folder of binaries: %w", err)
	}
	unlock, err := lock(ctx, filepath.Join(b.dir, ".lock"), func() {
		log("another process is building in " + b.dir + "; waiting for it")
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if err := b.sweep(); err != nil {
		return err
	}
	// Asked again: the process waited for may have built them.
	for _, c := range b.missing() {
		if err := b.make(ctx, c, compile, log); err != nil {
			return err
		}
	}
	return nil
}

// sweep removes what a killed build left. The lock is held, so nothing that
// matches belongs to a living one.
func (b batch) sweep() error {
	stale, err := filepath.Glob(filepath.Join(b.dir, tempPattern))
	if err != nil {
		return fmt.Errorf("find unfinished builds: %w", err)
	}
	for _, dir := range stale {
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("remove an unfinished build: %w", err)
		}
	}
	return nil
}

// make compiles c aside and moves it into place when it is whole.
func (b batch) make(ctx context.Context, c component, compile compiler, log func(string)) (err error) {
	temp, err := os.MkdirTemp(b.dir, tempPattern)
	if err != nil {
		return fmt.Errorf("make a folder to build %s in: %w", c.name, err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(temp)) }()

	log(c.name + ": compiling " + c.pkg + " (minutes on a cold machine, seconds on a warm one)")
	start := time.Now()
	elapsed := func() string { return time.Since(start).Round(time.Second).String() }
	stop := every(30*time.Second, func() { log(c.name + ": still compiling, " + elapsed()) })
	out := filepath.Join(temp, c.name)
	err = compile(ctx, b, c, out)
	stop()
	if err != nil {
		return fmt.Errorf("compile %s: %w", c.name, err)
	}
	if err := os.Rename(out, filepath.Join(b.dir, c.name)); err != nil {
		return fmt.Errorf("put %s into the cache: %w", c.name, err)
	}
	log(c.name + ": compiled in " + elapsed())
	return nil
}

// every calls f once per period until stop, which waits for the last call.
func every(period time.Duration, f func()) (stop func()) {
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(period)
		defer tick.Stop()
		for {
			select {
			case <-quit:
				return
			case <-tick.C:
				f()
			}
		}
	}()
	return func() { close(quit); <-done }
}
