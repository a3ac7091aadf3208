package node

import (
	"fmt"
	"strings"
)

// Reference returns docs/labels.md: every label and condition.
func Reference() string {
	var b strings.Builder
	b.WriteString(`# Labels and conditions

<!-- Made from the table in internal/node by go test ./cmd/nodeagent -run TestReference -update. Do not edit. -->

The agent writes these to its own Node. ` + "`nodeagent labels`" + ` prints them without a cluster.

## Labels

A label is a capability that lasts, so that VMs can be placed by it. What is better than before is written at once. A label that is
to go, to turn to ` + "`false`" + ` or to another value waits until three looks in a row over at least a minute have said so. What
could not be read changes nothing.

| label | values | says | made of |
|---|---|---|---|
`)
	for _, row := range rows() {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", Prefix+row.name, row.values, row.means, origin(row.from))
	}
	fmt.Fprintf(&b, "| `%sNAME` | `true`, or absent | The logical network NAME is ready: an interface of a HostNetwork. | HostNetwork |\n", networkPrefix)
	fmt.Fprintf(&b, "| `%sNAME` | what the expression gives | A label of your own: `kubernetes.labels` in the configuration. | CEL over the facts |\n", customPrefix)
	fmt.Fprintf(&b, `
There are never more than %d labels, and never more than %d bytes of them: the last in the order of this table are left out, which
the log and `+"`virtnode_node_publish_labels_cut`"+` say. What an expression of `+"`kubernetes.labels`"+` gives is cut to %d letters, and what a value may not have becomes a
dash. A label goes slowly with its expression; while what that asks is not known, or the new configuration is refused, it stays.

## Conditions

| condition | True | False | Unknown |
|---|---|---|---|
| `+"`%s`"+` | the host is ready to run VMs, by its profile | something required is missing; the reason is that of the [first finding](checks.md) that decides | something required could not be read |
| `+"`%s`"+` | all HostNetworks that are for the node hold | one does not; the reason is its state | the host's network could not be looked at |

A condition turns True at once, and away from True only after three looks in a row over at least a minute. It has no heartbeat: the
agent writes when something changes, and whether it lives is for its pod's own probe to tell.

## NodeVirtualization

`+"`kubectl get nv`"+` has one object per node, with its name: the verdict, every finding with its remedy, the physical functions, and what
became of each HostNetwork. It goes with the Node.

## Node Feature Discovery

With `+"`kubernetes.nfd.write`"+` the agent also keeps the labels in the file `+"`%s`"+` of NFD's folder
(`+"`/etc/kubernetes/node-feature-discovery/features.d`"+`), for NFD's worker to read. Only one of the two labels the Node, so that they do
not fight:

| `+"`kubernetes.publish`"+` | who labels | what the file is for |
|---|---|---|
| `+"`true`"+`, in a cluster | the agent | NodeFeatureRules: each line is a feature of `+"`local.feature`"+`, and marked `+"`+no-label`"+` (NFD 0.15 or later) |
| `+"`false`"+` | NFD, with the same names and values | the labels; there are neither conditions nor NodeVirtualizations then |

Both are tested with NFD's own worker and master on a real API server. The master must not deny the namespace `+"`virtnode.io`"+` (`+"`denyLabelNs`"+`); as
it comes, it does not. The file is replaced whole, only when something in it changes, and as slowly as labels go: it carries no expiry time, so
an agent that is gone leaves its labels, as on the Node. A file of that name which the agent did not write is left alone.

An agent that ends leaves its file: it cannot tell a restart from a removal, and labels shall outlive the one. The file goes by

- `+"`write: false`"+` in the configuration, while the agents still run: each removes its own, without a restart. Before the DaemonSet or the chart is removed,
  this is the way to clean all nodes. The chart's hook cannot: it runs once, on any node, as nobody, and sees no host.
- `+"`nodeagent uninstall --host`"+` on a node whose agent is gone (in a debug pod: `+"`--root /host`"+`). `+"`nodeagent uninstall`"+` for the cluster does the same on
  the host it is typed on.

The agent's pod sees the host read-only. The chart mounts the folder when `+"`config.kubernetes.nfd`"+` is there; with kustomize, add a hostPath
volume of the folder, at `+"`/host/etc/kubernetes/node-feature-discovery/features.d`"+`.
`, mostLabels, mostBytes, mostValue, VirtualizationReady, HostNetworkReady, FeatureFileName)
	return b.String()
}

// origin links what is a check.
func origin(from string) string {
	area, check, isCheck := strings.Cut(from, "/")
	if !isCheck || area == "" || strings.Contains(from, " ") || strings.HasSuffix(from, "Mi") || strings.HasSuffix(from, "Gi") {
		return from
	}
	return fmt.Sprintf("[`%s`](checks.md#%s)", from, area+check)
}
