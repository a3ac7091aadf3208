package nodestack

import (
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"testing"

	"github.com/virtnode/nodeagent/pkg/kvmcheck"
)

// declaredReasons reads the constants of type kvmcheck.Reason out of the source.
func declaredReasons(t *testing.T) []kvmcheck.Reason {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "catalogue.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var reasons []kvmcheck.Reason
	ast.Inspect(file, func(node ast.Node) bool {
		spec, ok := node.(*ast.ValueSpec)
		if !ok || len(spec.Values) != 1 {
			return true
		}
		kind, ok := spec.Type.(*ast.SelectorExpr)
		if !ok || kind.Sel.Name != "Reason" {
			return true
		}
		value, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
		if err != nil || value != spec.Names[0].Name {
			t.Errorf("constant %s is %q: name and value must be the same", spec.Names[0].Name, value)
		}
		reasons = append(reasons, kvmcheck.Reason(value))
		return true
	})
	if len(reasons) < 20 {
		t.Fatalf("found %d reasons", len(reasons))
	}
	return reasons
}
