// SPDX-License-Identifier: Apache-2.0

package contract

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	"github.com/medirecord/medirecord/internal/med"
)

// spec is docs/openapi.yaml as these tests use it.
type spec struct {
	Paths      map[string]map[string]*operation `json:"paths"`
	Components struct {
		Schemas  map[string]*schema `json:"schemas"`
		Examples map[string]struct {
			Value     json.RawMessage `json:"value"`
			Retryable bool            `json:"x-retryable"`
		} `json:"examples"`
	} `json:"components"`

	operations []*operation // in the order of their paths
	compiler   *jsonschema.Compiler
	compiled   map[string]*jsonschema.Schema
	mu         sync.Mutex
}

type operation struct {
	ID         string       `json:"operationId"`
	Parameters []*parameter `json:"parameters"`
	Body       *struct {
		Required bool              `json:"required"`
		Content  map[string]*media `json:"content"`
	} `json:"requestBody"`
	Responses map[string]*response  `json:"responses"`
	Security  []map[string][]string `json:"security"`

	method, path string
}

type parameter struct {
	Name     string  `json:"name"`
	In       string  `json:"in"`
	Required bool    `json:"required"`
	Schema   *schema `json:"schema"`
	Example  any     `json:"example"`
}

type media struct {
	Schema   *schema `json:"schema"`
	Examples map[string]struct {
		Value any `json:"value"`
	} `json:"examples"`
}

type response struct {
	Headers map[string]any    `json:"headers"`
	Content map[string]*media `json:"content"`
}

type schema struct {
	Ref        string             `json:"$ref"`
	Type       any                `json:"type"`
	Format     string             `json:"format"`
	Pattern    string             `json:"pattern"`
	Enum       []any              `json:"enum"`
	Examples   []any              `json:"examples"`
	Default    any                `json:"default"`
	Properties map[string]*schema `json:"properties"`
	Required   []string           `json:"required"`
	Items      *schema            `json:"items"`
	Minimum    *float64           `json:"minimum"`
	Maximum    *float64           `json:"maximum"`
	MinLength  *int               `json:"minLength"`
	MaxLength  *int               `json:"maxLength"`
	Extra      any                `json:"additionalProperties"`
}

const location = "file:///openapi.json"

// theSpec is read once for the process.
var theSpec = sync.OnceValues(func() (*spec, error) {
	raw, err := os.ReadFile(filepath.Join("..", "..", "docs", "openapi.yaml"))
	if err != nil {
		return nil, err
	}
	var tree any
	if err := yaml.Unmarshal(raw, &tree); err != nil {
		return nil, err
	}
	text, err := json.Marshal(tree)
	if err != nil {
		return nil, err
	}
	s := &spec{compiler: jsonschema.NewCompiler(), compiled: map[string]*jsonschema.Schema{}}
	if err := json.Unmarshal(text, s); err != nil {
		return nil, err
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	s.compiler.AssertFormat()
	if err := s.compiler.AddResource(location, doc); err != nil {
		return nil, err
	}
	for _, path := range slices.Sorted(maps.Keys(s.Paths)) {
		for _, method := range slices.Sorted(maps.Keys(s.Paths[path])) {
			op := s.Paths[path][method]
			op.method, op.path = strings.ToUpper(method), path
			s.operations = append(s.operations, op)
		}
	}
	return s, nil
})

func readSpec(t testing.TB) *spec {
	t.Helper()
	s, err := theSpec()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// problems are the slugs that the operation documents for the status.
func (op *operation) problems(status int) []string {
	r := op.Responses[strconv.Itoa(status)]
	if r == nil || r.Content[problemType] == nil {
		return nil
	}
	return slices.Sorted(maps.Keys(r.Content[problemType].Examples))
}

// allProblems are the slugs that the operation documents.
func (op *operation) allProblems() []string {
	var out []string
	for status := range op.Responses {
		n, _ := strconv.Atoi(status)
		out = append(out, op.problems(n)...)
	}
	slices.Sort(out)
	return out
}

// body is the media type in which the operation takes a body, and its schema.
func (op *operation) body() (string, *schema) {
	if op.Body == nil {
		return "", nil
	}
	for _, name := range slices.Sorted(maps.Keys(op.Body.Content)) {
		return name, op.Body.Content[name].Schema
	}
	return "", nil
}

func (op *operation) parameter(in, name string) *parameter {
	for _, p := range op.Parameters {
		if p.In == in && strings.EqualFold(p.Name, name) {
			return p
		}
	}
	return nil
}

// resolve follows a reference.
func (s *spec) resolve(x *schema) *schema {
	for x != nil && x.Ref != "" {
		x = s.Components.Schemas[strings.TrimPrefix(x.Ref, "#/components/schemas/")]
	}
	if x == nil {
		return &schema{}
	}
	return x
}

// schemaOf is the compiled schema of an answer of the operation.
func (s *spec) schemaOf(op *operation, status int, kind string) (*jsonschema.Schema, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	escape := strings.NewReplacer("~", "~0", "/", "~1", "{", "%7B", "}", "%7D", "+", "%2B")
	at := fmt.Sprintf("%s#/paths/%s/%s/responses/%d/content/%s/schema", location, escape.Replace(op.path), strings.ToLower(op.method), status, escape.Replace(kind))
	if c := s.compiled[at]; c != nil {
		return c, nil
	}
	c, err := s.compiler.Compile(at)
	s.compiled[at] = c
	return c, err
}

// check says what of the answer is not as the file documents it; nil when all is.
func (s *spec) check(op *operation, a *answer) []string {
	var wrong []string
	documented := op.Responses[strconv.Itoa(a.status)]
	if documented == nil {
		return []string{fmt.Sprintf("status %d is not documented", a.status)}
	}
	kind, _, _ := strings.Cut(a.header.Get("Content-Type"), ";")
	if len(documented.Content) == 0 && a.body == "" {
		kind = ""
	} else if documented.Content[kind] == nil {
		return []string{fmt.Sprintf("status %d as %q is not documented", a.status, kind)}
	}
	for name := range a.header {
		if !everywhere[name] && !slices.ContainsFunc(slices.Collect(maps.Keys(documented.Headers)), func(h string) bool { return strings.EqualFold(h, name) }) {
			wrong = append(wrong, "the header "+name+" is not documented")
		}
	}
	if strings.HasSuffix(kind, "json") {
		if err := s.validate(op, a, kind); err != nil {
			wrong = append(wrong, err.Error())
		}
	}
	if a.status >= 400 {
		wrong = append(wrong, s.checkProblem(op, a)...)
	}
	return wrong
}

func (s *spec) validate(op *operation, a *answer, kind string) error {
	c, err := s.schemaOf(op, a.status, kind)
	if err != nil {
		return err
	}
	v, err := jsonschema.UnmarshalJSON(strings.NewReader(a.body))
	if err != nil {
		return fmt.Errorf("the body is no JSON: %w", err)
	}
	return c.Validate(v)
}

// everywhere are headers that every answer may have.
var everywhere = map[string]bool{
	"Date": true, "Content-Length": true, "Content-Type": true, "Connection": true, "Cache-Control": true, "Content-Security-Policy": true,
	"Referrer-Policy": true, "Strict-Transport-Security": true, "X-Content-Type-Options": true, "X-Frame-Options": true,
}

// checkProblem holds a problem against the table and the operation's list.
func (s *spec) checkProblem(op *operation, a *answer) []string {
	p, err := a.problem()
	if err != nil {
		return []string{err.Error()}
	}
	var wrong []string
	i := slices.IndexFunc(med.ErrorKinds, func(k *med.ErrorKind) bool { return k.Slug == p.slug() })
	if i < 0 {
		return []string{"no such problem: " + p.Type}
	}
	kind := med.ErrorKinds[i]
	if !slices.Contains(op.problems(a.status), kind.Slug) {
		wrong = append(wrong, fmt.Sprintf("%s is not documented for it (code %s): add the kind to the operation's errors", kind.Slug, p.Code))
	}
	if p.Status != a.status || p.Title != kind.Title || p.Category != kind.Category || p.Detail == "" {
		wrong = append(wrong, fmt.Sprintf("not as the table has it: %+v", p))
	}
	if p.Instance != "urn:uuid:"+a.header.Get("X-Request-Id") {
		wrong = append(wrong, "the instance is not the request")
	}
	known := p.Code == strings.ReplaceAll(kind.Slug, "-", "_")
	for _, c := range med.ErrorCodes {
		known = known || c.Code == p.Code && c.Kind == kind
	}
	if !known {
		wrong = append(wrong, "the code "+p.Code+" is not in med.ErrorCodes")
	}
	return wrong
}
