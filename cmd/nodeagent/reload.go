package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/signal"
	"reflect"
	"syscall"
	"time"

	"github.com/virtnode/nodeagent/internal/config"
	"github.com/virtnode/nodeagent/pkg/metrics"
)

// configPoll is how often the file is compared. Comparing content, not times,
// also sees the link swap with which Kubernetes updates a ConfigMap.
const configPoll = 2 * time.Second

// watchConfig reloads the configuration on SIGHUP and when its file changes.
func (d *daemon) watchConfig(ctx context.Context, ready func()) error {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	tick := time.NewTicker(configPoll)
	defer tick.Stop()
	if d.from.file == "" {
		tick.Stop() // there is nothing to compare
	}
	ready()
	for {
		asked := false
		select {
		case <-ctx.Done():
			return nil
		case <-hangup:
			asked = true
		case <-tick.C:
		}
		data, err := d.from.read()
		if !asked && bytes.Equal(data, d.tried) && (err != nil) == d.unread {
			continue
		}
		// What was tried outlives this task: a restart must not take a file
		// that was refused for the one that is in use.
		d.tried, d.unread = data, err != nil
		if err == nil {
			err = d.apply(data)
		}
		d.noteReload(err)
	}
}

// apply puts a new configuration to work, or changes nothing.
func (d *daemon) apply(data []byte) (err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("panic: %v", cause) // refused, like any other bad file
		}
	}()
	next, err := d.from.parse(data)
	if err != nil {
		return err
	}
	profile, err := profileOf(next.Readiness)
	if err != nil {
		return err
	}
	current := d.config()
	access, err := d.newAccess(next)
	if err != nil {
		return err
	}
	collector, err := d.newCollector(next)
	if err != nil {
		return err
	}
	custom, err := customLabels(next.Kubernetes)
	if err != nil {
		return err
	}
	switch {
	case next.Web.ListenAddress != current.Web.ListenAddress:
		listener, err := listen(next.Web.ListenAddress)
		if err != nil {
			return err
		}
		d.startWeb(listener, next.Web)
	case next.Web.ConfigFile != current.Web.ConfigFile:
		d.startWeb(nil, next.Web) // the address is free once the old task has ended
	}
	d.server.SetAccess(access)
	if next.Log.Format != current.Log.Format {
		d.log.Warn("the log format changes at the next start", "format", next.Log.Format)
	}
	d.setConfig(next)
	d.bpf.want(next.Telemetry.BPF)
	if !reflect.DeepEqual(next.Network, current.Network) || next.Kubernetes.Kubeconfig != current.Kubernetes.Kubeconfig {
		d.startNetwork(next)
	}
	if !reflect.DeepEqual(next.Kubernetes, current.Kubernetes) {
		d.startPublish(next.Kubernetes, custom)
	}
	if !reflect.DeepEqual(collectorOptions(next.Telemetry), collectorOptions(current.Telemetry)) {
		d.startTelemetry(collector) // which begins anew with what threads used that have ended
	}
	d.startReadiness(next, profile)
	return nil
}

func (d *daemon) noteReload(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.reload.Successful = err == nil
	if err != nil {
		d.log.Error("configuration refused; the old one goes on", "error", err)
		return
	}
	d.reload.LastSuccess = time.Now()
	d.log.Info("configuration reloaded")
}

func (d *daemon) config() config.Config {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.current
}

func (d *daemon) setConfig(c config.Config) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.current = c
	d.server.Select(selectionOf(c.Telemetry))
	d.reload = metrics.ConfigState{Successful: true, LastSuccess: time.Now()}
	if err := d.level.UnmarshalText([]byte(c.Log.Level)); err != nil {
		panic(fmt.Sprintf("validated log level: %v", err))
	}
}

func (d *daemon) configState() metrics.ConfigState {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.reload
}
