package main

import (
	"context"
	"log/slog"
	"os"
	"sync"
	"time"

	systemd "github.com/coreos/go-systemd/v22/daemon"
)

// notify tells systemd that the agent serves, and then, if the unit has a
// watchdog, that it lives, until ctx ends. Without systemd it does nothing.
// alive is asked first each time: an agent that cannot answer it is not alive.
// What it returns waits until systemd was told of the end.
func notify(ctx context.Context, alive func(), log *slog.Logger) (wait func()) {
	var telling sync.WaitGroup
	telling.Go(func() { tell(ctx, alive, log) })
	return telling.Wait
}

// tell is what notify does.
func tell(ctx context.Context, alive func(), log *slog.Logger) {
	if os.Getenv("NOTIFY_SOCKET") == "" {
		return
	}
	say := func(state string) {
		if _, err := systemd.SdNotify(false, state); err != nil {
			log.Warn("cannot tell systemd how the agent is", "state", state, "error", err)
		}
	}
	say(systemd.SdNotifyReady)
	defer say(systemd.SdNotifyStopping)
	limit, err := systemd.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("cannot read the watchdog's interval from WATCHDOG_USEC", "error", err)
	}
	if limit <= 0 {
		<-ctx.Done()
		return
	}
	tick := time.NewTicker(limit / 3)
	defer tick.Stop()
	for {
		alive()
		say(systemd.SdNotifyWatchdog)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
