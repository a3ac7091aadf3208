package hosttest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// Root returns the top folder of the project.
func Root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..")
}

// BuildAgent builds the agent as it is shipped (static, no cgo) and returns
// its path. The go command's cache makes every build after the first cheap.
func BuildAgent(t testing.TB) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "nodeagent")
	if err := Build(bin, "./cmd/nodeagent"); err != nil {
		t.Fatal(err)
	}
	return bin
}

// Build makes the static binary bin of the project's package pkg.
func Build(bin, pkg string) error { return build(pkg, "build", "-trimpath", "-o", bin, pkg) }

// BuildTest makes a static binary of a package's tests.
func BuildTest(bin, pkg string) error { return build(pkg, "test", "-c", "-o", bin, pkg) }

// BuildTools makes static binaries of the tools that a module of its own pins,
// in a folder. It needs the module proxies once.
func BuildTools(folder, module string) error {
	return build(module, "build", "-C", module, "-trimpath", "-o", folder+"/", "tool")
}

func build(pkg string, args ...string) error {
	cmd := exec.Command("go", args...)
	cmd.Dir = Root()
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", pkg, err, strings.TrimSpace(string(out)))
	}
	return nil
}
