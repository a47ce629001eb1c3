// SPDX-License-Identifier: Apache-2.0

package contract

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/medirecord/medirecord/internal/med"
)

// TestBadInput sends every kind of bad input to every operation of the file, in
// every place that it has: path, query, headers, body, and each property of the
// body. Each is refused with a problem that says where and why, repeats nothing,
// and writes nothing. What is text like any other, and only looks like SQL or like
// lines of a log, is none the worse for it.
func TestBadInput(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.Secret(sent)
	f := &fuzz{world: w, super: w.DB.Super(t)}
	last := func(a, b *operation) int { // who opened something is told of, whatever they do
		return map[bool]int{true: 1}[exercises()[a.ID].opens] - map[bool]int{true: 1}[exercises()[b.ID].opens]
	}
	for _, op := range slices.SortedStableFunc(slices.Values(w.spec.operations), last) {
		t.Run(op.ID, func(t *testing.T) { // one after the other: what is written is counted
			good := w.good(t, op)
			spoiled := slices.Concat(badPaths(good), badQueries(good), badHeaders(good), badBodies(t, good), w.badProperties(t, good), w.provoked(t, op))
			f.state = nil
			f.state = f.fingerprint(t)
			for _, bad := range spoiled {
				w.mustRefuse(t, bad)
			}
			if now := f.fingerprint(t); !maps.Equal(f.state, now) {
				t.Errorf("something was written by requests that were refused:\n%v\n%v", f.state, now)
			}
			seen := good.header["If-Match"]
			for _, odd := range w.oddTexts(t, good) {
				if seen != "" {
					odd.header["If-Match"] = seen
				}
				a := w.untilWell(t, odd.request)
				if a.status >= 500 || a.status == http.StatusPreconditionFailed {
					t.Errorf("%s\n%s: got %d %s", odd.request, odd.name, a.status, a.body)
				}
				seen = cmp.Or(a.header.Get("ETag"), seen)
			}
		})
	}
	if t.Failed() {
		return
	}
	if a := w.read(t, "clinician"); !strings.Contains(a.body, string(alice)) {
		t.Errorf("afterwards alice reads as %s", a.body)
	}
}

// provoked are the ways of the operation's own to be refused: what is stale, or
// under a key that came with something else.
func (w *world) provoked(t *testing.T, op *operation) []spoiled {
	t.Helper()
	var out []spoiled
	for slug, provoke := range exercises()[op.ID].provoke {
		if exercises()[op.ID].opens {
			continue // who breaks the glass for nobody is told of too
		}
		r := w.good(t, op)
		provoke(t, w, r)
		out = append(out, spoiled{slug, r})
	}
	return out
}

// spoiled is a request that was good, but for one thing.
type spoiled struct {
	name string
	*request
}

// but is the request with something done to it.
func (r *request) but(name string, spoil func(*request)) spoiled {
	c := *r
	c.path, c.query, c.header = maps.Clone(r.path), maps.Clone(r.query), maps.Clone(r.header)
	spoil(&c)
	return spoiled{name, &c}
}

// mustRefuse reports a bad request that is served, fails, or is refused without
// saying why.
func (w *world) mustRefuse(t *testing.T, bad spoiled) {
	t.Helper()
	a := w.untilWell(t, bad.request)
	if a.status < 400 || a.status >= 500 {
		t.Errorf("%s\n%s: got %d %s, want it refused", bad.request, bad.name, a.status, a.body)
		return
	}
	if bad.unparsed == "" && bad.method == bad.op.method {
		for _, wrong := range w.spec.check(bad.op, a) {
			t.Errorf("%s\n%s: got %d %s\n%s", bad.request, bad.name, a.status, a.body, wrong)
		}
	}
	p, err := a.problem()
	if err != nil {
		t.Errorf("%s\n%s: got %d %s: %v", bad.request, bad.name, a.status, a.body, err)
		return
	}
	if a.status == http.StatusUnprocessableEntity && len(p.Errors) == 0 && p.Detail == med.Invalid.Detail {
		t.Errorf("%s\n%s: refused without saying where or why: %s", bad.request, bad.name, a.body)
	}
	if strings.Contains(a.body+fmt.Sprint(a.header), sent) {
		t.Errorf("%s\n%s: the refusal repeats what was sent: %s", bad.request, bad.name, a.body)
	}
}

// untilWell sends the request again while a slow machine is what it fails for.
func (w *world) untilWell(t *testing.T, r *request) *answer {
	t.Helper()
	a := w.send(t, r)
	for try := 0; try < 5 && a.status == http.StatusServiceUnavailable; try++ {
		a = w.send(t, r)
	}
	return a
}

// badPaths are ids that nothing can have, and other ways to write the path.
func badPaths(good *request) []spoiled {
	var out []spoiled
	for name := range good.path {
		for _, id := range []string{"' or '1'='1", "x;drop table medirecord.patient", "a\nlevel=ERROR", "\x00", "\xff", "\u202eabc", "ａ", "{}", "%", strings.Repeat("a", 300)} {
			if name == "userId" && !foulText(id) && len(id) < 256 {
				continue // a subject may be any text
			}
			out = append(out, good.but(fmt.Sprintf("%s %q", name, id), func(r *request) { r.path[name] = id }))
		}
	}
	for _, end := range []string{"/", "%00", "//"} {
		out = append(out, good.but("a path with "+end, func(r *request) { r.unparsed = good.op.path + end }))
	}
	return out
}

func foulText(s string) bool { return strings.ContainsAny(s, "\x00\u202e") || !utf8.ValidString(s) }

// badQueries are parameters that are not there, given twice, empty, or of another
// kind; and cursors that nobody was given.
func badQueries(good *request) []spoiled {
	bare := good.target()
	raw := func(q string) func(*request) {
		return func(r *request) {
			r.unparsed = bare + map[bool]string{true: "&", false: "?"}[strings.Contains(bare, "?")] + q
		}
	}
	out := []spoiled{
		good.but("an unknown parameter", raw("made_up=1")),
		good.but("an unknown parameter by another case", raw("LIMIT=1")),
		good.but("no UTF-8", raw("%ff=%fe")),
		good.but("not readable", raw("%zz")),
		good.but("a semicolon", raw("a;b")),
	}
	for _, p := range good.op.Parameters {
		if p.In != "query" {
			continue
		}
		values := []string{"", "a\x00b" + sent, "\u202e" + sent, "\xff" + sent}
		switch {
		case p.Name == "cursor":
			values = append(values, sent, "AAAA", "' or 1=1 --", strings.Repeat("A", 2000), "eyJhIjoxfQ")
		case p.Schema.kind() == "integer":
			values = append(values, "0", "-1", "201", "1e3", "0x10", "1.5", "9223372036854775808", "NaN", " 1", "١", sent)
		case p.Schema.kind() == "boolean":
			values = append(values, "2", "yes", sent)
		case len(p.Schema.Enum) > 0:
			values = append(values, sent, strings.ToUpper(fmt.Sprint(p.Schema.Enum[0]))+"x")
		case p.Schema.Format != "":
			values = append(values, sent, "2026-02-30", "0000-00-00", "'; select 1 --")
		}
		for _, v := range values {
			out = append(out, good.but(fmt.Sprintf("%s=%q", p.Name, v), func(r *request) { r.query[p.Name] = v }))
		}
		value := "1"
		if len(p.Schema.Enum) > 0 {
			value = fmt.Sprint(p.Schema.Enum[0])
		}
		out = append(out, good.but(p.Name+" twice", raw(url.Values{p.Name: {value, value}}.Encode())))
	}
	return out
}

func badHeaders(good *request) []spoiled {
	bad := map[string][]string{
		"If-Match":          {"*", `W/"abc"`, `"a", "b"`, `"`, "abc", `"with space"`, `"` + strings.Repeat("a", 300) + `"`, sent, `"' or 1=1 --"`},
		"Idempotency-Key":   {"with space", "é", strings.Repeat("k", 256), "tab\tin"},
		"X-Purpose-Of-Use":  {sent, "treat"},
		"X-Access-Reason":   {sent, "because"},
		"Content-Encoding":  {"gzip", "br", sent},
		"Transfer-Encoding": nil,
	}
	var out []spoiled
	for _, name := range slices.Sorted(maps.Keys(bad)) {
		if name == "Content-Encoding" && good.kind == "" || name != "Content-Encoding" && good.op.parameter("header", name) == nil {
			continue
		}
		for _, v := range bad[name] {
			out = append(out, good.but(fmt.Sprintf("%s: %q", name, v), func(r *request) { r.header[name] = v }))
		}
	}
	return out
}

// badBodies are bodies that nobody can read, or that two readers could read in two
// ways, and bodies where there is none.
func badBodies(t *testing.T, good *request) []spoiled {
	t.Helper()
	switch {
	case good.kind == "" && good.method == http.MethodPost:
		return nil // what is sent all the same is not read
	case good.kind == "":
		return []spoiled{good.but("a body where there is none", func(r *request) { r.kind, r.body = "application/json", []byte(`{"made_up":"`+sent+`"}`) })}
	}
	first := func(s string) []byte { return bytes.Replace(good.body, []byte("{"), []byte("{"+s), 1) }
	var out []spoiled
	for name, body := range map[string][]byte{
		"nothing": nil, "half": good.body[:len(good.body)/2], "twice": slices.Concat(good.body, good.body), "something after it": slices.Concat(good.body, []byte(" x")),
		"no JSON": []byte(sent), "null": []byte("null"), "a list": []byte("[]"), "a text": []byte(`"` + sent + `"`), "a number": []byte("1e400"), "true": []byte("true"),
		"a mark of the order of bytes": slices.Concat([]byte("\ufeff"), good.body),
		"a comment":                    slices.Concat(good.body, []byte("//")), "a comma too many": bytes.Replace(good.body, []byte("}"), []byte(",}"), 1),
		"an unknown key": first(`"made_up":1,`), "a key twice": first(`"made_up":1,"made_up":2,`), "a key of a prototype": first(`"__proto__":{"admin":true},`),
		"a key in capitals": bytes.ToUpper(good.body), "half a character": first(`"made_up":"\ud800",`), "no UTF-8": first("\"made_up\":\"" + sent + "\xff\","),
		"a NUL": first(`"made_up":"\u0000",`), "turned round": first("\"made_up\":\"\u202e\","), "a bare control character": first("\"made_up\":\"\x01\","),
		"a number of no size": first(`"made_up":1e999,`), "deep": first(`"made_up":` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + ","),
		"deeper": []byte(strings.Repeat("[", 500_000)), "deep objects": []byte(strings.Repeat(`{"a":`, 100_000)),
		"huge": slices.Concat([]byte(`{"a":"`), bytes.Repeat([]byte("a"), 2<<20), []byte(`"}`)), "many spaces": slices.Concat(bytes.Repeat([]byte(" "), 2<<20), good.body),
	} {
		out = append(out, good.but("a body that is "+name, func(r *request) { r.body = body }))
	}
	out = append(out,
		good.but("huge, in chunks", func(r *request) {
			r.body, r.bodyUnlength = slices.Concat([]byte(`{"a":"`), bytes.Repeat([]byte("a"), 2<<20), []byte(`"}`)), true
		}),
		good.but("a bomb", func(r *request) { r.body, r.header["Content-Encoding"] = bomb(t), "gzip" }),
	)
	for _, kind := range []string{"text/plain", "application/xml", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/jsonx", ";", sent} {
		out = append(out, good.but("of the kind "+kind, func(r *request) { r.kind = kind }))
	}
	return out
}

// bomb is 64 MiB of nothing, small.
func bomb(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	for range 64 {
		if _, err := z.Write(make([]byte, 1<<20)); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// badProperties are the body with each property in turn of another type, too
// long, not among what it can be, or with characters that no text has.
func (w *world) badProperties(t *testing.T, good *request) []spoiled {
	t.Helper()
	var out []spoiled
	w.properties(good, func(at []string, x *schema) {
		for name, value := range badValues(w.spec, x) {
			out = append(out, good.but(fmt.Sprintf("/%s %s", strings.Join(at, "/"), name), func(r *request) { r.body = w.with(t, good, at, value) }))
		}
	})
	return out
}

// properties tells of each property of the request's body, if it has one.
func (w *world) properties(good *request, tell func([]string, *schema)) {
	if _, shape := good.op.body(); shape != nil {
		w.below(shape, nil, tell)
	}
}

// below tells of each property of the shape, and of theirs.
func (w *world) below(shape *schema, at []string, tell func([]string, *schema)) {
	shape = w.spec.resolve(shape)
	for _, name := range slices.Sorted(maps.Keys(shape.Properties)) {
		here := append(slices.Clone(at), name)
		x := w.spec.resolve(shape.Properties[name])
		tell(here, x)
		switch x.kind() {
		case "object":
			w.below(x, here, tell)
		case "array":
			item := append(slices.Clone(here), "0")
			tell(item, w.spec.resolve(x.Items))
			w.below(x.Items, item, tell)
		}
	}
}

func badValues(s *spec, x *schema) map[string]any {
	raw := func(s string) any { return json.RawMessage(s) }
	out := map[string]any{"a number of no size": raw("1e999"), "a list of a list": []any{[]any{sent}}, "a key that is not there": map[string]any{"made_up": sent}}
	if kind := x.kind(); kind != "string" {
		out["a text"] = sent
	}
	if kind := x.kind(); kind != "integer" && kind != "number" {
		out["a number"] = -1
	}
	if x.kind() != "boolean" {
		out["true"] = true
	}
	switch x.kind() {
	case "string":
		out["a NUL"], out["turned round"], out["no UTF-8"], out["half a character"] = sent+"\x00", sent+"\u202e", raw("\""+sent+"\xff\""), raw(`"\ud800`+sent+`"`)
		out["an escape"] = sent + "\x1b[2J"
		if x.MaxLength != nil {
			out["too long"] = strings.Repeat("a", *x.MaxLength+1)
		}
		if x.MinLength != nil && *x.MinLength > 0 {
			out["empty"] = ""
		}
		if len(x.Enum) > 0 || x.Format != "" {
			out["not one of them"], out["SQL"] = sent, "'; drop table medirecord.patient; --"
		}
		if strings.HasPrefix(x.Format, "date") {
			out["no such day"], out["nobody's day"] = "2026-02-30", "99999-01-01"
		}
	case "array":
		many := make([]any, 1000)
		for i := range many {
			many[i] = s.sample(x.Items, true)
		}
		out["too many"] = many
		out["a null in it"] = []any{nil}
	}
	return out
}

// with is the good body with a value at a place, whatever has to be made on the
// way there.
func (w *world) with(t *testing.T, good *request, at []string, value any) []byte {
	t.Helper()
	var body any
	if err := json.Unmarshal(good.body, &body); err != nil {
		t.Fatal(err)
	}
	body = put(body, at, value)
	// By hand, because values may be what no encoder writes.
	var b bytes.Buffer
	write(&b, body)
	return b.Bytes()
}

func put(in any, at []string, value any) any {
	if len(at) == 0 {
		return value
	}
	if n, err := strconv.Atoi(at[0]); err == nil {
		list, _ := in.([]any)
		for len(list) <= n {
			list = append(list, nil)
		}
		list[n] = put(list[n], at[1:], value)
		return list
	}
	m, _ := in.(map[string]any)
	if m == nil {
		m = map[string]any{}
	}
	m[at[0]] = put(m[at[0]], at[1:], value)
	return m
}

// write writes JSON, raw messages as they are.
func write(b *bytes.Buffer, v any) {
	switch v := v.(type) {
	case json.RawMessage:
		b.Write(v)
	case map[string]any:
		b.WriteByte('{')
		for i, k := range slices.Sorted(maps.Keys(v)) {
			if i > 0 {
				b.WriteByte(',')
			}
			fmt.Fprintf(b, "%q:", k)
			write(b, v[k])
		}
		b.WriteByte('}')
	case []any:
		b.WriteByte('[')
		for i, x := range v {
			if i > 0 {
				b.WriteByte(',')
			}
			write(b, x)
		}
		b.WriteByte(']')
	default:
		j, _ := json.Marshal(v) //nolint:errchkjson // strings, numbers, booleans
		b.Write(j)
	}
}

// oddTexts are the body with texts that have broken programs, where a text may
// be anything: they are taken as they are, or refused.
func (w *world) oddTexts(t *testing.T, good *request) []spoiled {
	t.Helper()
	var out []spoiled
	w.properties(good, func(at []string, x *schema) {
		if x.kind() != "string" || len(x.Enum) > 0 || x.Format != "" {
			return
		}
		texts := []string{
			sent + "'; drop table medirecord.patient; --", sent + "\n{\"level\":\"ERROR\",\"msg\":\"forged\"}", sent + "\r\nX-Evil: 1", sent + "${jndi:ldap://x}", "%s%n", "***-**-6789", "****-**-15",
			"\U0001F469\u200d\u2695\ufe0f", "a" + strings.Repeat("\u0301", 30), "ﷺ", "\ufffd", "\ufeff", "\u2028", "1e999", "null", "9999-12-31", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999+14:00", " ",
		}
		for range 5 { // each place has some, and all come up
			text := texts[len(out)%len(texts)]
			out = append(out, good.but(fmt.Sprintf("/%s %q", strings.Join(at, "/"), text), func(r *request) {
				r.body = w.with(t, good, at, text)
				if r.header["Idempotency-Key"] != "" {
					r.header["Idempotency-Key"] = med.NewUUID(time.Now())
				}
			}))
		}
	})
	return out
}
