package sriov

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/virtnode/nodeagent/internal/reconcile"
)

// guardCount says why the number of a PF's VFs must not change: the card
// starts anew, and the VFs that there are are destroyed.
func guardCount(pf PFState, count int) *reconcile.Refusal {
	refuse := func(guard, message string, evidence ...string) *reconcile.Refusal {
		return &reconcile.Refusal{Guard: guard, Target: pf.Name(), Message: message, Evidence: evidence}
	}
	switch {
	case pf.NumVFs == count:
		return nil
	case count > pf.TotalVFs:
		return refuse("capability", fmt.Sprintf("it can have %d VFs, %d are wanted", pf.TotalVFs, count), "sriov_totalvfs")
	case pf.Driver == "":
		return refuse("capability", "no driver is bound, and only a driver makes VFs: load it", "no link "+pciDevices+"/"+pf.Address+"/driver")
	case len(pf.Netdevs) == 0:
		return refuse("in-use", "its interface is not on this host: it is in another network namespace, or driver "+pf.Driver+" makes none", pciDevices+"/"+pf.Address+"/net")
	case pf.Uplink != "":
		return refuse("uplink", "the card starts anew when its VFs change, and the node cannot be reached without it", pf.Uplink)
	}
	var evidence []string
	for _, vf := range pf.VFs {
		for _, user := range vf.Users {
			evidence = append(evidence, vf.Name()+": "+user.String())
		}
	}
	if len(evidence) > 0 {
		return refuse("in-use", fmt.Sprintf("to have %d VFs instead of %d, all are destroyed first, and some are in use: free them, or keep numVFs: %d", count, pf.NumVFs, pf.NumVFs), evidence...)
	}
	return nil
}

// guardVF says why nothing of a VF must change.
func guardVF(pf PF, vf VFState) *reconcile.Refusal {
	if len(vf.Users) == 0 {
		return nil
	}
	refusal := &reconcile.Refusal{Guard: "in-use", Target: vf.Name() + " of " + pf.Name(), Message: "it is in use, and so left as it is: free it first"}
	for _, user := range vf.Users {
		refusal.Evidence = append(refusal.Evidence, user.String())
	}
	return refusal
}

// guardDriver says why a VF must not get a driver. Only an isolated one is
// given to VMs.
func guardDriver(pf PF, vf VFState, driver string, loaded []string) *reconcile.Refusal {
	if refusal := guardLoaded(driver, loaded); refusal != nil {
		refusal.Target = vf.Name() + " of " + pf.Name()
		return refusal
	}
	if problem := vf.IsolationProblem(); isVFIO(driver, nil) && problem != "" {
		return &reconcile.Refusal{Guard: "isolation", Target: vf.Name() + " of " + pf.Name(), Message: problem, Evidence: []string{pciDevices + "/" + vf.Address + "/iommu_group"}}
	}
	return nil
}

func guardLoaded(driver string, loaded []string) *reconcile.Refusal {
	if !namedDriver(driver) || slices.Contains(loaded, driver) {
		return nil
	}
	return &reconcile.Refusal{
		Guard:    "driver",
		Message:  fmt.Sprintf("driver %s is not loaded; modprobe %s, and to keep it: echo %s > /etc/modules-load.d/%s.conf", driver, driver, driver, driver),
		Evidence: []string{"no " + pciDrivers + "/" + driver},
	}
}

// Guard looks at what a step is about anew.
func (w Writer) Guard(ctx context.Context, step reconcile.Step) error {
	switch step.Kind {
	case kindAutoprobe:
		return nil // it harms nobody
	case kindVFs:
		want, err := reconcile.Read[vfSet](step.Want)
		if err != nil {
			return err
		}
		pf, err := w.observeOne(ctx, step.Target)
		if err != nil {
			return err
		}
		return asError(guardCount(pf, want.Count), nil)
	}
	return asError(w.guardVF(ctx, step, step.Want))
}

// guardVF looks at a VF that is about to get a value.
func (w Writer) guardVF(ctx context.Context, step reconcile.Step, value json.RawMessage) (*reconcile.Refusal, error) {
	index, err := itemVF(step.Item)
	if err != nil {
		return nil, err
	}
	vf, err := w.readVF(step.Target, index)
	if err != nil {
		return nil, err
	}
	found := &evidence{root: w.Root, pods: w.Pods, describe: w.Describe}
	if len(vf.Netdevs) > 0 {
		if found, err = w.gather(ctx); err != nil {
			return nil, err
		}
	}
	state, err := w.observeVF(ctx, vf, found)
	if err != nil {
		return nil, err
	}
	pf := PF{Address: step.Target}
	if refusal := guardVF(pf, state); refusal != nil || step.Kind != kindDriver {
		return refusal, nil
	}
	want, err := reconcile.Read[binding](value)
	if err != nil {
		return nil, err
	}
	loaded, err := readNames(w.Root, pciDrivers)
	if err != nil {
		return nil, err
	}
	return guardDriver(pf, state, want.Driver, loaded), nil
}

// asError keeps a refusal that is none from being an error that is not nil.
func asError(refusal *reconcile.Refusal, err error) error {
	if refusal != nil {
		return errors.Join(refusal, err)
	}
	return err
}
