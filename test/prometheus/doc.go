// Package prometheus is a test bed: a Prometheus server that scrapes what a
// test serves, and promtool's opinion of an exposition.
//
//	server := prometheus.New(t, "127.0.0.1:9100")
//	samples, err := server.Wait(ctx, "up == 1")
//
// The server is Debian's, with its data in a temporary folder. It ends with
// the process that started it, however that one ends, and leaves nothing behind.
package prometheus
