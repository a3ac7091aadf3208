package main

import (
	"encoding/json"
	"fmt"
	"regexp"
	"runtime/debug"
	"time"
)

// The part of SPDX 2.3 that a Go program fills.
type (
	bill struct {
		Version       string         `json:"spdxVersion"`
		License       string         `json:"dataLicense"`
		ID            string         `json:"SPDXID"`
		Name          string         `json:"name"`
		Namespace     string         `json:"documentNamespace"`
		Creation      creation       `json:"creationInfo"`
		Packages      []material     `json:"packages"`
		Relationships []relationship `json:"relationships"`
	}
	creation struct {
		Created  string   `json:"created"`
		Creators []string `json:"creators"`
	}
	material struct {
		ID        string      `json:"SPDXID"`
		Name      string      `json:"name"`
		Version   string      `json:"versionInfo"`
		Download  string      `json:"downloadLocation"`
		Analyzed  bool        `json:"filesAnalyzed"`
		Concluded string      `json:"licenseConcluded"`
		Declared  string      `json:"licenseDeclared"`
		Copyright string      `json:"copyrightText"`
		Comment   string      `json:"comment,omitempty"`
		Checksums []checksum  `json:"checksums,omitempty"`
		Refs      []reference `json:"externalRefs"`
	}
	checksum struct {
		Algorithm string `json:"algorithm"`
		Value     string `json:"checksumValue"`
	}
	reference struct {
		Category string `json:"referenceCategory"`
		Type     string `json:"referenceType"`
		Locator  string `json:"referenceLocator"`
	}
	relationship struct {
		Element string `json:"spdxElementId"`
		Type    string `json:"relationshipType"`
		Related string `json:"relatedSpdxElement"`
	}
)

const (
	documentID  = "SPDXRef-DOCUMENT"
	noAssertion = "NOASSERTION"
)

// billOf lists what a program is made of, as the go command has recorded it
// there: every module with its version, and the toolchain.
func billOf(p program) ([]byte, error) {
	agent := materialOf(p.info.Main.Path, p.version, "")
	agent.Declared = "Apache-2.0"
	agent.Checksums = []checksum{{"SHA256", p.sum}}
	b := bill{
		Version: "SPDX-2.3", License: "CC0-1.0", ID: documentID,
		Name:      p.name + "-" + p.arch,
		Namespace: "https://" + p.info.Main.Path + "/spdx/" + p.sum,
		Creation:  creation{Created: p.created.UTC().Format(time.RFC3339), Creators: []string{"Tool: nodeagent-image"}},
		Packages:  []material{agent},
		Relationships: []relationship{
			{documentID, "DESCRIBES", agent.ID},
		},
	}
	depend := func(m material) {
		b.Packages = append(b.Packages, m)
		b.Relationships = append(b.Relationships, relationship{agent.ID, "CONTAINS", m.ID})
	}
	depend(materialOf("stdlib", p.info.GoVersion, ""))
	for _, module := range p.info.Deps {
		if module.Replace != nil {
			module = &debug.Module{Path: module.Replace.Path, Version: module.Replace.Version, Sum: module.Replace.Sum}
		}
		depend(materialOf(module.Path, module.Version, module.Sum))
	}
	data, err := json.MarshalIndent(b, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write the bill of materials: %w", err)
	}
	return append(data, '\n'), nil
}

// notInID is what an SPDX identifier may not have.
var notInID = regexp.MustCompile(`[^A-Za-z0-9.-]+`)

// materialOf describes a module. Its sum is the go command's hash over the
// module's files, which is not a checksum of any one file.
func materialOf(path, version, sum string) material {
	m := material{
		ID:   "SPDXRef-" + notInID.ReplaceAllString(path+"-"+version, "-"),
		Name: path, Version: version,
		Download: noAssertion, Concluded: noAssertion, Declared: noAssertion, Copyright: noAssertion,
		Refs: []reference{{"PACKAGE-MANAGER", "purl", "pkg:golang/" + path + "@" + version}},
	}
	if sum != "" {
		m.Comment = "go.sum: " + sum
	}
	return m
}
