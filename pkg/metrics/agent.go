package metrics

import (
	"runtime"
	"time"

	"github.com/virtnode/nodeagent/pkg/qemu"
)

// TaskState is one supervised part of the agent.
type TaskState struct {
	Name     string
	State    string // in the supervisor's words; TaskReady is the good one
	Err      string // why it is not ready
	Restarts int    // since the agent started
}

// TaskReady is the state of a task that does its work.
const TaskReady = "ready"

// ProgramState is a BPF program of the agent.
type ProgramState struct {
	Name   string
	Reason string // why it does not run; ProgramLoaded when it does
}

// ProgramLoaded is the reason of a program that runs.
const ProgramLoaded = "Loaded"

// ConfigState says whether the running configuration is the one on disk.
type ConfigState struct {
	Successful  bool      // the last attempt to load it
	LastSuccess time.Time // when the running one was loaded
}

// buildInfo is what the binary is.
type buildInfo struct{ version string }

// scrape is what one answer to /metrics cost.
type scrape struct {
	duration   time.Duration
	series     int
	duplicates int

	cutVM, cutPage uint64 // since the agent started
}

// sourceHealth is a source's state at the time of a scrape.
type sourceHealth struct {
	qemu.SourceState
	age time.Duration // of the last success
}

func labelSource(buf []byte, s *sourceHealth) []byte {
	buf = appendLabel(buf, "source", s.Source)
	return appendLabel(append(buf, ','), "class", string(s.Class))
}

// sourceFamilies are the families of one cost class of one source.
var sourceFamilies = [...]family[sourceHealth]{
	{
		"virtnode_source_up", gauge, plain, "", fromAgent, "Whether the last reading of a source of VM telemetry succeeded.",
		func(w *writer, s *sourceHealth) { w.put(boolean(s.Up())) },
	},
	{
		"virtnode_source_state", gauge, plain, "reason", fromAgent, "How a source is, in one word: Ready, or what is wrong. Always 1.",
		func(w *writer, s *sourceHealth) { w.putState("reason", string(s.Reason)) },
	},
	{
		"virtnode_source_last_success_timestamp_seconds", gauge, nanoseconds, "", fromAgent, "When a source was last read.",
		func(w *writer, s *sourceHealth) { w.put(unixTime(s.LastSuccess)) },
	},
	{
		"virtnode_source_age_seconds", gauge, nanoseconds, "", fromAgent, "How old the last reading of a source was when it was served.",
		func(w *writer, s *sourceHealth) {
			w.put(qemu.Num{V: uint64(max(s.age, 0)), Set: !s.LastSuccess.IsZero()})
		},
	},
	{
		"virtnode_source_calls_abandoned_total", counter, plain, "", fromAgent, "Readings of a source that were given up at their deadline.",
		func(w *writer, s *sourceHealth) { w.put(qemu.Some(s.Abandoned)) },
	},
	{
		"virtnode_source_unused_fields", gauge, plain, "", fromAgent, "Fields in a source's last answer that have no place among the families.",
		func(w *writer, s *sourceHealth) { w.put(qemu.Some(uint64(s.Unused))) },
	},
}

// programFamilies are the families of one BPF program.
var programFamilies = [...]family[ProgramState]{
	{
		"virtnode_bpf_program_up", gauge, plain, "", fromAgent, "Whether a program of the agent runs in the kernel. Without run_queue_delay its families have no series; without vm_threads /proc is read.",
		func(w *writer, p *ProgramState) { w.put(boolean(p.Reason == ProgramLoaded)) },
	},
	{
		"virtnode_bpf_program_state", gauge, plain, "reason", fromAgent, "How a program is, in one word: Loaded, or why it does not run. Always 1.",
		func(w *writer, p *ProgramState) { w.putState("reason", p.Reason) },
	},
}

func labelProgram(buf []byte, p *ProgramState) []byte { return appendLabel(buf, "program", p.Name) }

// taskFamilies are the families of one task of the agent.
var taskFamilies = [...]family[TaskState]{
	{
		"virtnode_task_up", gauge, plain, "", fromAgent, "Whether a task of the agent does its work.",
		func(w *writer, t *TaskState) { w.put(boolean(t.State == TaskReady)) },
	},
	{
		"virtnode_task_state", gauge, plain, "state", fromAgent, "The state that a task of the agent is in. Always 1.",
		func(w *writer, t *TaskState) { w.putState("state", t.State) },
	},
	{
		"virtnode_task_restarts_total", counter, plain, "", fromAgent, "How often a task of the agent was started again.",
		func(w *writer, t *TaskState) { w.put(qemu.Some(uint64(max(t.Restarts, 0)))) },
	},
}

func labelTask(buf []byte, t *TaskState) []byte { return appendLabel(buf, "task", t.Name) }

var configFamilies = [...]family[ConfigState]{
	{
		"virtnode_config_last_reload_successful", gauge, plain, "", fromAgent, "Whether the last attempt to load the configuration succeeded.",
		func(w *writer, c *ConfigState) { w.put(boolean(c.Successful)) },
	},
	{
		"virtnode_config_last_reload_success_timestamp_seconds", gauge, nanoseconds, "", fromAgent, "When the running configuration was loaded.",
		func(w *writer, c *ConfigState) { w.put(unixTime(c.LastSuccess)) },
	},
}

var buildFamilies = [...]family[buildInfo]{
	{
		"virtnode_build_info", gauge, plain, "version goversion arch", fromAgent, "The agent's version, and what it was built with and for. Always 1.",
		func(w *writer, _ *buildInfo) { w.put(qemu.Some(1)) },
	},
}

func labelBuild(buf []byte, b *buildInfo) []byte {
	buf = appendLabel(buf, "version", b.version)
	buf = appendLabel(append(buf, ','), "goversion", runtime.Version())
	return appendLabel(append(buf, ','), "arch", runtime.GOARCH)
}

// scrapeFamilies come last, when their values are known.
var scrapeFamilies = [...]family[scrape]{
	{
		"virtnode_scrape_duration_seconds", gauge, nanoseconds, "", fromAgent, "How long it took to collect this page.",
		func(w *writer, s *scrape) { w.put(qemu.Some(uint64(max(s.duration, 0)))) },
	},
	{
		"virtnode_scrape_vm_series", gauge, plain, "", fromAgent, "Series about virtual machines on this page.",
		func(w *writer, s *scrape) { w.put(qemu.Some(uint64(s.series))) },
	},
	{
		"virtnode_scrape_vm_duplicates", gauge, plain, "", fromAgent, "Virtual machines left out because another has the same name and UUID.",
		func(w *writer, s *scrape) { w.put(qemu.Some(uint64(s.duplicates))) },
	},
	{
		"virtnode_scrape_series_cut_total", counter, plain, "limit", fromAgent, "Series about virtual machines left out of pages, by the limit that they went over: that of one machine (vm) or of the page.",
		func(w *writer, s *scrape) {
			w.putLabel("limit", "vm", qemu.Some(s.cutVM))
			w.putLabel("limit", "page", qemu.Some(s.cutPage))
		},
	},
}

// unlabelled is for things of which there is one.
func unlabelled[T any](buf []byte, _ *T) []byte { return buf }

func boolean(yes bool) qemu.Num {
	if yes {
		return qemu.Some(1)
	}
	return qemu.Some(0)
}

// unixTime returns nanoseconds since 1970; a time before that is unknown.
func unixTime(t time.Time) qemu.Num {
	ns := t.UnixNano()
	return qemu.Num{V: uint64(max(ns, 0)), Set: !t.IsZero() && ns > 0}
}
