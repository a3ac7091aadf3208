package rule

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"

	"github.com/virtnode/nodeagent/pkg/kvmcheck"
)

// Label is a label of the user's own: an expression that gives its value.
type Label struct {
	name    string
	schema  *schema
	program cel.Program
}

// CompileLabel checks names and types, as [Compile] does. The expression gives
// a text, a number, or whether there is such a label.
func CompileLabel(name, expression string) (*Label, error) {
	schema, program, err := compile(expression, types.StringType, types.IntType, types.BoolType)
	if err != nil {
		return nil, err
	}
	return &Label{name, schema, program}, nil
}

// Name is the label's name, without a prefix.
func (l *Label) Name() string { return l.name }

// Value gives the label's value: "true" for true, and none for false and for
// an empty text. What cannot be evaluated is not known.
func (l *Label) Value(facts kvmcheck.Facts) (value string, known bool, why string) {
	ctx, cancel := context.WithTimeout(context.Background(), maxTime)
	defer cancel()
	result, _, err := l.program.ContextEval(ctx, map[string]any{"facts": l.schema.object(facts)})
	var unknown *unknownError
	switch {
	case errors.As(err, &unknown):
		return "", false, unknown.why
	case err != nil:
		return "", false, oneLine(err.Error())
	}
	switch value := result.Value().(type) {
	case string:
		return value, true, ""
	case int64:
		return strconv.FormatInt(value, 10), true, ""
	case bool:
		if value {
			return "true", true, ""
		}
		return "", true, ""
	default:
		return "", false, fmt.Sprintf("the expression gave %s", result.Type().TypeName())
	}
}
