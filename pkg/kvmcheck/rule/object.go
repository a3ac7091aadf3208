package rule

import (
	"errors"
	"fmt"
	"reflect"

	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"

	"github.com/virtnode/nodeagent/pkg/kvmcheck"
)

// unknownError is that a rule depends on what is not known.
type unknownError struct{ why string }

func (e *unknownError) Error() string { return e.why }

// object is a struct of the facts as CEL sees it.
type object struct {
	schema *schema
	of     reflect.Value
	read   bool // below a fact that is known: its empty lists are really empty
}

func (s *schema) object(facts kvmcheck.Facts) object {
	return object{schema: s, of: reflect.ValueOf(facts)}
}

func (o object) shape() structType { return o.schema.structs[o.of.Type().String()] }

// field gives a field's value, or why there is none.
func (o object) field(name string) ref.Val {
	f, found := o.shape().fields[name]
	if !found {
		return types.NewErr("no field %s", name)
	}
	read := o.read
	if fact, ok := reflect.TypeAssert[kvmcheck.Fact](o.of); ok {
		if why := fact.Undecided(); why != "" {
			return types.WrapErr(&unknownError{why})
		}
		read = true
	}
	value, err := o.of.FieldByIndexErr(f.index)
	switch {
	case err != nil:
		return types.WrapErr(fmt.Errorf("%s is not there: %w", name, err))
	case value.Kind() == reflect.Pointer && value.IsNil():
		return types.NewErr("%s is not there: ask has(….%s) first", name, name)
	case !read && isCollection(value) && value.Len() == 0:
		return types.WrapErr(&unknownError{name + " is empty, and not known to be so"})
	}
	return o.schema.value(value, read)
}

// has is CEL's has(): whether the JSON would have the field. A fact that is
// not known has its value, too: whether it has one is just not known.
func (o object) has(name string) bool {
	f, found := o.shape().fields[name]
	if !found {
		return false
	}
	value, err := o.of.FieldByIndexErr(f.index)
	if err != nil || (value.Kind() == reflect.Pointer && value.IsNil()) {
		return false
	}
	return !f.omitEmpty || !value.IsZero() || (isCollection(value) && !o.read)
}

func isCollection(value reflect.Value) bool {
	return value.Kind() == reflect.Slice || value.Kind() == reflect.Map
}

// Get implements [traits.Indexer], for expressions that use dyn().
func (o object) Get(index ref.Val) ref.Val {
	name, ok := index.(types.String)
	if !ok {
		return types.MaybeNoSuchOverloadErr(index)
	}
	return o.field(string(name))
}

// IsSet implements [traits.FieldTester].
func (o object) IsSet(field ref.Val) ref.Val {
	name, ok := field.(types.String)
	if !ok {
		return types.MaybeNoSuchOverloadErr(field)
	}
	return types.Bool(o.has(string(name)))
}

// Equal implements [ref.Val]: of two facts some fields may be unknown, so only
// fields are compared.
func (o object) Equal(ref.Val) ref.Val {
	return types.NewErr("compare the fields of facts, not facts")
}

// Type implements [ref.Val].
func (o object) Type() ref.Type { return o.shape().typ }

// Value implements [ref.Val].
func (o object) Value() any { return o }

// ConvertToType implements [ref.Val].
func (o object) ConvertToType(to ref.Type) ref.Val {
	if to == types.TypeType {
		return o.shape().typ
	}
	return types.NewErr("a fact is no %s", to.TypeName())
}

// ConvertToNative implements [ref.Val].
func (o object) ConvertToNative(reflect.Type) (any, error) {
	return nil, errors.New("a fact stays a fact")
}
