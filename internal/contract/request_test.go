// SPDX-License-Identifier: Apache-2.0

package contract

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/medirecord/medirecord/internal/med"
)

const (
	problemType = "application/problem+json"
	problemBase = "https://medirecord.example/errors/"
)

// request is one request of an operation, before it is sent.
type request struct {
	op           *operation
	method       string
	token        string
	path, query  map[string]string
	header       map[string]string
	kind         string // of the body
	body         []byte
	unparsed     string // a target in the place of all that
	bodyUnlength bool   // sent in chunks
	from         net.IP // another address than everybody's
}

func (r *request) target() string {
	if r.unparsed != "" {
		return r.unparsed
	}
	target := r.op.path
	for name, value := range r.path {
		target = strings.ReplaceAll(target, "{"+name+"}", url.PathEscape(value))
	}
	q := url.Values{}
	for name, value := range r.query {
		q.Set(name, value)
	}
	if len(q) > 0 {
		target += "?" + q.Encode()
	}
	return target
}

func (r *request) String() string {
	body := string(r.body)
	if len(body) > 2000 {
		body = fmt.Sprintf("%s… (%d bytes)", body[:2000], len(body))
	}
	return fmt.Sprintf("%s: %s %s %v %s %q", r.op.ID, r.method, r.target(), r.header, r.kind, body)
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   string
}

type problem struct {
	Type     string           `json:"type"`
	Title    string           `json:"title"`
	Status   int              `json:"status"`
	Detail   string           `json:"detail"`
	Instance string           `json:"instance"`
	Code     string           `json:"code"`
	Category string           `json:"hipaa_category"`
	Errors   []med.FieldError `json:"errors"`
}

func (p *problem) slug() string { return strings.TrimPrefix(p.Type, problemBase) }

func (a *answer) problem() (*problem, error) {
	if kind := a.header.Get("Content-Type"); kind != problemType {
		return nil, fmt.Errorf("a refusal as %q", kind)
	}
	p := &problem{}
	if err := json.Unmarshal([]byte(a.body), p); err != nil {
		return nil, fmt.Errorf("a refusal that is no problem: %w", err)
	}
	return p, nil
}

// slug is the problem's, or "" for a success.
func (a *answer) slug() string {
	if a.status < 400 {
		return ""
	}
	p, err := a.problem()
	if err != nil {
		return "no problem"
	}
	return p.slug()
}

// clientAt calls from an address on the loopback; from the usual one for nil.
func clientAt(ip net.IP) *http.Client {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: ip}}
	return &http.Client{
		Transport:     &http.Transport{DialContext: d.DialContext, MaxIdleConnsPerHost: 4},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       5 * time.Minute,
	}
}

// stranger is an address that nobody has called from: bad tokens from there slow
// nobody else, however fast the machine is.
func (w *world) stranger() net.IP {
	n := w.strangers.Add(1)
	return net.IPv4(127, 1, byte(n>>8), byte(n))
}

// send sends the request to the world, as it is.
func (w *world) send(t testing.TB, r *request) *answer {
	t.Helper()
	var body io.Reader
	if r.body != nil {
		body = bytes.NewReader(r.body)
		if r.bodyUnlength {
			body = io.MultiReader(body) // of a length that net/http cannot see
		}
	}
	req, err := http.NewRequestWithContext(t.Context(), r.method, w.Server.URL+r.target(), body)
	if err != nil {
		t.Fatalf("%s: %v", r, err)
	}
	if r.token != "" {
		req.Header.Set("Authorization", "Bearer "+r.token)
	}
	if r.kind != "" {
		req.Header.Set("Content-Type", r.kind)
	}
	for name, value := range r.header {
		req.Header.Set(name, value)
	}
	client := w.client
	from := r.from
	if from == nil && (r.token == "" || r.token == w.tokens["nobody"]) {
		from = w.stranger()
	}
	if from != nil {
		client = clientAt(from)
		defer client.CloseIdleConnections()
	}
	res, err := client.Do(req)
	if err != nil {
		t.Fatalf("%s: %v", r, err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("%s: %v", r, err)
	}
	return &answer{res.StatusCode, res.Header, string(b)}
}

// sample is a value that fits the schema: its example where it has one. Whole
// objects have every property, others the required ones.
func (s *spec) sample(x *schema, whole bool) any {
	x = s.resolve(x)
	switch {
	case len(x.Examples) > 0 && x.Properties == nil:
		return x.Examples[0]
	case x.Default != nil:
		return x.Default
	case len(x.Enum) > 0:
		return x.Enum[0]
	}
	switch x.kind() {
	case "object":
		out := map[string]any{}
		for _, name := range slices.Sorted(maps.Keys(x.Properties)) {
			if whole || slices.Contains(x.Required, name) {
				out[name] = s.sample(x.Properties[name], whole)
			}
		}
		return out
	case "array":
		return []any{s.sample(x.Items, whole)}
	case "integer", "number":
		if x.Minimum != nil {
			return *x.Minimum
		}
		return 1
	case "boolean":
		return true
	}
	return x.text()
}

// kind is the schema's type; of several the first that is not null.
func (x *schema) kind() string {
	if list, ok := x.Type.([]any); ok {
		for _, t := range list {
			if t != "null" {
				return fmt.Sprint(t)
			}
		}
	}
	kind, _ := x.Type.(string)
	return kind
}

func (x *schema) text() string {
	switch x.Format {
	case "uuid":
		return med.NewUUID(time.Now())
	case "date":
		return "2026-03-01"
	case "date-time":
		return "2026-03-01T08:30:00Z"
	case "email":
		return "somebody@patients.example"
	}
	out := "Some text of ours"
	if x.MaxLength != nil && len(out) > *x.MaxLength {
		out = out[:*x.MaxLength]
	}
	return out
}

var errNoExercise = errors.New("there is no exercise for it")

// good is the request that the exercise of the operation asks for: required
// parameters, and a body of required properties, unless it has its own.
func (w *world) good(t testing.TB, op *operation) *request {
	t.Helper()
	ex, ok := exercises()[op.ID]
	if !ok {
		t.Fatalf("%s %s (%s): %v: add one to exercises in internal/contract/exercises_test.go: who is served (as), and for which "+
			"path parameters and headers (in); a body only where the one made from the examples of the file will not do", op.method, op.path, op.ID, errNoExercise)
	}
	r := &request{op: op, method: op.method, token: w.tokens[ex.as], path: map[string]string{}, query: map[string]string{}, header: map[string]string{}}
	if r.token == "" {
		t.Fatalf("%s: its exercise is for %q, and nobody is", op.ID, ex.as)
	}
	given := map[string]string{}
	if ex.in != nil {
		given = ex.in(t, w)
	}
	for _, p := range op.Parameters {
		value, told := given[p.Name]
		delete(given, p.Name)
		switch {
		case told:
		case p.In == "path" && p.Name == "id":
			value = string(alice)
		case p.Required && p.Example != nil:
			value = fmt.Sprint(p.Example)
		case p.Required:
			value = fmt.Sprint(w.spec.sample(p.Schema, false))
		default:
			continue
		}
		map[string]map[string]string{"path": r.path, "query": r.query, "header": r.header}[p.In][p.Name] = value
	}
	if len(given) > 0 {
		t.Fatalf("%s: its exercise gives parameters that the file does not document: %v", op.ID, given)
	}
	kind, shape := op.body()
	if kind == "" {
		return r
	}
	var body any
	if ex.body != nil {
		body = ex.body(t, w)
	} else {
		body = w.spec.sample(shape, false)
	}
	r.kind = kind
	var err error
	if r.body, err = json.Marshal(body); err != nil {
		t.Fatal(err)
	}
	return r
}
