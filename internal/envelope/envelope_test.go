// SPDX-License-Identifier: Apache-2.0

package envelope

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/medirecord/medirecord/internal/med"
)

// fixedKey returns a key that is the same in every run, for tests only.
func fixedKey(fill byte) *Key {
	k := emptyKey()
	for i := range k.cell.b {
		k.cell.b[i] = fill
	}
	return k
}

func testKeeper(t *testing.T) *FileKeeper {
	t.Helper()
	k, err := InitFileKeeper(t.TempDir() + "/keys")
	must(t, err)
	return k
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t testing.TB, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("got error %v, want %v", got, want)
	}
}

var (
	aliceDEK = DEKID{Practice: "north", Patient: "p-001", Version: 1}
	aliceRow = RowID{Practice: "north", Patient: "p-001", Table: "patient", Record: "p-001"}
)

func patientKey(t testing.TB, fill byte, id DEKID) *PatientKey {
	t.Helper()
	k, err := NewPatientKey(fixedKey(fill), id)
	must(t, err)
	return k
}

func aliceFields() map[string][]byte {
	return map[string][]byte{
		HeaderField: []byte(`{"sensitivity":"normal"}`),
		"name":      []byte(`{"family":"Smith","given":["Alice"]}`),
		"ssn":       []byte("123-45-6789"),
		"dob":       []byte("1985-06-15"),
		"phone":     {},
	}
}

func TestSealAndOpen(t *testing.T) {
	t.Parallel()
	k := patientKey(t, 1, aliceDEK)
	place := AAD{Practice: "north", Patient: "p-001", Table: "patient", Record: "p-001", Field: "ssn", FieldVersion: 3, DEKVersion: 1}

	for _, plain := range [][]byte{{}, []byte("x"), []byte("123-45-6789"), bytes.Repeat([]byte("long "), 5000)} {
		t.Run(fmt.Sprintf("%d bytes come back", len(plain)), func(t *testing.T) {
			t.Parallel()
			sealed, err := k.Seal(place, plain)
			must(t, err)
			got, err := k.Open(place, sealed)
			must(t, err)
			if got == nil || !bytes.Equal(got, plain) {
				t.Errorf("got %d bytes (nil: %t), want %d", len(got), got == nil, len(plain))
			}
		})
	}
	t.Run("the same value is never sealed alike", func(t *testing.T) {
		t.Parallel()
		a, err := k.Seal(place, []byte("x"))
		must(t, err)
		b, err := k.Seal(place, []byte("x"))
		must(t, err)
		if bytes.Equal(a, b) {
			t.Error("two sealings of one value are equal")
		}
	})
	t.Run("any flipped bit fails", func(t *testing.T) {
		t.Parallel()
		sealed, err := k.Seal(place, []byte("123-45-6789"))
		must(t, err)
		eachFlip(sealed, func(bit int, b []byte) {
			if _, err := k.Open(place, b); !errors.Is(err, ErrOpen) {
				t.Errorf("bit %d flipped: got error %v, want %v", bit, err, ErrOpen)
			}
		})
	})
	t.Run("a cut value fails", func(t *testing.T) {
		t.Parallel()
		sealed, err := k.Seal(place, []byte("123-45-6789"))
		must(t, err)
		for n := range sealed {
			if _, err := k.Open(place, sealed[:n]); err == nil {
				t.Errorf("%d of %d bytes opened", n, len(sealed))
			}
		}
	})
	t.Run("a value too large is refused", func(t *testing.T) {
		t.Parallel()
		_, err := k.Seal(place, make([]byte, MaxField+1))
		wantErr(t, err, ErrTooLarge)
	})
}

func eachFlip(b []byte, f func(bit int, flipped []byte)) {
	for bit := range len(b) * 8 {
		flipped := slices.Clone(b)
		flipped[bit/8] ^= 1 << (bit % 8)
		f(bit, flipped)
	}
}

// Every patient here has the very same data key, so only the associated data
// and the header key keep a ciphertext in its place.
func TestACiphertextDoesNotMove(t *testing.T) {
	t.Parallel()
	home := AAD{Practice: "north", Patient: "p-001", Table: "patient", Record: "p-001", Field: "ssn", FieldVersion: 3, DEKVersion: 1}
	sealed, err := patientKey(t, 1, aliceDEK).Seal(home, []byte("123-45-6789"))
	must(t, err)

	moves := map[string]func(*AAD){
		"to another practice":      func(a *AAD) { a.Practice = "south" },
		"to another patient":       func(a *AAD) { a.Patient = "p-002" },
		"to another table":         func(a *AAD) { a.Table = "record" },
		"to another record":        func(a *AAD) { a.Record = "r-1" },
		"to another field":         func(a *AAD) { a.Field = "mrn" },
		"to the header":            func(a *AAD) { a.Field = HeaderField },
		"to another field version": func(a *AAD) { a.FieldVersion = 4 },
		"to another key version":   func(a *AAD) { a.DEKVersion = 2 },
		"across a border of names": func(a *AAD) { a.Practice, a.Patient = "northp", "-001" },
	}
	for name, move := range moves {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := home
			move(&a)
			k := patientKey(t, 1, DEKID{a.Practice, a.Patient, a.DEKVersion})
			_, err := k.Open(a, sealed)
			wantErr(t, err, ErrOpen)
		})
	}
	t.Run("another patient's key refuses the place itself", func(t *testing.T) {
		t.Parallel()
		k := patientKey(t, 2, DEKID{"north", "p-002", 1})
		_, err := k.Open(home, sealed)
		wantErr(t, err, ErrMisuse)
		_, err = k.Seal(home, []byte("x"))
		wantErr(t, err, ErrMisuse)
	})
	t.Run("another data key of the same patient does not open", func(t *testing.T) {
		t.Parallel()
		_, err := patientKey(t, 2, aliceDEK).Open(home, sealed)
		wantErr(t, err, ErrOpen)
	})
}

func TestImpossiblePlacesAreRefused(t *testing.T) {
	t.Parallel()
	k := patientKey(t, 1, aliceDEK)
	good := AAD{Practice: "north", Patient: "p-001", Table: "patient", Record: "p-001", Field: "ssn", FieldVersion: 1, DEKVersion: 1}
	long := strings.Repeat("x", 256)
	for name, spoil := range map[string]func(*AAD){
		"no practice": func(a *AAD) { a.Practice = "" }, "long practice": func(a *AAD) { a.Practice = med.PracticeID(long) },
		"no patient": func(a *AAD) { a.Patient = "" }, "no table": func(a *AAD) { a.Table = "" },
		"no record": func(a *AAD) { a.Record = "" }, "long record": func(a *AAD) { a.Record = long },
		"no field": func(a *AAD) { a.Field = "" }, "illegal field": func(a *AAD) { a.Field = "SSN" },
		"long field":      func(a *AAD) { a.Field = long[:65] },
		"field version 0": func(a *AAD) { a.FieldVersion = 0 }, "field version below 0": func(a *AAD) { a.FieldVersion = -1 },
		"key version 0": func(a *AAD) { a.DEKVersion = 0 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := good
			spoil(&a)
			_, err := k.Seal(a, []byte("x"))
			wantErr(t, err, ErrMisuse)
			_, err = a.AppendBinary(nil)
			wantErr(t, err, ErrMisuse)
		})
	}
}

func TestRow(t *testing.T) {
	t.Parallel()
	k := patientKey(t, 1, aliceDEK)

	t.Run("every field comes back, empty as empty and missing as nil", func(t *testing.T) {
		t.Parallel()
		fields := aliceFields()
		fields["email"] = nil
		row := sealAndParse(t, k, 1, fields)
		must(t, k.Check(aliceRow, row))
		delete(fields, "email")
		if diff := cmp.Diff(openAll(t, k, row), fields); diff != "" {
			t.Errorf("got -, want +:\n%s", diff)
		}
		for _, missing := range []string{"email", "never"} {
			got, err := k.OpenField(aliceRow, row, missing)
			if got != nil || err != nil {
				t.Errorf("%s: got %d bytes, %v, want nil, nil", missing, len(got), err)
			}
		}
		if diff := cmp.Diff(row.Fields(), []string{"dob", "header", "name", "phone", "ssn"}); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("a row without fields is a row", func(t *testing.T) {
		t.Parallel()
		must(t, k.Check(aliceRow, sealAndParse(t, k, 7, nil)))
	})
	t.Run("any flipped bit fails, in parsing, in the MAC or in the field", func(t *testing.T) {
		t.Parallel()
		packed, err := k.SealRow(aliceRow, 2, aliceFields())
		must(t, err)
		eachFlip(packed, func(bit int, b []byte) {
			row, err := ParseRow(b)
			if err != nil {
				return
			}
			failed := k.Check(aliceRow, row) != nil
			for _, name := range row.Fields() {
				_, err := k.OpenField(aliceRow, row, name)
				failed = failed || err != nil
			}
			if !failed {
				t.Errorf("bit %d flipped and nothing noticed", bit)
			}
		})
	})
	t.Run("no shorter or longer bytes are a row", func(t *testing.T) {
		t.Parallel()
		packed, err := k.SealRow(aliceRow, 2, aliceFields())
		must(t, err)
		for n := range packed {
			if row, err := ParseRow(packed[:n]); err == nil && k.Check(aliceRow, row) == nil {
				t.Errorf("%d of %d bytes are a row", n, len(packed))
			}
		}
		_, err = ParseRow(append(packed, 0))
		wantErr(t, err, ErrMalformed)
	})
	t.Run("a row does not move", func(t *testing.T) {
		t.Parallel()
		packed, err := k.SealRow(aliceRow, 2, aliceFields())
		must(t, err)
		for name, id := range map[string]RowID{
			"practice": {"south", "p-001", "patient", "p-001"}, "patient": {"north", "p-002", "patient", "p-001"},
			"table": {"north", "p-001", "record", "p-001"}, "record": {"north", "p-001", "patient", "p-002"},
		} {
			row, err := ParseRow(packed)
			must(t, err)
			same := patientKey(t, 1, DEKID{id.Practice, id.Patient, 1})
			if err := same.Check(id, row); !errors.Is(err, ErrTampered) {
				t.Errorf("%s: got %v, want %v", name, err, ErrTampered)
			}
			if _, err := same.OpenField(id, row, "ssn"); !errors.Is(err, ErrTampered) {
				t.Errorf("%s: opening: got %v, want %v", name, err, ErrTampered)
			}
			wantErr(t, k.Check(id, row), map[bool]error{true: ErrMisuse, false: ErrTampered}[name == "practice" || name == "patient"])
		}
	})
	t.Run("a check for one place does not pass for another", func(t *testing.T) {
		t.Parallel()
		row := sealAndParse(t, k, 1, aliceFields())
		must(t, k.Check(aliceRow, row))
		elsewhere := aliceRow
		elsewhere.Record = "r-9"
		_, err := k.OpenField(elsewhere, row, "ssn")
		wantErr(t, err, ErrTampered)
	})
	t.Run("limits", func(t *testing.T) {
		t.Parallel()
		many := map[string][]byte{}
		for i := range MaxFields + 1 {
			many[fmt.Sprintf("f%d", i)] = []byte("x")
		}
		_, err := k.SealRow(aliceRow, 1, many)
		wantErr(t, err, ErrTooLarge)
		_, err = k.SealRow(aliceRow, 1, map[string][]byte{"a": make([]byte, MaxField+1)})
		wantErr(t, err, ErrTooLarge)
		_, err = k.SealRow(aliceRow, 1, map[string][]byte{"Name": []byte("x")})
		wantErr(t, err, ErrMisuse)
		_, err = k.SealRow(aliceRow, 0, aliceFields())
		wantErr(t, err, ErrMisuse)
		full := maps.Clone(many)
		delete(full, "f0")
		full["f1"] = make([]byte, MaxField)
		must(t, k.Check(aliceRow, sealAndParse(t, k, 1, full)))
	})
}

func sealAndParse(t testing.TB, k *PatientKey, version int64, fields map[string][]byte) *Row {
	t.Helper()
	packed, err := k.SealRow(aliceRow, version, fields)
	must(t, err)
	row, err := ParseRow(packed)
	must(t, err)
	return row
}

func openAll(t testing.TB, k *PatientKey, row *Row) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	for _, name := range row.Fields() {
		b, err := k.OpenField(aliceRow, row, name)
		must(t, err)
		out[name] = b
	}
	return out
}

// repack writes a row's parts down as they are, with the MAC it came with:
// what somebody with the database and no key can do.
func repack(r *Row) []byte {
	b := appendHead(nil, r.dekVersion, r.version, len(r.fields))
	for _, f := range r.fields {
		b = appendFieldHead(b, string(f.name), f.version, len(f.sealed))
		b = append(b, f.sealed...)
	}
	return append(b, r.mac[:]...)
}

func TestTamperingWithRows(t *testing.T) {
	t.Parallel()
	k := patientKey(t, 1, aliceDEK)
	seal := func(t *testing.T) (old, now, rival *Row) {
		old = sealAndParse(t, k, 1, aliceFields())
		change := map[string][]byte{"ssn": []byte("987-65-4321"), "allergy": []byte("penicillin")}
		return old, updateAndParse(t, k, old, 2, change), updateAndParse(t, k, old, 2, change)
	}
	at := func(r *Row, name string) *rowField { return r.field(name) }
	for name, tamper := range map[string]func(old, now, rival *Row){
		"a field is dropped":            func(_, now, _ *Row) { now.fields = now.fields[1:] },
		"the last field is dropped":     func(_, now, _ *Row) { now.fields = now.fields[:len(now.fields)-1] },
		"all fields are dropped":        func(_, now, _ *Row) { now.fields = nil },
		"a field is put back":           func(old, now, _ *Row) { *at(now, "ssn") = *at(old, "ssn") },
		"two values are swapped":        func(_, now, _ *Row) { a, b := at(now, "ssn"), at(now, "dob"); a.sealed, b.sealed = b.sealed, a.sealed },
		"a field version is changed":    func(_, now, _ *Row) { at(now, "dob").version = 2 },
		"the row version is raised":     func(_, now, _ *Row) { now.version = 3 },
		"the old list gets the new MAC": func(old, now, _ *Row) { now.fields = old.fields },
		"the new list gets the old MAC": func(old, now, _ *Row) { now.mac = old.mac },
		"a rolled back write's value":   func(_, now, rival *Row) { *at(now, "ssn") = *at(rival, "ssn") },
		"a field is renamed":            func(_, now, _ *Row) { at(now, "ssn").name = []byte("sso") },
		"a field of an old row is added": func(old, now, _ *Row) {
			now.fields = append(now.fields, rowField{[]byte("zip"), 1, at(old, "dob").sealed})
		},
		"the allergy nobody knows is cut": func(_, now, _ *Row) {
			now.fields = slices.DeleteFunc(now.fields, func(f rowField) bool { return string(f.name) == "allergy" })
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			old, now, rival := seal(t)
			tamper(old, now, rival)
			row, err := ParseRow(repack(now))
			must(t, err) // it looks like a row; only the MAC tells
			wantErr(t, k.Check(aliceRow, row), ErrTampered)
			_, err = k.OpenField(aliceRow, row, "dob")
			wantErr(t, err, ErrTampered)
			_, err = k.UpdateRow(aliceRow, row, 9, map[string][]byte{"dob": []byte("x")})
			wantErr(t, err, ErrTampered)
		})
	}
	t.Run("another key version is not this key's business", func(t *testing.T) {
		t.Parallel()
		_, now, _ := seal(t)
		now.dekVersion = 2
		row, err := ParseRow(repack(now))
		must(t, err)
		wantErr(t, k.Check(aliceRow, row), ErrMisuse)
		wantErr(t, patientKey(t, 1, DEKID{"north", "p-001", 2}).Check(aliceRow, row), ErrTampered)
	})
	t.Run("a whole row put back has another MAC to compare with the trail", func(t *testing.T) {
		t.Parallel()
		old, now, _ := seal(t)
		must(t, k.Check(aliceRow, old))
		if old.MAC() == now.MAC() {
			t.Error("two states of the row have one MAC")
		}
	})
}

func updateAndParse(t testing.TB, k *PatientKey, old *Row, version int64, changed map[string][]byte, removed ...string) *Row {
	t.Helper()
	packed, err := k.UpdateRow(aliceRow, old, version, changed, removed...)
	must(t, err)
	row, err := ParseRow(packed)
	must(t, err)
	return row
}

func TestUpdateRow(t *testing.T) {
	t.Parallel()
	k := patientKey(t, 1, aliceDEK)

	t.Run("untouched fields are carried over unopened", func(t *testing.T) {
		t.Parallel()
		old := sealAndParse(t, k, 4, aliceFields())
		now := updateAndParse(t, k, old, 5, map[string][]byte{"ssn": []byte("987-65-4321"), "email": []byte("a@b.c"), "phone": nil}, "dob", "never")
		want := map[string]int64{"email": 5, "header": 4, "name": 4, "ssn": 5}
		got := map[string]int64{}
		for _, name := range now.Fields() {
			got[name] = now.FieldVersion(name)
			same := old.field(name) != nil && bytes.Equal(old.field(name).sealed, now.field(name).sealed)
			if same != (want[name] == 4) {
				t.Errorf("%s: carried over %t, want %t", name, same, want[name] == 4)
			}
		}
		if diff := cmp.Diff(got, want); diff != "" {
			t.Error(diff)
		}
		if got := openAll(t, k, now)["ssn"]; string(got) != "987-65-4321" {
			t.Error("the changed field is not what it was changed to")
		}
	})
	t.Run("a value nobody can open any more survives the change of another", func(t *testing.T) {
		t.Parallel()
		// Bytes of a field are broken behind its back, the tag is whole: an
		// update that opened it would fail.
		old := sealAndParse(t, k, 1, aliceFields())
		old.field("name").sealed[12] ^= 1
		now := updateAndParse(t, k, old, 2, map[string][]byte{"dob": []byte("1985-06-16")})
		_, err := k.OpenField(aliceRow, now, "name")
		wantErr(t, err, ErrOpen)
		got, err := k.OpenField(aliceRow, now, "dob")
		must(t, err)
		if string(got) != "1985-06-16" {
			t.Error("wrong value")
		}
	})
	t.Run("what makes no sense is refused", func(t *testing.T) {
		t.Parallel()
		old := sealAndParse(t, k, 4, aliceFields())
		for _, version := range []int64{-1, 0, 3, 4} {
			_, err := k.UpdateRow(aliceRow, old, version, map[string][]byte{"ssn": []byte("x")})
			wantErr(t, err, ErrMisuse)
		}
		_, err := k.UpdateRow(aliceRow, old, 5, map[string][]byte{"ssn": []byte("x")}, "ssn")
		wantErr(t, err, ErrMisuse)
		_, err = k.UpdateRow(aliceRow, old, 5, map[string][]byte{"S": []byte("x")})
		wantErr(t, err, ErrMisuse)
	})
	t.Run("a new data key takes the row over with its versions", func(t *testing.T) {
		t.Parallel()
		old := updateAndParse(t, k, sealAndParse(t, k, 4, aliceFields()), 5, map[string][]byte{"ssn": []byte("987-65-4321")})
		next := patientKey(t, 9, DEKID{"north", "p-001", 2})
		packed, err := next.Reseal(aliceRow, k, old)
		must(t, err)
		row, err := ParseRow(packed)
		must(t, err)
		if diff := cmp.Diff(openAll(t, next, row), openAll(t, k, old)); diff != "" {
			t.Error(diff)
		}
		if row.Version() != 5 || row.DEKVersion() != 2 || row.FieldVersion("ssn") != 5 || row.FieldVersion("dob") != 4 {
			t.Errorf("got row %d, key %d, ssn %d, dob %d; want 5, 2, 5, 4", row.Version(), row.DEKVersion(), row.FieldVersion("ssn"), row.FieldVersion("dob"))
		}
		old.field("dob").sealed[0] ^= 1
		_, err = next.Reseal(aliceRow, k, old)
		wantErr(t, err, ErrOpen)
	})
}

func TestParseRowRefuses(t *testing.T) {
	t.Parallel()
	sealed := make([]byte, gcmOverhead)
	row := func(dek int32, version int64, fields ...rowField) []byte {
		return repack(&Row{dekVersion: dek, version: version, fields: fields})
	}
	field := func(name string, version int64) rowField { return rowField{[]byte(name), version, sealed} }
	good := row(1, 1, field("a", 1), field("b", 1))
	if _, err := ParseRow(good); err != nil {
		t.Fatal(err)
	}
	many := make([]rowField, 0, MaxFields+1)
	for i := range MaxFields + 1 {
		many = append(many, field(fmt.Sprintf("f%03d", i), 1))
	}
	edit := func(i int, b byte) []byte { c := slices.Clone(good); c[i] = b; return c }
	for name, b := range map[string][]byte{
		"nothing": nil, "another format": edit(0, 2), "key version 0": row(0, 1), "key version below 0": row(-1, 1),
		"row version 0": row(1, 0), "row version below 0": row(1, -1),
		"field version 0": row(1, 1, field("a", 0)), "field version below 0": row(1, 1, field("a", -1)),
		"a field newer than its row": row(1, 1, field("a", 2)),
		"one name twice":             row(1, 1, field("a", 1), field("a", 1)), "names out of order": row(1, 1, field("b", 1), field("a", 1)),
		"an empty name": row(1, 1, field("", 1)), "an illegal name": row(1, 1, field("A", 1)), "a long name": row(1, 1, field(strings.Repeat("a", 65), 1)),
		"too many fields": row(1, 1, many...), "a count too high": edit(14, 3), "a count too low": edit(14, 1),
		"a sealed value too short": row(1, 1, rowField{[]byte("a"), 1, sealed[1:]}),
		"a size beyond the end":    edit(rowHead+1+1+8+3, 0xff), "a size of 4 GiB": edit(rowHead+1+1+8, 0xff),
		"too large": make([]byte, MaxRow+1),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := ParseRow(b)
			wantErr(t, err, ErrMalformed)
		})
	}
}

func TestCommitment(t *testing.T) {
	t.Parallel()
	k := patientKey(t, 1, aliceDEK)
	t.Run("the right key loads and opens", func(t *testing.T) {
		t.Parallel()
		row := sealAndParse(t, k, 1, aliceFields())
		again, err := LoadPatientKey(fixedKey(1), aliceDEK, k.Commitment())
		must(t, err)
		must(t, again.Check(aliceRow, row))
	})
	for name, c := range map[string][]byte{"none": nil, "short": k.Commitment()[1:], "another": patientKey(t, 2, aliceDEK).Commitment()} {
		t.Run(name+" is refused", func(t *testing.T) {
			t.Parallel()
			_, err := LoadPatientKey(fixedKey(1), aliceDEK, c)
			wantErr(t, err, ErrCommitment)
		})
	}
}

func TestForgottenKeysAreNotUsed(t *testing.T) {
	t.Parallel()
	k := patientKey(t, 1, aliceDEK)
	row := sealAndParse(t, k, 1, aliceFields())
	must(t, k.Check(aliceRow, row))
	k.Forget()
	_, err := k.OpenField(aliceRow, row, "ssn")
	wantErr(t, err, ErrForgotten)
	_, err = k.SealRow(aliceRow, 2, aliceFields())
	wantErr(t, err, ErrForgotten)
	_, err = k.UpdateRow(aliceRow, row, 2, nil)
	wantErr(t, err, ErrForgotten)

	audit, err := NewAuditKey(practiceKey(t, PurposeAudit, 3))
	must(t, err)
	audit.Forget()
	_, err = audit.Seal("e-1", "a reason")
	wantErr(t, err, ErrForgotten)

	pk := practiceKey(t, PurposeKEK, 3)
	pk.Wipe()
	_, err = NewKEK(pk)
	wantErr(t, err, ErrForgotten)
	_, err = WrapPracticeKey(t.Context(), testKeeper(t), pk)
	wantErr(t, err, ErrForgotten)

	dek := NewDEK()
	copied := *dek
	dek.Wipe()
	for _, d := range []*Key{dek, &copied, {}, nil} {
		_, err = NewPatientKey(d, aliceDEK)
		wantErr(t, err, ErrForgotten)
	}
}

func TestOnePatientKeyServesManyAtOnce(t *testing.T) {
	t.Parallel()
	k := patientKey(t, 1, aliceDEK)
	packed, err := k.SealRow(aliceRow, 1, aliceFields())
	must(t, err)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 50 {
				row, err := ParseRow(packed)
				if err != nil {
					t.Error(err)
					return
				}
				got, err := k.OpenField(aliceRow, row, "ssn")
				if err != nil || string(got) != "123-45-6789" {
					t.Errorf("reader %d: %v", i, err)
				}
				if _, err := k.UpdateRow(aliceRow, row, 2, map[string][]byte{"dob": []byte("x")}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	// Forgetting while others read: they finish or are told.
	for range 4 {
		wg.Go(func() {
			row, err := ParseRow(packed)
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := k.OpenField(aliceRow, row, "ssn"); err != nil && !errors.Is(err, ErrForgotten) {
				t.Error(err)
			}
		})
	}
	k.Forget()
	wg.Wait()
}

func practiceKey(t testing.TB, purpose Purpose, fill byte) *PracticeKey {
	t.Helper()
	return &PracticeKey{id: PracticeKeyID{"north", purpose, 1}, key: fixedKey(fill)}
}

func TestKeyHierarchy(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	keeper := testKeeper(t)
	for _, name := range []string{RootKey, EpochKey(1), EpochKey(2)} {
		must(t, keeper.CreateKey(ctx, name))
	}
	id := PracticeKeyID{Practice: "north", Purpose: PurposeKEK, Version: 1}
	pk, err := NewPracticeKey(id)
	must(t, err)
	kek, err := NewKEK(pk)
	must(t, err)

	t.Run("a practice key comes back for its own id only", func(t *testing.T) {
		t.Parallel()
		wrapped, err := WrapPracticeKey(ctx, keeper, pk)
		must(t, err)
		wrapped, err = RewrapPracticeKey(ctx, keeper, id, wrapped)
		must(t, err)
		got, err := UnwrapPracticeKey(ctx, keeper, id, wrapped)
		must(t, err)
		if *got.key.cell.b != *pk.key.cell.b {
			t.Error("another key came back")
		}
		for _, other := range []PracticeKeyID{{"south", PurposeKEK, 1}, {"north", PurposeAudit, 1}, {"north", PurposeKEK, 2}} {
			_, err := UnwrapPracticeKey(ctx, keeper, other, wrapped)
			wantErr(t, err, ErrOpen)
		}
	})
	t.Run("an id that names nothing is refused", func(t *testing.T) {
		t.Parallel()
		for _, bad := range []PracticeKeyID{{"", PurposeKEK, 1}, {"north", "backup", 1}, {"north", PurposeKEK, 0}} {
			_, err := NewPracticeKey(bad)
			wantErr(t, err, ErrMisuse)
			_, err = UnwrapPracticeKey(ctx, keeper, bad, nil)
			wantErr(t, err, ErrMisuse)
		}
	})
	t.Run("a key serves its purpose only", func(t *testing.T) {
		t.Parallel()
		_, err := NewIndexKey(pk)
		wantErr(t, err, ErrMisuse)
		_, err = NewAuditKey(pk)
		wantErr(t, err, ErrMisuse)
		_, err = NewKEK(practiceKey(t, PurposeIndex, 1))
		wantErr(t, err, ErrMisuse)
	})
	t.Run("a data key needs its epoch, practice key, patient and version", func(t *testing.T) {
		t.Parallel()
		k, wrapped, err := CreatePatientKey(ctx, keeper, 1, kek, aliceDEK)
		must(t, err)
		row := sealAndParse(t, k, 1, aliceFields())
		again, err := OpenPatientKey(ctx, keeper, 1, kek, aliceDEK, wrapped, k.Commitment())
		must(t, err)
		must(t, again.Check(aliceRow, row))

		_, err = UnwrapDEK(ctx, keeper, 2, kek, aliceDEK, wrapped)
		wantErr(t, err, ErrOpen)
		for _, other := range []DEKID{{"north", "p-002", 1}, {"north", "p-001", 2}} {
			_, err = UnwrapDEK(ctx, keeper, 1, kek, other, wrapped)
			wantErr(t, err, ErrOpen)
		}
		_, err = UnwrapDEK(ctx, keeper, 1, kek, DEKID{"south", "p-001", 1}, wrapped)
		wantErr(t, err, ErrMisuse)
		stranger, err := NewKEK(practiceKey(t, PurposeKEK, 77))
		must(t, err)
		_, err = UnwrapDEK(ctx, keeper, 1, stranger, aliceDEK, wrapped)
		wantErr(t, err, ErrOpen)
		eachFlip(wrapped, func(bit int, b []byte) {
			if _, err := UnwrapDEK(ctx, keeper, 1, kek, aliceDEK, b); err == nil {
				t.Errorf("bit %d flipped and unwrapped", bit)
			}
		})
	})
	t.Run("a moved key opens in the new epoch", func(t *testing.T) {
		t.Parallel()
		k, wrapped, err := CreatePatientKey(ctx, keeper, 1, kek, aliceDEK)
		must(t, err)
		moved, err := MoveDEK(ctx, keeper, 1, 2, aliceDEK, kek.Version(), wrapped)
		must(t, err)
		_, err = OpenPatientKey(ctx, keeper, 2, kek, aliceDEK, moved, k.Commitment())
		must(t, err)
		_, err = MoveDEK(ctx, keeper, 1, 2, DEKID{"north", "p-002", 1}, kek.Version(), wrapped)
		wantErr(t, err, ErrOpen)
	})
	t.Run("the end of an epoch ends every key not moved on, whatever else one holds", func(t *testing.T) {
		t.Parallel()
		own := testKeeper(t)
		must(t, own.CreateKey(ctx, EpochKey(1)))
		dek := NewDEK()
		wrapped, err := WrapDEK(ctx, own, 1, kek, dek, aliceDEK)
		must(t, err)
		must(t, own.DestroyKey(ctx, EpochKey(1)))
		_, err = UnwrapDEK(ctx, own, 1, kek, aliceDEK, wrapped)
		wantErr(t, err, ErrDestroyed)
	})
	t.Run("many data keys are wrapped at once", func(t *testing.T) {
		t.Parallel()
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() {
				id := DEKID{"north", med.PatientID(fmt.Sprintf("p-%d", i)), 1}
				k, wrapped, err := CreatePatientKey(ctx, keeper, 1, kek, id)
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := OpenPatientKey(ctx, keeper, 1, kek, id, wrapped, k.Commitment()); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	})
	t.Run("a forgotten or wiped key wraps nothing", func(t *testing.T) {
		t.Parallel()
		gone, err := NewKEK(practiceKey(t, PurposeKEK, 5))
		must(t, err)
		gone.Forget()
		_, err = WrapDEK(ctx, keeper, 1, gone, NewDEK(), aliceDEK)
		wantErr(t, err, ErrForgotten)
		wiped := NewDEK()
		wiped.Wipe()
		_, err = WrapDEK(ctx, keeper, 1, kek, wiped, aliceDEK)
		wantErr(t, err, ErrForgotten)
	})
	t.Run("a keeper that is away says so", func(t *testing.T) {
		t.Parallel()
		canceled, cancel := context.WithCancel(ctx)
		cancel()
		_, _, err := CreatePatientKey(canceled, keeper, 1, kek, aliceDEK)
		wantErr(t, err, med.KeysUnavailable.New(""))
		wantErr(t, err, context.Canceled)
	})
}

func TestReasons(t *testing.T) {
	t.Parallel()
	k, err := NewAuditKey(practiceKey(t, PurposeAudit, 3))
	must(t, err)
	const event, text = med.EventID("e-1"), med.PHI("Patient unconscious in the ER")
	sealed, err := k.Seal(event, text)
	must(t, err)

	t.Run("the text comes back", func(t *testing.T) {
		t.Parallel()
		got, err := k.Open(event, sealed)
		must(t, err)
		if got.Reveal() != text.Reveal() {
			t.Error("another text came back")
		}
		if v, err := ReasonKeyVersion(sealed); v != 1 || err != nil {
			t.Errorf("got version %d, %v, want 1", v, err)
		}
	})
	t.Run("it does not move to another event, practice or version", func(t *testing.T) {
		t.Parallel()
		_, err := k.Open("e-2", sealed)
		wantErr(t, err, ErrOpen)
		for _, id := range []PracticeKeyID{{"south", PurposeAudit, 1}, {"north", PurposeAudit, 2}} {
			other, err := NewAuditKey(&PracticeKey{id: id, key: fixedKey(3)})
			must(t, err)
			_, err = other.Open(event, sealed)
			wantErr(t, err, ErrOpen)
		}
	})
	t.Run("any flipped bit fails", func(t *testing.T) {
		t.Parallel()
		eachFlip(sealed, func(bit int, b []byte) {
			if _, err := k.Open(event, b); err == nil {
				t.Errorf("bit %d flipped and opened", bit)
			}
		})
	})
	t.Run("limits", func(t *testing.T) {
		t.Parallel()
		_, err := k.Seal(event, med.PHI(strings.Repeat("x", maxReason+1)))
		wantErr(t, err, ErrTooLarge)
		_, err = k.Seal("", text)
		wantErr(t, err, ErrMisuse)
		_, err = k.Open(event, sealed[:10])
		wantErr(t, err, ErrMalformed)
	})
}
