// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/jackc/pgx/v5"
)

// shortest is the length below which a text would be found by chance.
const shortest = 6

// search finds many byte strings at once.
type search struct {
	first   []uint64 // a bit for each hash of the first four bytes of one
	begins  map[[shortest]byte][]int
	needles [][]byte
	names   []string
}

func newSearch() *search {
	return &search{first: make([]uint64, 1<<18), begins: map[[shortest]byte][]int{}}
}

func mix(b []byte) uint32 { return binary.LittleEndian.Uint32(b) * 2654435761 >> 8 }

func (s *search) add(name string, needle []byte) {
	if len(needle) < shortest {
		return
	}
	begin := [shortest]byte(needle)
	for _, n := range s.begins[begin] {
		if bytes.Equal(s.needles[n], needle) {
			return
		}
	}
	h := mix(needle)
	s.first[h>>6] |= 1 << (h & 63)
	s.begins[begin] = append(s.begins[begin], len(s.needles))
	s.needles, s.names = append(s.needles, needle), append(s.names, name)
}

// in returns the names of what is found, and where it is first.
func (s *search) in(b []byte) map[string]int {
	found := map[string]int{}
	for i := 0; i+shortest <= len(b); i++ {
		h := mix(b[i:])
		if s.first[h>>6]&(1<<(h&63)) == 0 {
			continue
		}
		for _, n := range s.begins[[shortest]byte(b[i:i+shortest])] {
			if bytes.HasPrefix(b[i:], s.needles[n]) && !(likeUUID(s.needles[n]) && within(b, i, len(s.needles[n]))) {
				if _, before := found[s.names[n]]; !before {
					found[s.names[n]] = i
				}
			}
		}
	}
	return found
}

// likeUUID says that a text is short and of such letters that a piece of some
// UUID may be the same: the codes of LOINC are. within says that it is such a
// piece, or that of another number.
func likeUUID(needle []byte) bool { return len(needle) < 12 && len(bytes.TrimLeft(needle, hexes)) == 0 }

func within(b []byte, at, length int) bool {
	const around = hexes + ":" // a JSON number: how long a request took, for instance
	if clock.Match(b[max(0, at-4):at]) {
		return true // a fraction of a second, of which each line of a log has one
	}
	return at > 0 && strings.IndexByte(around, b[at-1]) >= 0 || at+length < len(b) && strings.IndexByte(hexes, b[at+length]) >= 0
}

const hexes = "0123456789abcdef-"

var clock = regexp.MustCompile(`^:\d\d\.$`)

// secret adds a text in every form in which it could have been written down
// without having been sealed.
func (s *search) secret(text string) {
	label := func(form string) string { return fmt.Sprintf("%q as %s", text, form) }
	s.add(label("it is"), []byte(text))
	s.add(label("lower case"), []byte(strings.ToLower(text)))
	s.add(label("upper case"), []byte(strings.ToUpper(text)))
	s.add(label("digits"), []byte(digits(text)))
	little, big := make([]byte, 0, 2*len(text)), make([]byte, 0, 2*len(text))
	var escaped string
	for _, u := range utf16.Encode([]rune(text)) {
		little, big = binary.LittleEndian.AppendUint16(little, u), binary.BigEndian.AppendUint16(big, u)
		if u < 0x80 {
			escaped += string(rune(u))
		} else {
			escaped += fmt.Sprintf(`\u%04x`, u)
		}
	}
	s.add(label("UTF-16LE"), little)
	s.add(label("UTF-16BE"), big)
	s.add(label("JSON"), []byte(escaped))
	s.add(label("JSON"), regexp.MustCompile(`\\u....`).ReplaceAllFunc([]byte(escaped), func(b []byte) []byte {
		return append([]byte(`\u`), bytes.ToUpper(b[2:])...)
	}))
	s.add(label("hex"), []byte(hex.EncodeToString([]byte(text))))
	s.add(label("HEX"), []byte(strings.ToUpper(hex.EncodeToString([]byte(text)))))
	for shift := range 3 {
		s.add(label("base64"), core(base64.RawStdEncoding, text, shift))
		s.add(label("base64url"), core(base64.RawURLEncoding, text, shift))
	}
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		// As PostgreSQL keeps an instant: microseconds since 2000.
		micros := uint64(at.Sub(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)).Microseconds()) //nolint:gosec // may wrap, as theirs does
		s.add(label("timestamptz"), binary.LittleEndian.AppendUint64(nil, micros))
		s.add(label("timestamptz, sent"), binary.BigEndian.AppendUint64(nil, micros))
		s.add(label("a date"), []byte(text[:len("2006-01-02")]))
	}
}

// core is what of a text's base64 does not depend on what is around it, when
// it begins at that place of a group of three bytes.
func core(enc *base64.Encoding, text string, shift int) []byte {
	whole := enc.EncodeToString(append(make([]byte, shift), text...))
	from := []int{0, 2, 3}[shift]
	to := (shift + len(text)) * 8 / 6 // the last character may hold bits of the next
	return []byte(whole[from:max(from, to)])
}

func digits(text string) string {
	d := regexp.MustCompile(`\D`).ReplaceAllString(text, "")
	if len(d) < 8 || len(d) != len(strings.Trim(text, " "))-strings.Count(text, "-") {
		return ""
	}
	return d
}

func TestSearchFindsWhatIsThere(t *testing.T) {
	t.Parallel()
	const text = "Þórunn O'Neil 1961-02-03"
	for name, hidden := range map[string][]byte{
		"as it is":   []byte(text),
		"lower case": []byte(strings.ToLower(text)),
		"in UTF-16":  {0xde, 0, 0xf3, 0, 'r', 0, 'u', 0, 'n', 0, 'n', 0, ' ', 0, 'O', 0, '\'', 0, 'N', 0, 'e', 0, 'i', 0, 'l', 0, ' ', 0, '1', 0, '9', 0, '6', 0, '1', 0, '-', 0, '0', 0, '2', 0, '-', 0, '0', 0, '3', 0},
		"in JSON":    []byte(`\u00de\u00f3runn O'Neil 1961-02-03`),
		"in hex":     []byte(hex.EncodeToString([]byte("xyz" + text))),
		"in base64":  []byte(base64.StdEncoding.EncodeToString([]byte(text))),
		"in base64 after one byte and before two": []byte(base64.StdEncoding.EncodeToString([]byte("x" + text + "yz"))),
		"in base64 after two bytes":               []byte(base64.URLEncoding.EncodeToString([]byte("xy" + text + "z"))),
	} {
		s := newSearch()
		s.secret(text)
		s.secret("something else")
		if found := s.in(slices.Concat(make([]byte, 1001), hidden, make([]byte, 77))); len(found) == 0 {
			t.Errorf("%s: not found", name)
		}
		if found := s.in(slices.Concat(make([]byte, 1001), hidden[:len(hidden)/2])); len(found) > 0 {
			t.Errorf("%s: half of it is found: %v", name, found)
		}
	}
	s := newSearch()
	s.secret("2017-02-03T12:22:37Z")
	for _, b := range []string{"2017-02-03", "20170203"} {
		if found := s.in([]byte("xx" + b + "xx")); len(found) == 0 && b == "2017-02-03" {
			t.Errorf("%s: not found", b)
		}
	}
	s = newSearch()
	s.secret("8331-1")
	if found := s.in([]byte("01a20766-4097-8331-1e92-3e1e4902ee48")); len(found) > 0 {
		t.Errorf("a piece of a UUID is found: %v", found)
	}
	s.secret("314376")
	if found := s.in([]byte(`{"took":314376,"n":12}`)); len(found) > 0 {
		t.Errorf("a number is found: %v", found)
	}
	if found := s.in([]byte(`{"time":"2026-11-28T15:24:39.314376Z"}`)); len(found) > 0 {
		t.Errorf("a fraction of a second is found: %v", found)
	}
	if found := s.in([]byte(`{"code":"314376"}`)); len(found) != 1 {
		t.Error("a short code in JSON: not found")
	}
	if found := s.in([]byte("\x0f8331-1\x00")); len(found) != 1 {
		t.Error("a short code: not found")
	}
	s.secret("2017-02-03T12:22:37Z")
	if found := s.in(binary.LittleEndian.AppendUint64([]byte{1}, 539439757000000)); len(found) == 0 {
		t.Error("an instant of PostgreSQL: not found")
	}
}

// secrets are everything of the patients that must be nowhere, beside what the
// bundles hold.
func secrets(s *search, b *bundles, people map[string]answer) {
	for _, texts := range []map[string]bool{b.secrets, b.published} {
		for v := range texts {
			s.secret(v)
		}
	}
	s.secret(breakGlassReason)
	for _, v := range disclosed {
		s.secret(v)
	}
	for _, p := range people {
		for _, field := range []string{"name", "ssn", "dob", "diagnosis"} {
			s.secret(p.field(field))
		}
		for _, part := range strings.FieldsFunc(p.field("name")+" "+p.field("diagnosis"), func(r rune) bool { return r == ' ' || r == ';' }) {
			if len(part) >= shortest {
				s.secret(part)
			}
		}
	}
	// What the sample has besides (internal/app/sample.go).
	for _, v := range []string{
		"Alice Smith", "Birch Lane", "Canal Street", "Dove Court", "Elm Avenue", "Foundry Road", "Harbour View", "Mill Close", "Springfield",
		"Evergreen Mutual", "Harbor Health Plan", "Blue Heron Insurance", "59621000", "44054006", "195967001", "73430006", "40055000", "64859006", "37796009",
		"8867-4", "Heart rate", "onsetDateTime", "effectiveDateTime", "valueQuantity", "clinicalStatus", `"resourceType"`, "patients.example",
	} {
		s.secret(v)
	}
	for n := 1; n <= 6; n++ {
		s.secret(fmt.Sprintf("MRN-%06d", 100000+n*37))
	}
}

// marks are texts that a superuser put into the database in the clear, to
// prove that they would be found.
type marks struct{ heap, long string }

var markForms = map[string]func(string) []byte{
	"text":   func(s string) []byte { return []byte(s) },
	"utf16":  func(s string) []byte { return []byte(strings.Join(strings.Split(s, ""), "\x00") + "\x00") },
	"base64": func(s string) []byte { return []byte(base64.StdEncoding.EncodeToString([]byte("x" + s))) },
	"hex":    func(s string) []byte { return []byte(hex.EncodeToString([]byte(s))) },
}

func plant(t *testing.T, s *devServer) *marks {
	t.Helper()
	m := &marks{heap: "planted-marker-of-the-heap-8861", long: "planted-marker-that-repeats-itself-9972 "}
	conn := s.super(t, s.info.Database.Name)
	exec1(t, conn, `create table public.planted (form text, v bytea)`)
	for form, encode := range markForms {
		exec1(t, conn, `insert into public.planted values ($1, $2)`, form, encode(m.heap+"-"+form))
	}
	exec1(t, conn, `create table public.planted_long (v text)`)
	exec1(t, conn, `insert into public.planted_long values ($1)`, strings.Repeat(m.long, 5000))
	return m
}

// eachTable reads every table of a database as the superuser, as it is once
// PostgreSQL has taken what is compressed apart.
func eachTable(t *testing.T, s *devServer, db string, look func(name string, text []byte)) {
	t.Helper()
	conn := s.super(t, db)
	rows, err := conn.Query(t.Context(), `select format('%I.%I', n.nspname, c.relname), n.nspname in ('pg_catalog', 'information_schema')
		from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.relkind = 'r' order by 1`)
	if err != nil {
		t.Fatal(err)
	}
	catalogs := map[string]bool{}
	var name string
	var catalog bool
	if _, err := pgx.ForEachRow(rows, []any{&name, &catalog}, func() error { catalogs[name] = catalog; return nil }); err != nil {
		t.Fatal(err)
	}
	for name, catalog := range catalogs {
		copyOut := `copy ` + name + ` to stdout (format binary)`
		if catalog { // some of its types have a text form only
			copyOut = `copy ` + name + ` to stdout`
		}
		var text bytes.Buffer
		if _, err := conn.PgConn().CopyTo(t.Context(), &text, copyOut); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		look(name, text.Bytes())
	}
}

// forgetKnown drops the words of the public data that PostgreSQL has in a
// database without any patient: names of languages, for instance.
func (b *bundles) forgetKnown(t *testing.T, s *devServer) {
	t.Helper()
	words, all := newSearch(), len(b.published)
	for v := range b.published {
		words.secret(v)
	}
	eachTable(t, s, "template1", func(_ string, text []byte) {
		for what := range words.in(text) {
			quoted, err := strconv.QuotedPrefix(what)
			if err != nil {
				t.Fatal(err)
			}
			v, err := strconv.Unquote(quoted)
			if err != nil {
				t.Fatal(err)
			}
			delete(b.published, v)
		}
	})
	if known := all - len(b.published); known > 20 {
		t.Errorf("PostgreSQL knows %d of %d words: the search would look for little", known, all)
	}
}

// tablesHold looks for what is sealed in every table of every database.
func tablesHold(t *testing.T, s *devServer, b *bundles, people map[string]answer, m *marks) {
	b.forgetKnown(t, s)
	hidden, open := newSearch(), newSearch()
	secrets(hidden, b, people)
	kinds := newSearch() // what a record is about is sealed too (rules.md section 7)
	for _, k := range []string{"Condition", "Observation", "MedicationRequest", "medication", "DocumentReference", "document", "Encounter", "Procedure", "Immunization", "allergy"} {
		kinds.secret(k)
	}
	open.add("the long marker", []byte(m.long))
	open.add("a patient's id", []byte(b.ids[3]))
	seen := map[string]bool{}
	read := 0
	for _, db := range []string{s.info.Database.Name, "medirecord_keystore", "postgres"} {
		eachTable(t, s, db, func(name string, text []byte) {
			read += len(text)
			for what := range hidden.in(text) {
				t.Errorf("table %s of %s holds %s", name, db, what)
			}
			if !strings.HasPrefix(name, "pg_catalog.") && !strings.HasPrefix(name, "information_schema.") {
				for what := range kinds.in(text) {
					t.Errorf("table %s of %s holds %s", name, db, what)
				}
			}
			for what := range open.in(text) {
				seen[what] = true
			}
		})
	}
	if len(seen) != 2 {
		t.Errorf("found only %v in the tables: this search finds nothing", slices.Sorted(maps.Keys(seen)))
	}
	t.Logf("%d byte strings looked for in %d MiB of tables", len(hidden.needles), read>>20)
}

// withoutPageHeads is a segment of the write-ahead log without the head of each
// page, which cuts whatever crosses from one page to the next (PostgreSQL's
// access/xlog_internal.h: 24 bytes, 40 where a bit says that it is a long one).
func withoutPageHeads(segment []byte) []byte {
	const page, short, long, isLong, magic = 8192, 24, 40, 0x0002, 0xd1
	joined := make([]byte, 0, len(segment))
	for p := range slices.Chunk(segment, page) {
		switch head := p; {
		case len(head) < long || head[1] != magic: // never written
		case binary.LittleEndian.Uint16(head[2:])&isLong != 0:
			p = p[long:]
		default:
			p = p[short:]
		}
		joined = append(joined, p...)
	}
	return joined
}

// What is written where two pages of the log meet is found too.
func TestSearchAcrossPagesOfTheLog(t *testing.T) {
	const text = "written across the end of a page"
	first, second := make([]byte, 8192), make([]byte, 8192)
	copy(first, "\x10\xd1\x07\x00")
	copy(second, "\x10\xd1\x05\x00")
	copy(first[len(first)-11:], text[:11])
	copy(second[24:], text[11:])
	find := newSearch()
	find.add("it", []byte(text))
	if segment := slices.Concat(first, second); len(find.in(segment)) != 0 || len(find.in(withoutPageHeads(segment))) != 1 {
		t.Error("a text that crosses a page was not found")
	}
}

// filesHold reads every file below a stopped server's folders, the database's
// pages and its write-ahead log among them, and looks for what is sealed.
func filesHold(t *testing.T, h home, b *bundles, people map[string]answer, m *marks) {
	hidden, open := newSearch(), newSearch()
	secrets(hidden, b, people)
	open.add("practice", []byte(north))
	ids := b.ids[:3]
	if m != nil {
		ids = b.ids[3:]
		for form := range markForms {
			open.secret(m.heap + "-" + form)
		}
	}
	for _, id := range ids {
		open.add("patient "+id, []byte(id))
	}
	seen := map[string]bool{}
	var read int64
	err := filepath.WalkDir(h.root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		text, err := io.ReadAll(f)
		if err != nil {
			return err
		}
		read += int64(len(text))
		if filepath.Base(filepath.Dir(path)) == "pg_wal" {
			text = withoutPageHeads(text)
		}
		for what, at := range hidden.in(text) {
			t.Errorf("%s holds %s at byte %d", path, what, at)
		}
		place := strings.SplitN(strings.TrimPrefix(path, filepath.Join(h.data, "postgres", "pgdata")+"/"), "/", 2)[0]
		for what := range open.in(text) {
			seen[place+": "+what] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, place := range []string{"base", "pg_wal"} {
		want = append(want, place+": practice")
		for _, id := range ids {
			want = append(want, place+": patient "+id)
		}
		if m != nil {
			for form, as := range map[string]string{"text": "it is", "utf16": "UTF-16LE", "base64": "base64", "hex": "hex"} {
				want = append(want, fmt.Sprintf("%s: %q as %s", place, m.heap+"-"+form, as))
			}
		}
	}
	for _, w := range want {
		if !seen[w] {
			t.Errorf("not found, though it is there: %s", w)
		}
	}
	t.Logf("%d byte strings looked for in %d MiB of files", len(hidden.needles), read>>20)
}
