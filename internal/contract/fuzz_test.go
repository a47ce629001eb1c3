// SPDX-License-Identifier: Apache-2.0

package contract

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/medirecord/medirecord/internal/med"
)

// Two settings of the fuzz: for how long, and with which seed it begins. In CI
// it takes a minute.
const (
	fuzzFor  = "MEDIRECORD_FUZZ_FOR"
	fuzzSeed = "MEDIRECORD_FUZZ_SEED"
)

// sent is in every text that the fuzz makes up: it must come back in no refusal,
// and be in no log and no entry. It is no id, which an entry may well name.
const sent = "Zq7_canary"

// TestFuzzTheAPI sends requests that are good but for what chance did to them,
// by everybody there is, to every operation of the file. No answer is a 500,
// each is as the file documents it, none holds what its reader may not see or
// repeats what was wrong, and nothing is written but by a request that was
// served.
func TestFuzzTheAPI(t *testing.T) {
	t.Parallel()
	length, seed := 3*time.Second, uint64(time.Now().UnixNano())
	if os.Getenv("CI") != "" {
		// The same questions each time, so that a red run is one that can be run
		// again; elsewhere, and by MEDIRECORD_FUZZ_SEED, others.
		length, seed = time.Minute, 1
	}
	if v := os.Getenv(fuzzFor); v != "" {
		var err error
		if length, err = time.ParseDuration(v); err != nil {
			t.Fatal(err)
		}
	}
	if v := os.Getenv(fuzzSeed); v != "" {
		var err error
		if seed, err = strconv.ParseUint(v, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%s=%d", fuzzSeed, seed)
	w := newWorld(t)
	w.Secret(sent)
	f := &fuzz{world: w, Rand: rand.New(rand.NewPCG(seed, 0)), super: w.DB.Super(t), secrets: w.secrets(), count: map[int]int{}, broken: map[string]bool{"clinician " + string(alice): true}} //nolint:gosec // chance, not secrecy
	for _, op := range w.spec.operations {
		f.templates = append(f.templates, w.good(t, op))
		f.ids = append(f.ids, slices.Collect(maps.Values(f.templates[len(f.templates)-1].path))...)
	}
	f.ids = append(f.ids, string(alice), string(bob), string(carol))
	slices.Sort(f.ids)
	f.who = slices.Sorted(maps.Keys(w.tokens))
	f.state = f.fingerprint(t)
	for end := time.Now().Add(length); time.Now().Before(end) && !t.Failed(); {
		f.once(t)
	}
	t.Logf("answers by status: %v", f.count)
	if !t.Failed() && (f.count[200] == 0 || f.count[422] == 0 || f.count[403] == 0) {
		t.Error("the fuzz serves nobody, or refuses nobody")
	}
}

type fuzz struct {
	*world
	*rand.Rand
	super     *pgx.Conn
	templates []*request
	who       []string // names of tokens
	ids       []string
	cursors   []string
	etags     []string
	replays   []*request
	secrets   []secret
	state     map[string]string
	count     map[int]int
	broken    map[string]bool // whose glass for which patient, by token and id
}

// once sends one request and judges its answer.
func (f *fuzz) once(t *testing.T) {
	t.Helper()
	r, who := f.request()
	a := f.send(t, r)
	f.count[a.status]++
	report := func(format string, args ...any) {
		t.Helper()
		t.Errorf("%s\nby %s: got %d %v %s\n%s", r, who, a.status, a.header, a.body, fmt.Sprintf(format, args...))
	}
	if a.status >= 500 && a.slug() != med.AuditUnavailable.Slug && a.slug() != med.DatabaseUnavailable.Slug { // a machine that is slow is no fault
		report("a failure of ours")
	}
	for _, wrong := range f.judge(r, a) {
		report("%s", wrong)
	}
	all := a.body + fmt.Sprint(a.header)
	for _, s := range f.secrets {
		if strings.Contains(all, s.text) && !s.shown(who, r) && !f.open(who, r, s.patient) {
			report("%s, which is not for them", s.name)
		}
	}
	if a.status >= 400 && strings.Contains(all, sent) {
		report("the refusal repeats what was sent")
	}
	f.written(t, r, a, report, who)
	f.learn(r, a)
	if r.op.ID == "open-break-glass" && (a.status == http.StatusCreated || a.slug() == med.NotFound.Slug && a.header.Get("Audit-Event-Id") != "") {
		var asked struct {
			Patient string `json:"patient_id"`
		}
		if json.Unmarshal(r.body, &asked) == nil {
			f.broken[who+" "+asked.Patient] = true // of an id that nobody has, too: asked for once more, it pages once more
		}
	}
}

// open reports whether the bearer of the token opened the patient before, and
// the request names that patient.
func (f *fuzz) open(who string, r *request, patient med.PatientID) bool {
	return f.broken[who+" "+string(patient)] && strings.Contains(r.target(), string(patient))
}

// judge holds the answer against the operation that the request really names.
func (f *fuzz) judge(r *request, a *answer) []string {
	if p, err := a.problem(); a.status >= 400 && err == nil && (p.slug() == med.NotFound.Slug || p.slug() == med.MethodNotAllowed.Slug) && a.header.Get("Audit-Event-Id") == "" {
		// Of the router: another method or path than any that is documented.
		if operation := f.spec.named(r); operation == nil || r.unparsed != "" || strings.ContainsAny(r.target(), "%.") || slices.Contains(slices.Collect(maps.Values(r.path)), "") {
			return nil
		}
	}
	if p, err := a.problem(); a.status >= 400 && err == nil && p.slug() != med.Internal.Slug && strings.Contains(r.target(), "/..") {
		return nil // of another operation than was meant: of the one whose id is ".."
	}
	if a.slug() == med.Malformed.Slug || a.slug() == med.HeadersTooLarge.Slug {
		return nil // of no operation
	}
	op := f.spec.named(r)
	if op == nil {
		return []string{"there is no such operation"}
	}
	return f.spec.check(op, a)
}

// named is the operation of the request's path and method. Methods have one case.
func (s *spec) named(r *request) *operation {
	if r.method != strings.ToUpper(r.method) {
		return nil
	}
	return s.Paths[r.op.path][strings.ToLower(r.method)]
}

// written reports rows that a refused request, or a read, changed. A grant of
// an emergency is committed before anything is known of the patient.
func (f *fuzz) written(t *testing.T, r *request, a *answer, report func(string, ...any), who string) {
	t.Helper()
	now := f.fingerprint(t)
	changed := []string{}
	for table, print := range now {
		if f.state[table] != print {
			changed = append(changed, table)
		}
	}
	f.state = now
	// Opening the glass for an id that nobody has pages an officer too.
	emergency := len(r.header["X-Break-Glass-Reason"]) > 0 || r.op.ID == "open-break-glass" || r.op.ID == "lookup-patients" || slices.ContainsFunc(slices.Collect(maps.Keys(f.broken)), func(glass string) bool {
		id, theirs := strings.CutPrefix(glass, who+" ")
		return theirs && f.open(who, r, med.PatientID(id))
	})
	// And a list in which somebody is whom the caller's own grant opens.
	emergency = emergency || (r.op.ID == "list-patients" || r.op.ID == "search-patients") && slices.ContainsFunc(slices.Collect(maps.Keys(f.broken)), func(glass string) bool { return strings.HasPrefix(glass, who+" ") })
	changed = slices.DeleteFunc(changed, func(table string) bool {
		return emergency && (table == "break_glass" || table == "outbox" || table == "lookup")
	})
	if len(changed) > 0 && (a.status >= 400 || r.method == http.MethodGet) {
		report("it changed %v", changed)
	}
}

// fingerprint is one of each clinical table.
func (f *fuzz) fingerprint(t *testing.T) map[string]string {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	if f.state == nil {
		rows, err := f.super.Query(ctx, `select relname from pg_class where relnamespace = 'medirecord'::regnamespace and relkind in ('r', 'p') order by 1`)
		if err != nil {
			t.Fatal(err)
		}
		names, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		f.state = map[string]string{}
		for _, name := range names {
			f.state[name] = ""
		}
	}
	b := &pgx.Batch{}
	tables := slices.Sorted(maps.Keys(f.state))
	for _, table := range tables {
		b.Queue(`select count(*) || ' ' || coalesce(sum(hashtextextended(t::text, 0)), 0) from medirecord.` + pgx.Identifier{table}.Sanitize() + ` t`)
	}
	res := f.super.SendBatch(ctx, b)
	out := map[string]string{}
	for _, table := range tables {
		var print string
		if err := res.QueryRow().Scan(&print); err != nil {
			t.Fatal(err)
		}
		out[table] = print
	}
	if err := res.Close(); err != nil {
		t.Fatal(err)
	}
	return out
}

// learn keeps what the answer gave, to be shown again where it does not belong.
func (f *fuzz) learn(r *request, a *answer) {
	var e struct {
		Page struct{ Next string }
	}
	if json.Unmarshal([]byte(a.body), &e) == nil && e.Page.Next != "" {
		f.cursors = keep(f.cursors, e.Page.Next)
	}
	if tag := a.header.Get("ETag"); tag != "" {
		f.etags = keep(f.etags, tag)
	}
	if a.status/100 == 2 && r.method != http.MethodGet {
		f.replays = keep(f.replays, r)
	}
}

// keep keeps the last few.
func keep[T any](list []T, x T) []T {
	list = append(list, x)
	return list[max(0, len(list)-50):]
}

func pick[T any](f *fuzz, list []T) T { return list[f.IntN(len(list))] }

// one reports true once in n times.
func (f *fuzz) one(n int) bool { return f.IntN(n) == 0 }

// request is a good one, with a few things done to it.
func (f *fuzz) request() (*request, string) {
	r := *pick(f, f.templates)
	if len(f.replays) > 0 && f.one(8) {
		r = *pick(f, f.replays)
	}
	r.path, r.query, r.header = maps.Clone(r.path), maps.Clone(r.query), maps.Clone(r.header)
	who := exercises()[r.op.ID].as
	if f.one(2) {
		who = pick(f, f.who)
		r.token = f.tokens[who]
	}
	if f.one(30) { // seldom: an address that shows many is told to wait
		who, r.token = "nobody at all", pick(f, []string{"", "x", "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZG1pbiJ9.", r.token + "A", strings.ToUpper(r.token)})
	}
	for range f.IntN(4) {
		pick(f, damages)(f, &r)
	}
	return &r, who
}

// damages are what can be done to a request.
var damages = []func(*fuzz, *request){
	func(f *fuzz, r *request) { // an id of something else, or of nothing
		if len(r.path) > 0 {
			r.path[pick(f, slices.Sorted(maps.Keys(r.path)))] = pick(f, append([]string{med.NewUUID(time.Now()), "p-404"}, f.ids...))
		}
	},
	func(f *fuzz, r *request) { // a path that is no id: the trail may know it, so it carries no mark
		if len(r.path) > 0 {
			r.path[pick(f, slices.Sorted(maps.Keys(r.path)))] = strings.ReplaceAll(f.text(), sent, "")
		}
	},
	func(f *fuzz, r *request) { // a parameter that there is
		if p := f.parameter(r, "query"); p != nil {
			r.query[p.Name] = f.value(p)
		}
	},
	func(f *fuzz, r *request) { // another's cursor, or half of one
		if r.op.parameter("query", "cursor") != nil && len(f.cursors) > 0 {
			r.query["cursor"] = f.bent(pick(f, f.cursors))
		}
	},
	func(f *fuzz, r *request) {
		r.query[pick(f, []string{sent, "limit", "LIMIT", "$where", "id", "_method", "debug", "fields"})] = f.text()
	},
	func(f *fuzz, r *request) {
		r.unparsed = r.target() + pick(f, []string{"?a=1&a=2", "?limit=1&limit=2", "?" + sent + ";x", "?%ff=%fe", "?limit=%00", "/", "//", "/..", "#" + sent, "?limit"})
	},
	func(f *fuzz, r *request) { // a header that there is
		if p := f.parameter(r, "header"); p != nil {
			r.header[p.Name] = visible(f.value(p))
		}
	},
	func(f *fuzz, r *request) { // a version of something else
		if r.op.parameter("header", "If-Match") != nil {
			r.header["If-Match"] = pick(f, append([]string{"*", `W/"1"`, `"1", "2"`, sent, `"`, ""}, f.etags...))
		}
	},
	func(f *fuzz, r *request) {
		name := pick(f, []string{"X-Forwarded-For", "X-Request-Id", "Accept", "User-Agent", "Origin", "Content-Encoding", "Range", "X-HTTP-Method-Override", "Cookie", "Accept-Encoding"})
		r.header[name] = visible(strings.ReplaceAll(f.text(), sent, ""))
	},
	func(f *fuzz, r *request) { // an emergency
		if r.op.parameter("header", "X-Break-Glass-Reason") != nil {
			r.header["X-Break-Glass-Reason"] = pick(f, []string{"Patient in ER, consent unreachable " + sent, "", "short", strings.Repeat("long ", 200), "Zero\u200bwidth and \u202eturned " + sent})
		}
	},
	func(f *fuzz, r *request) {
		r.method = pick(f, []string{"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "PROPFIND", "get"})
		if r.method == http.MethodHead {
			r.method = http.MethodPut // an answer without a body cannot be judged
		}
	},
	func(f *fuzz, r *request) {
		r.kind = pick(f, []string{"", "application/json", "application/merge-patch+json", "application/json; charset=utf-16", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/cbor", sent})
	},
	func(f *fuzz, r *request) { r.body = f.badBody(r.body) },
	func(f *fuzz, r *request) { r.body = f.otherBody(r) },
	func(f *fuzz, r *request) { r.body = f.otherBody(r) },
	func(f *fuzz, r *request) { r.bodyUnlength = true },
}

func (f *fuzz) parameter(r *request, in string) *parameter {
	var there []*parameter
	for _, p := range r.op.Parameters {
		if p.In == in {
			there = append(there, p)
		}
	}
	if len(there) == 0 {
		return nil
	}
	return pick(f, there)
}

// value is one for the parameter, good or not.
func (f *fuzz) value(p *parameter) string {
	switch {
	case f.one(3):
		return f.text()
	case len(p.Schema.Enum) > 0:
		return fmt.Sprint(pick(f, p.Schema.Enum))
	case p.Schema.kind() == "integer":
		return pick(f, []string{"1", "2", "200", "0", "-1", "201", "1e3", "0x10", "9223372036854775808", "1.0", " 1", "١"})
	}
	return fmt.Sprint(f.spec.sample(p.Schema, false))
}

// texts are strings that have broken programs. Those of the fuzz carry its mark.
var texts = []string{
	"", " ", sent, sent + "'; drop table medirecord.patient; --", sent + `" or "1"="1`, sent + "\r\nX-Evil: 1", sent + "\n{\"level\":\"ERROR\",\"msg\":\"forged\"}",
	sent + "\x00", sent + "\x1b[2J", sent + "\u202Egnp", sent + "\u200b\u200d", sent + "\ufeff", sent + "\U0001F469\u200d\u2695\ufe0f", sent + "ﷺ", sent + strings.Repeat("\u0301", 60), sent + "\xff\xfe",
	sent + "${jndi:ldap://x/a}", sent + "{{7*7}}", sent + "<script>alert(1)</script>", sent + "%s%n%x", sent + "../../etc/passwd", sent + `\u0000`,
	"***-**-6789", "****-**-15", "****-**-**", "null", "true", "NaN", "-1", "1e400", "2026-02-30", "0000-00-00", "9999-12-31", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z",
	"2026-03-01T08:30:00+24:00", "00000000-0000-0000-0000-000000000000", sent + strings.Repeat("A", 3000),
}

func (f *fuzz) text() string { return pick(f, texts) }

// visible is the text as a header can carry it.
func visible(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, s)
}

// bent is the text with a letter changed, cut, or as it is.
func (f *fuzz) bent(s string) string {
	if s == "" || f.one(2) {
		return s
	}
	at := f.IntN(len(s))
	if f.one(2) {
		return s[:at]
	}
	return s[:at] + "A" + s[at+1:]
}

// badBody is bytes that are no JSON for us.
func (f *fuzz) badBody(good []byte) []byte {
	switch f.IntN(12) {
	case 0:
		return nil
	case 1:
		return good[:f.IntN(len(good)+1)]
	case 2:
		return append(slices.Clone(good), good...)
	case 3:
		return []byte(strings.Repeat("[", 100_000))
	case 4:
		return []byte(strings.Repeat(`{"a":`, 40) + "1" + strings.Repeat("}", 40))
	case 5:
		return slices.Concat([]byte(`{"`+sent+`":"`), bytes.Repeat([]byte("a"), 1<<20), []byte(`"}`))
	case 6:
		return []byte(`{"` + sent + `":1,"` + sent + `":2}`)
	case 7:
		return []byte("{\"description\":\"" + sent + "\xff\xfe\"}")
	case 8:
		return []byte(pick(f, []string{"null", "[]", "1", `"` + sent + `"`, "true", "{}", "{", "\ufeff{}", "NaN", "1e999", `{"a":1}//`}))
	case 9:
		return []byte(`{"__proto__":{"admin":true},"constructor":"` + sent + `"}`)
	case 10:
		return []byte(strings.Repeat(" ", 5000))
	}
	b := slices.Clone(good)
	for range min(len(b), 3) {
		b[f.IntN(len(b))] = byte(f.IntN(256))
	}
	return b
}

// otherBody is JSON of about the right shape: a sample of the schema, or the good
// body, with one value changed.
func (f *fuzz) otherBody(r *request) []byte {
	var v any
	if kind, shape := r.op.body(); kind != "" && f.one(2) {
		v = f.spec.sample(shape, true)
	} else if json.Unmarshal(r.body, &v) != nil {
		return r.body
	}
	b, err := json.Marshal(f.changed(v))
	if err != nil {
		return r.body
	}
	return b
}

// changed is the value with one thing in it replaced, added or taken away.
func (f *fuzz) changed(v any) any {
	switch v := v.(type) {
	case map[string]any:
		keys := slices.Sorted(maps.Keys(v))
		switch {
		case len(keys) == 0 || f.one(8):
			v[pick(f, []string{sent, "practice_id", "id", "version", "ssn", "admin", "Recipient", "deleted_at"})] = f.leaf()
		case f.one(8):
			delete(v, pick(f, keys))
		default:
			k := pick(f, keys)
			v[k] = f.changed(v[k])
		}
		return v
	case []any:
		if len(v) == 0 || f.one(4) {
			return append(v, f.leaf())
		}
		i := f.IntN(len(v))
		v[i] = f.changed(v[i])
		return v
	}
	return f.leaf()
}

func (f *fuzz) leaf() any {
	switch f.IntN(8) {
	case 0:
		return nil
	case 1:
		return pick(f, []any{-1, 0, 1, 1e300, 1 << 40, 0.5})
	case 2:
		return map[string]any{sent: sent}
	case 3:
		return []any{sent, []any{}}
	case 4:
		return f.one(2)
	}
	return f.text()
}
