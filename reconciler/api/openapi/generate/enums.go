package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strconv"
	"strings"
)

// The documents in upstream's source come without the values of enumerations,
// which its server adds. They stand in the Go file that both are made from.

// An enumeration is what a field may be, and its description with a line on each.
type enumeration struct {
	description string
	values      []string
	of          string // "", or of what the field has many such: items, additionalProperties
}

// enumerations are by schema and field.
type enumerations map[string]map[string]enumeration

// definitions is the Go file, below upstream's module.
var definitions = filepath.Join("pkg", "generated", "openapi", "zz_generated.openapi.go")

func readEnumerations(module string) (enumerations, error) {
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(module, definitions), nil, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	out := enumerations{}
	for _, d := range file.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok {
			continue
		}
		name, ok := schemaName(f.Name.Name)
		if !ok {
			continue
		}
		properties := member(f.Body, "Properties")
		if properties == nil {
			continue
		}
		for _, e := range properties.Elts {
			kv := e.(*ast.KeyValueExpr)
			if found, ok := enumerationOf(kv.Value); ok {
				if out[name] == nil {
					out[name] = map[string]enumeration{}
				}
				out[name][text(kv.Key)] = found
			}
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s names no enumerations", definitions)
	}
	return out, nil
}

// schemaName is what the documents call the schema that a function returns.
func schemaName(function string) (string, bool) {
	for prefix, group := range map[string]string{
		"schema_k8sio_api_": "io.k8s.api.", "schema_pkg_apis_meta_": "io.k8s.apimachinery.pkg.apis.meta.",
	} {
		if rest, ok := strings.CutPrefix(function, prefix); ok {
			return group + strings.ReplaceAll(rest, "_", "."), true
		}
	}
	return "", false
}

// member finds the first literal of this name, from outside in.
func member(in ast.Node, name string) (found *ast.CompositeLit) {
	ast.Inspect(in, func(n ast.Node) bool {
		if kv, ok := n.(*ast.KeyValueExpr); ok && found == nil {
			if k, ok := kv.Key.(*ast.Ident); ok && k.Name == name {
				if u, ok := kv.Value.(*ast.UnaryExpr); ok {
					kv.Value = u.X
				}
				found, _ = kv.Value.(*ast.CompositeLit)
			}
		}
		return found == nil
	})
	return found
}

// enumerationOf looks into one property.
func enumerationOf(property ast.Expr) (enumeration, bool) {
	props := member(property, "SchemaProps")
	values := member(property, "Enum")
	if props == nil || values == nil {
		return enumeration{}, false
	}
	var e enumeration
	for _, m := range props.Elts {
		kv := m.(*ast.KeyValueExpr)
		switch kv.Key.(*ast.Ident).Name {
		case "Description":
			e.description = text(kv.Value)
		case "Items":
			e.of = "items"
		case "AdditionalProperties":
			e.of = "additionalProperties"
		}
	}
	for _, v := range values.Elts {
		e.values = append(e.values, text(v))
	}
	return e, true
}

// text is a literal's.
func text(e ast.Expr) string {
	if l, ok := e.(*ast.BasicLit); ok {
		if s, err := strconv.Unquote(l.Value); err == nil {
			return s
		}
	}
	panic(fmt.Sprintf("%T is no text", e))
}

// add puts enumerations into a document.
func (all enumerations) add(document []byte) ([]byte, error) {
	var d map[string]any
	if err := json.Unmarshal(document, &d); err != nil {
		return nil, err
	}
	components, _ := d["components"].(map[string]any)
	schemas, _ := components["schemas"].(map[string]any)
	for name, s := range schemas {
		schema, _ := s.(map[string]any)
		properties, _ := schema["properties"].(map[string]any)
		for field, e := range all[name] {
			p, ok := properties[field].(map[string]any)
			if !ok {
				return nil, fmt.Errorf("%s has no field %s", name, field)
			}
			p["description"] = e.description
			if e.of != "" {
				if p, ok = p[e.of].(map[string]any); !ok {
					return nil, fmt.Errorf("%s of %s has no %s", field, name, e.of)
				}
			}
			p["enum"] = e.values
		}
	}
	var tight bytes.Buffer
	encoder := json.NewEncoder(&tight)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(d)
	return bytes.TrimSpace(tight.Bytes()), err
}
