package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/virtnode/nodeagent/internal/hostfs"
	"github.com/virtnode/nodeagent/pkg/kvmcheck"
)

// maxReport bounds a report that is read: one of a large machine is about 1 MiB.
const maxReport = 64 << 20

// runCompare prints how the host at a root and another one differ for VMs.
func runCompare(ctx context.Context, w io.Writer, root, other, output string) error {
	facts, err := collect(ctx, root)
	if err != nil {
		return err
	}
	otherFacts, err := readFacts(ctx, other)
	if err != nil {
		return err
	}
	comparison := kvmcheck.Compare(kvmcheck.NewFingerprint(facts.Survey), kvmcheck.NewFingerprint(otherFacts.Survey))
	if err := writeComparison(w, output, comparison, root, other); err != nil {
		return err
	}
	return exitFor(comparison.Verdict())
}

// readFacts reads the facts of a report, made by check -o json, or of a recording.
func readFacts(ctx context.Context, name string) (kvmcheck.Facts, error) {
	info, err := os.Stat(name)
	if err != nil {
		return kvmcheck.Facts{}, fmt.Errorf("read report: %w", err)
	}
	if info.IsDir() {
		return collectRecording(ctx, name)
	}
	file, err := os.Open(name)
	if err != nil {
		return kvmcheck.Facts{}, fmt.Errorf("read report: %w", err)
	}
	data, err := io.ReadAll(io.LimitReader(file, maxReport))
	if err = errors.Join(err, file.Close()); err != nil {
		return kvmcheck.Facts{}, fmt.Errorf("read report: %w", err)
	}
	if !bytes.HasPrefix(bytes.TrimSpace(data), []byte("{")) {
		return collectRecording(ctx, name)
	}
	var report kvmcheck.Report
	if err := json.Unmarshal(data, &report); err != nil {
		return kvmcheck.Facts{}, fmt.Errorf("read report %s: %w", name, err)
	}
	return report.Facts, nil
}

// collectRecording refuses a plain directory: its devices would be this host's.
func collectRecording(ctx context.Context, name string) (kvmcheck.Facts, error) {
	root, err := hostfs.Open(name)
	if err != nil {
		return kvmcheck.Facts{}, err
	}
	recorded := root.Recording() != nil
	if err := root.Close(); err != nil {
		return kvmcheck.Facts{}, err
	}
	if !recorded {
		return kvmcheck.Facts{}, fmt.Errorf("%s: want a report of nodeagent check -o json, or a recording of nodeagent capture", name)
	}
	return collect(ctx, name)
}

// collect reads the facts of the host at a root.
func collect(ctx context.Context, name string) (facts kvmcheck.Facts, err error) {
	root, err := hostfs.Open(name)
	if err != nil {
		return facts, err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	host, err := kvmcheck.Open(root)
	if err != nil {
		return facts, err
	}
	return kvmcheck.Collect(ctx, host), nil
}

func writeComparison(w io.Writer, output string, comparison kvmcheck.Comparison, root, other string) error {
	if output != "table" {
		return writeData(w, output, comparison)
	}
	name := root
	if root == "/" {
		name = "this host"
	}
	return comparison.Write(w, name, other)
}
