// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	cosignature "github.com/transparency-dev/formats/note"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// fixtures are what anybody may try a verifier of their own on, and what the
// command's stories and docs/verify.py are tested with: a log of two months,
// exported, kept outside and tampered with. Cosignatures carry a time, so the
// files are written with -update only.
const fixtures = "testdata/export"

func TestFixtures(t *testing.T) {
	t.Parallel()
	if *update {
		writeFixtures(t)
	}
	for name, clean := range map[string]bool{
		"audit-2026-11-epoch1.ndjson.gz": true, "audit-2026-12-epoch1.ndjson.gz": true, "altered.ndjson.gz": false, "redated.ndjson.gz": false,
		"missing.ndjson.gz": false, "kept-back.ndjson.gz": false, "twice.ndjson.gz": false, "forged.ndjson.gz": true, // signed with the stolen key, and agreeing with itself
	} {
		b, err := os.ReadFile(filepath.Join(fixtures, name))
		if err != nil {
			t.Fatal(err)
		}
		unverified := func(text string) (*Head, error) { return unsigned(text[:strings.LastIndex(text, "\n\n")+1]) }
		var found []Finding
		res, err := VerifyExport(bytes.NewReader(b), func(f Finding) { found = append(found, f) }, unverified, nil, nil)
		if err != nil || (len(found) == 0) != clean || clean && !res.Proved {
			t.Errorf("%s: got %v, %v; want it clean: %v", name, found, err, clean)
		}
	}
}

func writeFixtures(t *testing.T) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	const origin = "example.test/audit/1"
	skey, vkey, err := note.GenerateKey(strings.NewReader(strings.Repeat("l", 64)), origin)
	must(err)
	log, err := note.NewSigner(skey)
	must(err)
	wkey, wvkey, err := note.GenerateKey(strings.NewReader(strings.Repeat("w", 64)), "witness.test/w")
	must(err)
	witness, err := cosignature.NewSignerForCosignatureV1(wkey)
	must(err)
	wvkey, err = cosignature.VKeyToCosignatureV1(wvkey)
	must(err)
	put := func(name string, b []byte) {
		t.Helper()
		path := filepath.Join(fixtures, name)
		must(os.MkdirAll(filepath.Dir(path), 0o750))
		must(os.WriteFile(path, b, 0o600))
	}
	put("trail.policy", []byte("log "+vkey+"\nwitness w "+wvkey+"\nquorum w\n"))
	put("log-alone.policy", []byte("log "+vkey+"\nquorum none\n"))
	signed := func(all []*Record, from, to int, month string, signers ...note.Signer) []byte {
		l := lines(t, exported(t, all, from, to, month))
		var h ExportHeader
		must(json.Unmarshal([]byte(l[0]), &h))
		c, err := ParseCheckpoint(h.Checkpoint)
		must(err)
		c.Origin, h.Origin = origin, origin
		b, err := note.Sign(&note.Note{Text: c.Text()}, signers...)
		must(err)
		h.Checkpoint = string(b)
		head, err := json.Marshal(h)
		must(err)
		l[0] = string(head)
		return packed(l)
	}
	all := sample(200)
	november := signed(all, 0, 60, "2026-11", log, witness)
	december := signed(all, 60, 200, "2026-12", log, witness)
	put("audit-2026-11-epoch1.ndjson.gz", november)
	put("audit-2026-12-epoch1.ndjson.gz", december)
	tampered := func(name string, change func(l []string) []string) { put(name, packed(change(lines(t, december)))) }
	tampered("altered.ndjson.gz", func(l []string) []string {
		l[41] = strings.Replace(l[41], `"outcome":"denied"`, `"outcome":"success"`, 1)
		return l
	})
	tampered("redated.ndjson.gz", func(l []string) []string {
		at := all[100].OccurredAt.UnixMicro()
		l[41] = strings.Replace(l[41], fmt.Sprintf(`"occurred_at":"%d"`, at), fmt.Sprintf(`"occurred_at":"%d"`, at-3600e6), 1)
		return l
	})
	tampered("missing.ndjson.gz", func(l []string) []string { return append(l[:41:41], l[42:]...) })
	// An entry kept back as if it were of another month, and a line that says two things.
	tampered("kept-back.ndjson.gz", func(l []string) []string {
		head, _, _ := strings.Cut(l[41], `,"entry"`)
		l[41] = head + `,"id":"` + all[100].ID + `","month":"2025-07"}`
		return l
	})
	tampered("twice.ndjson.gz", func(l []string) []string {
		l[41] = strings.Replace(l[41], `"outcome":`, `"outcome":"success","outcome":`, 1)
		return l
	})
	// All of it rewritten, by somebody who has the log's key and no witness.
	rewritten := append([]*Record(nil), all...)
	other := *all[100]
	other.ActorSubject = "somebody else"
	rewritten[100] = &other
	put("forged.ndjson.gz", signed(rewritten, 60, 200, "2026-12", log))

	// What a sink keeps, a checkpoint on its own, and a receipt.
	var h ExportHeader
	must(json.Unmarshal([]byte(lines(t, december)[0]), &h))
	tree := OpenTree(0, shelf{}.read)
	for _, r := range all {
		must(tree.Append(r.Hash()))
	}
	root := "sink/" + url.PathEscape(origin)
	for _, x := range tlog.NewTiles(TileHeight, 0, 200) {
		data := tree.Changed()[TileID{x.L, x.N}]
		put(root+"/"+TileID{x.L, x.N}.Path(x.W), data)
	}
	put(fmt.Sprintf("%s/checkpoint/%020d", root, 200), []byte(h.Checkpoint))
	put("checkpoint", []byte(h.Checkpoint))
	inclusion, err := tree.Inclusion(100, 200)
	must(err)
	put("receipt.tlog-proof", []byte(FormatProof(100, inclusion, h.Checkpoint)))
	for name, r := range map[string]*Record{"receipt.tlog-proof.json": all[100]} {
		columns := map[string]*string{}
		for i, text := range r.Texts() {
			columns[Columns[i]] = text
		}
		b, err := json.MarshalIndent(columns, "", "  ")
		must(err)
		put(name, b)
	}
}
