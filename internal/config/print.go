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
	document(comments, reflect.TypeFor[Config](), "$")
	out, err := yaml.MarshalWithOptions(config, yaml.WithComment(comments), yaml.IndentSequence(true))
	if err != nil {
		return nil, fmt.Errorf("print configuration: %w", err)
	}
	return append(bytes.TrimRight(out, "\n"), '\n'), nil
}

func document(comments yaml.CommentMap, of reflect.Type, path string) {
	for _, field := range reflect.VisibleFields(of) {
		at := path + "." + field.Tag.Get("yaml")
		comments[at] = []*yaml.Comment{yaml.HeadComment(wrapComment(field.Tag.Get("doc"), 90)...)}
		if field.Type.Kind() == reflect.Struct {
			document(comments, field.Type, at)
		}
	}
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
