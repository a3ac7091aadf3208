package vm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// output runs a tool of the host in dir and returns its standard output.
func output(ctx context.Context, dir, tool string, args ...string) ([]byte, error) {
	return runTool(ctx, dir, nil, tool, args...)
}

// filter runs a tool of the host on stdin.
func filter(ctx context.Context, stdin io.Reader, tool string, args ...string) ([]byte, error) {
	return runTool(ctx, "", stdin, tool, args...)
}

func runTool(ctx context.Context, dir string, stdin io.Reader, tool string, args ...string) ([]byte, error) {
	path, err := findTool(tool)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, path, args...)
	var stdout, stderr bytes.Buffer
	cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = dir, stdin, &stdout, &stderr
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("run %s: %w\n%s", strings.Join(cmd.Args, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return stdout.Bytes(), nil
}

// findTool also looks where the PATH of an ordinary user does not.
func findTool(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%w: run test/install.sh vm", err)
}

// inNewFolder makes dir whole or not at all: fill works on a folder beside it
// that then gets its name.
func inNewFolder(dir string, fill func(tmp string) error) error {
	tmp, err := os.MkdirTemp(filepath.Dir(dir), ".new-")
	if err != nil {
		return fmt.Errorf("make a folder: %w", err)
	}
	err = fill(tmp)
	if err == nil {
		// MkdirTemp's folder is for its owner only; a cache may be shared.
		err = os.Chmod(tmp, 0o755)
	}
	if err == nil {
		err = os.Rename(tmp, dir)
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(tmp))
	}
	return nil
}

// copyFile copies what from names, through links, with its permissions.
func copyFile(from, to string) error {
	f, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("copy a file: %w", err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("copy a file: %w", err)
	}
	return writeFile(to, f, info.Mode().Perm())
}

// writeFile makes the file's folder, too.
func writeFile(file string, content io.Reader, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return fmt.Errorf("make a folder: %w", err)
	}
	f, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, mode)
	if err != nil {
		return fmt.Errorf("create a file: %w", err)
	}
	_, err = io.Copy(f, content)
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	return nil
}
