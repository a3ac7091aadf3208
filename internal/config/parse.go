package config

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// Error is what is wrong with a configuration, and where.
type Error struct {
	Line    int    // 1-based; 0 when the value is a default
	Path    string // "web.listenAddress"; empty for the document itself
	Message string
}

func (e *Error) Error() string {
	var out strings.Builder
	if e.Line > 0 {
		fmt.Fprintf(&out, "line %d: ", e.Line)
	}
	if e.Path != "" {
		out.WriteString(e.Path + ": ")
	}
	out.WriteString(e.Message)
	return out.String()
}

// Parse returns the configuration in a YAML document, defaults filled in.
// Every error is an [*Error]; several are joined.
func Parse(data []byte, known Known) (Config, error) {
	config := Default()
	file, err := parser.ParseBytes(data, 0)
	if err != nil {
		return Config{}, locate(nil, nil, err)
	}
	body, err := onlyBody(file)
	if err != nil {
		return Config{}, err
	}
	if body != nil {
		if err := checkDurations(file, reflect.TypeFor[Config](), ""); err != nil {
			return Config{}, err
		}
		if err := yaml.UnmarshalWithOptions(data, &config, yaml.Strict()); err != nil {
			return Config{}, locate(file, reflect.TypeFor[Config](), err)
		}
	}
	config.fill()
	return config, joined(file, Validate(config, known))
}

// fill makes the lists that a document left out, or null, empty ones.
func (c *Config) fill() {
	orEmpty := func(lists ...*[]string) {
		for _, list := range lists {
			if *list == nil {
				*list = []string{}
			}
		}
	}
	orEmpty(&c.Telemetry.LibvirtURIs, &c.Telemetry.KVMStats, &c.Telemetry.Compat, &c.Network.Policies)
	if c.Telemetry.Groups == nil {
		c.Telemetry.Groups = map[string]bool{}
	}
	if c.Network.NodeLabels == nil {
		c.Network.NodeLabels = map[string]string{}
	}
	if c.Kubernetes.Labels == nil {
		c.Kubernetes.Labels = []Label{}
	}
	if c.Readiness.Profiles == nil {
		c.Readiness.Profiles = map[string]Profile{}
	}
	if c.Readiness.Rules == nil {
		c.Readiness.Rules = []Rule{}
	}
	for name, profile := range c.Readiness.Profiles {
		orEmpty(&profile.Required, &profile.Recommended, &profile.Optional, &profile.Skipped)
		c.Readiness.Profiles[name] = profile
	}
}

// onlyBody returns the content of the one document, nil when it says nothing.
func onlyBody(file *ast.File) (ast.Node, error) {
	var body ast.Node
	for _, document := range file.Docs {
		switch {
		case empty(document):
		case body != nil:
			return nil, &Error{Line: document.Body.GetToken().Position.Line, Message: "a second document: a configuration is one document"}
		default:
			body = document.Body
		}
	}
	return body, nil
}

// checkDurations finds the durations that cannot be read. The decoder finds
// them too, but does not say where.
func checkDurations(file *ast.File, of reflect.Type, path string) error {
	var bad []error
	for _, field := range reflect.VisibleFields(of) {
		name := strings.TrimPrefix(path+"."+field.Tag.Get("yaml"), ".")
		switch {
		case field.Type == reflect.TypeFor[time.Duration]():
			value := lookup(file, name)
			if value == nil {
				continue
			}
			if _, err := time.ParseDuration(value.GetToken().Value); err != nil {
				bad = append(bad, &Error{
					Line: value.GetToken().Position.Line, Path: name,
					Message: fmt.Sprintf("%q is not a duration; write it as 500ms, 5s or 1m30s", value.GetToken().Value),
				})
			}
		case field.Type.Kind() == reflect.Struct:
			bad = append(bad, checkDurations(file, field.Type, name))
		}
	}
	return errors.Join(bad...)
}

// lookup returns the node at a path, or nil.
func lookup(file *ast.File, path string) ast.Node {
	if file == nil {
		return nil
	}
	at, err := yaml.PathString("$." + path)
	if err != nil {
		return nil
	}
	node, err := at.FilterFile(file)
	if err != nil {
		return nil
	}
	return node
}

// joined gives problems their lines.
func joined(file *ast.File, problems []Error) error {
	var located []error
	for _, problem := range problems {
		node := lookup(file, problem.Path)
		for parent := parentOf(problem.Path); node == nil && inElement(parent); parent = parentOf(parent) {
			node = lookup(file, parent) // a field that is missing there
		}
		if node != nil {
			problem.Line = node.GetToken().Position.Line
		}
		located = append(located, &problem)
	}
	return errors.Join(located...)
}

// inElement reports whether a path leads to an element of a list or mapping, or
// into a policy, where not every field has a default.
func inElement(path string) bool {
	return strings.HasSuffix(path, "]") || strings.HasPrefix(path, "readiness.profiles.") || strings.HasPrefix(path, "spec.")
}

// locate turns the error of decoding a type into one line with line and path.
func locate(file *ast.File, of reflect.Type, err error) error {
	var detail yaml.Error
	if !errors.As(err, &detail) || detail.GetToken() == nil {
		return &Error{Message: err.Error()}
	}
	at := detail.GetToken()
	problem := &Error{Line: at.Position.Line, Path: pathOf(file, at), Message: detail.GetMessage()}
	var unknown *yaml.UnknownFieldError
	var mistyped *yaml.TypeError
	switch {
	case errors.As(err, &unknown):
		problem.Message = "unknown field" + Suggest(at.Value, fieldsAt(of, parentOf(problem.Path)))
	case errors.As(err, &mistyped):
		problem.Message = fmt.Sprintf("%q does not fit: want %s", at.Value, kindName(mistyped.DstType))
	}
	return problem
}

// finder looks for the node that a token belongs to.
type finder struct {
	at   *token.Token
	path string
}

func (f *finder) Visit(node ast.Node) ast.Visitor {
	if document, ok := node.(*ast.DocumentNode); ok && document.Body == nil {
		return nil // "---" and nothing more: it has no token either
	}
	pair, isPair := node.(*ast.MappingValueNode)
	switch {
	case isPair && pair.Key.GetToken().Position.Offset == f.at.Position.Offset:
		f.path = pair.GetPath()
	case !isPair && node.GetToken() != nil && node.GetToken().Position.Offset == f.at.Position.Offset:
		f.path = node.GetPath()
	}
	return f
}

func pathOf(file *ast.File, at *token.Token) string {
	if file == nil {
		return ""
	}
	search := &finder{at: at}
	for _, document := range file.Docs {
		ast.Walk(search, document)
	}
	return strings.TrimPrefix(strings.TrimPrefix(search.path, "$"), ".")
}

// Suggest ends the sentence about a word that is not known: with the word that
// the typing mistake was meant to be, or with all that there are.
func Suggest(word string, known []string) string {
	nearest, least := "", 3
	for _, candidate := range known {
		if d := distance(strings.ToLower(candidate), strings.ToLower(word)); d < least {
			nearest, least = candidate, d
		}
	}
	if nearest != "" {
		return fmt.Sprintf("; did you mean %s?", nearest)
	}
	return "; there are " + strings.Join(known, ", ")
}

// parentOf cuts the last part off a path.
func parentOf(path string) string { return path[:max(strings.LastIndex(path, "."), 0)] }

// fieldsAt lists the fields of the section at a path: of web, of
// readiness.rules[0] and of readiness.profiles.gpu.
func fieldsAt(of reflect.Type, path string) []string {
	section, rest, _ := strings.Cut(path, ".")
	section, _, _ = strings.Cut(section, "[")
	switch of.Kind() {
	case reflect.Slice, reflect.Pointer:
		return fieldsAt(of.Elem(), path)
	case reflect.Map:
		return fieldsAt(of.Elem(), rest)
	case reflect.Struct:
	default:
		return nil
	}
	var names []string
	for _, field := range reflect.VisibleFields(of) {
		name := fieldName(field)
		if name == "" {
			continue
		}
		if path != "" && name == section {
			return fieldsAt(field.Type, rest)
		}
		names = append(names, name)
	}
	return names
}

// fieldName is the name of a field in a document, "" when it has none of its own.
func fieldName(field reflect.StructField) string {
	tag, tagged := field.Tag.Lookup("yaml")
	if !tagged {
		tag = field.Tag.Get("json")
	}
	name, _, _ := strings.Cut(tag, ",")
	return name
}

// distance is the number of single-letter edits between two words (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}

func kindName(of reflect.Type) string {
	switch {
	case of == nil:
		return "another type"
	case of == reflect.TypeFor[time.Duration]():
		return "a duration such as 500ms, 5s or 1m30s"
	case of.Kind() == reflect.String:
		return "a string"
	case of.Kind() == reflect.Slice:
		return "a list"
	case of.Kind() == reflect.Pointer:
		return kindName(of.Elem())
	case of.Kind() == reflect.Struct, of.Kind() == reflect.Map:
		return "a section"
	default:
		return "a " + of.Kind().String()
	}
}
