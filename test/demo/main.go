// Command demo shows the agent at work: the readiness of this host, then live
// metrics of three real VMs, one idle, one busy, one with traffic.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() { os.Exit(run()) }

func run() int {
	agent := flag.String("agent", "bin/nodeagent", "the agent's binary")
	seconds := flag.Int("seconds", 0, "end by itself after this long; 0: at Ctrl-C")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	show := ctx
	if *seconds > 0 {
		var cancel context.CancelFunc
		show, cancel = context.WithTimeout(ctx, time.Duration(*seconds)*time.Second)
		defer cancel()
	}
	if err := runDemo(ctx, show, *agent, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		return 1
	}
	return 0
}
