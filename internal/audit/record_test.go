// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"flag"
	"os"
	"reflect"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden files anew")

// vectors are records whose canonical bytes and hashes anybody may check a
// verifier of their own with.
func vectors() map[string]*Record {
	s := func(s string) *string { return &s }
	return map[string]*Record{
		"every column": {
			Epoch: 2, TX: 18446744073709551615, ID: "01a20765-bb9e-70da-9906-9ce13e90d490",
			OccurredAt: time.Date(2026, 3, 1, 8, 30, 0, 123_000_000, time.UTC), RecordedAt: time.Date(2026, 3, 1, 8, 30, 0, 125_000_000, time.UTC),
			Parent: s("01a20765-bb9e-70da-9906-9ce13e90d48f"), ActorIssuer: "https://issuer.example", ActorSubject: "dr-smith", ActorPractice: s("practice-north"),
			Patient: s("p-001"), PatientPractice: s("practice-south"), Action: "read", ResourceType: "patient", ResourceID: "p-001",
			Outcome: "failure", Code: s("audit_unavailable"), BreakGlass: true, ContextNonce: s("bm9uY2U"), ContextMAC: s("00ff"),
			Detail: `{"roles":["clinician"],"user_agent":"Zoë \"x\""}`, Nonce: bytes.Repeat([]byte{0xa5}, 16), Version: 1,
		},
		"nothing that may be absent": {
			Epoch: 1, TX: 7, ID: "01a20765-bb9e-70da-9906-9ce13e90d490", OccurredAt: time.UnixMilli(-1), RecordedAt: time.UnixMilli(0),
			ActorIssuer: "", ActorSubject: "unknown", Action: "authenticate", ResourceType: "api", ResourceID: "unknown", Outcome: "denied",
			Detail: "{}", Nonce: make([]byte, 16), Version: 1,
		},
		"an empty text is not NULL": {
			Epoch: 1, TX: 7, ID: "01a20765-bb9e-70da-9906-9ce13e90d490", OccurredAt: time.UnixMilli(-1), RecordedAt: time.UnixMilli(0), Code: s(""),
			ActorIssuer: "", ActorSubject: "unknown", Action: "authenticate", ResourceType: "api", ResourceID: "unknown", Outcome: "denied",
			Detail: "{}", Nonce: make([]byte, 16), Version: 1,
		},
	}
}

type vector struct {
	Name    string             `json:"name"`
	Columns map[string]*string `json:"columns"`
	Leaf    string             `json:"leaf"` // base64
	Hash    string             `json:"hash"` // base64
}

func TestLeafVectors(t *testing.T) {
	t.Parallel()
	const file = "testdata/leaf.json"
	all := vectors()
	if *update {
		var out []vector
		for _, name := range []string{"every column", "nothing that may be absent", "an empty text is not NULL"} {
			v := vector{Name: name, Columns: map[string]*string{}}
			for i, text := range all[name].Texts() {
				v.Columns[Columns[i]] = text
			}
			h := all[name].Hash()
			v.Leaf, v.Hash = base64.StdEncoding.EncodeToString(all[name].Leaf()), base64.StdEncoding.EncodeToString(h[:])
			out = append(out, v)
		}
		b, err := json.MarshalIndent(out, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, append(b, '\n'), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var want []vector
	if err := json.Unmarshal(b, &want); err != nil || len(want) != len(all) {
		t.Fatalf("%d vectors, %v", len(want), err)
	}
	for _, v := range want {
		r := all[v.Name]
		h := r.Hash()
		if got := base64.StdEncoding.EncodeToString(r.Leaf()); got != v.Leaf {
			t.Errorf("%s: got the leaf %s, want %s", v.Name, got, v.Leaf)
		}
		if got := base64.StdEncoding.EncodeToString(h[:]); got != v.Hash {
			t.Errorf("%s: got the hash %s, want %s", v.Name, got, v.Hash)
		}
		if !bytes.Equal(slowLeaf(r), r.Leaf()) {
			t.Errorf("%s: the fast and the plain way to the bytes differ", v.Name)
		}
		if back, err := RecordOf(v.Columns); err != nil || !reflect.DeepEqual(back.Texts(), r.Texts()) {
			t.Errorf("%s: got %+v back, %v", v.Name, back, err)
		}
	}
}

// slowLeaf is the leaf by its words: the tag and each text after its length.
func slowLeaf(r *Record) []byte {
	tag := leafTag
	var b []byte
	for _, text := range append([]*string{&tag}, r.Texts()...) {
		if text == nil {
			b = binary.BigEndian.AppendUint32(b, 0xffffffff)
			continue
		}
		b = binary.BigEndian.AppendUint32(b, uint32(len(*text)))
		b = append(b, *text...)
	}
	return b
}

// Any change to any column changes the hash.
func TestEveryColumnIsHashed(t *testing.T) {
	t.Parallel()
	for name, r := range vectors() {
		texts := map[string]*string{}
		for i, text := range r.Texts() {
			texts[Columns[i]] = text
		}
		for _, column := range Columns {
			changed := map[string]*string{}
			for k, v := range texts {
				changed[k] = v
			}
			other := "1"
			if texts[column] != nil && *texts[column] == "1" {
				other = "2"
			}
			switch column {
			case "break_glass":
				other = map[string]string{"t": "f", "f": "t"}[*texts[column]]
			case "nonce":
				other = hex.EncodeToString(bytes.Repeat([]byte{7}, 16))
			case "event_id", "parent_id":
				other = "01a20765-bb9e-70da-9906-000000000000"
			}
			changed[column] = &other
			back, err := RecordOf(changed)
			if err != nil {
				t.Fatalf("%s, %s: %v", name, column, err)
			}
			if back.Hash() == r.Hash() {
				t.Errorf("%s: %s can be changed unnoticed", name, column)
			}
		}
	}
}

func FuzzRecordOf(f *testing.F) {
	f.Add("1", "1", "7", "01a20765-bb9e-70da-9906-9ce13e90d490", "-1000", "0", "t", "00")
	f.Fuzz(func(t *testing.T, version, epoch, tx, id, occurred, recorded, glass, nonce string) {
		texts := map[string]*string{}
		blank := ""
		for _, c := range Columns {
			texts[c] = &blank
		}
		for c, v := range map[string]string{
			"version": version, "epoch": epoch, "tx": tx, "event_id": id, "occurred_at": occurred, "recorded_at": recorded, "break_glass": glass, "nonce": nonce,
		} {
			texts[c] = &v
		}
		r, err := RecordOf(texts)
		if err != nil {
			return
		}
		for i, text := range r.Texts() {
			if text == nil || *text != *texts[Columns[i]] {
				t.Fatalf("%s is not what it was", Columns[i])
			}
		}
	})
}
