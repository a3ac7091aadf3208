package vm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/virtnode/nodeagent/test/vm/wire"
)

// RunBinary runs a static program of the host's in the guest as `go test
// -exec` wants it: in a copy of the current folder's testdata, with output as
// it comes. It returns the exit status; when that is not 0, the console and
// dmesg are kept and stderr says where.
func (m *Machine) RunBinary(ctx context.Context, argv []string, stdout, stderr io.Writer) (int, error) {
	dir, err := os.MkdirTemp(m.Share, "run-")
	if err != nil {
		return 0, fmt.Errorf("make a folder in the share: %w", err)
	}
	program := filepath.Base(argv[0])
	if err := copyFile(argv[0], filepath.Join(dir, "bin", program)); err != nil {
		return 0, err
	}
	cwd := filepath.Join(dir, "cwd")
	if err := os.Mkdir(cwd, 0o755); err != nil {
		return 0, fmt.Errorf("make a folder in the share: %w", err)
	}
	if err := os.CopyFS(filepath.Join(cwd, "testdata"), os.DirFS("testdata")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return 0, fmt.Errorf("copy testdata: %w", err)
	}
	inGuest := wire.ShareDir + "/" + filepath.Base(dir)
	code, err := m.Run(ctx, Command{
		Argv:   append([]string{inGuest + "/bin/" + program}, argv[1:]...),
		Dir:    inGuest + "/cwd",
		Env:    ownEnvironment(os.Environ()),
		Stdout: stdout, Stderr: stderr,
	})
	if code != 0 || err != nil {
		kept, kerr := m.Keep(context.WithoutCancel(ctx))
		if kerr != nil {
			return code, errors.Join(err, kerr)
		}
		_, werr := fmt.Fprintf(stderr, "machine %s: console and dmesg are kept in %s\n", m.Profile.Name, kept)
		return code, errors.Join(err, werr)
	}
	return 0, nil
}

// ownEnvironment picks the variables that mean something in the guest, too.
func ownEnvironment(environ []string) []string {
	var own []string
	for _, variable := range environ {
		if strings.HasPrefix(variable, "NODEAGENT_") || strings.HasPrefix(variable, "GODEBUG=") {
			own = append(own, variable)
		}
	}
	return own
}
