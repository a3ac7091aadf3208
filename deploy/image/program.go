package main

import (
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path"
	"runtime/debug"
	"time"
)

// program is a binary of ours, and what it says about itself.
type program struct {
	content []byte
	name    string // of the program
	sum     string // SHA-256 of content, in hexadecimal
	info    *debug.BuildInfo
	arch    string
	version string // of the agent; "devel" when the go command knew none
	commit  string // empty when it was not built from a repository
	created time.Time
}

// readProgram reads a binary, and refuses what cannot run in an empty image.
func readProgram(file string) (program, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return program{}, fmt.Errorf("read the binary: %w", err)
	}
	p, err := parseProgram(content)
	if err != nil {
		return program{}, fmt.Errorf("%s: %w", file, err)
	}
	return p, nil
}

func parseProgram(content []byte) (program, error) {
	binary, err := elf.NewFile(bytes.NewReader(content))
	if err != nil {
		return program{}, fmt.Errorf("not a Linux program: %w", err)
	}
	if libraries, err := binary.ImportedLibraries(); err == nil && len(libraries) > 0 {
		return program{}, fmt.Errorf("linked with %v, which the image has not; build with CGO_ENABLED=0", libraries)
	}
	info, err := buildinfo.Read(bytes.NewReader(content))
	if err != nil {
		return program{}, fmt.Errorf("find what it is made of: %w", err)
	}
	sum := sha256.Sum256(content)
	p := program{content: content, name: path.Base(info.Path), sum: hex.EncodeToString(sum[:]), info: info, version: info.Main.Version, created: time.Unix(0, 0).UTC()}
	if p.version == "" || p.version == "(devel)" {
		p.version = "devel"
	}
	for _, setting := range info.Settings {
		switch setting.Key {
		case "GOARCH":
			p.arch = setting.Value
		case "vcs.revision":
			p.commit = setting.Value
		case "vcs.time":
			// The commit's time: that of the build would make each one another.
			if p.created, err = time.Parse(time.RFC3339, setting.Value); err != nil {
				return program{}, fmt.Errorf("parse the time of the commit: %w", err)
			}
		}
	}
	if p.arch == "" {
		return program{}, errors.New("it does not say for which architecture it is")
	}
	return p, nil
}
