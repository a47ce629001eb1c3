// SPDX-License-Identifier: Apache-2.0

package fhir_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/medirecord/medirecord/internal/fhir"
	"github.com/medirecord/medirecord/internal/med"
)

func pack(tb testing.TB, b []byte) []byte {
	tb.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := z.Write(b); err != nil {
		tb.Fatal(err)
	}
	if err := z.Close(); err != nil {
		tb.Fatal(err)
	}
	return out.Bytes()
}

func TestGunzip(t *testing.T) {
	t.Parallel()
	noise := make([]byte, 100<<10)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	t.Run("gives back what was packed, in one piece or two", func(t *testing.T) {
		t.Parallel()
		for _, want := range [][]byte{nil, noise, bytes.Repeat([]byte("a"), 400<<10)} {
			got, err := io.ReadAll(fhir.Gunzip(bytes.NewReader(append(pack(t, want), pack(t, want)...)), 0))
			if err != nil || !bytes.Equal(got, append(bytes.Clone(want), want...)) {
				t.Errorf("got %d bytes, %v", len(got), err)
			}
		}
	})
	t.Run("a bomb is refused before it is unpacked", func(t *testing.T) {
		t.Parallel()
		bomb := pack(t, make([]byte, 20<<20)) // about 1,000 to 1
		n, err := io.Copy(io.Discard, fhir.Gunzip(bytes.NewReader(bomb), 0))
		if !errors.Is(err, fhir.ErrRatio) || n > int64(len(bomb))*fhir.MaxRatio {
			t.Errorf("got %d bytes, %v", n, err)
		}
	})
	t.Run("a bomb of many small pieces is refused", func(t *testing.T) {
		t.Parallel()
		bomb := bytes.Repeat(pack(t, make([]byte, 1<<20)), 50)
		if _, err := io.Copy(io.Discard, fhir.Gunzip(bytes.NewReader(bomb), 0)); !errors.Is(err, fhir.ErrRatio) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("what is cut off or no gzip is refused", func(t *testing.T) {
		t.Parallel()
		whole := pack(t, noise)
		for _, in := range [][]byte{nil, whole[:5], whole[:len(whole)-1], append(bytes.Clone(whole), "more"...), []byte("{}{}{}{}{}{}{}{}")} {
			if _, err := io.Copy(io.Discard, fhir.Gunzip(bytes.NewReader(in), 0)); err == nil {
				t.Errorf("%d bytes were taken", len(in))
			}
		}
	})
}

func TestNDJSON(t *testing.T) {
	t.Parallel()
	in := "{\"resourceType\":\"Goal\",\"id\":\"1\"}\r\n\n  \n{\"resourceType\":\"Goal\",\n{\"resourceType\":\"Goal\",\"id\":\"2\"}{}\n[]\n{\"resourceType\":\"Patient\",\"id\":\"3\"}"
	for name, r := range map[string]io.Reader{"in one piece": strings.NewReader(in), "byte by byte": iotest.OneByteReader(strings.NewReader(in))} {
		t.Run("a bad line does not hide the next, "+name, func(t *testing.T) {
			t.Parallel()
			n := fhir.NewNDJSONReader(r, fhir.Limits{})
			var got []string
			for {
				e, err := n.Next()
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					got = append(got, err.Error())
					continue
				}
				got = append(got, e.Type+"/"+e.ID+" "+string(e.Raw))
			}
			want := []string{
				`Goal/1 {"resourceType":"Goal","id":"1"}`, "line 4: malformed JSON", "line 5: more after the end of the JSON value",
				"line 6: no resource", `Patient/3 {"resourceType":"Patient","id":"3"}`,
			}
			if strings.Join(got, "\n") != strings.Join(want, "\n") {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
	t.Run("a line above the limit ends it", func(t *testing.T) {
		t.Parallel()
		n := fhir.NewNDJSONReader(io.MultiReader(strings.NewReader("{}"), &repeat{text: strings.Repeat(" ", 1000), n: 1000}), fhir.Limits{Entry: 10_000})
		for range 2 {
			if _, err := n.Next(); !errors.Is(err, fhir.ErrTooLarge) {
				t.Errorf("got %v", err)
			}
		}
	})
}

func TestSubjectOf(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		`{"resourceType":"Patient","id":"p"}`:                                                 "p",
		`{"resourceType":"Observation","subject":{"reference":"Patient/p"}}`:                  "p",
		`{"resourceType":"Device","patient":{"reference":"Patient/p/_history/1"}}`:            "p",
		`{"resourceType":"Organization"}`:                                                     "nobody",
		`{"resourceType":"Patient"}`:                                                          "refused",
		`{"resourceType":"Observation"}`:                                                      "refused",
		`{"resourceType":"Observation","subject":{"reference":"Patient?identifier=x"}}`:       "refused",
		`{"resourceType":"Observation","subject":{"reference":"http://x.example/Patient/p"}}`: "refused",
		`{"resourceType":"Observation","subject":{"reference":"Group/p"}}`:                    "refused",
		`{`: "refused",
	} {
		id, ok, err := fhir.SubjectOf(fhir.Resource{Raw: []byte(in)})
		got := id
		switch {
		case err != nil:
			got = "refused"
		case !ok:
			got = "nobody"
		}
		if got != want {
			t.Errorf("%s: got %s (%v), want %s", in, got, err, want)
		}
	}
}

func FuzzReadBundle(f *testing.F) {
	f.Add(bundle(post(annURL, annPatient), post("", condition("c", annURL, activeFlu))))
	f.Add(`{"entry":[{"resource":{"resourceType":"Patient","id":"\u0061"}}],"type":"collection","resourceType":"Bundle","x":[-0.1e5,null]}`)
	f.Fuzz(func(t *testing.T, in string) {
		b, err := fhir.ReadBundle(strings.NewReader(in), fhir.Limits{Entry: 1 << 16, Entries: 100})
		if err != nil {
			mustNotTell(t, in, err)
			return
		}
		seen := map[med.RecordID]bool{}
		for _, r := range b.Records {
			if _, err := med.ParseRecordID(string(r.ID)); err != nil || seen[r.ID] {
				t.Errorf("id %q is illegal or used twice", r.ID)
			}
			seen[r.ID] = true
			if !strings.Contains(in, r.Source.Reveal()) {
				t.Error("the source is not what was read")
			}
			if _, _, err := fhir.Record([]byte(r.Source.Reveal())); err != nil {
				t.Errorf("a record's source does not map again: %v", err)
			}
		}
		// Cut into single bytes it must be read the same.
		again, err := fhir.ReadBundle(iotest.OneByteReader(strings.NewReader(in)), fhir.Limits{Entry: 1 << 16, Entries: 100})
		if err != nil || len(again.Records) != len(b.Records) {
			t.Errorf("byte by byte: %v", err)
		}
	})
}

// mustNotTell looks for a piece of the input in the error. Short words may
// meet by chance.
func mustNotTell(t *testing.T, in string, err error) {
	t.Helper()
	for _, word := range strings.FieldsFunc(in, func(r rune) bool { return strings.ContainsRune(`"{}[]:, `, r) }) {
		if len(word) > 12 && word != "resourceType" && strings.Contains(err.Error(), word) && !strings.Contains(reasons, word) {
			t.Errorf("the error tells %q", word)
		}
	}
}

// reasons are long words that errors use by themselves.
const reasons = "verificationStatus clinicalStatus deceasedDateTime transaction's transaction"

func FuzzNDJSON(f *testing.F) {
	f.Add("{\"resourceType\":\"Goal\"}\n\n{\"resourceType\":\"Patient\",\"id\":\"p\"}")
	f.Fuzz(func(t *testing.T, in string) {
		n := fhir.NewNDJSONReader(strings.NewReader(in), fhir.Limits{Entry: 1 << 12})
		for range len(in) + 2 {
			e, err := n.Next()
			if errors.Is(err, io.EOF) || errors.Is(err, fhir.ErrTooLarge) {
				return
			}
			if err == nil && !strings.Contains(in, string(e.Raw)) {
				t.Error("the resource is not what was read")
			}
		}
		t.Error("never ends")
	})
}

func FuzzMap(f *testing.F) {
	f.Add([]byte(annPatient))
	f.Add([]byte(condition("c", annURL, activeFlu)))
	f.Add([]byte(`{"resourceType":"Observation","component":[{"code":{},"valueQuantity":{"value":1}}],"valueRange":{},"performer":[{}]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if p, _, err := fhir.Patient(raw); err == nil {
			if s := p.SSN.Reveal(); s != "" && len(s) != 11 {
				t.Errorf("an SSN of %d characters", len(s))
			}
			if strings.ContainsAny(p.Name.Text.Reveal(), "\n\x1b\u202e") {
				t.Error("a name that deceives")
			}
		}
		if r, _, err := fhir.Record(raw); err == nil {
			fhir.Diagnosis([]med.Record{r})
			fhir.Insurance([][]byte{raw})
			if !bytes.Contains(raw, []byte(r.Source.Reveal())) {
				t.Error("the source is not what was read")
			}
		}
	})
}
