// Command image packs binaries of one program, one for each architecture, into
// a container image, without a container runtime:
//
//	image --name registry.example/nodeagent:v1 --out DIR bin/nodeagent-linux-amd64 bin/nodeagent-linux-arm64
//
// DIR gets the image as an OCI archive and a bill of materials (SPDX) for each
// binary. All that is said about a binary is read from it: the same binaries
// make the same image, byte for byte, whenever and wherever.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// archiveName is the image's file in the folder of results.
func archiveName(program string) string { return program + ".oci.tar" }

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("image", flag.ContinueOnError)
	flags.SetOutput(stderr)
	name := flags.String("name", "localhost/nodeagent:devel", "the image's name, with its tag")
	out := flags.String("out", "bin/image", "folder for the image and the bills of materials")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	}
	digest, err := pack(*name, *out, flags.Args())
	if err != nil {
		_, _ = fmt.Fprintln(stderr, "image:", err)
		return 1
	}
	if _, err := fmt.Fprintf(stdout, "%s@%s\n", *name, digest); err != nil {
		return 1
	}
	return 0
}

// pack writes everything, and returns the image's digest.
func pack(name, out string, files []string) (digest string, err error) {
	if len(files) == 0 {
		return "", errors.New("no binary is named; make image builds them")
	}
	var programs []program
	for _, file := range files {
		p, err := readProgram(file)
		if err != nil {
			return "", err
		}
		if len(programs) > 0 && p.name != programs[0].name {
			return "", fmt.Errorf("%s is %s, and %s is %s: one image is for one program", files[0], programs[0].name, file, p.name)
		}
		programs = append(programs, p)
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return "", fmt.Errorf("make the folder of results: %w", err)
	}
	for _, p := range programs {
		bill, err := billOf(p)
		if err != nil {
			return "", err
		}
		if err := os.WriteFile(filepath.Join(out, p.name+"-"+p.arch+".spdx.json"), bill, 0o644); err != nil {
			return "", fmt.Errorf("write the bill of materials: %w", err)
		}
	}
	index, err := indexOf(programs)
	if err != nil {
		return "", err
	}
	if err := writeArchive(filepath.Join(out, archiveName(programs[0].name)), name, index); err != nil {
		return "", err
	}
	hash, err := index.Digest()
	if err != nil {
		return "", fmt.Errorf("hash the image: %w", err)
	}
	return hash.String(), nil
}
