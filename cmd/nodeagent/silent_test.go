package main

import (
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/virtnode/nodeagent/test/hosttest"
)

// TestRunGoesOnWhileTheAPIServerIsSilent has an API server that accepts
// connections and says nothing.
func TestRunGoesOnWhileTheAPIServerIsSilent(t *testing.T) {
	var missing error
	if os.Geteuid() != 0 {
		missing = errors.New("who follows HostNetworks must be root")
	}
	hosttest.Need(t, hosttest.Netns, missing)
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	accepted := make(chan struct{}, 100)
	go func() {
		for {
			connection, err := server.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { _ = connection.Close() })
			accepted <- struct{}{}
		}
	}()
	kubeconfig := write(t, "kubeconfig", `{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: c, user: u}}], users: [{name: u, user: {token: t}}],
  clusters: [{name: c, cluster: {server: "http://`+server.Addr().String()+`"}}]}`)
	cmd := command("run", "--web.listen-address", "127.0.0.1:0", "--config", write(t, "nodeagent.yaml",
		"kubernetes: {kubeconfig: "+kubeconfig+"}\nnetwork: {stateDirectory: "+filepath.Join(t.TempDir(), "state")+"}\n"))
	cmd.Env = append(cmd.Env, "NODE_NAME=silent")
	d := follow(t, cmd)
	<-accepted
	d.wait(t, "the cluster cannot be watched; what is known of it holds on")
	eventually(t, "all tasks are ready", func() bool { status, _ := get(t, d.url+"/readyz"); return status == http.StatusOK })
	eventually(t, "metrics tell of it", func() bool {
		_, text := get(t, d.url+"/metrics")
		return strings.Contains(text, "virtnode_node_publish_up 0")
	})
	<-accepted // it is tried again; by whom is for the test of package node
	if status, _ := get(t, d.url+"/report"); status != http.StatusOK {
		t.Errorf("/report: %d", status)
	}
}
