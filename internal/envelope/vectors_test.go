// SPDX-License-Identifier: Apache-2.0

package envelope

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/medirecord/medirecord/internal/med"
)

var update = flag.Bool("update", false, "write golden files that are missing or no longer right")

// hexed is bytes, in hex in JSON.
type hexed []byte

func (h hexed) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(h)), nil }
func (h *hexed) UnmarshalText(b []byte) error {
	out, err := hex.DecodeString(string(b))
	*h = out
	return err
}

type (
	hkdfVector struct {
		DEK        hexed `json:"dek"`
		Field      hexed `json:"field_key"`
		Header     hexed `json:"header_key"`
		MAC        hexed `json:"mac_key"`
		Commitment hexed `json:"commitment"`
	}
	placeVector struct {
		Practice     string `json:"practice"`
		Patient      string `json:"patient"`
		Table        string `json:"table"`
		Record       string `json:"record"`
		Field        string `json:"field"`
		FieldVersion int64  `json:"field_version"`
		DEKVersion   int32  `json:"dek_version"`
		AAD          hexed  `json:"aad"`
	}
	fieldVector struct {
		DEK    hexed       `json:"dek"`
		Place  placeVector `json:"place"`
		Sealed hexed       `json:"sealed"`
		Plain  hexed       `json:"plain"`
		Opens  bool        `json:"opens"`
	}
	rowVector struct {
		Title      string           `json:"title"`
		DEK        hexed            `json:"dek"`
		Practice   string           `json:"practice"`
		Patient    string           `json:"patient"`
		Table      string           `json:"table"`
		Record     string           `json:"record"`
		Packed     hexed            `json:"packed"`
		Result     string           `json:"result"` // ok, malformed, tampered
		DEKVersion int32            `json:"dek_version,omitempty"`
		Version    int64            `json:"version,omitempty"`
		MACInput   hexed            `json:"mac_input,omitempty"`
		Fields     []rowFieldVector `json:"fields,omitempty"`
	}
	rowFieldVector struct {
		Name    string `json:"name"`
		Version int64  `json:"version"`
		Plain   hexed  `json:"plain"`
	}
	keysVector struct {
		Practice struct {
			RootKey     hexed  `json:"root_key"`
			RootVersion uint32 `json:"root_version"`
			ID          string `json:"practice"`
			Purpose     string `json:"purpose"`
			Version     int32  `json:"version"`
			AAD         hexed  `json:"aad"`
			Wrapped     hexed  `json:"wrapped"`
			Key         hexed  `json:"key"`
		} `json:"practice_key"`
		Patient struct {
			EpochKey   hexed  `json:"epoch_key"`
			Epoch      int64  `json:"epoch"`
			KEK        hexed  `json:"kek"`
			KEKVersion int32  `json:"kek_version"`
			Practice   string `json:"practice"`
			ID         string `json:"patient"`
			Version    int32  `json:"dek_version"`
			InnerAAD   hexed  `json:"inner_aad"`
			OuterAAD   hexed  `json:"outer_aad"`
			Wrapped    hexed  `json:"wrapped"`
			DEK        hexed  `json:"dek"`
		} `json:"patient_key"`
	}
	reasonVector struct {
		Key      hexed  `json:"practice_key"`
		Practice string `json:"practice"`
		Version  int32  `json:"version"`
		Event    string `json:"event"`
		AAD      hexed  `json:"aad"`
		Sealed   hexed  `json:"sealed"`
		Text     string `json:"text"`
	}
	indexVector struct {
		Key     hexed          `json:"practice_key"`
		Tags    []tagVector    `json:"tags"`
		Digests []digestVector `json:"digests"`
		Normal  []normalCase   `json:"normal"`
		Family  []familyCase   `json:"family_dob"`
	}
	tagVector struct {
		Field  string `json:"field"`
		Value  string `json:"value"`
		Subkey hexed  `json:"subkey"`
		Tag    hexed  `json:"tag"`
	}
	digestVector struct {
		Domain string  `json:"domain"`
		Parts  []hexed `json:"parts"`
		Digest hexed   `json:"digest"`
	}
	codecVector struct {
		Encoded hexed `json:"encoded"`
		Plain   hexed `json:"plain"`
	}
)

func (p placeVector) place() AAD {
	return AAD{med.PracticeID(p.Practice), med.PatientID(p.Patient), p.Table, p.Record, p.Field, p.FieldVersion, p.DEKVersion}
}

func placed(a AAD) placeVector {
	b, _ := a.AppendBinary(nil)
	return placeVector{string(a.Practice), string(a.Patient), a.Table, a.Record, a.Field, a.FieldVersion, a.DEKVersion, b}
}

// TestVectors holds this package to the published vectors. With -update, a
// file that is right stays as it is: nonces are random, and a file that
// changed each time would be no golden one.
func TestVectors(t *testing.T) {
	t.Parallel()
	vectors(t, "hkdf", makeHKDF, checkHKDF)
	vectors(t, "aad", makeAAD, checkAAD)
	vectors(t, "field", makeFields, checkFields)
	vectors(t, "row", makeRows, checkRows)
	vectors(t, "keys", makeKeys, checkKeys)
	vectors(t, "reason", makeReason, checkReason)
	vectors(t, "index", makeIndex, checkIndex)
	vectors(t, "codec", makeCodec, checkCodec)
}

func vectors[V any](t *testing.T, name string, makeIt func(testing.TB) V, check func(testing.TB, V) error) {
	t.Run(name, func(t *testing.T) {
		t.Parallel()
		path := "testdata/vectors/" + name + ".json"
		v, err := readVectors[V](path)
		if err == nil {
			err = check(t, v)
		}
		if err == nil || !*update {
			must(t, err)
			return
		}
		b, err := json.MarshalIndent(makeIt(t), "", "  ")
		must(t, err)
		must(t, os.WriteFile(path, append(b, '\n'), 0o644)) //nolint:gosec // a published file
		v, err = readVectors[V](path)
		must(t, err)
		must(t, check(t, v))
	})
}

func readVectors[V any](path string) (V, error) {
	var v V
	b, err := os.ReadFile(path) //nolint:gosec // our own test data
	if err != nil {
		return v, err
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	return v, d.Decode(&v)
}

func differ(what string, got, want any) error {
	if diff := cmp.Diff(got, want); diff != "" {
		return fmt.Errorf("%s (got -, want +):\n%s", what, diff)
	}
	return nil
}

func keyOf(t testing.TB, b hexed) *Key {
	t.Helper()
	k, err := keyFrom(slices.Clone(b))
	must(t, err)
	return k
}

func makeHKDF(t testing.TB) []hkdfVector {
	var out []hkdfVector
	for _, fill := range []byte{1, 0xfe} {
		dek := fixedKey(fill)
		keys, err := dek.kin(labelField, labelHeader, labelMAC, labelCommit)
		must(t, err)
		b := func(k *Key) hexed { return k.cell.b[:] }
		out = append(out, hkdfVector{b(dek), b(keys[0]), b(keys[1]), b(keys[2]), b(keys[3])})
	}
	return out
}

func checkHKDF(t testing.TB, v []hkdfVector) error {
	for _, tc := range v {
		k, err := LoadPatientKey(keyOf(t, tc.DEK), aliceDEK, tc.Commitment)
		if err != nil {
			return err
		}
		if err := differ("commitment", hexed(k.Commitment()), tc.Commitment); err != nil {
			return err
		}
	}
	return differ("derived keys", makeHKDF(t), v)
}

func makeAAD(testing.TB) []placeVector {
	long := string(bytes.Repeat([]byte("x"), 64))
	return []placeVector{
		placed(AAD{"north", "p-001", "patient", "p-001", "ssn", 1, 1}),
		placed(AAD{"northp", "-001", "patient", "p-001", "ssn", 1, 1}),
		placed(AAD{"north", "p-001", "record", "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b", HeaderField, 1<<40 + 7, 1<<31 - 1}),
		placed(AAD{med.PracticeID(long), med.PatientID(long), long, long, long, 2, 3}),
	}
}

func checkAAD(t testing.TB, v []placeVector) error { return differ("AAD", makeAAD(t), v) }

func makeFields(t testing.TB) []fieldVector {
	var out []fieldVector
	for i, plain := range []string{"123-45-6789", "", `{"sensitivity":"normal"}`} {
		a := AAD{"north", "p-001", "patient", "p-001", []string{"ssn", "phone", HeaderField}[i], int64(i + 1), 1}
		sealed, err := patientKey(t, 1, aliceDEK).Seal(a, []byte(plain))
		must(t, err)
		good := fieldVector{fixedKey(1).cell.b[:], placed(a), sealed, hexed(plain), true}
		moved, altered := good, good
		moved.Opens, altered.Opens = false, false
		moved.Plain, altered.Plain = nil, nil
		a.FieldVersion++
		moved.Place = placed(a)
		altered.Sealed = slices.Clone(sealed)
		altered.Sealed[len(sealed)-1] ^= 1
		out = append(out, good, moved, altered)
	}
	return out
}

func checkFields(t testing.TB, v []fieldVector) error {
	if len(v) == 0 {
		return errors.New("no field vectors")
	}
	for i, tc := range v {
		a := tc.Place.place()
		if err := differ("AAD", placed(a), tc.Place); err != nil {
			return err
		}
		k, err := NewPatientKey(keyOf(t, tc.DEK), DEKID{a.Practice, a.Patient, a.DEKVersion})
		if err != nil {
			return err
		}
		plain, err := k.Open(a, tc.Sealed)
		if (err == nil) != tc.Opens || tc.Opens && !bytes.Equal(plain, tc.Plain) {
			return fmt.Errorf("field %d: %w", i, errors.Join(err, errors.New("is not what the vector says")))
		}
	}
	return nil
}

func makeRows(t testing.TB) []rowVector {
	k := patientKey(t, 1, aliceDEK)
	base := rowVector{DEK: fixedKey(1).cell.b[:], Practice: "north", Patient: "p-001", Table: "patient", Record: "p-001"}
	first := sealAndParse(t, k, 1, aliceFields())
	second := updateAndParse(t, k, first, 2, map[string][]byte{"ssn": []byte("987-65-4321")}, "dob")
	empty := sealAndParse(t, k, 1, nil)
	var out []rowVector
	for i, row := range []*Row{first, second, empty} {
		v := base
		v.Title = []string{"as created", "ssn changed, dob removed", "no fields"}[i]
		v.Packed, v.Result, v.DEKVersion, v.Version = repack(row), "ok", row.dekVersion, row.version
		v.MACInput = row.appendMACInput(nil, &aliceRow)
		for _, name := range row.Fields() {
			plain, err := k.OpenField(aliceRow, row, name)
			must(t, err)
			v.Fields = append(v.Fields, rowFieldVector{name, row.FieldVersion(name), plain})
		}
		out = append(out, v)
	}
	bad := func(title, result string, packed []byte) {
		v := base
		v.Title, v.Result, v.Packed = title, result, packed
		out = append(out, v)
	}
	edit := func(f func(r *Row)) []byte {
		r, err := ParseRow(slices.Clone(repack(second)))
		must(t, err)
		f(r)
		return repack(r)
	}
	bad("the first state's ssn put back", "tampered", edit(func(r *Row) { *r.field("ssn") = *first.field("ssn") }))
	bad("a field dropped", "tampered", edit(func(r *Row) { r.fields = r.fields[1:] }))
	bad("the row version raised", "tampered", edit(func(r *Row) { r.version = 3 }))
	bad("the fields out of order", "malformed", edit(func(r *Row) { slices.Reverse(r.fields) }))
	bad("a byte too many", "malformed", append(repack(second), 0))
	bad("another format", "malformed", append([]byte{2}, repack(second)[1:]...))
	return out
}

func checkRows(t testing.TB, v []rowVector) error {
	if len(v) == 0 {
		return errors.New("no row vectors")
	}
	for _, tc := range v {
		if err := checkRow(t, tc); err != nil {
			return fmt.Errorf("row %q: %w", tc.Title, err)
		}
	}
	return nil
}

func checkRow(t testing.TB, tc rowVector) error {
	row, err := ParseRow(tc.Packed)
	if tc.Result == "malformed" {
		if !errors.Is(err, ErrMalformed) {
			return fmt.Errorf("got %w, want malformed", err)
		}
		return nil
	}
	if err != nil {
		return err
	}
	id := RowID{med.PracticeID(tc.Practice), med.PatientID(tc.Patient), tc.Table, tc.Record}
	k, err := NewPatientKey(keyOf(t, tc.DEK), DEKID{id.Practice, id.Patient, row.DEKVersion()})
	if err != nil {
		return err
	}
	err = k.Check(id, row)
	if tc.Result == "tampered" {
		if !errors.Is(err, ErrTampered) {
			return fmt.Errorf("got %w, want tampered", err)
		}
		return nil
	}
	if err != nil {
		return err
	}
	got := tc
	got.DEKVersion, got.Version, got.MACInput, got.Fields = row.DEKVersion(), row.Version(), row.appendMACInput(nil, &id), nil
	for _, name := range row.Fields() {
		plain, err := k.OpenField(id, row, name)
		if err != nil {
			return err
		}
		got.Fields = append(got.Fields, rowFieldVector{name, row.FieldVersion(name), plain})
	}
	return differ("row", got, tc)
}

// keeperWith is a file keeper that holds just that key.
func keeperWith(t testing.TB, name string, version uint32, key hexed) *FileKeeper {
	t.Helper()
	k, err := InitFileKeeper(t.TempDir() + "/keys")
	must(t, err)
	must(t, k.writeFile(k.keyPath(name, version), key))
	return k
}

func makeKeys(t testing.TB) keysVector {
	var v keysVector
	p := &v.Practice
	p.RootKey, p.RootVersion = fixedKey(0x11).cell.b[:], 3
	pk := &PracticeKey{id: PracticeKeyID{"north", PurposeKEK, 2}, key: fixedKey(0x22)}
	p.ID, p.Purpose, p.Version, p.Key = "north", string(PurposeKEK), 2, pk.key.cell.b[:]
	p.AAD = pk.id.aad()
	var err error
	p.Wrapped, err = WrapPracticeKey(t.Context(), keeperWith(t, RootKey, 3, p.RootKey), pk)
	must(t, err)

	d := &v.Patient
	d.EpochKey, d.Epoch, d.KEK, d.KEKVersion = fixedKey(0x33).cell.b[:], 41, p.Key, 2
	d.Practice, d.ID, d.Version, d.DEK = "north", "p-001", 1, fixedKey(0x44).cell.b[:]
	kek, err := NewKEK(pk)
	must(t, err)
	d.InnerAAD, d.OuterAAD = aliceDEK.aad(innerDomain, 2), aliceDEK.outerAAD(41, 2)
	d.Wrapped, err = WrapDEK(t.Context(), keeperWith(t, EpochKey(41), 1, d.EpochKey), 41, kek, fixedKey(0x44), aliceDEK)
	must(t, err)
	return v
}

func checkKeys(t testing.TB, v keysVector) error {
	p := v.Practice
	id := PracticeKeyID{med.PracticeID(p.ID), Purpose(p.Purpose), p.Version}
	pk, err := UnwrapPracticeKey(t.Context(), keeperWith(t, RootKey, p.RootVersion, p.RootKey), id, p.Wrapped)
	if err != nil {
		return err
	}
	d := v.Patient
	kek, err := NewKEK(&PracticeKey{id: PracticeKeyID{med.PracticeID(d.Practice), PurposeKEK, d.KEKVersion}, key: keyOf(t, d.KEK)})
	if err != nil {
		return err
	}
	did := DEKID{med.PracticeID(d.Practice), med.PatientID(d.ID), d.Version}
	dek, err := UnwrapDEK(t.Context(), keeperWith(t, EpochKey(d.Epoch), 1, d.EpochKey), d.Epoch, kek, did, d.Wrapped)
	if err != nil {
		return err
	}
	got := v
	got.Practice.Key, got.Practice.AAD = pk.key.cell.b[:], id.aad()
	got.Patient.DEK, got.Patient.InnerAAD, got.Patient.OuterAAD = dek.cell.b[:], did.aad(innerDomain, d.KEKVersion), did.outerAAD(d.Epoch, d.KEKVersion)
	return differ("keys", got, v)
}

func auditKey(t testing.TB, v reasonVector) *AuditKey {
	t.Helper()
	k, err := NewAuditKey(&PracticeKey{id: PracticeKeyID{med.PracticeID(v.Practice), PurposeAudit, v.Version}, key: keyOf(t, v.Key)})
	must(t, err)
	return k
}

func makeReason(t testing.TB) reasonVector {
	v := reasonVector{Key: fixedKey(0x55).cell.b[:], Practice: "north", Version: 1, Event: "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b", Text: "Patient unconscious in the ER"}
	k := auditKey(t, v)
	var err error
	v.Sealed, err = k.Seal(med.EventID(v.Event), med.PHI(v.Text))
	must(t, err)
	v.AAD = k.aad(med.EventID(v.Event))
	return v
}

func checkReason(t testing.TB, v reasonVector) error {
	if len(v.Key) != KeySize {
		return errors.New("no reason vector")
	}
	k := auditKey(t, v)
	text, err := k.Open(med.EventID(v.Event), v.Sealed)
	if err != nil {
		return err
	}
	got := v
	got.Text, got.AAD = text.Reveal(), k.aad(med.EventID(v.Event))
	return differ("reason", got, v)
}

func makeIndex(t testing.TB) indexVector {
	v := indexVector{Key: fixedKey(0x66).cell.b[:], Normal: normalCases, Family: familyCases}
	// JSON holds text only.
	v.Normal = slices.DeleteFunc(slices.Clone(v.Normal), func(c normalCase) bool { return c.In == "\xff" })
	k, err := NewIndexKey(&PracticeKey{id: PracticeKeyID{"north", PurposeIndex, 1}, key: keyOf(t, v.Key)})
	must(t, err)
	for _, tc := range [][2]string{{"ssn", "123456789"}, {"mrn", "123456789"}, {"family_dob", "obrienmuller|1985-06-15"}, {"family_dob", "李|1985-06-15"}} {
		tag, err := k.Tag(tc[0], tc[1])
		must(t, err)
		keys, err := keyOf(t, v.Key).kin("bi/v1/patient/" + tc[0])
		must(t, err)
		v.Tags = append(v.Tags, tagVector{tc[0], tc[1], keys[0].cell.b[:], tag[:]})
	}
	for _, parts := range [][]hexed{{}, {hexed("a"), hexed("b")}, {hexed("ab")}} {
		var raw [][]byte
		for _, p := range parts {
			raw = append(raw, p)
		}
		d, err := k.Digest("import", raw...)
		must(t, err)
		v.Digests = append(v.Digests, digestVector{"import", parts, d[:]})
	}
	return v
}

func checkIndex(t testing.TB, v indexVector) error { return differ("index", makeIndex(t), v) }

func makeCodec(testing.TB) []codecVector {
	return []codecVector{
		{Compress(nil), nil},
		{Compress([]byte("short")), hexed("short")},
		{Compress(observation(1)), observation(1)},
	}
}

func checkCodec(_ testing.TB, v []codecVector) error {
	if len(v) == 0 {
		return errors.New("no codec vectors")
	}
	for i, tc := range v {
		plain, err := Decompress(tc.Encoded)
		if err != nil || !bytes.Equal(plain, tc.Plain) {
			return fmt.Errorf("codec %d: %w", i, errors.Join(err, errors.New("another value comes back")))
		}
	}
	return nil
}
