package hostfs

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
)

// Bounds of an archive: a recording of a large machine is about 2 MiB.
const (
	maxArchive = 256 << 20
	maxEntries = 200_000
)

// WriteArchive writes the recording as a gzip-compressed tar: files with their
// content, links as links, and the manifest. With manifest.Masked set, serial
// numbers, UUIDs and MAC addresses are replaced throughout.
func (rec *Recorder) WriteArchive(w io.Writer, manifest Manifest) error {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	rec.fill(&manifest)
	clean := masker(manifest.Masked)
	about, err := json.MarshalIndent(manifest, "", " ")
	if err != nil {
		return fmt.Errorf("write recording: %w", err)
	}
	zip := gzip.NewWriter(w)
	out := tar.NewWriter(zip)
	if err := writeFile(out, manifestName, []byte(clean(string(about)))); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(rec.dirs)) {
		header := &tar.Header{Typeflag: tar.TypeDir, Name: clean(name[1:]) + "/", Mode: 0o755}
		if err := out.WriteHeader(header); err != nil {
			return fmt.Errorf("write recording: %w", err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(rec.links)) {
		header := &tar.Header{Typeflag: tar.TypeSymlink, Name: clean(name[1:]), Linkname: clean(rec.links[name]), Mode: 0o777}
		if err := out.WriteHeader(header); err != nil {
			return fmt.Errorf("write recording: %w", err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(rec.files)) {
		data := rec.files[name]
		if manifest.Masked {
			data = []byte(clean(maskFile(name, string(data))))
		}
		if err := writeFile(out, clean(name[1:]), data); err != nil {
			return err
		}
	}
	if err := errors.Join(out.Close(), zip.Close()); err != nil {
		return fmt.Errorf("write recording: %w", err)
	}
	return nil
}

func writeFile(out *tar.Writer, name string, data []byte) error {
	header := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(data))}
	if err := out.WriteHeader(header); err != nil {
		return fmt.Errorf("write recording: %w", err)
	}
	if _, err := out.Write(data); err != nil {
		return fmt.Errorf("write recording: %w", err)
	}
	return nil
}

// openArchive unpacks a recording into a temporary folder and opens it.
func openArchive(name string) (*Root, error) {
	data, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("open recording: %w", err)
	}
	defer data.Close() //nolint:errcheck // only read
	dir, err := os.MkdirTemp("", "nodeagent-recording-")
	if err != nil {
		return nil, fmt.Errorf("open recording: %w", err)
	}
	root, err := unpackRoot(data, dir)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open recording %s: %w", name, err), os.RemoveAll(dir))
	}
	root.cleanup = func() error { return os.RemoveAll(dir) }
	return root, nil
}

func unpackRoot(data io.Reader, dir string) (*Root, error) {
	if err := unpack(data, dir); err != nil {
		return nil, err
	}
	root, err := openDir(dir)
	if err == nil && root.recording == nil {
		return nil, fmt.Errorf("no %s in it: not made by nodeagent capture", manifestName)
	}
	return root, err
}

// unpack writes a tar, compressed or not, below dir. Only plain files,
// directories and links are made; os.Root keeps each of them inside.
func unpack(data io.Reader, dir string) error {
	top, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer top.Close() //nolint:errcheck // a directory handle
	plain, err := decompress(data)
	if err != nil {
		return err
	}
	in := tar.NewReader(io.LimitReader(plain, maxArchive))
	links := make(map[string]string)
	for range maxEntries {
		header, err := in.Next()
		if errors.Is(err, io.EOF) {
			return makeLinks(top, links)
		}
		if err != nil {
			return fmt.Errorf("read tar: %w", err)
		}
		name := strings.TrimPrefix(path.Clean("/"+header.Name), "/")
		switch header.Typeflag {
		case tar.TypeDir:
			err = top.MkdirAll(name, 0o755)
		case tar.TypeReg:
			err = unpackFile(top, name, in)
		case tar.TypeSymlink:
			links[name] = header.Linkname
		default:
			err = fmt.Errorf("%s: a recording holds files, directories and symbolic links, not type %q", name, header.Typeflag)
		}
		if err != nil {
			return err
		}
	}
	return fmt.Errorf("more than %d entries", maxEntries)
}

func unpackFile(top *os.Root, name string, in io.Reader) error {
	if err := top.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	file, err := top.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, in)
	return errors.Join(err, file.Close())
}

// makeLinks comes last, so that no file is ever written through a link.
func makeLinks(top *os.Root, links map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(links)) {
		if err := top.MkdirAll(path.Dir(name), 0o755); err != nil {
			return err
		}
		if err := top.Symlink(links[name], name); err != nil {
			return err
		}
	}
	return nil
}

func decompress(data io.Reader) (io.Reader, error) {
	head := make([]byte, 2)
	n, err := io.ReadFull(data, head)
	if err != nil {
		return nil, fmt.Errorf("read archive: %w", err)
	}
	whole := io.MultiReader(bytes.NewReader(head[:n]), data)
	if head[0] != 0x1f || head[1] != 0x8b {
		return whole, nil
	}
	zip, err := gzip.NewReader(whole)
	if err != nil {
		return nil, fmt.Errorf("read archive: %w", err)
	}
	return zip, nil
}
