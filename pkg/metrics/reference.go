package metrics

import (
	"fmt"
	"strings"
)

// Reference returns docs/metrics.md: every family named virtnode_.
func Reference() string {
	var b strings.Builder
	b.WriteString(`# Metrics

<!-- Made from the tables in pkg/metrics by go test ./pkg/metrics -update. Do not edit. -->

nodeagent serves these families at ` + "`/metrics`" + `, and the usual ` + "`go_`" + ` and ` + "`process_`" + ` ones of a Go program.

Class says where a value comes from, and so when it is there:
` + "`kernel`" + ` is /proc, which needs neither libvirt nor a QEMU that answers;
` + "`bpf`" + ` is a program that the agent puts into the kernel, if that takes it (` + "`virtnode_bpf_program_up`" + `);
` + "`light`" + ` is libvirt, without a question to QEMU;
` + "`monitor`" + ` is libvirt asking QEMU;
` + "`control`" + ` is libvirt's events, and the XML that they change;
` + "`agent`" + ` is nodeagent itself.
What the kernel tells too, it tells without libvirt: CPU time and delay of a VM and of its virtual CPUs, resident memory, and traffic of a tap.
A value that nobody knows has no series: it is never shown as zero.

` + "`telemetry.groups`" + ` switches groups, ` + "`telemetry.compat`" + ` adds the families of other exporters ([how they differ](compat.md)), and
` + "`telemetry.maxSeriesPerVM`" + ` and ` + "`telemetry.maxSeries`" + ` bound what a page has.
`)
	fmt.Fprintf(&b, "\n## Virtual machines\n\nLabels on every series: %s. Each group can be switched on and off.\n", codes(vmLabels))
	for _, group := range vmGroups {
		title := "Group " + group.name
		if !group.standard {
			title += " (off by default)"
		}
		appendTable(&b, title, "", group.families)
	}
	appendTable(&b, "Sources of VM telemetry", "source class", sourceFamilies[:])
	appendTable(&b, "Programs in the kernel", "program", programFamilies[:])
	appendTable(&b, "Readiness of the host", "", readinessFamilies[:])
	appendTable(&b, "Checks of the host's readiness", "area check", checkFamilies[:])
	appendTable(&b, "The host's network", "", hostNetworkFamilies[:])
	appendTable(&b, "HostNetworks of the cluster", "", followingFamilies[:])
	appendTable(&b, "Virtual functions of the host", "pf pool state", inventoryFamilies[:])
	appendTable(&b, "Labels and conditions in the cluster", "", publishFamilies[:])
	appendTable(&b, "Tasks of the agent", "task", taskFamilies[:])
	appendTable(&b, "Configuration", "", configFamilies[:])
	appendTable(&b, "Build", "", buildFamilies[:])
	appendTable(&b, "The page itself", "", scrapeFamilies[:])
	for i := range dialects {
		d := &dialects[i]
		appendTable(&b, "With compat "+d.name, d.labels, d.families)
		if len(d.page) > 0 {
			appendTable(&b, "With compat "+d.name+", of all machines", "", d.page)
		}
	}
	return b.String()
}

func appendTable[T any](b *strings.Builder, title string, labels string, families []family[T]) {
	fmt.Fprintf(b, "\n## %s\n\n", title)
	if labels != "" {
		fmt.Fprintf(b, "Labels on every series: %s.\n\n", codes(labels))
	}
	b.WriteString("| family | type | labels | class | meaning |\n|---|---|---|---|---|\n")
	for i := range families {
		f := &families[i]
		fmt.Fprintf(b, "| `%s` | %s | %s | %s | %s |\n", f.name, f.kind, codes(f.labels), f.class, f.help)
	}
}

func codes(names string) string {
	if names == "" {
		return ""
	}
	return "`" + strings.ReplaceAll(names, " ", "`, `") + "`"
}
