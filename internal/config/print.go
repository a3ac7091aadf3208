package config

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"

	"github.com/goccy/go-yaml"
)

// Print returns a configuration as YAML, every field with its documentation.
func Print(config Config) ([]byte, error) {
	comments := yaml.CommentMap{}
	if err := document(comments, reflect.ValueOf(Example()), "$"); err != nil {
		return nil, err
	}
	out, err := yaml.MarshalWithOptions(config, yaml.WithComment(comments), yaml.IndentSequence(true))
	if err != nil {
		return nil, fmt.Errorf("print configuration: %w", err)
	}
	return append(bytes.TrimRight(out, "\n"), '\n'), nil
}

// document puts the documentation of a struct's fields at their paths. Of
// lists and mappings of structs, the example is documented, and is a comment
// itself.
func document(comments yaml.CommentMap, example reflect.Value, path string) error {
	for _, field := range reflect.VisibleFields(example.Type()) {
		at := path + "." + field.Tag.Get("yaml")
		lines := wrapComment(field.Tag.Get("doc"), 90)
		value := example.FieldByIndex(field.Index)
		switch {
		case value.Kind() == reflect.Struct:
			if err := document(comments, value, at); err != nil {
				return err
			}
		case (value.Kind() == reflect.Slice || value.Kind() == reflect.Map) && value.Type().Elem().Kind() == reflect.Struct:
			text, err := printExample(field.Tag.Get("yaml"), value)
			if err != nil {
				return err
			}
			lines = append(append(lines, " For example:"), text...)
		}
		comments[at] = []*yaml.Comment{yaml.HeadComment(lines...)}
	}
	return nil
}

// printExample writes the first element of a list or a mapping, documented.
func printExample(name string, of reflect.Value) ([]string, error) {
	comments := yaml.CommentMap{}
	switch of.Kind() {
	case reflect.Map:
		for _, key := range of.MapKeys() {
			if err := document(comments, of.MapIndex(key), "$."+name+"."+key.String()); err != nil {
				return nil, err
			}
		}
	default:
		if err := document(comments, of.Index(0), "$."+name+"[0]"); err != nil {
			return nil, err
		}
	}
	out, err := yaml.MarshalWithOptions(map[string]any{name: of.Interface()}, yaml.WithComment(comments), yaml.IndentSequence(true))
	if err != nil {
		return nil, fmt.Errorf("print example of %s: %w", name, err)
	}
	var lines []string
	for line := range strings.Lines(string(out)) {
		lines = append(lines, " "+strings.TrimRight(line, "\n"))
	}
	return lines, nil
}

func wrapComment(text string, width int) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		if line != "" && len(line)+1+len(word) > width {
			lines = append(lines, line)
			line = ""
		}
		line += " " + word
	}
	return append(lines, line)
}
