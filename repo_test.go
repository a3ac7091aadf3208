// Package repo holds the rules of this repository as tests.
package repo

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/virtnode/nodeagent"

// soleImporters says who may import a dependency: one package knows each, so
// that each can be replaced, and so that its types stay out of ours.
var soleImporters = []struct {
	dependency string
	packages   []string
	reason     string
}{
	{"github.com/digitalocean/go-libvirt", []string{"pkg/qemu"}, "its calls know no deadline: only pkg/qemu knows how to bound them"},
	{"github.com/prometheus/client_golang", []string{"pkg/metrics"}, "too slow for VMs: it serves the agent's own metrics only"},
	{"github.com/klauspost/compress", []string{"pkg/metrics"}, "pages are compressed at half the cost of the standard library's, in one place"},
	{"github.com/prometheus/exporter-toolkit", []string{"pkg/metrics"}, "TLS and authentication as in every exporter, in one place"},
	{"github.com/vishvananda/netlink", []string{"pkg/hostnet"}, "dumps can be interrupted: one retrying wrapper"},
	{"github.com/vishvananda/netns", []string{"pkg/hostnet"}, "the same library, to open a namespace"},
	{"github.com/cilium/ebpf", []string{"internal/bpf"}, "programs are probed and optional in one place"},
	{"github.com/jaypipes/ghw", []string{"pkg/kvmcheck"}, "it reads past hostfs and may panic: one guarded caller"},
	{"github.com/goccy/go-yaml", []string{"internal/config"}, "errors with line and path are made in one place"},
	{"github.com/cyphar/filepath-securejoin", []string{"internal/hostfs"}, "only hostfs resolves paths"},
	{"github.com/google/cel-go", []string{"pkg/kvmcheck/rule"}, "what a user writes is type-checked and bounded in one place"},
	{"github.com/spf13/cobra", []string{"cmd/nodeagent", "cmd/nodeagent-controller", "test/bed"}, "packages know no command line"},
	{"k8s.io/", []string{"internal/controller", "internal/node", "api/v1alpha1", "pkg/nodestack", "pkg/deviceplugin", "test/cluster", "test/e2e"}, "the agent works without Kubernetes; pkg/nodestack speaks the CRI, pkg/deviceplugin with the kubelet"},
	{"google.golang.org/grpc", []string{"pkg/nodestack", "pkg/deviceplugin"}, "a container runtime and a kubelet may hang or lie: one bounded caller each"},
	{"sigs.k8s.io/controller-runtime", []string{"internal/controller", "test/cluster"}, "it would add more than half to the memory of the agent, which has no need of it"},
	{"github.com/go-logr/logr", []string{"internal/controller"}, "controller-runtime writes its log through it"},
	{"github.com/coreos/go-systemd", []string{"cmd/nodeagent"}, "systemd is told in one place; without it nothing changes"},
	{"github.com/google/go-containerregistry", []string{"deploy/image"}, "the image is packed without a container runtime; the agent knows no image"},
	{"os/exec", []string{"test/"}, "the agent starts no program"},
}

// layers says which packages of ours a package may import: one way only.
var layers = map[string][]string{
	"internal/hostfs":          {},
	"internal/agent":           {},
	"internal/bpf":             {},
	"api/v1alpha1":             {},
	"internal/config":          {"api/v1alpha1"},
	"internal/reconcile":       {},
	"pkg/hostnet":              {"api/v1alpha1", "internal/hostfs", "internal/reconcile", "pkg/sriov"},
	"internal/top":             {"pkg/qemu"},
	"internal/uevent":          {},
	"internal/controller":      {"api/v1alpha1", "pkg/multus"},
	"internal/node":            {"api/v1alpha1", "internal/network", "internal/reconcile", "pkg/hostnet", "pkg/kvmcheck"},
	"internal/readiness":       {"internal/uevent", "pkg/kvmcheck", "pkg/nodestack"},
	"pkg/sriov":                {"api/v1alpha1", "internal/hostfs", "internal/reconcile"},
	"pkg/deviceplugin":         {"internal/hostfs", "pkg/sriov"},
	"pkg/multus":               {"api/v1alpha1"},
	"pkg/kvmcheck":             {"internal/hostfs", "pkg/sriov"},
	"pkg/kvmcheck/rule":        {"pkg/kvmcheck"},
	"pkg/nodestack":            {"internal/hostfs", "pkg/kvmcheck"},
	"pkg/qemu":                 {"internal/hostfs"},
	"pkg/metrics":              {"pkg/qemu"},
	"deploy/image":             {},
	"internal/network":         {"api/v1alpha1", "internal/hostfs", "internal/reconcile", "pkg/hostnet", "pkg/kvmcheck", "pkg/sriov"},
	"cmd/nodeagent-controller": {"internal/controller", "internal/node"},
	"cmd/nodeagent": {
		"api/v1alpha1", "internal/network", "internal/reconcile", "pkg/hostnet", "pkg/sriov",
		"internal/agent", "internal/bpf", "internal/config", "internal/hostfs", "internal/node", "internal/readiness", "internal/top", "internal/uevent",
		"pkg/deviceplugin", "pkg/kvmcheck", "pkg/kvmcheck/rule", "pkg/metrics", "pkg/multus", "pkg/nodestack", "pkg/qemu",
	},
}

type source struct {
	dir  string // of the package, slash-separated
	name string // of the file, from the top
	file *ast.File
	fset *token.FileSet
}

// sources parses every Go file of the module that is not a test.
func sources(t *testing.T) []source {
	t.Helper()
	var all []source
	err := filepath.WalkDir(".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if _, err := os.Stat(filepath.Join(name, "go.mod")); err == nil && name != "." {
				return filepath.SkipDir // a module of its own
			}
			if strings.HasPrefix(entry.Name(), ".") && name != "." || entry.Name() == "testdata" {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, name, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		name = filepath.ToSlash(name)
		all = append(all, source{dir: path.Dir(name), name: name, file: file, fset: fset})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 20 {
		t.Fatalf("found %d files: the walk is broken", len(all))
	}
	return all
}

func imports(file *ast.File) []string {
	var paths []string
	for _, spec := range file.Imports {
		if imported, err := strconv.Unquote(spec.Path.Value); err == nil {
			paths = append(paths, imported)
		}
	}
	return paths
}

func TestDependenciesHaveOneImporter(t *testing.T) {
	for _, source := range sources(t) {
		for _, imported := range imports(source.file) {
			for _, rule := range soleImporters {
				if imported != rule.dependency && !strings.HasPrefix(imported, strings.TrimSuffix(rule.dependency, "/")+"/") {
					continue
				}
				allowed := slices.ContainsFunc(rule.packages, func(p string) bool {
					return source.dir == p || strings.HasPrefix(source.dir, strings.TrimSuffix(p, "/")+"/")
				})
				if !allowed {
					t.Errorf("%s imports %s; only %v may: %s", source.name, imported, rule.packages, rule.reason)
				}
			}
		}
	}
}

func TestImportsPointOneWay(t *testing.T) {
	for _, source := range sources(t) {
		if strings.HasPrefix(source.dir, "test/") {
			continue
		}
		allowed, known := layers[source.dir]
		if !known {
			t.Errorf("%s: package %s has no place in layers", source.name, source.dir)
			continue
		}
		for _, imported := range imports(source.file) {
			if ours, ok := strings.CutPrefix(imported, module+"/"); ok && !slices.Contains(allowed, ours) {
				t.Errorf("%s imports %s; %s may import %v", source.name, ours, source.dir, allowed)
			}
		}
	}
}

func TestEveryPackageHasADocComment(t *testing.T) {
	documented := make(map[string]bool)
	for _, source := range sources(t) {
		documented[source.dir] = documented[source.dir] || source.file.Doc != nil
	}
	for dir, ok := range documented {
		if !ok {
			t.Errorf("package %s has no doc comment", dir)
		}
	}
}

func TestPackagesHaveTellingNames(t *testing.T) {
	for _, source := range sources(t) {
		if slices.Contains([]string{"util", "utils", "common", "helpers", "misc"}, path.Base(source.dir)) {
			t.Errorf("package %s: say what it is about", source.dir)
		}
	}
}

// TestNoHiddenState forbids init functions, and package variables that change.
func TestNoHiddenState(t *testing.T) {
	for _, source := range sources(t) {
		for _, decl := range source.file.Decls {
			switch decl := decl.(type) {
			case *ast.FuncDecl:
				if decl.Recv == nil && decl.Name.Name == "init" {
					t.Errorf("%s: an init function; do it where it is needed", source.fset.Position(decl.Pos()))
				}
			case *ast.GenDecl:
				if decl.Tok != token.VAR {
					continue
				}
				for _, spec := range decl.Specs {
					checkVariable(t, source, decl, spec.(*ast.ValueSpec))
				}
			}
		}
	}
}

// checkVariable lets stand what never changes: errors, regular expressions,
// tables, interface assertions and embedded files.
func checkVariable(t *testing.T, source source, decl *ast.GenDecl, spec *ast.ValueSpec) {
	t.Helper()
	for _, comments := range []*ast.CommentGroup{decl.Doc, spec.Doc} {
		if comments != nil && slices.ContainsFunc(comments.List, func(c *ast.Comment) bool { return strings.HasPrefix(c.Text, "//go:embed") }) {
			return
		}
	}
	for i, name := range spec.Names {
		if name.Name == "_" {
			continue
		}
		if i >= len(spec.Values) || !constant(spec.Values[i]) {
			t.Errorf("%s: package variable %s; inject it, or make it a function or a constant", source.fset.Position(name.Pos()), name.Name)
		}
	}
	ast.Inspect(source.file, func(node ast.Node) bool {
		assign, ok := node.(*ast.AssignStmt)
		if !ok || assign.Tok == token.DEFINE {
			return true
		}
		for _, left := range assign.Lhs {
			if index, ok := left.(*ast.IndexExpr); ok {
				left = index.X
			}
			if ident, ok := left.(*ast.Ident); ok && ident.Obj != nil && ident.Obj.Decl == spec {
				t.Errorf("%s: package variable %s changes", source.fset.Position(assign.Pos()), ident.Name)
			}
		}
		return true
	})
}

func constant(value ast.Expr) bool {
	switch value := value.(type) {
	case *ast.CompositeLit:
		return true
	case *ast.CallExpr:
		switch selector(value.Fun) {
		case "errors.New", "fmt.Errorf", "regexp.MustCompile":
			return true
		}
	}
	return false
}

func selector(expr ast.Expr) string {
	sel, ok := expr.(*ast.SelectorExpr)
	if !ok {
		return ""
	}
	if pkg, ok := sel.X.(*ast.Ident); ok {
		return pkg.Name + "." + sel.Sel.Name
	}
	return ""
}

func TestFilesAreReadableInOneSitting(t *testing.T) {
	const most = 550
	for _, source := range sources(t) {
		if lines := source.fset.File(source.file.Pos()).LineCount(); lines > most && !ast.IsGenerated(source.file) {
			t.Errorf("%s has %d lines; split it by stage at %d", source.name, lines, most)
		}
	}
}

var markdownLink = regexp.MustCompile(`\]\(([^)\s]+)\)`)

// TestLinksInDocumentsAreAlive follows every relative link, and anchors in the
// same file.
func TestLinksInDocumentsAreAlive(t *testing.T) {
	count := 0
	err := filepath.WalkDir(".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(name, ".md") {
			return err
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		for _, match := range markdownLink.FindAllStringSubmatch(string(text), -1) {
			link, err := url.Parse(match[1])
			if err != nil {
				t.Errorf("%s: link %s: %v", name, match[1], err)
				continue
			}
			if link.Scheme != "" {
				continue
			}
			count++
			if link.Path != "" {
				if _, err := os.Stat(filepath.Join(filepath.Dir(name), link.Path)); err != nil {
					t.Errorf("%s: dead link %s", name, match[1])
				}
			} else if !slices.Contains(anchors(string(text)), link.Fragment) {
				t.Errorf("%s: no heading for #%s", name, link.Fragment)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if count == 0 {
		t.Error("no link was found in any document")
	}
}

// anchors lists the headings of a document as GitHub names them.
func anchors(text string) []string {
	var names []string
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "#") {
			continue
		}
		title := strings.ToLower(strings.TrimSpace(strings.TrimLeft(line, "#")))
		names = append(names, regexp.MustCompile(`[^a-z0-9 _-]`).ReplaceAllString(strings.ReplaceAll(title, " ", "-"), ""))
	}
	return names
}
