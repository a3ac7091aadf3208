package node

import (
	"encoding/json"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Manager is the name under which the agent owns fields of objects.
const Manager = "nodeagent"

// owners says who owns labels, by key, and conditions, by type.
type owners struct {
	labels     map[string][]string
	conditions map[string][]string
}

// ownersOf reads the fields that an object's managers own (fieldsV1 of the API
// conventions: "f:" before a name, "k:" before the keys of an element of a
// list). Entries that cannot be read own nothing.
func ownersOf(managed []metav1.ManagedFieldsEntry) owners {
	all := owners{labels: make(map[string][]string), conditions: make(map[string][]string)}
	for _, entry := range managed {
		var fields struct {
			Metadata struct {
				Labels map[string]json.RawMessage `json:"f:labels"`
			} `json:"f:metadata"`
			Status struct {
				Conditions map[string]json.RawMessage `json:"f:conditions"`
			} `json:"f:status"`
		}
		if entry.FieldsV1 == nil || json.Unmarshal(entry.FieldsV1.GetRawBytes(), &fields) != nil {
			continue
		}
		for name := range fields.Metadata.Labels {
			if key, isField := strings.CutPrefix(name, "f:"); isField {
				all.labels[key] = append(all.labels[key], entry.Manager)
			}
		}
		for name := range fields.Status.Conditions {
			var element struct {
				Type string `json:"type"`
			}
			if keys, isElement := strings.CutPrefix(name, "k:"); isElement && json.Unmarshal([]byte(keys), &element) == nil {
				all.conditions[element.Type] = append(all.conditions[element.Type], entry.Manager)
			}
		}
	}
	return all
}

// ours reports whether the agent is among the owners.
func ours(managers []string) bool { return slices.Contains(managers, Manager) }

// others lists the owners besides the agent.
func others(managers []string) []string {
	return slices.DeleteFunc(slices.Clone(managers), func(m string) bool { return m == Manager })
}
