package vm

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// kernelSeries is the one with what the profiles need; Debian 12 has it among
// its backports.
const kernelSeries = "6.12"

// newestKernel returns the release of the newest kernel that apt knows:
// Debian's full flavour, neither cloud nor real-time.
func newestKernel(ctx context.Context) (string, error) {
	out, err := output(ctx, "", "apt-cache", "pkgnames", kernelPackage(kernelSeries+"."))
	if err != nil {
		return "", err
	}
	release := newest(kernelReleases(out))
	if release == "" {
		return "", fmt.Errorf("apt knows no %s kernel: run test/install.sh vm", kernelSeries)
	}
	return release, nil
}

func kernelPackage(release string) string { return "linux-image-" + release }

// kernelReleases finds the releases of the full flavour among package names.
func kernelReleases(packages []byte) []string {
	name := regexp.MustCompile(`(?m)^linux-image-([0-9.]+\+deb[0-9.]+-amd64)$`)
	var releases []string
	for _, match := range name.FindAllSubmatch(packages, -1) {
		releases = append(releases, string(match[1]))
	}
	return releases
}

// newest returns the highest of kernel releases, by their numbers.
func newest(releases []string) string {
	if len(releases) == 0 {
		return ""
	}
	return slices.MaxFunc(releases, func(a, b string) int { return slices.Compare(numbers(a), numbers(b)) })
}

func numbers(release string) []int {
	var ns []int
	version := strings.TrimSuffix(release, "-amd64")
	for _, digits := range regexp.MustCompile(`[0-9]+`).FindAllString(version, -1) {
		n, err := strconv.Atoi(digits)
		if err != nil {
			n = 0 // longer than any number of a kernel's
		}
		ns = append(ns, n)
	}
	return ns
}

// fetchKernel makes dir with vmlinux and lib/modules of a Debian kernel.
func fetchKernel(ctx context.Context, release, dir string, log func(string)) error {
	log("downloading " + kernelPackage(release))
	return inNewFolder(dir, func(tmp string) error {
		if _, err := output(ctx, tmp, "apt-get", "download", "-q", kernelPackage(release)); err != nil {
			return err
		}
		debs, err := filepath.Glob(filepath.Join(tmp, "*.deb"))
		if err != nil || len(debs) != 1 {
			return fmt.Errorf("find the downloaded package in %s: %w", tmp, cmp.Or(err, fmt.Errorf("%d packages", len(debs))))
		}
		log("unpacking it")
		if _, err := output(ctx, tmp, "dpkg-deb", "-x", debs[0], tmp); err != nil {
			return err
		}
		if err := extractVMLinux(ctx, filepath.Join(tmp, "boot", "vmlinuz-"+release), filepath.Join(tmp, "vmlinux")); err != nil {
			return err
		}
		for _, unwanted := range []string{debs[0], filepath.Join(tmp, "boot"), filepath.Join(tmp, "usr")} {
			if err := os.RemoveAll(unwanted); err != nil {
				return fmt.Errorf("clean up: %w", err)
			}
		}
		_, err = output(ctx, "", "depmod", "-b", tmp, release)
		return err
	})
}

// extractVMLinux takes the ELF kernel out of a bzImage: QEMU starts it at its
// PVH entry, without the seconds that unpacking takes under TCG.
func extractVMLinux(ctx context.Context, vmlinuz, vmlinux string) error {
	bz, err := os.ReadFile(vmlinuz)
	if err != nil {
		return fmt.Errorf("read the kernel: %w", err)
	}
	compressed, size, err := payload(bz)
	if err != nil {
		return fmt.Errorf("slice %s: %w", vmlinuz, err)
	}
	elf, err := filter(ctx, bytes.NewReader(compressed), "zstd", "-d", "-c")
	if err != nil {
		return err
	}
	if len(elf) != size || !bytes.HasPrefix(elf, []byte("\x7fELF")) {
		return fmt.Errorf("unpack %s: %d bytes that are not the promised ELF file of %d", vmlinuz, len(elf), size)
	}
	if err := os.WriteFile(vmlinux, elf, 0o644); err != nil {
		return fmt.Errorf("write the kernel: %w", err)
	}
	return nil
}
