package qemu

import (
	"fmt"

	"github.com/virtnode/nodeagent/internal/hostfs"
)

// Describe says in words which process one is: its VM, if it runs one, and its
// pod, as far as the kernel and the kubelet's logs tell; always its number.
func Describe(root *hostfs.Root, pid int) string {
	text := fmt.Sprintf("process %d", pid)
	comm, err := root.ReadString(procPath(pid, "comm"))
	if err == nil {
		text += fmt.Sprintf(" (%s)", comm)
	}
	if data, err := root.ReadFile(procPath(pid, "cmdline")); err == nil && isQEMU(comm) {
		if id := parseCmdline(data); id.machine && id.name != "" {
			text = fmt.Sprintf("VM %s, %s", id.name, text)
		}
	}
	data, err := root.ReadFile(procPath(pid, "cgroup"))
	uid := parsePodCgroup(data)
	if err != nil || uid == "" {
		return text
	}
	logs, _ := root.ReadDir(podLogs) // without them, its UID is all that is known
	for _, log := range logs {
		if named, ok := parsePodLog(log); ok && named.uid == uid {
			return fmt.Sprintf("%s, of pod %s/%s", text, named.namespace, named.name)
		}
	}
	return fmt.Sprintf("%s, of pod %s", text, uid)
}
