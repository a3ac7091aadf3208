package libvirt

import (
	"fmt"
	"net"
	"os"
	"syscall"
	"testing"
)

func TestPod(t *testing.T) {
	for name, user := range map[string]int{"root": 0, "user 107": 107} {
		t.Run(name, func(t *testing.T) {
			pod := &Pod{Kubelet: t.TempDir(), UID: "0f9c1d5e-7f0a-4e55-9c2e-6a1f3f1f9a01", User: user}
			host := New(t, Options{Pod: pod})
			start(t, host, Domain{Name: "default_web"})
			wantState(t, host, "default_web", "running")
			if len(pod.Socket()) <= maxSocketPath {
				t.Errorf("%s is not too long for a socket, as on a node", pod.Socket())
			}
			info, err := os.Stat(pod.Socket())
			if err != nil || info.Mode().Type() != os.ModeSocket || info.Sys().(*syscall.Stat_t).Uid != uint32(user) {
				t.Errorf("the socket is %+v, %v", info, err)
			}
			if _, err := net.Dial("unix", pod.Socket()); err == nil {
				t.Error("its path can be dialled")
			}
			process, err := os.Stat(fmt.Sprintf("/proc/%d", qemuPID(t, host, "default_web")))
			if err != nil || process.Sys().(*syscall.Stat_t).Uid != uint32(user) {
				t.Errorf("QEMU runs as another user: %+v, %v", process, err)
			}
			if err := host.KillDaemon(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := host.StartDaemon(t.Context()); err != nil {
				t.Fatal(err)
			}
			wantState(t, host, "default_web", "running")
			if err := host.Close(); err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(pod.dir()); err == nil {
				t.Error("the pod's folder is still there")
			}
		})
	}
}
