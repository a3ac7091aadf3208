package vm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/virtnode/nodeagent/test/hosttest"
)

// qemu is the emulator; igb came with its version 8.
const (
	qemu        = "qemu-system-x86_64"
	qemuVersion = 8
)

// image is what QEMU boots.
type image struct{ release, kernel, initrd string }

// Missing says why machines cannot be booted here, nil when they can.
func Missing() error {
	version, err := output(context.Background(), "", qemu, "--version")
	if err != nil {
		return err
	}
	if major := qemuMajor(version); major < qemuVersion {
		return fmt.Errorf("QEMU %d is older than %d, the first with an SR-IOV NIC: run test/install.sh vm", major, qemuVersion)
	}
	_, err = findImage()
	return err
}

// qemuMajor reads what qemu-system-x86_64 --version prints; 0 when it is
// something else.
func qemuMajor(version []byte) int {
	match := regexp.MustCompile(`^QEMU emulator version ([0-9]+)\.`).FindSubmatch(version)
	if match == nil {
		return 0
	}
	major, err := strconv.Atoi(string(match[1]))
	if err != nil {
		return 0
	}
	return major
}

// Prepare makes the image, unless it is there. It downloads a kernel when none
// is in the cache, or when newer asks for the newest that apt knows.
func Prepare(ctx context.Context, newer bool, log func(string)) error {
	cache, err := hosttest.Cache("vm")
	if err != nil {
		return err
	}
	unlock, err := lock(ctx, filepath.Join(cache, "lock"), log)
	if err != nil {
		return err
	}
	defer unlock()
	if img, err := findImage(); err == nil && !newer {
		log("ready: " + filepath.Dir(img.initrd))
		return nil
	}
	release, err := pickKernel(ctx, cache, newer)
	if err != nil {
		return err
	}
	img, err := imageOf(cache, release)
	if err != nil {
		return err
	}
	if !exists(img.kernel) {
		if err := fetchKernel(ctx, release, filepath.Dir(img.kernel), log); err != nil {
			return fmt.Errorf("fetch kernel %s: %w", release, err)
		}
	}
	if !exists(img.initrd) {
		if err := buildImage(ctx, release, filepath.Dir(img.kernel), filepath.Dir(img.initrd), log); err != nil {
			return fmt.Errorf("build the image of %s: %w", release, err)
		}
	}
	log("ready: " + filepath.Dir(img.initrd))
	return nil
}

func pickKernel(ctx context.Context, cache string, newer bool) (string, error) {
	if newer {
		return newestKernel(ctx)
	}
	cached, err := releases(cache, "kernel-")
	if err != nil {
		return "", err
	}
	if release := newest(cached); release != "" {
		return release, nil
	}
	return newestKernel(ctx)
}

// findImage returns the image of this recipe with the newest kernel.
func findImage() (image, error) {
	cache, err := hosttest.Cache("vm")
	if err != nil {
		return image{}, err
	}
	key, err := recipeKey()
	if err != nil {
		return image{}, err
	}
	made, err := releases(cache, "image-"+key+"-")
	if err != nil {
		return image{}, err
	}
	if release := newest(made); release != "" {
		return imageOf(cache, release)
	}
	return image{}, errors.New("the VM's image is not made: run `go run ./test/bed vm prepare`")
}

// imageOf names the folders in the cache: a kernel of a release, and an image
// of a recipe and a release.
func imageOf(cache, release string) (image, error) {
	key, err := recipeKey()
	if err != nil {
		return image{}, err
	}
	return image{
		release: release,
		kernel:  filepath.Join(cache, "kernel-"+release, "vmlinux"),
		initrd:  filepath.Join(cache, "image-"+key+"-"+release, "initrd.img"),
	}, nil
}

// releases returns what follows prefix in the names of the cache's folders.
func releases(cache, prefix string) ([]string, error) {
	entries, err := os.ReadDir(cache)
	if err != nil {
		return nil, fmt.Errorf("list the cache: %w", err)
	}
	var found []string
	for _, entry := range entries {
		if release, ok := strings.CutPrefix(entry.Name(), prefix); ok {
			found = append(found, release)
		}
	}
	return found, nil
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}

// lock waits until no other process prepares.
func lock(ctx context.Context, file string, log func(string)) (unlock func(), err error) {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open the lock: %w", err)
	}
	poll := time.NewTicker(200 * time.Millisecond)
	defer poll.Stop()
	for waiting := false; ; waiting = true {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			// Closing gives the lock back.
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", file, err), f.Close())
		}
		if !waiting {
			log("waiting for another process that prepares")
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("lock %s: %w", file, ctx.Err()), f.Close())
		}
	}
}
