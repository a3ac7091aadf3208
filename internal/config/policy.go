package config

import (
	"encoding/json"
	"errors"
	"reflect"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"github.com/virtnode/nodeagent/api/v1alpha1"
)

// ParsePolicies returns the HostNetworks in a YAML file of one document or
// more, defaults filled in. Every error is an [*Error]; several are joined.
func ParsePolicies(data []byte) ([]v1alpha1.HostNetwork, error) {
	file, err := parser.ParseBytes(data, 0)
	if err != nil {
		return nil, locate(nil, nil, err)
	}
	var policies []v1alpha1.HostNetwork
	var bad []error
	lines := make(map[string]int)
	for _, document := range file.Docs {
		if empty(document) {
			continue
		}
		policy, err := parsePolicy(document)
		line := document.Body.GetToken().Position.Line
		if _, again := lines[policy.Name]; again && err == nil {
			err = &Error{Line: line, Path: "metadata.name", Message: policy.Name + " is the name of a policy above already"}
		}
		lines[policy.Name] = line
		policies, bad = append(policies, policy), append(bad, err)
	}
	if err := errors.Join(bad...); err != nil {
		return nil, err
	}
	if len(policies) == 0 {
		return nil, &Error{Message: "there is no HostNetwork in it"}
	}
	return policies, nil
}

// empty reports whether a document says nothing.
func empty(document *ast.DocumentNode) bool {
	return document.Body == nil || document.Body.Type() == ast.NullType || document.Body.Type() == ast.CommentType
}

func parsePolicy(document *ast.DocumentNode) (v1alpha1.HostNetwork, error) {
	var policy v1alpha1.HostNetwork
	alone := &ast.File{Docs: []*ast.DocumentNode{document}}
	if err := yaml.NodeToValue(document.Body, &policy, yaml.Strict(), yaml.CustomUnmarshaler(numberOrText)); err != nil {
		return policy, locate(alone, reflect.TypeFor[v1alpha1.HostNetwork](), err)
	}
	policy.Default()
	var problems []Error
	for _, problem := range policy.Validate() {
		problems = append(problems, Error{Path: problem.Path, Message: problem.Message})
	}
	return policy, joined(alone, problems)
}

// numberOrText reads a number, or a text such as a percentage. A number in
// quotes is a text, as to the API server.
func numberOrText(value *v1alpha1.IntOrString, data []byte) error {
	var read any
	if err := yaml.Unmarshal(data, &read); err != nil {
		return err
	}
	text, err := json.Marshal(read)
	if err != nil {
		return err
	}
	return value.UnmarshalJSON(text)
}
