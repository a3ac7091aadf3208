package rule

import (
	"encoding"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"

	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"

	"github.com/virtnode/nodeagent/pkg/kvmcheck"
)

// schema tells CEL the names and types of [kvmcheck.Facts], as its JSON has
// them. A fact that can be undecided has no "source" and "error" here: a rule
// is about the host, and not about how it was read.
type schema struct {
	types.Provider // of CEL's own types
	structs        map[string]structType
	missed         map[string][]string // by a field that the compiler asked for in vain: those that there are
}

type structType struct {
	typ    *types.Type
	names  []string
	fields map[string]field
}

// field is one field of a struct by its JSON name.
type field struct {
	index     []int // as in reflect.Value.FieldByIndex
	typ       *types.Type
	omitEmpty bool
}

func newSchema() *schema {
	s := &schema{Provider: types.NewEmptyRegistry(), structs: make(map[string]structType), missed: make(map[string][]string)}
	s.add(reflect.TypeFor[kvmcheck.Facts]())
	return s
}

func (s *schema) typeOfFacts() *types.Type { return s.celType(reflect.TypeFor[kvmcheck.Facts]()) }

// celType gives the type that CEL knows a Go type by, adding structs on the
// way; nil for what an expression cannot ask.
func (s *schema) celType(of reflect.Type) *types.Type {
	if of.Kind() == reflect.Pointer {
		return s.celType(of.Elem())
	}
	if of.Implements(reflect.TypeFor[encoding.TextMarshaler]()) {
		return types.StringType
	}
	switch of.Kind() {
	case reflect.Bool:
		return types.BoolType
	case reflect.String:
		return types.StringType
	case reflect.Float32, reflect.Float64:
		return types.DoubleType
	case reflect.Struct:
		return s.add(of)
	case reflect.Slice, reflect.Array:
		if elem := s.celType(of.Elem()); elem != nil {
			return types.NewListType(elem)
		}
	case reflect.Map:
		if elem := s.celType(of.Elem()); elem != nil && of.Key().Kind() == reflect.String {
			return types.NewMapType(types.StringType, elem)
		}
	}
	if of.ConvertibleTo(reflect.TypeFor[int64]()) {
		return types.IntType // signed or not: CEL's literals are signed
	}
	return nil
}

func (s *schema) add(of reflect.Type) *types.Type {
	name := of.String()
	if known, found := s.structs[name]; found {
		return known.typ
	}
	made := structType{typ: types.NewObjectType(name, traits.IndexerType|traits.FieldTesterType), fields: make(map[string]field)}
	s.structs[name] = made // before its fields: they may hold it again
	for _, f := range reflect.VisibleFields(of) {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if !f.IsExported() || name == "-" || (f.Anonymous && name == "") {
			continue
		}
		if name == "" {
			name = f.Name
		}
		if of.Implements(reflect.TypeFor[kvmcheck.Fact]()) {
			if name = nameIfDecided(of, name); name == "" {
				continue
			}
		}
		if typ := s.celType(f.Type); typ != nil {
			made.fields[name] = field{index: f.Index, typ: typ, omitEmpty: strings.Contains(options, "omitempty")}
			made.names = append(made.names, name)
		}
	}
	s.structs[name] = made
	return made.typ
}

// nameIfDecided is how a rule names the field of a fact that can be undecided;
// empty for the fields that say how it was read. A [kvmcheck.Reading] has no
// JSON names of its own: it has "value".
func nameIfDecided(of reflect.Type, name string) string {
	reading := strings.HasPrefix(of.Name(), "Reading[")
	switch {
	case reading && name == "Value":
		return "value"
	case reading, name == "source", name == "error":
		return ""
	default:
		return name
	}
}

// FindStructType implements [types.Provider].
func (s *schema) FindStructType(name string) (*types.Type, bool) {
	if known, found := s.structs[name]; found {
		return types.NewTypeTypeWithParam(known.typ), true
	}
	return s.Provider.FindStructType(name)
}

// FindStructFieldNames implements [types.Provider].
func (s *schema) FindStructFieldNames(name string) ([]string, bool) {
	if known, found := s.structs[name]; found {
		return known.names, true
	}
	return s.Provider.FindStructFieldNames(name)
}

// FindStructFieldType implements [types.Provider].
func (s *schema) FindStructFieldType(structName, name string) (*types.FieldType, bool) {
	known, found := s.structs[structName]
	if !found {
		return s.Provider.FindStructFieldType(structName, name)
	}
	f, found := known.fields[name]
	if !found {
		s.missed[name] = known.names
		return nil, false
	}
	return &types.FieldType{
		Type: f.typ,
		IsSet: func(target any) bool {
			o, ok := target.(object)
			return ok && o.has(name)
		},
		GetFrom: func(target any) (any, error) {
			o, ok := target.(object)
			if !ok {
				return nil, fmt.Errorf("no field %s in %T", name, target)
			}
			value := o.field(name)
			if err, failed := value.(*types.Err); failed {
				return nil, err
			}
			return value, nil
		},
	}, true
}

// NewValue implements [types.Provider]: a rule makes no facts.
func (s *schema) NewValue(name string, fields map[string]ref.Val) ref.Val {
	if _, found := s.structs[name]; found {
		return types.NewErr("a rule cannot make a %s", name)
	}
	return s.Provider.NewValue(name, fields)
}

// instead lists the fields among which the compiler did not find the one that
// its message is about.
func (s *schema) instead(message string) string {
	for name, names := range s.missed {
		if message == fmt.Sprintf("undefined field '%s'", name) {
			return "; there are " + strings.Join(slices.Sorted(slices.Values(names)), ", ")
		}
	}
	return ""
}

// value gives a Go value to CEL. Within a reading, everything was read.
func (s *schema) value(of reflect.Value, read bool) ref.Val {
	if of.Kind() == reflect.Pointer {
		if of.IsNil() {
			return types.NullValue
		}
		return s.value(of.Elem(), read)
	}
	if text, ok := reflect.TypeAssert[encoding.TextMarshaler](of); ok {
		marshalled, err := text.MarshalText()
		if err != nil {
			return types.WrapErr(err)
		}
		return types.String(marshalled)
	}
	switch of.Kind() {
	case reflect.Bool:
		return types.Bool(of.Bool())
	case reflect.String:
		return types.String(of.String())
	case reflect.Float32, reflect.Float64:
		return types.Double(of.Float())
	case reflect.Struct:
		return object{schema: s, of: of, read: read}
	case reflect.Slice, reflect.Array:
		list := make([]ref.Val, of.Len())
		for i := range list {
			list[i] = s.value(of.Index(i), read)
		}
		return types.NewRefValList(types.DefaultTypeAdapter, list)
	case reflect.Map:
		entries := make(map[ref.Val]ref.Val, of.Len())
		for _, key := range of.MapKeys() {
			entries[types.String(key.String())] = s.value(of.MapIndex(key), read)
		}
		return types.NewRefValMap(types.DefaultTypeAdapter, entries)
	default:
		return integer(of)
	}
}

func integer(of reflect.Value) ref.Val {
	switch {
	case of.CanInt():
		return types.Int(of.Int())
	case of.CanUint() && of.Uint() <= math.MaxInt64:
		return types.Int(of.Uint())
	default:
		return types.NewErr("%v does not fit into 64 bits with a sign", of)
	}
}
