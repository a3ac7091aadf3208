package kvmcheck

import (
	"context"
	"fmt"
	"path"
	"strings"

	"github.com/virtnode/nodeagent/internal/hostfs"
)

// HugepageState says in one line which huge page pools there are, how many
// pages each has, and whether any of them is free: two lines that differ mean
// that another check is due. The kernel announces none of it. Only the
// counters are read, so it costs a small part of [Collect].
func HugepageState(ctx context.Context, host Host) string {
	ctx, cancel := context.WithTimeout(ctx, Deadline)
	defer cancel()
	root := host.Root.Within(ctx)
	var out strings.Builder
	appendPools(&out, root, hugepagesDir)
	nodes, _ := root.ReadDir(nodesDir) // unreadable is like none, until it is readable
	for _, node := range nodes {
		if strings.HasPrefix(node, "node") {
			appendPools(&out, root, path.Join(nodesDir, node, "hugepages"))
		}
	}
	return out.String()
}

func appendPools(out *strings.Builder, root *hostfs.Root, dir string) {
	names, err := root.ReadDir(dir)
	if err != nil && !hostfs.Absent(err) {
		fmt.Fprintf(out, "%s: ?\n", dir)
	}
	for _, name := range names {
		fmt.Fprintf(out, "%s: ", path.Join(dir, name))
		if total := readPages(root, dir, name, "nr_hugepages"); total.Known {
			fmt.Fprintf(out, "%d pages, ", total.Value)
		} else {
			out.WriteString("? pages, ")
		}
		switch free := readPages(root, dir, name, "free_hugepages"); {
		case !free.Known:
			out.WriteString("? free\n")
		case free.Value == 0:
			out.WriteString("none free\n")
		default:
			out.WriteString("some free\n")
		}
	}
}
