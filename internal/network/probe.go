package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/virtnode/nodeagent/api/v1alpha1"
	"github.com/virtnode/nodeagent/internal/reconcile"
	"github.com/virtnode/nodeagent/pkg/hostnet"
)

// beforehand is how long a target has to answer before a change.
const beforehand = 5 * time.Second

// retryDial is how long a refused or unreachable TCP target is left alone.
const retryDial = 100 * time.Millisecond

// probes is what has to answer after a change. It is journalled with it: the
// gateway of before must answer, whatever has become of the route to it.
type probes struct {
	Timeout string   `json:"timeout"`
	Targets []target `json:"targets,omitempty"`
}

// target answers when the node can be reached.
type target struct {
	Link    string `json:"link,omitempty"` // of a neighbour
	Address string `json:"address"`        // of a neighbour; HOST:PORT otherwise
}

func (t target) String() string {
	if t.Link != "" {
		return "gateway " + t.Address + " on " + t.Link
	}
	return "tcp://" + t.Address
}

// Neighbours asks the hosts on a link.
type Neighbours interface {
	// Reach returns when a neighbour has answered, or with an error when ctx ends.
	Reach(ctx context.Context, link string, address netip.Addr) error
}

// probesOf joins what the policies want to have answered: all targets, within
// the longest time.
func (n *Network) probesOf(policies []v1alpha1.HostNetwork, state *hostnet.State) (probes, []reconcile.Refusal) {
	longest := time.Duration(0)
	var all []target
	var refusals []reconcile.Refusal
	for _, policy := range policies {
		if timeout, err := policy.Spec.Probes.Timeout.Parse(); err == nil {
			longest = max(longest, timeout)
		}
		for _, word := range policy.Spec.Probes.Targets {
			targets, err := n.resolve(word, state)
			if err != nil {
				refusals = append(refusals, reconcile.Refusal{Guard: "probe", Target: word, Policy: policy.Name, Message: err.Error()})
			}
			for _, t := range targets {
				if !slices.Contains(all, t) {
					all = append(all, t)
				}
			}
		}
	}
	return probes{Timeout: longest.String(), Targets: all}, refusals
}

func (n *Network) resolve(word string, state *hostnet.State) ([]target, error) {
	switch word {
	case v1alpha1.ProbeGateway:
		var targets []target
		for _, route := range state.Routes {
			if route.Gateway != "" && (route.Destination == "0.0.0.0/0" || route.Destination == "::/0") {
				targets = append(targets, target{Link: route.Link, Address: route.Gateway})
			}
		}
		return targets, nil
	case v1alpha1.ProbeAPIServer:
		if n.APIServer == "" {
			return nil, errors.New("this process does not know where the API server is: name it, as tcp://HOST:PORT")
		}
		return []target{{Address: n.APIServer}}, nil
	}
	return []target{{Address: strings.TrimPrefix(word, "tcp://")}}, nil
}

// answer returns nil when all targets have answered, or what the others said
// when the time is over.
func (n *Network) answer(ctx context.Context, targets []target, within time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	failures := make([]error, len(targets))
	var all sync.WaitGroup
	for i, t := range targets {
		all.Go(func() {
			if err := n.probe(ctx, t); err != nil {
				failures[i] = fmt.Errorf("%s does not answer within %v: %w", t, within, err)
			}
		})
	}
	all.Wait()
	return errors.Join(failures...)
}

func (n *Network) probe(ctx context.Context, t target) error {
	if t.Link != "" {
		address, err := netip.ParseAddr(t.Address)
		if err != nil {
			return err
		}
		return n.Neighbours.Reach(ctx, t.Link, address)
	}
	for {
		var dialer net.Dialer
		connection, err := dialer.DialContext(ctx, "tcp", t.Address)
		if err == nil {
			return connection.Close()
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(retryDial):
		}
	}
}

// beforehand refuses targets that could not tell a good change from a bad one.
func (n *Network) refuseSilent(ctx context.Context, p probes) error {
	err := n.answer(ctx, p.Targets, beforehand)
	if err == nil {
		return nil
	}
	return &reconcile.Refusal{
		Guard: "probe", Target: "connectivity", Evidence: strings.Split(err.Error(), "\n"),
		Message: "what shall show that the node can be reached does not answer before the change either; correct spec.probes.targets, or write [] to do without",
	}
}

// confirm waits until the node can be reached, as the request says.
func (n *Network) confirm(ctx context.Context, request reconcile.Request) error {
	var p probes
	if len(request.Probes) == 0 {
		return nil
	}
	if err := json.Unmarshal(request.Probes, &p); err != nil {
		return fmt.Errorf("read the probes: %w", err)
	}
	within, err := time.ParseDuration(p.Timeout)
	if err != nil {
		return fmt.Errorf("read the probes: %w", err)
	}
	if err := n.answer(ctx, p.Targets, within); err != nil {
		return fmt.Errorf("the node cannot be reached: %w", err)
	}
	return nil
}
