// Package exporter runs programs that serve /metrics, the agent as it is
// shipped and Debian's exporter of libvirt, scrapes them as Prometheus does,
// and measures what they cost.
//
//	agent, err := exporter.Start(ctx, exporter.Agent(binary, exporter.AgentOptions{URIs: []string{host.URI()}}))
//	page, err := agent.Scrape(ctx)
//	seconds, known := page.Value("virtnode_vm_cpu_seconds_total", "name", "busy")
//
// A program ends with the process that started it, however that one ends.
package exporter
