package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/virtnode/nodeagent/internal/hostfs"
	"github.com/virtnode/nodeagent/internal/top"
	"github.com/virtnode/nodeagent/pkg/metrics"
	"github.com/virtnode/nodeagent/pkg/qemu"
)

// leastInterval keeps top from asking QEMU without a pause.
const leastInterval = 200 * time.Millisecond

// The control sequences of a screen of its own, without a cursor.
const (
	enterScreen = "\x1b[?1049h\x1b[?25l"
	leaveScreen = "\x1b[?25h\x1b[?1049l"
)

type topOptions struct {
	from     *settings
	output   string
	sort     string
	interval time.Duration
}

func newTop() *cobra.Command {
	o := &topOptions{from: &settings{}}
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Show how this host's VMs do right now",
		Long: `top shows the VMs of this host, and what each used in the last interval: CPU, time
that its virtual CPUs waited for a physical one, exits to the hypervisor, memory,
disks and network. It reads what run would serve, by itself: run need not run.

On a terminal it goes on until q is pressed; the keys at the bottom choose what
it sorts by. Elsewhere, and with -o json, it looks twice, one interval apart, and
prints that once. What is not known is - or null.`,
		Example: `  nodeagent top
  nodeagent top --sort delay --interval 5s
  nodeagent top -o json | jq '.vms[] | select(.cpuPercent > 90) | .name'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.run(cmd.Context(), cmd.OutOrStdout())
		},
	}
	o.from.flags = cmd.Flags()
	o.from.addFile()
	o.from.addURIs()
	cmd.Flags().StringVarP(&o.output, "output", "o", "table", "table or json")
	cmd.Flags().StringVar(&o.sort, "sort", "cpu", "what to sort by: cpu, delay, exits, io, net, memory or vm")
	cmd.Flags().DurationVar(&o.interval, "interval", 2*time.Second, "time between two looks")
	return cmd
}

func (o *topOptions) run(ctx context.Context, out io.Writer) error {
	order, err := top.ParseOrder(o.sort)
	switch {
	case err != nil:
		return err
	case o.output != "table" && o.output != "json":
		return fmt.Errorf("--output %q: want table or json", o.output)
	case o.interval < leastInterval:
		return fmt.Errorf("--interval %v: want at least %v", o.interval, leastInterval)
	}
	live := o.output == "table" && isTerminal(out) && term.IsTerminal(int(os.Stdin.Fd()))
	root, err := hostfs.Open("/")
	if err != nil {
		return err
	}
	collector, err := o.newCollector(root, live)
	if err != nil {
		return errors.Join(err, root.Close())
	}
	ctx, cancel := context.WithCancel(ctx)
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- collector.Run(ctx, func() { close(ready) }) }()
	<-ready
	screen := &topScreen{collect: collector.Collect, out: out, view: top.View{Order: order, Interval: o.interval}}
	if live {
		err = screen.live(ctx, os.Stdin)
	} else {
		err = screen.once(ctx, o.output)
	}
	cancel()
	return errors.Join(err, <-ended, root.Close())
}

// newCollector reads no more than top shows. What is printed once may wait
// longer for libvirt than what comes again in a moment.
func (o *topOptions) newCollector(root *hostfs.Root, live bool) (*qemu.Collector, error) {
	c, err := o.from.load()
	if err != nil {
		return nil, err
	}
	opt := qemu.Options{
		URIs: c.Telemetry.LibvirtURIs, Kubelet: c.Telemetry.Kubelet, Root: root, Budget: c.Telemetry.Budget, CallTimeout: c.Telemetry.CallTimeout, MaxAge: c.Telemetry.MaxAge,
		Groups: make(map[string]bool), KVMStats: []string{"exits"},
	}
	// Rates need numbers that are made for each look.
	opt.MaxAge = min(opt.MaxAge, 2*o.interval)
	if !live {
		opt.Budget, opt.MaxAge = c.Telemetry.CallTimeout, o.interval/2
	}
	all, _ := metrics.Groups()
	for _, group := range all {
		opt.Groups[group] = false
	}
	for _, group := range []string{"state", "cpu", "vcpu", "memory", "network", "block", "kvm"} {
		opt.Groups[group] = true
	}
	return qemu.New(opt)
}

// topScreen shows the difference between the last two looks.
type topScreen struct {
	collect func(context.Context) *qemu.Snapshot
	out     io.Writer
	view    top.View

	before, now top.Look
}

// look collects, and keeps what rates are made of.
func (s *topScreen) look(ctx context.Context) {
	snapshot := s.collect(ctx)
	defer snapshot.Release()
	s.before, s.now = s.now, top.Take(snapshot)
	s.view.Troubles = s.view.Troubles[:0]
	for _, source := range snapshot.Sources {
		if !source.Up() {
			s.view.Troubles = append(s.view.Troubles, fmt.Sprintf("%s, %s: %s: %s", source.Source, source.Class, source.Reason, source.Message))
		}
	}
}

// once looks twice and prints.
func (s *topScreen) once(ctx context.Context, output string) error {
	s.look(ctx)
	pause := time.NewTimer(s.view.Interval)
	defer pause.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-pause.C:
	}
	s.look(ctx)
	rows := top.Rows(s.before, s.now, s.view.Order)
	if output == "json" {
		encoder := json.NewEncoder(s.out)
		encoder.SetIndent("", "  ")
		return encoder.Encode(struct {
			Interval float64   `json:"intervalSeconds"`
			Troubles []string  `json:"troubles"`
			VMs      []top.Row `json:"vms"`
		}{s.view.Interval.Seconds(), append([]string{}, s.view.Troubles...), rows})
	}
	_, err := io.WriteString(s.out, top.Render(rows, s.view))
	return err
}

// live draws until q, Ctrl-C or the end of ctx, and leaves the terminal as it was.
func (s *topScreen) live(ctx context.Context, in *os.File) (err error) {
	saved, err := term.MakeRaw(int(in.Fd()))
	if err != nil {
		return fmt.Errorf("read single keys from the terminal: %w", err)
	}
	defer func() {
		_, written := io.WriteString(s.out, leaveScreen)
		err = errors.Join(err, written, term.Restore(int(in.Fd()), saved))
	}()
	if _, err := io.WriteString(s.out, enterScreen); err != nil {
		return err
	}
	s.view.Colour = os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	keys := make(chan byte)
	go readKeys(in, keys) // ends with the program: nothing interrupts a read of a terminal
	resized := make(chan os.Signal, 1)
	signal.Notify(resized, syscall.SIGWINCH)
	defer signal.Stop(resized)
	tick := time.NewTicker(s.view.Interval)
	defer tick.Stop()
	s.look(ctx)
	for {
		if err := s.draw(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-resized:
		case <-tick.C:
			s.look(ctx)
		case key := <-keys:
			const interrupt, endOfInput = 3, 0
			if key == 'q' || key == interrupt || key == endOfInput {
				return nil
			}
			if order, found := top.OrderOf(key); found {
				s.view.Order = order
			}
		}
	}
}

// readKeys tells the keys that are pressed, and zero at the end.
func readKeys(in io.Reader, keys chan<- byte) {
	for {
		var key [1]byte
		if _, err := in.Read(key[:]); err != nil {
			keys <- 0
			return
		}
		keys <- key[0]
	}
}

func (s *topScreen) draw() error {
	if file, ok := s.out.(*os.File); ok {
		if width, height, err := term.GetSize(int(file.Fd())); err == nil {
			s.view.Width, s.view.Height = width, height
		}
	}
	text := strings.TrimSuffix(top.Render(top.Rows(s.before, s.now, s.view.Order), s.view), "\n")
	const clearLine = "\x1b[K"
	_, err := io.WriteString(s.out, toTop+strings.ReplaceAll(text, "\n", clearLine+"\r\n")+clearLine+clearDown)
	return err
}
