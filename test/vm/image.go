package vm

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/virtnode/nodeagent/test/hosttest"
)

// recipe is everything that decides what is in the initramfs, so that a
// change of any of it makes a new image.
//
//go:embed image.go cpio.go guest/*.go wire/*.go
var recipe embed.FS

// imageModules are in the guest, with what they depend on.
func imageModules() []string {
	return []string{
		"kvm-amd", "kvm-intel", "msr", "cpuid",
		"igb", "igbvf", "virtio_net",
		"vfio-pci", "vfio_iommu_type1",
		"vhost_net", "vhost_vsock", "tun",
		"macvlan", "macvtap", "ipvlan", "8021q", "bridge", "bonding", "dummy", "veth", "vxlan",
		"overlay", "loop", "9p", "9pnet_virtio",
	}
}

// imageTools are the host's programs that are in the guest beside busybox.
func imageTools() []string { return []string{"bash", "kmod", "ip", "bridge"} }

// recipeKey names the images of this recipe.
func recipeKey() (string, error) {
	sum := sha256.New()
	err := fs.WalkDir(recipe, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := recipe.ReadFile(name)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(sum, "%s %d\n%s", name, len(text), text)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("hash the recipe: %w", err)
	}
	return hex.EncodeToString(sum.Sum(nil))[:12], nil
}

// buildImage makes dir with initrd.img for a kernel made by fetchKernel.
func buildImage(ctx context.Context, release, kernel, dir string, log func(string)) error {
	log("making the initramfs for " + release)
	return inNewFolder(dir, func(tmp string) error {
		root := filepath.Join(tmp, "root")
		if err := addBase(ctx, root); err != nil {
			return err
		}
		for _, tool := range imageTools() {
			if err := addTool(ctx, root, tool); err != nil {
				return err
			}
		}
		if err := addModules(ctx, root, release, kernel); err != nil {
			return err
		}
		if err := hosttest.Build(filepath.Join(root, "init"), "./test/vm/guest"); err != nil {
			return err
		}
		f, err := os.Create(filepath.Join(tmp, "initrd.img"))
		if err != nil {
			return fmt.Errorf("create the initramfs: %w", err)
		}
		err = writeCPIO(f, root)
		if closed := f.Close(); err == nil {
			err = closed
		}
		if err != nil {
			return err
		}
		return os.RemoveAll(root)
	})
}

// addBase makes the folders, busybox with a link per applet, the links to
// kmod, and the few files of /etc that programs look for.
func addBase(ctx context.Context, root string) error {
	for _, dir := range []string{"bin", "sbin", "usr/bin", "usr/sbin", "etc", "root", "mnt", "var/lib", "var/log"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return fmt.Errorf("make a folder: %w", err)
		}
	}
	busybox, err := findTool("busybox")
	if err != nil {
		return err
	}
	if err := copyFile(busybox, filepath.Join(root, "bin/busybox")); err != nil {
		return err
	}
	applets, err := output(ctx, "", busybox, "--list")
	if err != nil {
		return err
	}
	links := map[string]string{"bin/sh": "bash", "bin/bash": "/usr/bin/bash", "var/run": "/run"}
	for applet := range strings.FieldsSeq(string(applets)) {
		if link := "bin/" + applet; links[link] == "" && applet != "busybox" {
			links[link] = "busybox"
		}
	}
	for _, name := range []string{"modprobe", "insmod", "rmmod", "lsmod", "modinfo", "depmod"} {
		links["sbin/"+name] = "/usr/bin/kmod"
	}
	for name, target := range links {
		if err := os.Symlink(target, filepath.Join(root, name)); err != nil {
			return fmt.Errorf("make a link: %w", err)
		}
	}
	for name, text := range map[string]string{
		"etc/passwd": "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534:nobody:/:/bin/false\n",
		"etc/group":  "root:x:0:\nkvm:x:104:\nnogroup:x:65534:\n",
		"etc/hosts":  "127.0.0.1 localhost node\n::1 localhost\n",
		// As systemd has it: loading these modules makes no links.
		"etc/modprobe.d/systemd.conf": "options bonding max_bonds=0\noptions dummy numdummies=0\n",
		"root/.bashrc":                "PS1='\\h:\\w# '\n",
	} {
		if err := writeFile(filepath.Join(root, name), strings.NewReader(text), 0o644); err != nil {
			return err
		}
	}
	return copyFile("/etc/os-release", filepath.Join(root, "etc/os-release"))
}

// addTool copies one of the host's programs with its libraries.
func addTool(ctx context.Context, root, name string) error {
	path, err := findTool(name)
	if err != nil {
		return err
	}
	dir := "usr/bin"
	if strings.HasSuffix(filepath.Dir(path), "sbin") {
		dir = "usr/sbin"
	}
	if err := copyFile(path, filepath.Join(root, dir, name)); err != nil {
		return err
	}
	listing, err := output(ctx, "", "ldd", path)
	if err != nil {
		return err
	}
	for _, library := range libraries(listing) {
		if err := copyFile(library, filepath.Join(root, library)); err != nil {
			return err
		}
	}
	return nil
}

// libraries returns the files in what ldd prints.
func libraries(listing []byte) []string {
	var files []string
	for _, match := range regexp.MustCompile(`(?m)(/\S+) \(0x`).FindAllSubmatch(listing, -1) {
		files = append(files, string(match[1]))
	}
	return files
}

// addModules copies the kernel's modules, uncompressed so that the guest does
// not spend its time on that, and indexes them.
func addModules(ctx context.Context, root, release, kernel string) error {
	var wanted []string
	for _, module := range imageModules() {
		listing, err := output(ctx, "", "modprobe", "-d", kernel, "-S", release, "--show-depends", module)
		if err != nil {
			return err
		}
		wanted = append(wanted, moduleFiles(listing)...)
	}
	slices.Sort(wanted)
	for _, file := range slices.Compact(wanted) {
		relative, err := filepath.Rel(kernel, file)
		if err != nil {
			return fmt.Errorf("place a module: %w", err)
		}
		module, err := output(ctx, "", "xz", "-dc", file)
		if err != nil {
			return err
		}
		if err := writeFile(filepath.Join(root, strings.TrimSuffix(relative, ".xz")), bytes.NewReader(module), 0o644); err != nil {
			return err
		}
	}
	for _, index := range []string{"modules.builtin", "modules.builtin.modinfo", "modules.order"} {
		relative := filepath.Join("lib/modules", release, index)
		if err := copyFile(filepath.Join(kernel, relative), filepath.Join(root, relative)); err != nil {
			return err
		}
	}
	_, err := output(ctx, "", "depmod", "-b", root, release)
	return err
}

// moduleFiles returns the files in what modprobe --show-depends prints.
func moduleFiles(listing []byte) []string {
	var files []string
	for line := range strings.Lines(string(listing)) {
		if words := strings.Fields(line); len(words) > 1 && words[0] == "insmod" {
			files = append(files, words[1])
		}
	}
	return files
}
