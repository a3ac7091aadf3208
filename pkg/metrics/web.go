package metrics

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"

	"github.com/prometheus/exporter-toolkit/web"
)

// CheckWebConfig reads a web configuration file, of the format that
// Prometheus' exporters share, and the certificates that it names.
func CheckWebConfig(file string) error {
	if err := web.Validate(file); err != nil {
		return fmt.Errorf("web configuration %s: %w", file, err)
	}
	return nil
}

// serveHTTP serves plainly without a web configuration file, and as the file
// says with one. Users and certificates are read anew when they are asked for.
func serveHTTP(server *http.Server, listener net.Listener, webConfig string, log *slog.Logger) error {
	if webConfig == "" {
		return server.Serve(listener)
	}
	return web.Serve(listener, server, &web.FlagConfig{WebConfigFile: &webConfig}, log)
}

// ignoreClosed is for closing what may be closed already.
func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
