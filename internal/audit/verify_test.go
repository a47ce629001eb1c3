// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/medirecord/medirecord/internal/med"
)

// sample makes a log of entries, one a second, and says of which month each is.
func sample(n int) (out []*Record) {
	start := time.Date(2026, 11, 30, 23, 59, 0, 0, time.UTC)
	for i := range n {
		at := start.Add(time.Duration(i) * time.Second).Add(5 * time.Millisecond)
		r := &Record{
			Epoch: 1, TX: uint64(1000 + i/3), OccurredAt: at, RecordedAt: at.Add(7 * time.Millisecond),
			ActorIssuer: "test", ActorSubject: fmt.Sprintf("nurse-%d \"x\" \\ Zoë", i%3), Action: "read", ResourceType: "patient", ResourceID: "p",
			Outcome: "denied", Detail: `{"roles":["nurse"]}`, Nonce: bytes.Repeat([]byte{byte(i), byte(i >> 8)}, 8), Version: 1,
		}
		id := UUID{}
		u, _ := ParseUUID(med.NewUUID(at))
		copy(id[:], u[:])
		id[9] = byte(i) // in order within a transaction too
		r.ID = id.String()
		if i%4 != 0 {
			p := fmt.Sprintf("p-%d", i%5)
			r.Patient = &p
		}
		out = append(out, r)
	}
	return out
}

// exported is an export of the places [from, to) as the month's file.
func exported(t testing.TB, all []*Record, from, to int, month string) []byte {
	t.Helper()
	left, right, whole := &Range{}, &Range{Begin: int64(to), End: int64(to)}, &Range{}
	pm := NewMapCheck()
	for i, r := range all {
		h := r.Hash()
		whole.Append(h)
		if r.Patient != nil {
			pm.Add(KeyOf(*r.Patient), h)
		}
		switch {
		case i < from:
			left.Append(h)
		case i >= to:
			right.Append(h)
		}
	}
	c := Checkpoint{Origin: "test/1", Size: int64(len(all)), Root: whole.Root(), Patients: pm.Root()}
	h := ExportHeader{Origin: c.Origin, Epoch: 1, Month: month, From: int64(from), To: int64(to), Size: c.Size, Checkpoint: c.Text()}
	for _, x := range left.Hashes {
		h.Left = append(h.Left, x[:])
	}
	for _, x := range right.Hashes {
		h.Right = append(h.Right, x[:])
	}
	var b bytes.Buffer
	w, err := NewExport(&b, h)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range all[from:to] {
		id, _ := ParseUUID(r.ID)
		if m := r.OccurredAt.Format("2006-01"); m != month {
			err = w.Neighbour(int64(from+i), r.Hash(), id, m)
		} else {
			err = w.Entry(int64(from+i), r.Hash(), r)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// unsigned trusts any checkpoint that reads: signatures are another test's.
func unsigned(text string) (*Head, error) {
	c, err := ParseCheckpoint(text)
	if err != nil {
		return nil, err
	}
	return &Head{Checkpoint: *c, Note: text}, nil
}

func verifyExport(t *testing.T, file []byte, known func(int64, int) []tlog.Hash) (*FileResult, []Finding) {
	t.Helper()
	var found []Finding
	res, err := VerifyExport(bytes.NewReader(file), func(f Finding) { found = append(found, f) }, unsigned, known, nil)
	if err != nil {
		t.Fatal(err)
	}
	return res, found
}

// lines unpacks an export, and packed packs one.
func lines(t testing.TB, file []byte) []string {
	t.Helper()
	gz, err := gzip.NewReader(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(gz)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
}

func packed(l []string) []byte {
	var b bytes.Buffer
	gz := gzip.NewWriter(&b)
	_, _ = io.WriteString(gz, strings.Join(l, "\n")+"\n")
	_ = gz.Close()
	return b.Bytes()
}

func TestACleanExportGivesNoFinding(t *testing.T) {
	t.Parallel()
	all := sample(1500)
	for _, x := range [][2]int{{0, 60}, {0, 1}, {55, 70}, {60, 1500}, {58, 1500}} {
		month := "2026-12"
		if x[0] == 0 {
			month = "2026-11"
		}
		file := exported(t, all, x[0], x[1], month)
		res, found := verifyExport(t, file, nil)
		if len(found) > 0 || !res.Proved || res.Head == nil {
			t.Errorf("%v: got %v, proved %v", x, found, res.Proved)
		}
		// Another's JSON of the same is the same.
		l := lines(t, file)
		for i := range l {
			var v any
			d := json.NewDecoder(strings.NewReader(l[i]))
			d.UseNumber()
			if err := d.Decode(&v); err != nil {
				t.Fatal(err)
			}
			b, err := json.MarshalIndent(v, "", "")
			if err != nil {
				t.Fatal(err)
			}
			l[i] = strings.ReplaceAll(string(b), "\n", " ")
		}
		if res, found := verifyExport(t, packed(l), nil); len(found) > 0 || !res.Proved {
			t.Errorf("%v, written by another: got %v, proved %v", x, found, res.Proved)
		}
	}
}

// What is done to a file is named to the entry.
func TestATamperedExportIsNamed(t *testing.T) {
	t.Parallel()
	all := sample(900)
	file := exported(t, all, 60, 900, "2026-12")
	column := func(name, from, to string) func([]string) []string {
		return func(l []string) []string {
			was := l[101]
			l[101] = strings.Replace(l[101], `"`+name+`":"`+from, `"`+name+`":"`+to, 1)
			if l[101] == was {
				t.Errorf("%s is not changed", name)
			}
			return l
		}
	}
	at := all[160] // line 101 is the place 160
	micro := fmt.Sprint(at.OccurredAt.UnixMicro())
	for name, c := range map[string]struct {
		change func([]string) []string
		want   []string // kind, place
	}{
		"an actor is altered":      {column("actor_subject", "nurse", "n"), []string{"altered 160"}},
		"an outcome is altered":    {column("outcome", "denied", "success"), []string{"altered 160"}},
		"an entry is re-dated":     {column("occurred_at", micro[:len(micro)-6], fmt.Sprint((at.OccurredAt.UnixMicro()-86400e6)/1e6)), []string{"re-dated 160"}},
		"recorded at another time": {column("recorded_at", micro[:8], micro[:7]+"0"), []string{"re-dated 160"}},
		"a transaction is changed": {column("tx", "1053", "1054"), []string{"reordered 160"}},
		"a line is taken out":      {func(l []string) []string { return slices.Delete(l, 101, 102) }, []string{"file -1", "missing 160"}},
		"a hundred lines are gone": {func(l []string) []string { return slices.Delete(l, 101, 201) }, []string{"file -1", "missing 160", "missing 259"}},
		"a line is there twice":    {func(l []string) []string { return slices.Insert(l, 300, l[101]) }, []string{"file -1", "added 160"}},
		"two lines are swapped":    {func(l []string) []string { l[101], l[102] = l[102], l[101]; return l }, []string{"reordered 160"}},
		"two entries are swapped": {func(l []string) []string {
			a, b, _ := strings.Cut(l[101], `"entry"`)
			c, d, _ := strings.Cut(l[400], `"entry"`)
			l[101], l[400] = a+`"entry"`+d, c+`"entry"`+b
			return l
		}, []string{"reordered 160", "reordered 459"}},
		"it is cut off":            {func(l []string) []string { return l[:500] }, []string{"file -1", "missing 559", "missing 899"}},
		"it goes on after its end": {func(l []string) []string { return append(l, l[5]) }, []string{"file -1"}},
		"an entry and its hash change": {func(l []string) []string {
			r := *at
			r.ActorSubject = "somebody else"
			h := r.Hash()
			var w bytes.Buffer
			e, _ := NewExport(&w, ExportHeader{})
			_ = e.Entry(160, h, &r)
			_ = e.Close()
			l[101] = lines(t, w.Bytes())[1]
			return l
		}, []string{"checkpoint -1"}},
		"a column is not canonical": {column("tx", "", "0"), []string{"altered 160"}},
		"a line is nonsense":        {func(l []string) []string { l[101] = "{}"; return l }, []string{"file -1", "missing 160"}},
		"another checkpoint": {func(l []string) []string {
			other := lines(t, exported(t, sample(899), 60, 899, "2026-12"))
			l[0] = strings.Replace(other[0], `"to":899`, `"to":900`, 1)
			l[0] = strings.Replace(l[0], `"size":899`, `"size":900`, 1)
			return l
		}, []string{"file -1"}},
		"the month is another": {func(l []string) []string { l[0] = strings.Replace(l[0], "2026-12", "2027-01", 1); return l }, []string{"file 60", "file 899"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, found := verifyExport(t, packed(c.change(lines(t, file))), nil)
			var got []string
			for _, f := range found {
				got = append(got, fmt.Sprintf("%s %d", f.Kind, f.Index))
			}
			for _, w := range c.want {
				if !slices.Contains(got, w) {
					t.Errorf("got %v, want %s among it", found, w)
				}
			}
			if len(c.want) == 1 && len(found) != 1 {
				t.Errorf("got %v, want nothing but %s", found, c.want[0])
			}
		})
	}
	t.Run("an entry and its hash, against what is kept outside", func(t *testing.T) {
		t.Parallel()
		l := lines(t, file)
		r := *at
		r.ActorSubject = "somebody else"
		var w bytes.Buffer
		e, _ := NewExport(&w, ExportHeader{})
		_ = e.Entry(160, r.Hash(), &r)
		_ = e.Close()
		l[101] = lines(t, w.Bytes())[1]
		kept := func(from int64, n int) (out []tlog.Hash) {
			for _, r := range all[from : from+int64(n)] {
				out = append(out, r.Hash())
			}
			return out
		}
		res, found := verifyExport(t, packed(l), kept)
		if len(found) != 1 || found[0].Kind != Altered || found[0].Index != 160 || !res.Proved {
			t.Errorf("got %v, want entry 160 altered and the rest proved", found)
		}
	})
	t.Run("no export at all", func(t *testing.T) {
		t.Parallel()
		for _, b := range [][]byte{nil, []byte("x"), packed([]string{"{}"}), file[:20]} {
			if _, err := VerifyExport(bytes.NewReader(b), nil, unsigned, nil, nil); !errors.Is(err, ErrExport) {
				t.Errorf("got %v, want %v", err, ErrExport)
			}
		}
	})
}

func FuzzVerifyExport(f *testing.F) {
	f.Add([]byte(`{"i":1,"leaf":"","entry":{}}`))
	f.Add([]byte(`{"end":true,"count":3}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		p, _ := parseLine(line, nil)
		if p.row != nil && p.row.Hash != p.row.Record.Hash() {
			t.Fatal("the quick way hashes something else")
		}
	})
}

// A file can be anybody's. Whatever is in it, reading it comes to an end, and
// only what was exported is proved.
func FuzzVerifyExportFile(f *testing.F) {
	all := sample(12)
	l := lines(f, exported(f, all, 0, 12, "2026-11"))
	header, rest := l[0], strings.Join(l[1:], "\n")
	f.Add([]byte(header), []byte(rest))
	for _, change := range [][2]string{
		{`"to":12`, `"to":4611686018427387904`},
		{`"from":0`, `"from":-1`},
		{`"size":12`, `"size":9223372036854775807`},
		{`"to":12`, `"to":11`},
		{`"month":"2026-11"`, `"month":"0000-00"`},
		{`"right":`, `"right":["AA=="],"x":`},
		{`"epoch":1`, `"epoch":-2147483648`},
	} {
		f.Add([]byte(strings.Replace(header, change[0], change[1], 1)), []byte(rest))
	}
	f.Add([]byte(header), []byte(strings.Replace(rest, `"i":3`, `"i":9223372036854775807`, 1)))
	f.Add([]byte(header), []byte(strings.Replace(rest, `"recorded_at":"`, `"recorded_at":"-9223372036854775808`, 1)))
	f.Add([]byte(header), []byte(`{"i":0,"leaf":"","id":"","month":""}`))
	f.Fuzz(func(t *testing.T, head, body []byte) {
		var found []Finding
		res, err := VerifyExport(bytes.NewReader(packed([]string{string(head), string(body)})), func(x Finding) { found = append(found, x) }, unsigned, nil, nil)
		if err != nil || len(found) > 0 || !res.Proved {
			return
		}
		if string(head) == header && res.Rows+res.Neighbours != 12 {
			t.Fatalf("%d entries are proved to be twelve", res.Rows)
		}
	})
}

func BenchmarkVerifyExport(b *testing.B) {
	all := sample(50_000)
	var buf bytes.Buffer
	e, _ := NewExport(&buf, ExportHeader{To: 50_000, Size: 50_000, Month: "2026-12"})
	for i, r := range all {
		_ = e.Entry(int64(i), r.Hash(), r)
	}
	_ = e.Close()
	b.ResetTimer()
	for b.Loop() {
		if _, err := VerifyExport(bytes.NewReader(buf.Bytes()), func(Finding) {}, unsigned, nil, nil); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(50_000*b.N)/b.Elapsed().Seconds(), "rows/s")
}

// The rows of a stretch come in no order: an entry that is there twice is found
// whichever of the two comes first.
func TestAnEntryThatIsThereTwiceIsFoundInAnyOrder(t *testing.T) {
	t.Parallel()
	real := sample(1)[0]
	other := *real
	other.OccurredAt = other.OccurredAt.Add(time.Second)
	good, _ := RowOf(real, nil)
	added, _ := RowOf(&other, nil)
	for name, rows := range map[string][]Row{"the real one first": {good, added}, "the other first": {added, good}} {
		s := Stretch{Leaves: []tlog.Hash{good.Hash}, Names: []UUID{good.ID}, Rows: rows}
		var found []string
		v := Verifier{Tell: func(f Finding) { found = append(found, fmt.Sprint(f.Kind, " ", f.Index)) }, Tree: &Range{}}
		v.Add(s.Match())
		v.Finish()
		if want := []string{"added -1"}; !slices.Equal(found, want) {
			t.Errorf("%s: got %v, want %v", name, found, want)
		}
	}
}

// A list of ids can be made to lie; where an entry was sealed, its hash says.
// None is lost behind another, and none is made out to be tampered with.
func TestAListThatLiesHidesNoEntry(t *testing.T) {
	t.Parallel()
	all := sample(3)
	rows := make([]Row, len(all))
	for i, r := range all {
		rows[i], _ = RowOf(r, nil)
	}
	leaves := []tlog.Hash{rows[0].Hash, rows[1].Hash, rows[2].Hash}
	twin := *all[1]
	twin.ID, twin.OccurredAt = all[0].ID, twin.OccurredAt.Add(time.Hour)
	twinRow, _ := RowOf(&twin, nil)
	for name, c := range map[string]struct {
		leaves []tlog.Hash
		names  []UUID
		rows   []Row
		want   []string
	}{
		"an entry is taken out, and the list names another in its place": {
			leaves, []UUID{rows[1].ID, rows[0].ID, rows[2].ID}, rows[1:], []string{"batch 1", "missing 0"},
		},
		"two that were sealed have one id": {
			[]tlog.Hash{rows[0].Hash, twinRow.Hash, rows[2].Hash}, []UUID{rows[0].ID, rows[0].ID, rows[2].ID}, []Row{rows[0], twinRow, rows[2]}, nil,
		},
		"of two with one id the first is taken out": {
			[]tlog.Hash{rows[0].Hash, twinRow.Hash, rows[2].Hash}, []UUID{rows[0].ID, rows[0].ID, rows[2].ID}, []Row{twinRow, rows[2]}, []string{"missing 0"},
		},
		"two change places in the list": {leaves, []UUID{rows[1].ID, rows[0].ID, rows[2].ID}, rows, []string{"batch 0", "batch 1"}},
	} {
		for range 2 {
			s := Stretch{Leaves: c.leaves, Names: c.names, Rows: c.rows}
			var found []string
			v := Verifier{Tell: func(f Finding) { found = append(found, fmt.Sprint(f.Kind, " ", f.Index)) }, Tree: &Range{}, Listed: true}
			v.Add(s.Match())
			v.Finish()
			slices.Sort(found)
			if !slices.Equal(found, c.want) {
				t.Errorf("%s: got %v, want %v", name, found, c.want)
			}
			slices.Reverse(c.rows)
		}
	}
}

// A line that two readers of JSON would read differently is none: what an
// auditor is shown must be what was hashed.
func TestALineIsReadInOneWayOnly(t *testing.T) {
	t.Parallel()
	all := sample(120)
	file := exported(t, all, 60, 120, "2026-12")
	for name, change := range map[string]func(string) string{
		"a column is there twice": func(l string) string { return strings.Replace(l, `"outcome":`, `"outcome":"success","outcome":`, 1) },
		"the entry is there twice": func(l string) string {
			return strings.Replace(l, `"entry":{`, `"entry":{"outcome":"success"},"entry":{`, 1)
		},
		"the entry is there in other case": func(l string) string {
			return strings.Replace(l, `"entry":{`, `"Entry":{"outcome":"success"},"entry":{`, 1)
		},
		"another follows on the line": func(l string) string { return l + ` {"i":99}` },
		"a name in other case":        func(l string) string { return strings.Replace(l, `"leaf"`, `"LEAF"`, 1) },
		"the place is there twice":    func(l string) string { return strings.Replace(l, `{"i":`, `{"i":7,"i":`, 1) },
		"a name is there twice, by escapes": func(l string) string {
			return strings.Replace(l, `"outcome":`, `"out\u0063ome":"success","outcome":`, 1)
		},
	} {
		l := lines(t, file)
		was := l[10]
		if l[10] = change(was); l[10] == was {
			t.Fatalf("%s: nothing is changed", name)
		}
		if _, found := verifyExport(t, packed(l), nil); len(found) == 0 {
			t.Errorf("%s: nothing is found", name)
		}
	}
	l := lines(t, file)
	l[0] = strings.Replace(l[0], `"month":`, `"month":"2026-01","month":`, 1)
	if _, err := VerifyExport(bytes.NewReader(packed(l)), func(Finding) {}, unsigned, nil, nil); !errors.Is(err, ErrExport) {
		t.Errorf("a header that says two things: got %v, want %v", err, ErrExport)
	}
}

// Who takes an entry out of a file and says that it is of another month, leaf
// and all, is found out: those stand around the month's ends.
func TestAnEntryIsNotHiddenAsANeighbour(t *testing.T) {
	t.Parallel()
	all := sample(2 * 3600) // two hours into December
	file := exported(t, all, 55, len(all), "2026-12")
	if res, found := verifyExport(t, file, nil); len(found) > 0 || res.Neighbours != 5 {
		t.Fatalf("the honest file: %v, %d neighbours", found, res.Neighbours)
	}
	hide := func(at int, month string) []Finding {
		l := lines(t, file)
		head, _, _ := strings.Cut(l[at-55+1], `,"entry"`)
		l[at-55+1] = head + `,"id":"` + all[at].ID + `","month":"` + month + `"}`
		_, found := verifyExport(t, packed(l), nil)
		return found
	}
	for _, at := range []int{5000, len(all) - 1} {
		if found := hide(at, "2026-11"); len(found) != 1 || found[0].Kind != Misfiled || found[0].Index != int64(at) {
			t.Errorf("hidden at %d: got %v", at, found)
		}
	}
	for _, month := range []string{"2026-12", "2025-07", "", "x"} {
		if found := hide(100, month); len(found) != 1 || found[0].Kind != Misfiled || found[0].Index != 100 {
			t.Errorf("said to be of %q: got %v", month, found)
		}
	}
}

// Where nobody worked for hours before a month ended, one of the next month may
// stand before one that took longer. Nothing speaks of tampering then.
func TestAQuietEndOfAMonthIsNoTampering(t *testing.T) {
	t.Parallel()
	all := sample(62)
	quiet := *all[0]
	quiet.OccurredAt, quiet.RecordedAt = quiet.OccurredAt.Add(-30*time.Hour), quiet.RecordedAt.Add(-30*time.Hour)
	slow := *all[59]
	slow.TX = all[60].TX + 1
	log := []*Record{&quiet, all[60], &slow}
	res, found := verifyExport(t, exported(t, log, 0, 3, "2026-11"), nil)
	if len(found) != 1 || found[0].Tampering() || found[0].Kind != Gap || res.Neighbours != 1 {
		t.Errorf("got %v, %d neighbours; want a gap", found, res.Neighbours)
	}
}
