package multus

import (
	"encoding/json"
	"fmt"
)

// Object is a Kubernetes object of the two kinds that are rendered.
type Object struct {
	APIVersion string            `json:"apiVersion"`
	Kind       string            `json:"kind"`
	Metadata   Metadata          `json:"metadata"`
	Spec       *Definition       `json:"spec,omitempty"` // of a NetworkAttachmentDefinition
	Data       map[string]string `json:"data,omitempty"` // of a ConfigMap
}

// Metadata names an object.
type Metadata struct {
	Name        string            `json:"name"`
	Namespace   string            `json:"namespace"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// Definition holds a CNI configuration as text.
type Definition struct {
	Config string `json:"config"`
}

// text is a value of plain structs, maps and strings as JSON.
func text(v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("render %T: %v", v, err))
	}
	return string(data)
}
