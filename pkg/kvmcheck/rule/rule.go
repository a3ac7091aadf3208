package rule

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"

	"github.com/virtnode/nodeagent/pkg/kvmcheck"
)

// The limits of a rule. An expression over the facts of a large server costs
// some thousands; the deadline is for a machine that stands still.
const (
	maxLength   = 4096    // code points
	maxNesting  = 4       // comprehensions within each other
	maxCost     = 1 << 20 // about 0.1 s
	maxTime     = time.Second
	checkPeriod = 1000 // comprehension steps between two looks at the clock
)

// Source is a rule as its user writes it.
type Source struct {
	Name       string // the finding is rule/NAME
	Expression string // true: ready
	Reason     string // CamelCase, of the finding when it is false
	Message    string
	Remedy     string
	Level      kvmcheck.Level
}

// Rule is a source that was compiled.
type Rule struct {
	Source
	schema  *schema
	program cel.Program
}

var _ kvmcheck.Rule = (*Rule)(nil)

// Compile checks names and types. Its error is one line, with line and column
// in the expression.
func Compile(source Source) (*Rule, error) {
	schema, program, err := compile(source.Expression, types.BoolType)
	if err != nil {
		return nil, err
	}
	return &Rule{Source: source, schema: schema, program: program}, nil
}

// compile makes a program of an expression that gives one of some types.
func compile(expression string, wanted ...*types.Type) (*schema, cel.Program, error) {
	if strings.TrimSpace(expression) == "" {
		return nil, nil, errors.New("it is empty")
	}
	schema := newSchema()
	env, err := cel.NewEnv(
		cel.CustomTypeProvider(schema),
		cel.Variable("facts", schema.typeOfFacts()),
		cel.ParserExpressionSizeLimit(maxLength),
		cel.ASTValidators(cel.ValidateRegexLiterals(), cel.ValidateComprehensionNestingLimit(maxNesting)),
	)
	if err != nil {
		return nil, nil, fmt.Errorf("prepare CEL: %w", err)
	}
	ast, issues := env.Compile(expression)
	if err := issues.Err(); err != nil {
		return nil, nil, firstOf(issues, schema)
	}
	if !slices.ContainsFunc(wanted, ast.OutputType().IsExactType) {
		var names []string
		for _, one := range wanted {
			names = append(names, one.String())
		}
		return nil, nil, fmt.Errorf("it gives %s: want %s", ast.OutputType(), strings.Join(names, " or "))
	}
	program, err := env.Program(ast, cel.CostLimit(maxCost), cel.InterruptCheckFrequency(checkPeriod), cel.EvalOptions(cel.OptOptimize))
	if err != nil {
		return nil, nil, fmt.Errorf("plan expression: %w", err)
	}
	return schema, program, nil
}

// firstOf makes one line of what the compiler found.
func firstOf(issues *cel.Issues, schema *schema) error {
	all := issues.Errors()
	if len(all) == 0 {
		return issues.Err()
	}
	at := all[0].Location
	message, _, _ := strings.Cut(all[0].Message, "\n")
	message += schema.instead(message)
	if at.Line() < 1 {
		return errors.New(message)
	}
	return fmt.Errorf("line %d, column %d: %s", at.Line(), at.Column()+1, message)
}

// Judge evaluates the rule.
func (r *Rule) Judge(facts kvmcheck.Facts) kvmcheck.Finding {
	finding := kvmcheck.Finding{Area: kvmcheck.AreaOfRules, Check: r.Name, Level: r.Level}
	ctx, cancel := context.WithTimeout(context.Background(), maxTime)
	defer cancel()
	holds, err := r.eval(ctx, facts)
	var unknown *unknownError
	switch {
	case errors.As(err, &unknown):
		finding.Reason, finding.Message, finding.Remedy = kvmcheck.ReadFailed, unknown.why, "see the cause named here"
	case err != nil:
		finding.Reason, finding.Message, finding.Remedy = kvmcheck.RuleFailed, oneLine(err.Error()), "nodeagent check --explain RuleFailed"
	case holds:
		finding.Status, finding.Message = kvmcheck.Ready, oneLine(r.Expression)
	default:
		finding.Status, finding.Reason = kvmcheck.NotReady, kvmcheck.Reason(r.Reason)
		finding.Message, finding.Remedy = r.Message, r.Remedy
	}
	return finding
}

func (r *Rule) eval(ctx context.Context, facts kvmcheck.Facts) (bool, error) {
	value, _, err := r.program.ContextEval(ctx, map[string]any{"facts": r.schema.object(facts)})
	if err != nil {
		return false, err
	}
	holds, ok := value.Value().(bool)
	if !ok {
		return false, fmt.Errorf("the expression gave %v", cmp.Or(value.Type().TypeName(), "nothing"))
	}
	return holds, nil
}

// oneLine shortens what a person wrote to what fits into a finding.
func oneLine(text string) string {
	const most = 200
	line := []rune(strings.Join(strings.Fields(text), " "))
	if len(line) > most {
		return string(line[:most]) + "…"
	}
	return string(line)
}
