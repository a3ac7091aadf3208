package sriov

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/virtnode/nodeagent/internal/hostfs"
	"github.com/virtnode/nodeagent/internal/reconcile"
)

// Some drivers take minutes to make many VFs.
const (
	countPatience = 5 * time.Minute
	bindPatience  = time.Minute
	linkPatience  = 15 * time.Second
	progressEvery = 5 * time.Second
	pollEvery     = 20 * time.Millisecond
)

// Writer makes the steps of this package.
type Writer struct {
	Host
	// Progress is told, every few seconds, of a write that takes long; nil:
	// nobody listens.
	Progress func(text string)
}

// Apply makes a step.
func (w Writer) Apply(ctx context.Context, step reconcile.Step) (json.RawMessage, error) {
	switch step.Kind {
	case kindVFs:
		want, err := reconcile.Read[vfSet](step.Want)
		if err != nil {
			return nil, err
		}
		if err := w.recount(ctx, step.Target, want.Count); err != nil {
			return nil, err
		}
		err = w.settle(ctx, step.Target, want.VFs)
		return w.count(step.Target, err)
	case kindAutoprobe:
		want, err := reconcile.Read[bool](step.Want)
		if err != nil {
			return nil, err
		}
		return reconcile.Value(want), w.setAutoprobe(ctx, step.Target, want)
	}
	return w.applyVF(ctx, step, step.Want)
}

// applyVF brings a property of a VF to a value.
func (w Writer) applyVF(ctx context.Context, step reconcile.Step, value json.RawMessage) (json.RawMessage, error) {
	index, err := itemVF(step.Item)
	if err != nil {
		return nil, err
	}
	switch step.Kind {
	case kindAttributes:
		want, err := reconcile.Read[Attributes](value)
		if err != nil {
			return nil, err
		}
		now, err := w.setAttributes(ctx, step.Target, index, want)
		return reconcile.Value(now), err
	case kindDriver:
		want, err := reconcile.Read[binding](value)
		if err != nil {
			return nil, err
		}
		now, err := w.bind(ctx, step.Target, index, want)
		return reconcile.Value(now), err
	case kindMTU:
		want, err := reconcile.Read[int](value)
		if err != nil {
			return nil, err
		}
		return value, w.setMTU(ctx, step.Target, index, want)
	}
	return nil, fmt.Errorf("nobody knows how to make %s", step.Kind)
}

func (w Writer) count(address string, err error) (json.RawMessage, error) {
	count, readErr := readCount(w.Root, path.Join(pciDevices, address, "sriov_numvfs"))
	if err = errors.Join(err, readErr); readErr != nil {
		return nil, err
	}
	return reconcile.Value(vfSet{Count: count}), err
}

func (w Writer) setAutoprobe(ctx context.Context, address string, on bool) error {
	value := map[bool]string{true: "1", false: "0"}[on]
	return w.Sysfs.Write(ctx, path.Join(pciDevices, address, "sriov_drivers_autoprobe"), value)
}

// recount changes how many VFs a PF has: from one number to another only by
// way of none.
func (w Writer) recount(ctx context.Context, address string, want int) error {
	name := path.Join(pciDevices, address, "sriov_numvfs")
	have, err := readCount(w.Root, name)
	if err != nil {
		return err
	}
	if have == want {
		return nil
	}
	if have > 0 && want > 0 {
		if err := w.writeCount(ctx, address, name, 0); err != nil {
			return err
		}
	}
	return w.writeCount(ctx, address, name, want)
}

// writeCount writes sriov_numvfs, tells how it goes, and returns when the VFs
// are there.
func (w Writer) writeCount(ctx context.Context, address, name string, count int) error {
	ctx, cancel := context.WithTimeoutCause(ctx, countPatience, fmt.Errorf("the driver has not made it so in %v", countPatience))
	defer cancel()
	written := make(chan error, 1)
	go func() { written <- w.Sysfs.Write(ctx, name, strconv.Itoa(count)) }()
	begun := time.Now()
	progress := time.NewTicker(progressEvery)
	defer progress.Stop()
	poll := time.NewTicker(pollEvery)
	defer poll.Stop()
	returned := false
	for {
		select {
		case err := <-written:
			if err != nil {
				return err // which Write makes of a context that ends, too
			}
			returned, written = true, nil
		case <-progress.C:
			if w.Progress != nil {
				w.Progress(fmt.Sprintf("%s: %d VFs are there, %d are wanted, after %v", address, w.there(address), count, time.Since(begun).Round(time.Second)))
			}
			continue
		case <-poll.C:
		}
		if returned && w.there(address) == count {
			return nil
		}
		if returned && ctx.Err() != nil {
			return fmt.Errorf("%s took %d, but %d VFs are there: %w", name, count, w.there(address), context.Cause(ctx))
		}
	}
}

// there counts the VFs of a PF, -1 when nobody can tell.
func (w Writer) there(address string) int {
	vfs, err := readVFs(w.Root, path.Join(pciDevices, address))
	if err != nil {
		return -1
	}
	return len(vfs)
}

// settle makes VFs what they were.
func (w Writer) settle(ctx context.Context, address string, settings []setting) error {
	var failures []error
	for _, s := range settings {
		_, err := w.setAttributes(ctx, address, s.Index, s.Attributes)
		failures = append(failures, err)
	}
	for _, s := range settings {
		_, err := w.bind(ctx, address, s.Index, s.Binding)
		failures = append(failures, err)
	}
	return errors.Join(failures...)
}

// setAttributes sets what is not so already, and reads it back.
func (w Writer) setAttributes(ctx context.Context, address string, index int, want Attributes) (Attributes, error) {
	pf, err := w.netdev(address)
	if err != nil {
		return Attributes{}, err
	}
	if want.MAC == noMAC {
		want.MAC = "" // the VF's own driver picks one
	}
	all, err := w.Links.VFs(ctx, pf)
	if err != nil {
		return Attributes{}, err
	}
	have := all[index]
	change := changed(have, want)
	if change.isZero() {
		return have, nil
	}
	if change.MaxTxRate != nil {
		if err := w.awaitLink(ctx, pf); err != nil {
			return have, err
		}
	}
	if err := w.Links.SetVF(ctx, pf, index, change); err != nil {
		return have, fmt.Errorf("set VF %d of %s (%s): %v: %w", index, address, pf, change, err)
	}
	if all, err = w.Links.VFs(ctx, pf); err != nil {
		return have, err
	}
	if left := changed(all[index], change); !left.isZero() {
		return all[index], fmt.Errorf("set VF %d of %s (%s): the driver took %v, but keeps %v", index, address, pf, left, all[index])
	}
	return all[index], nil
}

// awaitLink waits for the link of an interface that is set up. A card starts
// anew when its VFs change, and some refuse a rate while they do not know
// their own. Without a link in time, it is the driver's to decide.
func (w Writer) awaitLink(ctx context.Context, netdev string) error {
	flags, err := w.Root.ReadString(path.Join(classNet, netdev, "flags"))
	if up, _ := strconv.ParseUint(flags, 0, 32); err != nil || up&unix.IFF_UP == 0 {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, linkPatience)
	defer cancel()
	poll := time.NewTicker(pollEvery)
	defer poll.Stop()
	for {
		down, err := linkDown(w.Root, netdev)
		if err != nil || !down {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-poll.C:
		}
	}
}

// noMAC is what a driver tells of a VF whose MAC nobody has set.
const noMAC = "00:00:00:00:00:00"

// netdev returns the interface of a PF, which may have been renamed meanwhile.
func (w Writer) netdev(address string) (string, error) {
	dir := path.Join(pciDevices, address, "net")
	names, err := readNames(w.Root, dir)
	if err != nil {
		return "", err
	}
	if len(names) == 0 {
		return "", fmt.Errorf("%s: it has no interface here", dir)
	}
	return names[0], nil
}

func (w Writer) readVF(address string, index int) (VF, error) {
	return readVF(w.Root, path.Join(pciDevices, address, fmt.Sprint("virtfn", index)), index)
}

func (w Writer) setMTU(ctx context.Context, address string, index, mtu int) error {
	vf, err := w.readVF(address, index)
	if err != nil {
		return err
	}
	if len(vf.Netdevs) == 0 {
		return fmt.Errorf("set the MTU of %s of %s: it has no interface here", vf.Name(), address)
	}
	have, err := w.Root.ReadUint(path.Join(classNet, vf.Netdevs[0], "mtu"))
	if err != nil || have == uint64(mtu) {
		return err
	}
	return w.Links.SetLink(ctx, vf.Netdevs[0], mtu, nil)
}

// bind gives a VF a driver. Only while driver_override names one may another
// than the kernel's choice bind; it is cleared afterwards, so that whoever
// binds the VF next is not in for a surprise.
func (w Writer) bind(ctx context.Context, address string, index int, want binding) (binding, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, bindPatience, fmt.Errorf("the driver has not answered in %v", bindPatience))
	defer cancel()
	vf, err := w.readVF(address, index)
	if err != nil {
		return binding{}, err
	}
	if vf.Address == "" {
		return binding{}, fmt.Errorf("VF %d of %s is not there", index, address)
	}
	now := bindingOf(&VFState{VF: vf})
	if !now.satisfies(want.Driver) {
		err = w.rebind(ctx, vf, want)
	}
	err = errors.Join(err, w.endOverride(ctx, vf.Address, want))
	driver, readErr := linkBase(w.Root, path.Join(pciDevices, vf.Address, "driver"))
	now = bindingOf(&VFState{VF: VF{Driver: driver}})
	if err = errors.Join(err, readErr); err != nil {
		return now, err
	}
	if !now.satisfies(want.Driver) && want.Driver != anyOrNone {
		return now, fmt.Errorf("bind %s to %s: its driver is %s; dmesg says why", vf.Name(), want.Driver, now.Driver)
	}
	if want.MTU != 0 {
		err = w.setMTU(ctx, address, index, want.MTU)
	}
	return now, err
}

func (w Writer) rebind(ctx context.Context, vf VF, want binding) error {
	dir := path.Join(pciDevices, vf.Address)
	override := "\n"
	if namedDriver(want.Driver) {
		override = want.Driver
	}
	if err := w.Sysfs.Write(ctx, path.Join(dir, "driver_override"), override); err != nil {
		return err
	}
	if vf.Driver != "" {
		err := w.Sysfs.Write(ctx, path.Join(dir, "driver", "unbind"), vf.Address)
		if err != nil && !hostfs.Absent(err) {
			return err
		}
	}
	if want.Driver == noDriver {
		return nil
	}
	return w.Sysfs.Write(ctx, path.Join(pciDevices, "..", "drivers_probe"), vf.Address)
}

// endOverride leaves the override that is wanted: none, unless one was there
// before.
func (w Writer) endOverride(ctx context.Context, address string, want binding) error {
	name := path.Join(pciDevices, address, "driver_override")
	now, err := w.Root.ReadString(name)
	if err != nil {
		return err
	}
	if now == "(null)" {
		now = ""
	}
	// A foreign override stays: it did not keep the driver away.
	if now == want.Override || now != want.Driver && want.Override == "" {
		return nil
	}
	return w.Sysfs.Write(ctx, name, want.Override+"\n")
}

// Undo brings a property back.
func (w Writer) Undo(ctx context.Context, step reconcile.Step) error {
	switch step.Kind {
	case kindVFs:
		return w.undoCount(ctx, step)
	case kindAutoprobe:
		was, err := reconcile.Read[bool](step.Was)
		if err != nil {
			return err
		}
		return w.setAutoprobe(ctx, step.Target, was)
	}
	if reconcile.Same(step.Was, nil) {
		return nil // it goes with the VF, which is not there before the plan
	}
	if refusal, err := w.guardVF(ctx, step, step.Was); err != nil || refusal != nil {
		return asError(refusal, err)
	}
	_, err := w.applyVF(ctx, step, step.Was)
	return err
}

// undoCount makes the VFs again that there were. Those that have come into use
// meanwhile stay.
func (w Writer) undoCount(ctx context.Context, step reconcile.Step) error {
	was, err := reconcile.Read[vfSet](step.Was)
	if err != nil {
		return err
	}
	pf, err := w.observeOne(ctx, step.Target)
	if err != nil {
		return err
	}
	if pf.NumVFs != was.Count {
		pf.Uplink = "" // to restore is what brings it back
		if refusal := guardCount(pf, was.Count); refusal != nil {
			return refusal
		}
		if err := w.recount(ctx, step.Target, was.Count); err != nil {
			return err
		}
		return w.settle(ctx, step.Target, was.VFs)
	}
	// A part of them may have been destroyed and made again.
	left := slices.DeleteFunc(was.VFs, func(s setting) bool {
		vf, there := pf.VF(s.Index)
		return there && len(vf.Users) > 0
	})
	return w.settle(ctx, step.Target, left)
}
