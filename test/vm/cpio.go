package vm

import (
	"bufio"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// writeCPIO writes the tree below root as the initramfs format that the kernel
// unpacks (newc, Documentation/driver-api/early-userspace/buffer-format.rst).
// Everything belongs to root and has no time, so equal trees give equal bytes.
func writeCPIO(w io.Writer, root string) error {
	buffered := bufio.NewWriterSize(w, 1<<20)
	c := &cpio{w: buffered}
	err := filepath.WalkDir(root, func(file string, _ fs.DirEntry, err error) error {
		if err != nil || file == root {
			return err
		}
		return c.addFile(strings.TrimPrefix(file, root+"/"), file)
	})
	if err != nil {
		return fmt.Errorf("archive %s: %w", root, err)
	}
	if err := c.add("TRAILER!!!", 0, 0, strings.NewReader("")); err != nil {
		return err
	}
	if err := buffered.Flush(); err != nil {
		return fmt.Errorf("write the archive: %w", err)
	}
	return nil
}

type cpio struct {
	w       io.Writer
	written int64
	inode   int
}

// File types, from cpio(5).
const (
	cpioDirectory = 0o040000
	cpioRegular   = 0o100000
	cpioSymlink   = 0o120000
)

func (c *cpio) addFile(name, file string) error {
	info, err := os.Lstat(file)
	if err != nil {
		return err
	}
	mode := int64(info.Mode().Perm())
	switch info.Mode().Type() {
	case fs.ModeDir:
		return c.add(name, cpioDirectory|mode, 0, strings.NewReader(""))
	case fs.ModeSymlink:
		target, err := os.Readlink(file)
		if err != nil {
			return err
		}
		return c.add(name, cpioSymlink|0o777, int64(len(target)), strings.NewReader(target))
	case 0:
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		err = c.add(name, cpioRegular|mode, info.Size(), f)
		if closed := f.Close(); err == nil {
			err = closed
		}
		return err
	default:
		return fmt.Errorf("%s: %v files are not archived", file, info.Mode().Type())
	}
}

// add writes one member: a header of 13 numbers of 8 hex digits, the name and
// the content, the last two padded to a multiple of 4 bytes.
func (c *cpio) add(name string, mode, size int64, content io.Reader) error {
	c.inode++
	var head strings.Builder
	head.WriteString("070701")
	for _, field := range []int64{
		int64(c.inode), mode, 0, 0, // uid, gid
		1, 0, size, // links, mtime
		0, 0, 0, 0, // devices
		int64(len(name)) + 1, 0, // checksum
	} {
		fmt.Fprintf(&head, "%08X", field)
	}
	if err := c.padded(strings.NewReader(head.String()+name+"\x00"), int64(head.Len()+len(name)+1)); err != nil {
		return fmt.Errorf("write the header of %s: %w", name, err)
	}
	if err := c.padded(content, size); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

func (c *cpio) padded(content io.Reader, size int64) error {
	if size > 0xffffffff {
		return fmt.Errorf("%d bytes do not fit the format", size)
	}
	// CopyN fails on content that has shrunk since it was measured.
	if _, err := io.CopyN(c.w, content, size); err != nil {
		return err
	}
	c.written += size
	pad := (4 - c.written%4) % 4
	c.written += pad
	_, err := c.w.Write(make([]byte, pad))
	return err
}
