package libvirt

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/virtnode/nodeagent/test/hosttest"
)

// What QEMU can do, as libvirtd found out by running it, is kept between beds:
// finding out takes seconds of CPU. libvirtd itself checks that a remembered
// answer is of the same QEMU, libvirt, kernel and processor.

// recallCapabilities gives the bed's libvirtd what an earlier bed found out.
func recallCapabilities(dir string) error {
	cache, err := hosttest.Cache("libvirt", "capabilities")
	if err != nil {
		return err
	}
	if err := copyFiles(capabilitiesPath(dir), cache); err != nil {
		return fmt.Errorf("recall what QEMU can do: %w", err)
	}
	return nil
}

// rememberCapabilities keeps what the bed's libvirtd found out.
func rememberCapabilities(dir string) error {
	cache, err := hosttest.Cache("libvirt", "capabilities")
	if err != nil {
		return err
	}
	if err := copyFiles(cache, capabilitiesPath(dir)); err != nil {
		return fmt.Errorf("remember what QEMU can do: %w", err)
	}
	return nil
}

func capabilitiesPath(dir string) string {
	return filepath.Join(dir, cacheDir, "qemu", "capabilities")
}

// copyFiles copies the XML files of folder from into folder to, each at once,
// so that a bed that starts meanwhile never reads half a file.
func copyFiles(to, from string) error {
	names, err := filepath.Glob(filepath.Join(from, "*.xml"))
	if err != nil {
		return err
	}
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if err := writeAtOnce(filepath.Join(to, filepath.Base(name)), text); err != nil {
			return err
		}
	}
	return nil
}

func writeAtOnce(name string, text []byte) error {
	part, err := os.CreateTemp(filepath.Dir(name), ".part-")
	if err != nil {
		return err
	}
	_, err = part.Write(text)
	if err := errors.Join(err, part.Close()); err != nil {
		return errors.Join(err, os.Remove(part.Name()))
	}
	return os.Rename(part.Name(), name)
}
